# What somebody waits for is answered while a fetch waits at the broker, which answers the
# requests of a connection in order.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use Test::More;

my $kafka = NexusKafka::Broker->new;
my $node = NexusKafka::Cluster->make('questions', start => 0);
my $file = $node->data_dir . '/kafka.properties';

# a fetch without news is answered after so long, and a question behind it later than it may
PostgreSQL::Test::Utils::append_to_file($file, 'bootstrap.servers=' . $kafka->bootstrap . "\nfetch.wait.max.ms=60000\nsocket.timeout.ms=90000\n");
chmod 0600, $file;
$node->configure('nexus_kafka.config_file' => $file);
$node->start;
$kafka->create_topic('nexus-prospect-ingestion');
$node->create_extension('postgres');
$node->produce('postgres');
$node->wait_rows('postgres', 'prospect_tracking', 1);

consume_is('success', 'what came is told');
consume_is('idle', 'nothing there: known while a fetch waits') for 1 .. 5;
$node->produce_sessions('postgres', 1, 3);
consume_is('success', 'and what was produced just before is there');
is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 4, 'with its rows');
is($node->safe_psql('postgres', 'SELECT nexus_flush()'), 't', 'a flush is answered too');
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_topics() WHERE topic = 'nexus-prospect-ingestion')), 1, 'and so are the topics');

# The workers look at the topics now and then, and a look that times out behind the fetch says nothing.
my ($pid) = $node->safe_psql('postgres', q(SELECT pid FROM nexus_status WHERE name = 'prospect_tracking'));
$kafka->grow_topic('nexus-prospect-ingestion', 2);
$node->wait_for_query('postgres', q(SELECT count(*) = 2 FROM nexus_partitions WHERE pipeline = 'prospect_tracking'));
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/prospect_tracking of database postgres is unreachable/,
	'a new partition is seen while a fetch waits, and the broker counts as reachable');

no_crash_ok($node);
done_testing();

sub consume_is
{
	my ($status, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->safe_psql('postgres', q(SELECT nexus_consume(timeout => '30 s') ->> 'status')), $status, $test);
}
