# A snapshot that somebody holds keeps all that was published as dead rows in the outbox. What
# is read for a message, by the relay and by who waits for it, must not grow with them.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $dead = 20_000;
my $messages = 200;
my $node = NexusKafka::Cluster->make('relay_snapshot', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

my $blocks = q(SELECT heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0) FROM pg_statio_user_tables
	WHERE relname = 'nexus_outbox');

# Of the outbox, by all. A worker that ends has reported all that it did, and a session too.
sub blocks_read
{
	my $pid = $node->worker_pid('relay', 'postgres');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
	my $read = $node->safe_psql('postgres', $blocks);
	$node->worker_pid('relay', 'postgres', not => $pid);
	is($node->safe_psql('postgres', q(SELECT nexus_flush('60 s'))), 't', 'the relay is there again');
	return $read;
}

# Blocks that are read for a number of messages, each in a transaction of its own, and flushed twice:
# with a row there and, most often, without one.
sub blocks_of_messages
{
	my $before = blocks_read();
	$node->safe_psql('postgres', q(SELECT nexus_produce('t', 'x'); SELECT nexus_flush('60 s') FROM generate_series(1, 2);) x $messages);
	$node->wait_rows('postgres', 'nexus_outbox', 0);
	return blocks_read() - $before;
}

my $few = blocks_of_messages();
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM nexus_outbox');
$node->safe_psql('postgres', "SELECT count(nexus_produce('t', n::text)) FROM generate_series(1, $dead) n");
$node->wait_rows('postgres', 'nexus_outbox', 0);
my $many = blocks_of_messages();
diag("blocks read for $messages messages: $few, and $many with $dead dead rows");
# A relay that starts goes through them once; 400 flushes must not.
cmp_ok($many - $few, '<', $dead, 'neither a message nor a flush of nothing goes through the dead rows');
$reader->quit;

no_crash_ok($node);
done_testing();
