# A worker that waits for a lock says so: what for, and which process has it; and how much
# waits behind it.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = NexusKafka::Cluster->make('blocked', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');
$node->produce('postgres');
$node->wait_rows('postgres', 'prospect_tracking', 1);

# ---- a pipeline's target

my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE prospect_tracking IN EXCLUSIVE MODE');
my $pid = $holder->query_safe('SELECT pg_backend_pid()');
$node->produce('postgres');
my $status = $node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'waiting');
is($status->{reason}, "waits for a lock on public.prospect_tracking that process $pid has", 'the pipeline waits for a lock, and says whose');
is($status->{lag}, 1, 'what it has in hand counts as not taken in');
$holder->query_safe('COMMIT');
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'running');
$node->wait_rows('postgres', 'prospect_tracking', 2);
$node->wait_for_query('postgres', q(SELECT lag FROM nexus_status WHERE name = 'prospect_tracking'), 0);
is(scalar(() = slurp_file($node->logfile) =~ /ingest prospect_tracking of database postgres is waiting: waits for a lock/g), 1,
	'one line in the log');

# ---- a row of it

$node->safe_psql('postgres', <<'END');
CREATE TABLE counter (n int);
INSERT INTO counter VALUES (0);
SELECT nexus_create_pipeline('counter', 'counter', 'UPDATE counter SET n = n + (SELECT count(*) FROM nexus_messages())');
END
$node->poll_status('postgres', 'pipeline', 'counter', 'running', timeout => 60);
$holder->query_safe('BEGIN; UPDATE counter SET n = n');
$node->safe_psql('postgres', q(SELECT nexus_produce('counter', '1'::jsonb)));
$status = $node->poll_status('postgres', 'pipeline', 'counter', 'waiting');
is($status->{reason}, "waits for a lock on a row that process $pid has", 'a row that somebody else has changed');
$holder->query_safe('ROLLBACK');
$node->poll_status('postgres', 'pipeline', 'counter', 'running');
$node->wait_for_query('postgres', 'SELECT n FROM counter', 1);

# ---- the outbox: a lock on it that is waited for comes before the relay's

my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe(q(SELECT nexus_produce('counter', '1'::jsonb)));
$holder->query_until(qr/^begun$/m, "BEGIN;\n\\echo begun\nLOCK TABLE nexus_outbox IN SHARE MODE;\n");
$node->wait_for_query('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted", 1);
$writer->query_safe('COMMIT');
$status = $node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
is($status->{reason}, "waits for a lock on public.nexus_outbox that process $pid has", 'the relay waits for a lock, and says whose');
$holder->query_safe('COMMIT');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');
$node->wait_rows('postgres', 'nexus_outbox', 0);

# ---- what the supervisor was woken for while it waited for a lock isn't lost

$node->safe_psql('postgres', 'CREATE TABLE late (n int)');
$node->safe_psql('postgres', 'SELECT nexus_resume()');    # answers when the supervisor has looked: nothing else is left to be woken for
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE nexus_pipelines');
$holder->query_safe(q(SELECT nexus_create_pipeline('late', 'late', 'INSERT INTO late SELECT 1 FROM nexus_messages()')));
$node->safe_psql('postgres', 'SELECT nexus_resume()');
$node->wait_for_query('postgres', q(SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'nexus_kafka supervisor' AND wait_event_type = 'Lock'), 1);
$holder->query_safe('COMMIT');
$node->safe_psql('postgres', q(SELECT nexus_produce('late', '1'::jsonb)));
$node->wait_rows('postgres', 'late', 1, timeout => 15);
pass('a pipeline that was made in a transaction for whose lock the supervisor waited runs');

# ---- a statement that takes long waits for nobody

$node->safe_psql('postgres', <<'END');
CREATE TABLE slow (n int);
SELECT nexus_create_pipeline('slow', 'slow', 'INSERT INTO slow SELECT 1 FROM nexus_messages(), pg_sleep(3)');
SELECT nexus_produce('slow', '1'::jsonb);
END
$node->wait_rows('postgres', 'slow', 1);
unlike(slurp_file($node->logfile), qr/ingest slow of database postgres is waiting: waits/, 'a statement that takes long is none');

$_->quit for $holder, $writer;
no_crash_ok($node);
done_testing();
