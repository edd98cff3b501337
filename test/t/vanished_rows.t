# Rows that somebody deletes while they are in flight: a flush that waits for them ends, and
# so do those after it.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('vanished_rows', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');
is($node->safe_psql('postgres', q(SELECT nexus_produce('t', '0') IS NOT NULL AND nexus_flush('60 s'))), 't', 'it works');

my ($broker) = map { /\[(\d+)\] LOG:  nexus_kafka broker is running/ ? $1 : () } log_lines($node, qr/broker is running/);
kill 'STOP', $broker or die "can't stop the broker: $!";
$node->safe_psql('postgres', q(SELECT count(nexus_produce('t', n::text)) FROM generate_series(1, 50) n));
is($node->safe_psql('postgres', q(SELECT nexus_flush('1 s'))), 'f', 'rows are in flight to a broker that hangs');
my $session = $node->background_psql('postgres');
$session->query_until(qr/asking/, "\\echo asking\nCREATE TABLE answered AS SELECT nexus_flush('120 s') AS flushed;\n");
$node->wait_for_query('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE TABLE answered%' AND wait_event_type = 'Extension'), 1);
$node->safe_psql('postgres', 'DELETE FROM nexus_outbox');
kill 'CONT', $broker;
$node->wait_rows('postgres', 'answered WHERE flushed', 1);
pass('the flush that waited for them ends');
$node->safe_psql('postgres', q(SELECT nexus_produce('t', '51')));
is($node->safe_psql('postgres', q(SELECT nexus_flush('60 s'))), 't', 'so does the next');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 0, 'and its row is published');
$session->quit;

# The last ones have gone before anybody waits; the relay has them in flight still.
kill 'STOP', $broker or die "can't stop the broker: $!";
$node->safe_psql('postgres', q(SELECT count(nexus_produce('t', n::text)) FROM generate_series(52, 101) n));
$node->wait_for_query('postgres', q(SELECT state IN ('waiting', 'unreachable') FROM nexus_status WHERE kind = 'outbox'));
$node->safe_psql('postgres', 'DELETE FROM nexus_outbox WHERE id > (SELECT min(id) + 24 FROM nexus_outbox)');
is($node->safe_psql('postgres', q(SELECT nexus_flush('1 s'))), 'f', 'a flush waits for what is left in the outbox');
kill 'CONT', $broker;
$node->wait_rows('postgres', 'nexus_outbox', 0);
pass('which is published');
is($node->safe_psql('postgres', q(SELECT nexus_produce('t', '102') IS NOT NULL AND nexus_flush('60 s'))), 't',
	'and nobody waits for what had gone');

no_crash_ok($node);
done_testing();
