# What blocks one topic or partition holds up no other: rows for topics that aren't there,
# and for partitions without a leader. Those wait in the table, and go in order later.
use strict;
use warnings;

use NexusKafka::BrokerCluster;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $many = scaled(1_000_000, 60_000);
my $kafka = NexusKafka::BrokerCluster->new;
$kafka->create_topic('nexus-prospect-ingestion');
$kafka->create_topic('good');
my $node = NexusKafka::Cluster->make('blocked_topics', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
SELECT nexus_create_topic('single', 3, 1);
SELECT nexus_create_topic('wide', 15, 1);
CREATE TABLE taken (topic text, partition int, "offset" bigint, n int);
SELECT nexus_create_pipeline('taken', topic => 'good,single,later',
	statement => $$INSERT INTO taken SELECT topic, partition, "offset", (value #>> '{}')::int FROM nexus_messages()$$);
END
runs_ok($node, 'postgres');
my $n = 0;

# A row of the good topic is published, whatever else waits.
sub good_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$n++;
	$node->safe_psql('postgres', "SELECT nexus_produce('good', '$n'::jsonb)");
	$node->wait_rows('postgres', "taken WHERE topic = 'good' AND n = $n", 1);
	return pass($name);
}

sub changes_of_state { return scalar log_lines($node, qr/nexus_kafka relay of database postgres is/) }

good_ok('a row of a topic that is there');

# ---- one row for a topic that isn't there

my $changes = changes_of_state();
$node->safe_psql('postgres', q(SELECT nexus_produce('never', '1')));
$node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
my $since = changes_of_state();
good_ok('with one row for a topic that is not there') for 1 .. 100;
is(changes_of_state(), $since, 'the state stays while others are published');
$node->safe_psql('postgres', q(DELETE FROM nexus_outbox));
$node->poll_status('postgres', 'outbox', 'outbox', 'running');

# ---- many

$changes = changes_of_state();
$node->safe_psql('postgres', "SELECT nexus_produce('later', i::text::jsonb, key => (i % 10)::text) FROM generate_series(1, $many) i");
$node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
good_ok('with rows for a topic that is not there') for 1 .. 5;
is($node->status('postgres', 'outbox', 'outbox')->{state}, 'waiting', 'the state stays');
my $retries = $node->status('postgres', 'outbox', 'outbox')->{retries};
good_ok('still') for 1 .. 5;
cmp_ok($node->status('postgres', 'outbox', 'outbox')->{retries} - $retries, '<', 20, 'and they are not sent again and again');
is($node->safe_psql('postgres', "SELECT count(*) FROM nexus_outbox WHERE topic = 'later'"), $many, 'they wait in the table');

$kafka->create_topic('later', 4);
$node->wait_rows('postgres', "nexus_outbox WHERE topic = 'later'", 0);
$node->wait_for_query('postgres', "SELECT count(DISTINCT n) = $many FROM taken WHERE topic = 'later'");
is($node->safe_psql('postgres', q(SELECT count(*) FROM (
	SELECT n < lag(n) OVER (PARTITION BY n % 10 ORDER BY partition, "offset") AS back FROM taken WHERE topic = 'later') x WHERE back)),
	0, 'once the topic is there they are published, in order by key');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');
is(changes_of_state() - $changes, 2, 'the state has changed twice, with a line of the log for each');

# ---- more topics that aren't there than are kept apart

$node->safe_psql('postgres', q(SELECT nexus_produce('missing-' || i, '1') FROM generate_series(1, 30000) i));
good_ok('with rows for 30,000 topics that are not there') for 1 .. 3;
$kafka->create_topic('fresh');
$node->safe_psql('postgres', q(SELECT nexus_produce('fresh', '1')));
$node->wait_rows('postgres', "nexus_outbox WHERE topic = 'fresh'", 0);
pass('so is one of a topic that was not there before');
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_outbox)), 30000, 'those wait');

