# A wrong or missing setting is a state with its reason, never a crash loop, and is
# mended without a restart.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $node = NexusKafka::Cluster->make('settings');
$node->create_extension('postgres');

# Both lines of nexus_status come to the state, with a reason; returns the pipeline's.
sub state_ok
{
	my ($state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $outbox = $node->poll_status('postgres', 'outbox', 'outbox', $state);
	my $pipeline = $node->poll_status('postgres', 'pipeline', 'prospect_tracking', $state);
	ok(length($outbox->{reason} // '') && length($pipeline->{reason} // ''), "$name: $state, with a reason");
	diag("$state: $pipeline->{reason}");
	return;
}

state_ok('not_configured', 'no bootstrap_servers');
my $id = $node->produce('postgres');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 1, 'nexus_produce works all the same');
like($node->safe_psql('postgres', 'SELECT nexus_health()'), qr/"status": "unhealthy"/, 'nexus_health says unhealthy');

my $closed = PostgreSQL::Test::Cluster::get_free_port();
$node->reconfigure('nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
state_ok('unreachable', 'nobody listens');

my $silent = silent_port();
$node->reconfigure('nexus_kafka.bootstrap_servers' => '127.0.0.1:' . $silent->sockport);
state_ok('unreachable', 'a port that never answers');

$node->reconfigure('nexus_kafka.bootstrap_servers' => 'not a host:xx');
$node->wait_for_query('postgres', q(SELECT bool_and(state NOT IN ('running', 'starting') AND reason LIKE '%not a host%')
	FROM nexus_status));
pass('not a host at all: a state whose reason names it');
diag('not a host: ' . $node->safe_psql('postgres', 'SELECT DISTINCT state, reason FROM nexus_status'));

$node->reconfigure('nexus_kafka.bootstrap_servers' => '');
state_ok('not_configured', 'bootstrap_servers emptied');

$node->reconfigure('nexus_kafka.embedded_broker' => 'on');
runs_ok($node, 'postgres', 'a reload with a right setting is enough');
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
pass('what was produced meanwhile arrives');

# A bad configuration is tried with back-off: so many processes can't have started.
cmp_ok(scalar(log_lines($node, qr/nexus_kafka .*(?:exited with exit code|started)/)), '<', 50, 'no crash loop');

no_crash_ok($node);
done_testing();
