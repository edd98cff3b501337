# A database restored to a point in time, and a promoted standby, go on by themselves
# from their own offsets: at each moment the rows are those that the offsets say, and
# in the end every message of the topics is there once.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $slice = scaled(20_000, 3000);
my $partitions = 3;
my $published = 0;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($_, $partitions) for qw(stream held nexus-prospect-ingestion);
my $original = NexusKafka::Cluster->make('original', bootstrap => $kafka->bootstrap, has_archiving => 1,
	allows_streaming => 1);
$original->create_extension('postgres');
$original->safe_psql('postgres', <<"END");
-- without a key: a message that is taken in twice shows
CREATE TABLE taken (pipeline text, partition integer, "offset" bigint, number integer);

-- Half-way through each slice the pipeline waits while somebody holds the lock.
CREATE FUNCTION gate(number integer) RETURNS boolean LANGUAGE plpgsql AS \$\$
BEGIN
  IF number % $slice = $slice / 2 THEN PERFORM pg_advisory_xact_lock_shared(0); END IF;
  RETURN true;
END \$\$;
END
$original->safe_psql('postgres', <<'END');
SELECT nexus_create_pipeline('stream', 'stream', $$
  INSERT INTO taken SELECT 'stream', partition, "offset", value::text::integer FROM nexus_messages()
  WHERE gate(value::text::integer)
$$, '{"workers": 2, "batch_messages": 20}');
SELECT nexus_create_pipeline('held', 'held', $$
  INSERT INTO taken SELECT 'held', partition, "offset", value::text::integer FROM nexus_messages()
$$);
END

# A slice of numbers, and one message that is none, for each topic and partition.
sub publish
{
	my $numbers = join '', map { "$_\n" } $published + 1 .. $published + $slice;

	foreach my $topic (qw(stream held))
	{
		$kafka->kcat({ stdin => "${numbers}bad\n" }, '-P', '-t', $topic, '-p', $_) for 0 .. $partitions - 1;
	}
	$published += $slice;
	return;
}

# Publishes a slice that stops half-way, in all partitions, until the answered session ends.
sub publish_half
{
	my ($node) = @_;
	my $gate = $node->background_psql('postgres');
	my $waits = q(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted);
	my $workers = $node->safe_psql('postgres', q(SELECT workers FROM nexus_pipelines WHERE name = 'stream'));

	$gate->query_safe('SELECT pg_advisory_lock(0)');
	publish();
	$node->wait_for_query('postgres', $waits, $workers);
	return $gate;
}

# Offsets have no gaps here, so they say how many messages must be rows or dead letters.
my $disagreement = <<'END';
WITH taken_in AS (
  SELECT pipeline, partition, "offset" FROM taken
  UNION ALL SELECT pipeline, partition, "offset" FROM nexus_dead_letters)
SELECT o.pipeline, o.partition, o."offset", count(t."offset"), max(t."offset")
FROM nexus_offsets o LEFT JOIN taken_in t ON t.pipeline = o.pipeline AND t.partition = o.partition
WHERE o.pipeline IN ('stream', 'held')
GROUP BY 1, 2, 3
HAVING count(t."offset") <> GREATEST(o."offset", 0) OR count(DISTINCT t."offset") <> count(t."offset")
  OR max(t."offset") >= o."offset"
END

sub agree_ok
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->safe_psql('postgres', $disagreement), '', "$name: rows and offsets agree");
}

sub rows
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q(SELECT count(*) FROM taken WHERE pipeline = 'stream'));
}

sub consume_ok
{
	my ($node, $pipeline, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return like($node->safe_psql('postgres', "SELECT nexus_consume('$pipeline', '120 s')"), qr/"(success|idle)"/,
		"$name: $pipeline consumed");
}

# All that was published so far to the topic of that name is there, once.
sub complete_ok
{
	my ($node, $pipeline, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $slices = $published / $slice;

	consume_ok($node, $pipeline, $name);
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT (partition, number)), min(number), max(number)
		FROM taken WHERE pipeline = '$pipeline'"),
		join('|', ($published * $partitions) x 2, 1, $published), "$name: $pipeline has each message once");
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT (partition, \"offset\"))
		FROM nexus_dead_letters WHERE pipeline = '$pipeline' AND value = 'bad'"),
		join('|', ($slices * $partitions) x 2), "$name: $pipeline has each bad one among its dead letters");
	return;
}

