# Ids of the outbox that are given anew: nothing that wasn't published is deleted, and all
# of it is published at once. And a row that is older than the transactions' ids go round.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('ids_again', embedded => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE taken (n int);
SELECT nexus_create_pipeline('taken', topic => 'taken',
	statement => $$INSERT INTO taken SELECT (value #>> '{}')::int FROM nexus_messages()$$);
END
runs_ok($node, 'postgres');

sqlstate_is($node, 'postgres', 'TRUNCATE nexus_outbox', '55000', 'TRUNCATE of the outbox is refused');

# So the relay has read further than the ids that are given then.
$node->safe_psql('postgres', q(SELECT nexus_produce('taken', n::text::jsonb) FROM generate_series(1, 500) n));
$node->wait_rows('postgres', 'taken', 500);
foreach my $round (1 .. 3)
{
	my $from = $round * 1000;
	$node->safe_psql('postgres', "
		BEGIN;
		SET LOCAL session_replication_role = replica;
		TRUNCATE nexus_outbox RESTART IDENTITY;
		SELECT nexus_produce('taken', n::text::jsonb) FROM generate_series($from, $from + 699) n;
		COMMIT");
	is($node->safe_psql('postgres', q(SELECT nexus_flush('20 s'))), 't', 'flushed');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 0, 'nothing is left');
	$node->wait_rows('postgres', "taken WHERE n BETWEEN $from AND $from + 699", 700);
	pass('all of the new rows are published');
}
$node->safe_psql('postgres', q(ALTER TABLE nexus_outbox ALTER id RESTART WITH 3; SELECT nexus_produce('taken', '7777'::jsonb)));
$node->wait_rows('postgres', 'taken WHERE n = 7777', 1);
is($node->safe_psql('postgres', q(SELECT nexus_flush('20 s'))), 't', 'as with a sequence that was set back');

# ---- rows that vanish

$node->safe_psql('postgres', q(
	BEGIN;
	SELECT nexus_produce('not-there', n::text) FROM generate_series(1, 10) n;
	COMMIT));
$node->safe_psql('postgres', 'DELETE FROM nexus_outbox');
is($node->safe_psql('postgres', q(SELECT nexus_flush('20 s'))), 't', 'rows that somebody deletes keep no flush waiting');

no_crash_ok($node);
done_testing();
