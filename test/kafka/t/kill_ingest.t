# kill -9 of the ingest worker, again and again, while messages arrive: PostgreSQL
# restarts all its processes each time, and every message is one row in the end.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $kills = 20;
my $slice = int(scaled(200_000) / $kills) || 1;
my $topic = 'nexus-prospect-ingestion';

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($topic, 1);
my $node = NexusKafka::Cluster->make('kill_ingest', bootstrap => $kafka->bootstrap, restart_after_crash => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

foreach my $kill (1 .. $kills)
{
	my $published = ($kill - 1) * $slice;
	my $kcat = kcat_start($kafka, $topic, map { "k$_" } $published + 1 .. $published + $slice);

	# In the midst of it: some of this slice are rows, the others on their way.
	my $some = $published + int($slice / 4);
	$node->wait_for_query('postgres', "SELECT count(*) > $some FROM prospect_tracking");
	my $pid = $node->worker_pid('ingest', 'postgres');
	kill('KILL', $pid);
	$kcat->finish or die 'kcat failed';
	$node->worker_pid('ingest', 'postgres', not => $pid);
}
my $count = $kills * $slice;
my $consumed = q(SELECT nexus_consume(timeout => '120 s') ->> 'status' IN ('success', 'idle'));
is($node->safe_psql('postgres', $consumed), 't', 'all is consumed');

is($node->safe_psql('postgres', q(SELECT count(*) || ' ' || count(DISTINCT message_id) || ' ' || count(DISTINCT "offset")
	FROM prospect_tracking)), "$count $count $count", 'every message is one row');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');
is($node->safe_psql('postgres', 'SELECT "offset" || \' \' || lag FROM nexus_partitions'), "$count 0", 'the offset is at the end');
is($node->crashes, $kills, 'and the worker was killed that often');

no_crash_ok($node, kills => $kills);
done_testing();
