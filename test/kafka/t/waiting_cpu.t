# A worker that waits, sleeps: the relay with messages that nobody acknowledges, and a
# pipeline whose statement fails, while the broker is away.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($_) for 'nexus-prospect-ingestion', 'numbers';
my $node = NexusKafka::Cluster->make('waiting_cpu', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->safe_psql('postgres', 'CREATE TABLE numbers (n integer)');
$node->safe_psql('postgres', q(SELECT nexus_create_pipeline('numbers', 'numbers',
	$$INSERT INTO numbers SELECT (value #>> '{}')::integer FROM nexus_messages()$$)));
runs_ok($node, 'postgres');

$node->safe_psql('postgres', 'DROP TABLE numbers');
$node->safe_psql('postgres', q(SELECT nexus_produce('numbers', '1'::jsonb)));
$node->poll_status('postgres', 'pipeline', 'numbers', 'failing');
$kafka->kill9;
$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
$node->safe_psql('postgres', q(SELECT nexus_produce('numbers', '2'::jsonb) FROM generate_series(1, 50)));

# From 10 s on messages are overdue, and the time to look at the broker is past.
sleep 12;
my @pids = map { $node->worker_pids($_, 'postgres') } qw(relay ingest);
my $start = time;
my @before = map { cpu_seconds($_) } @pids;
sleep 5;
my @after = map { cpu_seconds($_) } @pids;
my $period = time - $start;

is(scalar(@pids), 3, 'a relay and two workers of pipelines');
foreach my $i (0 .. $#pids)
{
	my $spent = $after[$i] - $before[$i];
	ok($spent < $period / 4, sprintf('%d: %.2f s of CPU in %.1f s', $i, $spent, $period));
}

$node->safe_psql('postgres', 'CREATE TABLE numbers (n integer)');
$kafka->start;
$node->wait_for_query('postgres', 'SELECT count(*) FROM numbers', 51);
pass('all are taken in when broker and table are there again');
no_crash_ok($node);
done_testing();

sub cpu_seconds
{
	my ($pid) = @_;

	open(my $stat, '<', "/proc/$pid/stat") or die "worker $pid is gone";
	my ($fields) = readline($stat) =~ /\) (.*)/;
	my ($user, $system) = (split ' ', $fields)[ 11, 12 ];
	return ($user + $system) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}
