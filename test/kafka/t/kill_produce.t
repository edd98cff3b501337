# kill -9 of the relay and of the postmaster while clients produce and roll back: what
# was committed is published, exactly once end to end, and nothing else.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);
use Test::More;

my $relay_kills = 8;
my $postmaster_kills = 4;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('kill_produce', bootstrap => $kafka->bootstrap, restart_after_crash => 1,
	conf => { synchronous_commit => 'on' });
$node->create_extension('postgres');
runs_ok($node, 'postgres');
my $clients = clients_start($node, ('postgres') x 8);

# Waits until so many more rows are there: the clients, the relay and the ingest
# worker are all at work again.
my $rows = 0;
sub wait_for_load
{
	$rows += scaled(1000);
	$node->wait_for_query('postgres', "SELECT count(*) > $rows FROM prospect_tracking");
	$rows = $node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking');
	return;
}

foreach (1 .. $relay_kills)
{
	wait_for_load();
	my $pid = $node->worker_pid('relay', 'postgres');
	kill('KILL', $pid);
	$node->worker_pid('relay', 'postgres', not => $pid);
}

foreach (1 .. $postmaster_kills)
{
	wait_for_load();
	$node->kill9_and_start;
}
wait_for_load();

exactly_once_ok($node, 'postgres', clients_stop($clients));
is($node->crashes, $relay_kills, 'the relay was killed that often');
no_crash_ok($node, kills => $relay_kills);
done_testing();
