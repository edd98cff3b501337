# A new partition is led by a broker that has not heard of it yet: where it begins nobody can
# say. That partition alone waits. The pipeline's others are read on; it is read from its
# beginning when the broker knows of it. Each message is taken in once.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::GatedCluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# A broker that hears nothing leads on: long after that another one would.
my $kafka = NexusKafka::GatedCluster->new(conf => { 'broker.session.timeout.ms' => 600000 });
my $node = NexusKafka::Cluster->make('new_partition', bootstrap => $kafka->gated_bootstrap);
$node->create_extension('postgres');
$kafka->create_topic('grown', 1);
$node->safe_psql('postgres', <<'END');
CREATE TABLE grown (partition int, n bigint);
SELECT nexus_create_pipeline('grown', 'grown', $$
  INSERT INTO grown SELECT partition, (value ->> 'n')::bigint FROM nexus_messages() $$);
END
my $controller = $kafka->controller;
my ($stale) = grep { $_ != $controller && $_ != $kafka->leader('grown') } $kafka->nodes;

numbers($controller, 'grown', [ 1 .. 5 ], partition => 0);
$node->wait_rows('postgres', 'grown', 5);

$kafka->news(silent => $stale);
$kafka->grow_topic('grown', 4, $controller);	# each of three brokers leads one of them
$node->wait_for_query('postgres', "SELECT count(*) FROM nexus_partitions WHERE pipeline = 'grown'", 4);
fails('a partition of which nobody can say where it begins shows');

numbers($controller, 'grown', [ 6 .. 10 ], partition => 0);
$node->wait_rows('postgres', 'grown', 10);
pass('the others are read');
fails('which does not hide that one is not');

$kafka->news(open => $stale);
until ($kafka->partitions('grown', $stale) == 4)
{
	sleep 0.1;
}
$kafka->wait_in_sync;
numbers($controller, 'grown', [ 10 + $_ ], partition => $_) for 1 .. 3;
$node->wait_rows('postgres', 'grown', 13);
$node->poll_status('postgres', 'pipeline', 'grown', 'running');
is($node->safe_psql('postgres', q(SELECT string_agg(n::text, ' ' ORDER BY n) FROM grown)), join(' ', 1 .. 13), 'each message once');
unlike(slurp_file($node->logfile), qr/ingest grown of database postgres is stopped|ingest grown .*(?:keeps ending|starts anew)/,
	'the pipeline did not stop, nor its worker fail');

no_crash_ok($node);
done_testing();

sub fails
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres',
		q(SELECT count(*) FROM nexus_status WHERE name = 'grown' AND state = 'waiting' AND reason ~ 'topic "grown", partition [1-3]: '), 1);
	return pass($test);
}
