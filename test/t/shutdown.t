# A fast shutdown is fast whatever the broker does: it is there, it is gone, it
# accepts connections and never answers.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

# Three seconds are the aim; the bound leaves room for a busy machine.
my $bound = 20;

my $node = NexusKafka::Cluster->make('shutdown', embedded => 1);
$node->create_extension('postgres');

my $silent = silent_port();
my $closed = PostgreSQL::Test::Cluster::get_free_port();

sub shutdown_ok
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	quick_ok("fast shutdown, $what", $bound, sub { $node->stop('fast') });
}

works_ok($node, 'postgres', 'with the embedded broker a session becomes a row');
shutdown_ok('broker up');

foreach my $case ([ 'broker down', $closed ], [ 'broker silent', $silent->sockport ])
{
	my ($what, $port) = @$case;
	$node->configure('nexus_kafka.embedded_broker' => 'off', 'nexus_kafka.bootstrap_servers' => "127.0.0.1:$port");
	$node->start;
	$node->produce('postgres');
	$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
	my $status = $node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'unreachable');
	pass("$what: unreachable ($status->{reason})");
	shutdown_ok($what);
}

# At once after the start, while the workers are about to connect.
$node->start;
shutdown_ok('broker silent, workers starting');

no_crash_ok($node);
done_testing();
