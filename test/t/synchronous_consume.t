# nexus_consume() answers for nothing that a failover could undo: where synchronous standbys
# are configured, they have the rows first.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('sync_consume', embedded => 1, allows_streaming => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');
$node->produce_sessions('postgres', 1, 3);
consume_is('10 s', 'success', 'without standbys it is answered');

$node->safe_psql('postgres', q(SELECT nexus_pause('prospect_tracking')));
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'paused');
$node->produce_sessions('postgres', 4, 5);
is($node->safe_psql('postgres', 'SELECT nexus_flush()'), 't', 'more is in the topic');

# A standby that isn't there has nothing.
$node->reconfigure(synchronous_standby_names => 'nobody');
$node->wait_for_query('postgres', 'SHOW synchronous_standby_names', 'nobody');
$node->safe_psql('postgres', q(SET synchronous_commit = local; SELECT nexus_resume('prospect_tracking')));
$node->wait_rows('postgres', 'prospect_tracking', 5);
consume_is('3 s', 'error', 'the rows are there, and no standby has them');

$node->reconfigure(synchronous_standby_names => '');
consume_is('30 s', 'success', 'it is answered when nobody is to be waited for');

no_crash_ok($node);
done_testing();

sub consume_is
{
	my ($timeout, $status, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->safe_psql('postgres',
		"SET synchronous_commit = local; SELECT nexus_consume(timeout => '$timeout') ->> 'status'"), $status, $test);
}
