# A snapshot that somebody holds keeps all versions of a row that were made since; the
# offsets have a new one with each batch, and moving them must not go through all of them.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $batches = 3000;
my $node = NexusKafka::Cluster->make('old_snapshot', embedded => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE target (partition integer, "offset" bigint);
SELECT nexus_create_pipeline('p', 'p', 'INSERT INTO target SELECT partition, "offset" FROM nexus_messages()', '{"batch_messages": 1}');
END
my $done = 0;

sub blocks_read
{
	return $node->safe_psql('postgres', q(SELECT heap_blks_hit + heap_blks_read FROM pg_statio_user_tables WHERE relname = 'nexus_offsets'));
}

# That many batches of one message each; the blocks of nexus_offsets that they have read.
sub take_in
{
	my $before = blocks_read();

	$node->safe_psql('postgres', "SELECT count(nexus_produce('p', '1'::text, partition => n % 2)) FROM generate_series(1, $batches) n");
	$done += $batches;
	$node->wait_rows('postgres', 'target', $done);
	# a worker that ends has reported all that it did
	$node->safe_psql('postgres', q(SELECT nexus_pause('p')));
	my $read = blocks_read() - $before;
	$node->safe_psql('postgres', q(SELECT nexus_resume('p')));
	return $read;
}

$node->poll_status('postgres', 'pipeline', 'p', 'running');
my $read = take_in();
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM target');
my $read_then = take_in();
diag("blocks read by $batches batches: $read, and $read_then with an old snapshot");
cmp_ok($read_then, '<', 2 * $read, 'an old snapshot doesn\'t make a batch read twice as much');
$reader->quit;

# The row is elsewhere than it was: rewritten by a command, or by a batch that was rolled back.
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF random() < 0.2 THEN RAISE serialization_failure; END IF;
  RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION refuse();
END
$node->safe_psql('postgres', "SELECT count(nexus_produce('p', '1'::text, partition => n % 2)) FROM generate_series(1, 200) n");
$node->safe_psql('postgres', 'VACUUM FULL nexus_offsets') for 1 .. 10;
$node->safe_psql('postgres', 'DROP TRIGGER refuse ON target');
$done += 200;
$node->wait_rows('postgres', 'target', $done);
is($node->safe_psql('postgres', 'SELECT count(DISTINCT (partition, "offset")) FROM target'), $done, 'each message once');
is($node->safe_psql('postgres', q(SELECT sum("offset") FROM nexus_offsets WHERE pipeline = 'p')), $done, 'and the offsets are there');

no_crash_ok($node);
done_testing();