# the first one and the last one: one of them is looked for, the other is not
foreach my $topic (qw(missing-1 missing-30000))
{
	$node->safe_psql('postgres', "SELECT nexus_produce('$topic', i::text::jsonb) FROM generate_series(2, 300) i");
	$kafka->create_topic($topic);
	$node->safe_psql('postgres', "SELECT nexus_produce('$topic', i::text::jsonb) FROM generate_series(301, 400) i");
	$node->wait_rows('postgres', "nexus_outbox WHERE topic = '$topic'", 0);
	$node->safe_psql('postgres', "SELECT nexus_produce('$topic', '401')");
	$node->wait_rows('postgres', "nexus_outbox WHERE topic = '$topic'", 0);
	is_deeply([ split /\n/, $kafka->kcat('-C', '-t', $topic, '-o', 'beginning', '-e', '-q') ], [ 1 .. 401 ],
		"when $topic is there its rows are published, in order");
}
$kafka->create_topic('missing-29999');
$node->wait_rows('postgres', "nexus_outbox WHERE topic = 'missing-29999'", 0);
pass('so is one of which no new row comes');
good_ok('still');
$node->restart;
good_ok('after a restart');
$kafka->create_topic('missing-6000');
$node->wait_rows('postgres', "nexus_outbox WHERE topic = 'missing-6000'", 0);
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_outbox)), 29996, 'nothing else is gone');
$node->safe_psql('postgres', q(DELETE FROM nexus_outbox));
$node->poll_status('postgres', 'outbox', 'outbox', 'running');

# ---- partitions without a leader

$node->safe_psql('postgres', q(SELECT nexus_produce('single', '0', partition => p) FROM generate_series(0, 2) p));
$node->wait_rows('postgres', "nexus_outbox", 0);
my $leader = $kafka->leader('single');
my ($gone) = $node->safe_psql('postgres', q(SELECT min(partition) FROM nexus_topics('10 s') WHERE topic = 'single' AND leader = )
	. $leader->node_id);
$leader->kill9;
$node->wait_for_query('postgres', q(SELECT count(*) = 1 FROM nexus_topics('10 s') WHERE topic = 'single' AND leader IS NULL));

# more than may be in flight in all
$node->safe_psql('postgres', "SELECT nexus_produce('single', i::text::jsonb, partition => $gone) FROM generate_series(1, 50000) i");
good_ok('with rows for a partition without a leader') for 1 .. 5;
foreach my $p (grep { $_ != $gone } 0 .. 2)
{
	$node->safe_psql('postgres', "SELECT nexus_produce('single', '99', partition => $p)");
	$node->wait_rows('postgres', "nexus_outbox WHERE topic = 'single' AND partition = $p", 0);
	pass('other partitions of the topic go on');
}
$node->safe_psql('postgres', q(SELECT nexus_produce('single', '77', key => i::text) FROM generate_series(1, 300) i));
$node->wait_for_query('postgres', q(SELECT count(*) < 250 FROM nexus_outbox WHERE topic = 'single' AND key IS NOT NULL));
pass('so do keys of other partitions');
$node->safe_psql('postgres', q(SELECT nexus_produce('single', '55') FROM generate_series(1, 1000) i));
$node->wait_for_query('postgres', q(SELECT count(*) <= 200 FROM nexus_outbox WHERE topic = 'single' AND key IS NULL AND partition IS NULL));
pass('and what has no key');
good_ok('still');

# calls whose callers give up: more than librdkafka's queue takes
$node->safe_psql('postgres', qq(DO \$\$ BEGIN FOR i IN 1 .. 40 LOOP
	BEGIN
		PERFORM nexus_produce_now('single', repeat('x', 900000), partition => $gone, timeout => '100 ms');
	EXCEPTION WHEN connection_exception THEN NULL;
	END;
END LOOP; END \$\$));
good_ok('with calls for a partition without a leader that were given up');

# large ones for many partitions: more than librdkafka's queue takes
$node->safe_psql('postgres', q(SELECT nexus_produce('wide', repeat('x', 300000), partition => p)
	FROM nexus_topics('10 s') t, LATERAL (SELECT t.partition AS p, generate_series(1, 40)) x WHERE t.topic = 'wide' AND t.leader IS NULL));
good_ok('with large rows for many partitions without a leader') for 1 .. 20;

$leader->start;
$node->wait_rows('postgres', 'nexus_outbox', 0);
$node->wait_for_query('postgres', "SELECT count(DISTINCT n) = 50000 FROM taken WHERE topic = 'single' AND partition = $gone AND n BETWEEN 1 AND 50000");
pass('with the leader all of them are published');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');
no_crash_ok($node);
done_testing();
