# nexus_flush where a snapshot keeps all that was published as dead rows: it must not walk over
# them. And a row is deleted only if the message that was acknowledged is what it has.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $dead = 20_000;
my $node = NexusKafka::Cluster->make('flush_cost', embedded => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END_SQL');
CREATE TABLE taken (n int);
SELECT nexus_create_pipeline('taken', topic => 'taken',
	statement => $$INSERT INTO taken SELECT (value #>> '{}')::int FROM nexus_messages()$$);
END_SQL
runs_ok($node, 'postgres');

# Blocks of the outbox and its indexes that a session itself reads in ten calls of nexus_flush.
my $blocks = q((SELECT sum(pg_stat_get_xact_blocks_fetched(c)) FROM (
	SELECT 'nexus_outbox'::regclass AS c UNION ALL
	SELECT indexrelid FROM pg_index WHERE indrelid = 'nexus_outbox'::regclass) x));

sub blocks_of_flushes
{
	my $answer = $node->safe_psql('postgres', <<"END_SQL");
BEGIN;
SELECT bool_and(nexus_flush('60 s')) FROM generate_series(1, 10);
SELECT $blocks;
COMMIT;
END_SQL
	my ($flushed, $read) = split /\n/, $answer;
	is($flushed, 't', 'flushed');
	return $read;
}

sub produce_many
{
	$node->safe_psql('postgres', "SELECT count(nexus_produce('other', n::text)) FROM generate_series(1, $dead) n");
	$node->wait_rows('postgres', 'nexus_outbox', 0);
	return;
}

my $few = blocks_of_flushes();
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM nexus_outbox');
produce_many();
my $many = blocks_of_flushes();
diag("blocks read by ten flushes: $few, and $many with $dead dead rows");
cmp_ok($many, '<', $few + 100, 'nexus_flush reads no more where dead rows stand in the outbox');
$reader->quit;

# ---- rows that are others by the time of the acknowledgement

# While the second session has the table, the relay can read and send, not delete.
my $producer = $node->background_psql('postgres');
my $holder = $node->background_psql('postgres');
foreach my $every (1, 2)
{
	$node->safe_psql('postgres', 'TRUNCATE taken');
	$producer->query_safe("BEGIN; SELECT count(nexus_produce(CASE WHEN n % $every = 0 THEN 'taken' ELSE 'other' END, n::text::jsonb)) FROM generate_series(1, 100) n");
	my $of_taken = 100 / $every;
	$holder->query_until(qr/locking/, "\\echo locking\nBEGIN; LOCK TABLE nexus_outbox IN EXCLUSIVE MODE;\n");
	$node->wait_for_query('postgres', q(SELECT count(*) FROM pg_locks WHERE relation = 'nexus_outbox'::regclass AND mode = 'ExclusiveLock' AND NOT granted), 1);
	$producer->query_safe('COMMIT');
	$node->wait_rows('postgres', 'taken', $of_taken);
	$holder->query_safe(q(UPDATE nexus_outbox o SET message_id = (SELECT min(i.message_id) FROM nexus_outbox i
		WHERE i.topic = o.topic AND i.message_id > o.message_id) WHERE topic = 'taken'
		AND message_id < (SELECT max(message_id) FROM nexus_outbox WHERE topic = 'taken')));
	$holder->query_safe('COMMIT');
	$node->safe_psql('postgres', q(SELECT nexus_produce('other', '1'::text)));
	$node->wait_rows('postgres', q(nexus_outbox WHERE topic = 'other'), 0);
	is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), $of_taken - 1,
		'an acknowledgement deletes no row that has another message by then, 1 in ' . $every);
	my $pid = $node->worker_pid('relay', 'postgres');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$node->wait_rows('postgres', 'nexus_outbox', 0);
	pass('and it is published');
}
$producer->quit;
$holder->quit;

no_crash_ok($node);
done_testing();
