# Where synchronous standbys are configured, nothing is published before they have it, not
# even of a transaction that didn't wait for them.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $primary = NexusKafka::Cluster->make('leading', embedded => 1, allows_streaming => 1);
$primary->create_extension('postgres');
$primary->safe_psql('postgres', <<'END');
CREATE TABLE taken (value text);
SELECT nexus_create_pipeline('taken', topic => 'taken',
	statement => 'INSERT INTO taken SELECT value #>> ''{}'' FROM nexus_messages()');
END
works_ok($primary, 'postgres', 'it works');
$primary->backup('backup');
my $standby = NexusKafka::Cluster->new('following');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);

$primary->reconfigure(synchronous_standby_names => 'following');
foreach my $level (qw(local off))
{
	$primary->safe_psql('postgres', "SET synchronous_commit = $level; SELECT nexus_produce('taken', '\"$level\"'::jsonb)");
}
my $status = $primary->poll_status('postgres', 'outbox', 'outbox', 'waiting');
like($status->{reason}, qr/synchronous standby/, 'what no standby has waits, and the status says so');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 2, 'nothing is published');
is($primary->safe_psql('postgres', "SET synchronous_commit = local; SELECT nexus_flush('1 s')"), 'f', 'and nexus_flush says so');
like($primary->safe_psql('postgres', q(SET synchronous_commit = local; SELECT nexus_produce_now('taken', '"now"'))),
	qr/published/, 'what has no transaction to wait for is published');

$standby->start;
$primary->wait_rows('postgres', q(taken WHERE value IN ('local', 'off')), 2);
pass('with the standby all is published');
$primary->wait_rows('postgres', 'nexus_outbox', 0);
$primary->poll_status('postgres', 'outbox', 'outbox', 'running');
$primary->safe_psql('postgres', q(SELECT nexus_produce('taken', '"both"'::jsonb)));
$primary->wait_rows('postgres', q(taken WHERE value = 'both'), 1);

no_crash_ok($_) for $primary, $standby;
done_testing();
