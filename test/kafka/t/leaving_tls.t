# Leaving with connections over TLS, under load: SIGTERM to workers, fast and immediate
# shutdown. No process crashes, each shutdown is quick, and nothing is lost or doubled.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Chance;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Time::HiRes qw(time);
use Test::More;

my $rounds = scaled(100, 5);
my $bound = 20;    # seconds; three are the aim, the rest is for a busy machine
my @databases = qw(postgres second);

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('leaving_tls', sasl_ssl => $kafka, restart_after_crash => 1,
	conf => { synchronous_commit => 'on' });
$node->safe_psql('postgres', 'CREATE DATABASE second');
foreach my $db (@databases)
{
	$node->create_extension($db);
	runs_ok($node, $db);
}
my $clients = clients_start($node, (@databases) x 2);

my %seconds = (fast => [], immediate => []);
foreach (1 .. $rounds)
{
	wait_for_load();
	terminate_one();
	wait_for_load();
	foreach my $mode (qw(fast immediate))
	{
		my $start = time;
		$node->stop($mode);
		push @{ $seconds{$mode} }, time - $start;
		$node->start;
		wait_for_load();
	}
}
foreach my $mode (sort keys %seconds)
{
	my @sorted = sort { $a <=> $b } @{ $seconds{$mode} };
	diag(sprintf '%d %s shutdowns: median %.2f s, longest %.2f s', $rounds, $mode, $sorted[ @sorted / 2 ], $sorted[-1]);
	cmp_ok($sorted[-1], '<', $bound, "each $mode shutdown takes less than $bound s");
}

my $journal = clients_stop($clients);
$node->wait_for_query($_, q(SELECT lag FROM nexus_status WHERE kind = 'outbox'), 0) for @databases;
exactly_once_ok($node, $_, $journal) for @databases;
is(scalar(log_lines($node, qr/database system was not properly shut down/)), $rounds,
	'recovery after the immediate shutdowns, and after no other');
is(scalar(log_lines($node, qr/issuing SIGKILL to recalcitrant children/)), 0, 'no process had to be killed');
no_crash_ok($node);
done_testing();

# Each database has new rows: clients, relays and ingest workers are all at work.
sub wait_for_load
{
	foreach my $db (@databases)
	{
		my $rows = $node->safe_psql($db, 'SELECT count(*) FROM prospect_tracking');
		$node->wait_for_query($db, "SELECT count(*) > $rows + 20 FROM prospect_tracking");
	}
	return;
}

sub terminate_one
{
	my $pid = one_of(map { $node->worker_pids($_) } qw(supervisor relay ingest));

	kill('TERM', $pid);
	$node->wait_for_query('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0);
	return;
}
