# nexus_create_topic and nexus_topics, on a real broker and on the embedded one.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new;
my $node = NexusKafka::Cluster->make('topics', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');

sub partitions
{
	my ($topic) = @_;
	return $node->safe_psql('postgres', "SELECT partition, leader IS NOT NULL, replicas, in_sync, first_offset, end_offset
		FROM nexus_topics() WHERE topic = '$topic'");
}

$node->safe_psql('postgres', q(SELECT nexus_create_topic('nexus-prospect-ingestion', 1, 1, '{"retention.ms": "604800000"}')));
runs_ok($node, 'postgres', 'a topic is made, and its pipeline runs');
is(partitions('nexus-prospect-ingestion'), '0|t|1|1|0|0', 'it is shown');
$node->safe_psql('postgres', q(SELECT nexus_create_topic('three', 3)));
$node->safe_psql('postgres', q(SELECT nexus_produce_now('three', 'x', partition => 2)));
$node->wait_for_query('postgres', "SELECT count(*) = 3 FROM nexus_topics() WHERE topic = 'three' AND end_offset IS NOT NULL");
is(partitions('three'), "0|t|1|1|0|0\n1|t|1|1|0|0\n2|t|1|1|0|1", 'with its partitions and their offsets');
$kafka->trim_topic('three', 2, 1);
is((split /\n/, partitions('three'))[2], '2|t|1|1|1|1', 'also the first one that is left');

sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('three', 3)), '42710', 'it exists');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('a b')), '22023', 'a bad name');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', 0)), '22023', 'no partition');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', 1, 3)), '22023', 'more replicas than brokers');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', 1, 1, '{"retention.m": "1"}')), '22023', 'an unknown setting');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', 1, 1, '{"retention.ms": 1}')), '22023', 'a setting that is no string');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', 1, 1, '[]')), '22023', 'no object');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic(NULL)), '22004', 'no name');

$kafka->stop;
$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
sqlstate_is($node, 'postgres', q(SELECT * FROM nexus_topics('1 s')), '08006', 'no broker: no answer');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('x', timeout => '1 s')), '08006', 'likewise');

$node->reconfigure('nexus_kafka.embedded_broker' => 'on');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');
$node->safe_psql('postgres', q(SELECT nexus_create_topic('three', 3)));
is(partitions('three'), "0|t|1|1|0|0\n1|t|1|1|0|0\n2|t|1|1|0|0", 'the embedded broker: a topic is made, and shown');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('three', 3)), '42710', 'it exists');

no_crash_ok($node);
done_testing();
