# nexus_consume() answers as the old consumer did.
use strict;
use warnings;

use IPC::Run ();
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('consume', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub answer_is
{
	my ($arguments, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($node->safe_psql('postgres', "SELECT nexus_consume($arguments)"), $expected, $name);
}

answer_is('', '{"status": "idle"}', 'nothing there: idle');
$node->produce_sessions('postgres', 1, 3);
answer_is('', '{"status": "success", "processedCount": 3}', 'three produced just before');
is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 3, 'are in the table at the answer');
answer_is('', '{"status": "idle"}', 'then idle again');

$node->produce_sessions('postgres', 4, 5003);
answer_is(q('prospect_tracking', '60 s'), '{"status": "success", "processedCount": 5000}', 'more than one batch');

# What the workers took in by themselves counts at the next call.
my $id = $node->produce('postgres');
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
answer_is('', '{"status": "success", "processedCount": 1}', 'ingested before the call: counted at it');

$node->safe_psql('postgres', q(SELECT nexus_produce('nexus-prospect-ingestion', 'no json'::text)));
like($node->safe_psql('postgres', 'SELECT nexus_consume()'), qr/"success"/, 'a bad message is no error of nexus_consume');
$node->wait_rows('postgres', 'nexus_dead_letters', 1);

# Several callers at the very same time, as with cron and an application, once each, so that no later one wakes the
# worker for them: none is forgotten until its next look at the topic, 20 s later.
foreach my $round (1 .. 5)
{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	my @callers = map {
		my $out = '';
		{ out => \$out, handle => IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, '-d', 'postgres',
			'-c', 'SELECT pg_advisory_lock_shared(1)', '-c', q(SELECT nexus_consume(timeout => '18 s')) ],
			'<', \undef, '>', \$out, '2>&1') };
	} 1 .. 6;
	$node->wait_for_query('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 6);
	$gate->quit;
	$_->{handle}->finish for @callers;
	is(scalar(grep { ${ $_->{out} } =~ /"(success|idle)"/ } @callers), 6, "six callers at once, round $round");
}

sqlstate_is($node, 'postgres', q(SELECT nexus_consume('none')), '42704', 'no such pipeline');
is($node->safe_psql('postgres', 'SELECT nexus_consume(NULL) IS NULL'), 't', 'NULL in, NULL out');

$node->safe_psql('postgres', q(SELECT nexus_pause('prospect_tracking')));
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'paused');
like($node->safe_psql('postgres', 'SELECT nexus_consume()'), qr/"error": "paused.*"status": "error"/, 'paused: an error that says so');
$id = $node->produce('postgres');
is($node->safe_psql('postgres', 'SELECT nexus_flush()'), 't', 'producing goes on');
$node->safe_psql('postgres', q(SELECT nexus_resume('prospect_tracking')));
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
pass('resumed, it catches up');

# Inside a transaction that produced itself: not committed, so not waited for.
is($node->safe_psql('postgres', q(BEGIN;
	SELECT count(nexus_produce('nexus-prospect-ingestion', 'x'::text));
	SELECT nexus_flush('30 s'); ROLLBACK)), "1\nt", 'nexus_flush does not wait for its own transaction');

my $closed = PostgreSQL::Test::Cluster::get_free_port();
$node->reconfigure('nexus_kafka.embedded_broker' => 'off', 'nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'unreachable');
$node->produce('postgres');
quick_ok('nexus_consume with a timeout of 1 s, no broker', 10, sub {
	like($node->safe_psql('postgres', q(SELECT nexus_consume(timeout => '1 s'))), qr/"error": "unreachable.*"status": "error"/,
		'no broker: an error');
});
is($node->safe_psql('postgres', q(SELECT nexus_flush('1 s'))), 'f', 'and nexus_flush answers false');

# A statement_timeout or a cancel ends the wait.
sqlstate_is($node, 'postgres', q(SET statement_timeout = '300ms'; SELECT nexus_flush('600 s')), '57014', 'nexus_flush can be cancelled');
sqlstate_is($node, 'postgres', q(SET statement_timeout = '300ms'; SELECT nexus_consume(timeout => '600 s')), '57014', 'nexus_consume too');

no_crash_ok($node);
done_testing();
