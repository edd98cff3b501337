# SIGTERM to the workers under load, fifty times: an orderly end each time, never a
# crash that restarts the server, and nothing is lost. In several databases, so that
# there is a worker at work to be ended while others are about to start again.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $terms = scaled(50);
my @databases = qw(postgres second third fourth);

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('sigterm', bootstrap => $kafka->bootstrap, restart_after_crash => 1);
foreach my $db (@databases)
{
	$node->safe_psql('postgres', "CREATE DATABASE $db") unless $db eq 'postgres';
	$node->create_extension($db);
	runs_ok($node, $db);
}
my $clients = clients_start($node, @databases);

# The one that has been at work the longest.
my $oldest = q(SELECT pid FROM pg_stat_activity
	WHERE backend_type IN ('nexus_kafka supervisor', 'nexus_kafka relay', 'nexus_kafka ingest')
	ORDER BY backend_start LIMIT 1);
foreach (1 .. $terms)
{
	$node->wait_for_query('postgres', "SELECT count(*) FROM ($oldest) o", 1);
	my $pid = $node->safe_psql('postgres', $oldest);
	kill('TERM', $pid);
	$node->wait_for_query('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
}
is($node->crashes, 0, "$terms SIGTERMs, and the server did not restart its processes");

# All databases read the one topic, so each gets the sessions of all clients.
my $journal = clients_stop($clients);
$node->wait_for_query($_, q(SELECT lag FROM nexus_status WHERE kind = 'outbox'), 0) for @databases;
exactly_once_ok($node, $_, $journal) for @databases;
no_crash_ok($node);
done_testing();