sub sessions_ok
{
	my ($node, $count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres', q(SELECT lag FROM nexus_status WHERE kind = 'outbox'), 0);
	consume_ok($node, 'prospect_tracking', $name);
	return is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT session_id) FROM prospect_tracking'),
		"$count|$count", "$name: each session is one row");
}

# ---- the original: a backup, a point in the midst of the stream, and what came after it

publish();
complete_ok($original, 'stream', 'original');
complete_ok($original, 'held', 'original');
$original->safe_psql('postgres', "SELECT nexus_pause('held')");
$original->produce_sessions('postgres', 1, 50);
sessions_ok($original, 50, 'original');
$original->backup('backup');

my $before = rows($original);
my $gate = publish_half($original);

# What is in the outbox at that point is published by the original, and once more by who is restored to it.
$kafka->freeze;
$original->produce_sessions('postgres', 51, 60);
$original->safe_psql('postgres', "SELECT pg_create_restore_point('in the midst')");
$kafka->resume;
$gate->quit;

complete_ok($original, 'stream', 'original');
$original->safe_psql('postgres', "SELECT nexus_pause('stream'); SELECT nexus_seek('stream', 'earliest')");
$original->produce_sessions('postgres', 61, 100);
sessions_ok($original, 100, 'original');
my $segment = $original->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$original->wait_for_query('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver");
$original->stop;

# ---- restored to the point

my $restored = NexusKafka::Cluster->new('restored');
$restored->init_from_backup($original, 'backup', has_restoring => 1, standby => 0);
$restored->configure(recovery_target_name => 'in the midst', recovery_target_action => 'pause', archive_mode => 'off');
$restored->start;
$restored->wait_for_query('postgres', 'SELECT pg_get_wal_replay_pause_state()', 'paused');
agree_ok($restored, 'at the point');
my $there = rows($restored);
ok($there > $before && $there < $published * $partitions, "at the point: $there rows, some of the second slice");
is($restored->status('postgres', 'pipeline', $_)->{state}, 'standby', "at the point: $_ does not run") for qw(stream held);
is($restored->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 10, 'at the point: the outbox was not published');

$restored->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$restored->wait_for_query('postgres', 'SELECT NOT pg_is_in_recovery()');
runs_ok($restored, 'postgres', 'restored: it runs by itself');
$restored->poll_status('postgres', 'pipeline', 'stream', 'running');
complete_ok($restored, 'stream', 'restored');
sessions_ok($restored, 100, 'restored');
is($restored->status('postgres', 'pipeline', 'held')->{state}, 'paused', 'restored: what was paused is so');
agree_ok($restored, 'restored');

# ---- a standby of it, promoted in the midst of the stream

$restored->backup('backup');
my $standby = NexusKafka::Cluster->new('standby_of_restored');
$standby->init_from_backup($restored, 'backup', has_streaming => 1);
$standby->configure(recovery_target_name => '', restore_command => '');
$standby->start;
$restored->wait_for_catchup($standby);
$restored->safe_psql('postgres', q(SELECT nexus_alter_pipeline('stream', options => '{"workers": 3}')));
publish_half($restored);
agree_ok($standby, 'standby');
$restored->stop('immediate');
agree_ok($standby, 'standby, left alone');
cmp_ok(rows($standby), '<', $published * $partitions, 'standby, left alone: it has something to catch up with');
$standby->promote;
runs_ok($standby, 'postgres', 'promoted: it runs by itself');
$standby->poll_status('postgres', 'pipeline', 'stream', 'running');
is($standby->status('postgres', 'pipeline', 'stream')->{workers}, 3, 'promoted: as it was altered last');
complete_ok($standby, 'stream', 'promoted');
agree_ok($standby, 'promoted');
$standby->safe_psql('postgres', "SELECT nexus_resume('held')");
complete_ok($standby, 'held', 'promoted');
works_ok($standby, 'postgres', 'promoted: and sessions become rows');

no_crash_ok($_) for $original, $restored, $standby;
done_testing();
