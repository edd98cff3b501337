# The broker is away under load, in an orderly way and killed: the clients notice
# nothing, nexus_status says what is the matter, and afterwards all goes on by itself.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Time::HiRes qw(sleep time);
use Test::More;

my $outage = scaled(60, 10);

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('outage', bootstrap => $kafka->bootstrap, conf => { synchronous_commit => 'on' });
$node->create_extension('postgres');
runs_ok($node, 'postgres');
my $clients = clients_start($node, ('postgres') x 8);

sub rows { return $node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking') }

foreach my $end (qw(stop kill9))
{
	my $rows = rows();
	$node->wait_for_query('postgres', "SELECT count(*) > $rows + 1000 FROM prospect_tracking");
	$kafka->$end;
	my $until = time + $outage;

	my $status = $node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
	ok($status->{reason}, "$end: the outbox says unreachable, with a reason");
	$status = $node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'unreachable');
	ok($status->{reason}, "$end: so does the pipeline");
	$node->wait_for_query('postgres', 'SELECT count(*) > 1000 FROM nexus_outbox');
	pass('the clients go on committing');
	sleep 0.1 while time < $until;

	$rows = rows();
	$kafka->start;
	quick_ok("after $outage s without it, from the broker's start to new rows", 30, sub {
		$node->wait_for_query('postgres', "SELECT count(*) > $rows FROM prospect_tracking");
	});
	runs_ok($node, 'postgres', "$end: everything runs again, by itself");
}

exactly_once_ok($node, 'postgres', clients_stop($clients));
no_crash_ok($node);
done_testing();
