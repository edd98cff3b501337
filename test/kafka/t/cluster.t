# Three brokers, over SASL_SSL, under load both ways: restarted one after the other, the
# leader killed, two of three killed. Nothing is lost, nothing arrives twice, and where
# nothing can be acknowledged the state says so.
use strict;
use warnings;

use NexusKafka::BrokerCluster;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $rounds = scaled(3, 1);
my $clients = scaled(8, 1);    # each takes what is left of the machine
my $prospects = 'nexus-prospect-ingestion';

my $kafka = NexusKafka::BrokerCluster->new;
$kafka->create_topic($_) for $prospects, 'numbers';
$kafka->create_topic('strict', 1, 'min.insync.replicas' => 3);

my $node = NexusKafka::Cluster->make('cluster', sasl_ssl => $kafka, conf => { synchronous_commit => 'on' });
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE numbers (n bigint, received_at timestamptz DEFAULT clock_timestamp());
SELECT nexus_create_pipeline('numbers', topic => 'numbers',
	statement => $$INSERT INTO numbers (n) SELECT (value->>'n')::bigint FROM nexus_messages()$$);
SELECT nexus_create_topic('single', 3, 1);
CREATE TABLE single (n bigint);
SELECT nexus_create_pipeline('single', topic => 'single',
	statement => $$INSERT INTO single SELECT value::bigint FROM nexus_messages()$$);
END
runs_ok($node, 'postgres');
$node->poll_status('postgres', 'pipeline', $_, 'running') for qw(numbers single);

my @pids = worker_pids();
my $clients_running = clients_start($node, ('postgres') x $clients);
my $numbers_running = numbers_start($kafka, 'numbers');
flows_ok('at the start');

foreach my $round (1 .. $rounds)
{
	pause_of('rolling restart', sub { $kafka->rolling_restart });
	leader_killed();
}
two_killed();

# ---- the end of it

my $journal = clients_stop($clients_running);
my $last = numbers_stop($numbers_running);
exactly_once_ok($node, 'postgres', $journal);
$node->wait_for_query('postgres', 'SELECT count(*) >= ' . $last . ' FROM numbers');
is($node->safe_psql('postgres', 'SELECT count(*) || \' \' || count(DISTINCT n) || \' \' || max(n) FROM numbers'),
	"$last $last $last", 'each number that was published is one row');
is("@{[ worker_pids() ]}", "@pids", 'supervisor and relay are the same processes');
is($node->safe_psql('postgres', "SELECT count(*) FROM nexus_outbox"), 0, 'the outbox is empty');
no_crash_ok($node);
done_testing();

# An ingest worker that has lost all brokers it was connected to begins anew, to verify
# that it reads the same topic still.
sub worker_pids { return map { $node->worker_pids($_, 'postgres') } qw(supervisor relay) }

# Rows keep coming, both ways.
sub flows_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $table (qw(prospect_tracking numbers))
	{
		my $rows = $node->safe_psql('postgres', "SELECT count(*) FROM $table");
		$node->wait_for_query('postgres', "SELECT count(*) > $rows + 200 FROM $table");
	}
	return pass("$name: messages flow both ways");
}

# The longest time without a new row meanwhile, to be read by people.
sub pause_of
{
	my ($what, $code) = @_;
	my $since = $node->safe_psql('postgres', 'SELECT clock_timestamp()');

	$code->();
	flows_ok($what);
	diag("$what, longest pause: " . $node->safe_psql('postgres', join ' UNION ALL ', map { <<"END" } qw(prospect_tracking numbers)));
		SELECT '$_ ' || round(extract(epoch FROM max(pause)), 1) || ' s'
		FROM (SELECT received_at - lag(received_at, 1, '$since') OVER (ORDER BY received_at) AS pause
			FROM $_ WHERE received_at > '$since') p
END
	return;
}

sub in_sync
{
	my ($topic) = @_;
	return "SELECT in_sync FROM nexus_topics('10 s') WHERE topic = '$topic'";
}

# What must be acknowledged by all three waits in the outbox meanwhile; all else goes on.
sub leader_killed
{
	my $leader = $kafka->leader($prospects);

	pause_of('kill -9 of the leader', sub {
		$leader->kill9;
		$node->wait_for_query('postgres', in_sync($prospects), 2);
	});
	isnt($kafka->leader($prospects)->node_id, $leader->node_id, 'another broker leads');

	# of three partitions without a second replica each broker has one
	my $gone = $node->poll_status('postgres', 'pipeline', 'single', 'waiting');
	like($gone->{reason}, qr/topic "single", partition \d has no leader/, "what has no leader shows ($gone->{reason})");

	my @sent = split ' ', $node->safe_psql('postgres',
		q(SELECT nexus_produce('strict', 'x')->>'messageId' FROM generate_series(1, 20)));
	flows_ok('while twenty messages wait for a third replica');
	sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('strict', 'x', timeout => '2 s')), '08007',
		'too few replicas in sync: not known to arrive');
	my $kept = sprintf q(SELECT count(*) FROM nexus_outbox WHERE message_id IN (%s)), join ', ', map { "'$_'" } @sent;
	is($node->safe_psql('postgres', $kept), 20, 'and the outbox keeps its messages');
	$leader->start;
	$kafka->wait_in_sync;
	is($node->safe_psql('postgres', in_sync($prospects)), 3, 'nexus_topics: all replicas are in sync again');
	$node->wait_for_query('postgres', $kept, 0);
	my @ids = $kafka->kcat('-C', '-q', '-e', '-t', 'strict', '-f', '%h\n') =~ /nexus-message-id=(\S+)/g;
	my %arrived;
	$arrived{$_}++ for @ids;
	is_deeply([ map { $arrived{$_} } @sent ], [ (1) x @sent ], 'they arrived, once each');
	$node->poll_status('postgres', 'pipeline', 'single', 'running');
	return;
}

# The leader alone can't acknowledge.
sub two_killed
{
	my $leader = $kafka->leader($prospects);
	my @others = grep { $_->node_id != $leader->node_id } $kafka->nodes;

	$_->kill9 for @others;
	my $status = $node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
	like($status->{reason}, qr/acknowledged/, "two of three killed: the state says why ($status->{reason})");
	# a partition that acknowledges nothing, and has much in flight already, is sent nothing more
	like(sqlstate_of($node, 'postgres', <<'END'), qr/^0800[67]$/, 'nexus_produce_now: not sent, or not known to arrive');
SELECT nexus_produce_now('{"sessionId": "now", "fingerprint": "f", "messages": [{"role": "user", "content": "x"}]}', timeout => '2 s')
END
	pause_of('one of two killed is started again', sub { $others[0]->start });
	$others[1]->start;
	$kafka->wait_in_sync;
	runs_ok($node, 'postgres', 'everything runs again, by itself');
	return;
}
