# Without a free background worker slot a database says so and waits; the others are
# unharmed, and the log is not flooded.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

# Launcher, embedded broker, and supervisor, relay and ingest worker of one database.
my $node = NexusKafka::Cluster->make('slots', embedded => 1,
	conf => { max_worker_processes => 5, max_logical_replication_workers => 0, max_parallel_workers => 0 });
$node->create_extension('postgres');
works_ok($node, 'postgres', 'the first database has the slots that it needs');

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->create_extension('second');
my $status = $node->poll_status('second', 'pipeline', 'prospect_tracking', 'no_worker');
like($status->{reason}, qr/max_worker_processes/, 'the second one says which setting is too low');
is($node->poll_status('second', 'outbox', 'outbox', 'no_worker')->{state}, 'no_worker', 'for its outbox too');
my $id = $node->produce('second');
works_ok($node, 'postgres', 'the first one is unharmed');

my $pid = $node->worker_pid('ingest', 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
works_ok($node, 'postgres', 'and gets its slot back after a restart of its worker');

$node->safe_psql('postgres', 'DROP EXTENSION nexus_kafka');
runs_ok($node, 'second', 'slots that become free are used');
$node->wait_rows('second', "prospect_tracking WHERE message_id = '$id'", 1);
pass('what was produced meanwhile arrives');

my @lines = log_lines($node, qr/max_worker_processes|no (?:free )?(?:background )?worker/);
cmp_ok(scalar @lines, '>=', 1, 'the log says it');
cmp_ok(scalar @lines, '<=', 3, 'once for each that lacked a slot');
diag(join "\n", @lines);

# Not even a slot for the first supervisor.
$node->configure(max_worker_processes => 1);
$node->restart;
is($node->poll_status('second', 'outbox', 'outbox', 'no_worker')->{state}, 'no_worker', 'one slot in all: no_worker');

no_crash_ok($node);
done_testing();
