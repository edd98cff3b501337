# The workers come back: each one after SIGTERM and after pg_terminate_backend, and
# all of them after a crash of one of them, which restarts the whole server.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('recovery', embedded => 1, restart_after_crash => 1);
$node->create_extension('postgres');
works_ok($node, 'postgres', 'a session becomes a row');

# The launcher and the embedded broker belong to no database.
my %database = (supervisor => 'postgres', relay => 'postgres', ingest => 'postgres');

foreach my $kind (qw(ingest relay supervisor launcher broker))
{
	my $pid = $node->worker_pid($kind, $database{$kind});
	is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', "the $kind is told to end");
	$node->worker_pid($kind, $database{$kind}, not => $pid);
	works_ok($node, 'postgres', 'another one takes over, and a session becomes a row');
}
is($node->crashes, 0, 'the server did not restart its processes for any of them');

my @killed = qw(ingest relay supervisor launcher broker);
foreach my $kind (@killed)
{
	my $pid = $node->worker_pid($kind, $database{$kind});
	kill('KILL', $pid);
	$node->worker_pid($kind, $database{$kind}, not => $pid);
	works_ok($node, 'postgres', "after kill -9 of the $kind a session becomes a row");
}

no_crash_ok($node, kills => scalar @killed);
done_testing();
