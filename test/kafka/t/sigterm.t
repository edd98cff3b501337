# SIGTERM to the workers under load, fifty times: an orderly end each time, never a
# crash that restarts the server, and nothing is lost.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $terms = scaled(50);
my @kinds = qw(ingest relay ingest relay supervisor);

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('sigterm', bootstrap => $kafka->bootstrap, restart_after_crash => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');
my $clients = clients_start($node, 'postgres', 4);

my $rows = 0;
foreach my $term (1 .. $terms)
{
	my $kind = $kinds[$term % @kinds];
	$node->wait_for_query('postgres', "SELECT count(*) > $rows FROM prospect_tracking");
	my $pid = $node->worker_pid($kind, 'postgres');
	kill('TERM', $pid);
	$node->worker_pid($kind, 'postgres', not => $pid);
	$rows = $node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking');
}
is($node->crashes, 0, "$terms SIGTERMs, and the server did not restart its processes");

exactly_once_ok($node, 'postgres', clients_stop($clients));
no_crash_ok($node);
done_testing();
