# nexus_produce_now: the broker's answer, and what the caller is told when there is none.
use strict;
use warnings;

use IPC::Run ();
use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
$kafka->create_topic('t', 2);
$kafka->create_topic('small', 1, 'max.message.bytes' => 2000);
my $node = NexusKafka::Cluster->make('now', bootstrap => $kafka->bootstrap, restart_after_crash => 1,
	conf => { max_connections => 300 });
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub now_is
{
	my ($call, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->safe_psql('postgres', "SELECT nexus_produce_now($call) ->> 'kafka'"), $expected, $name);
}

sub messages
{
	my ($topic, $format) = @_;
	return $kafka->kcat('-C', '-q', '-e', '-t', $topic, '-f', $format);
}

# ---- what it takes

now_is(q('t', 'text', 'k', '{"a": ["b", "c"]}', 1), '{"offset": 0, "partition": 1}', 'text, with key, headers and partition');
now_is(q('t', '{"a": 1}'::jsonb, partition => 1), '{"offset": 1, "partition": 1}', 'jsonb');
now_is(q('t', '\x00ff'::bytea, '\x01'::bytea, partition => 1), '{"offset": 2, "partition": 1}', 'bytea');
now_is(q('t', NULL::text, 'k', partition => 1), '{"offset": 3, "partition": 1}', 'a tombstone');
now_is(q('t', repeat('x', 900000), partition => 0), '{"offset": 0, "partition": 0}', '0.9 MB');
like(messages('t', '%p/%o %k %h\n'), qr{^1/0 k nexus-message-id=[0-9a-f-]{36},a=b,a=c$}m, 'the broker has key and headers');

my $answer = $node->safe_psql('postgres',
	q(SELECT nexus_produce_now('{"sessionId": "s-1", "fingerprint": "f", "messages": [{"role": "user", "content": "x"}]}')));
like($answer, qr/"kafka": \{"offset": 0, "partition": 0\}/, 'a session, with its place');
my ($id) = $answer =~ /"messageId": "([^"]+)"/;
$node->wait_for_query('postgres', "SELECT count(*) = 1 FROM prospect_tracking WHERE message_id = '$id'");
pass('and it becomes a row');
$node->psql('postgres', q(BEGIN; SELECT nexus_produce_now('t', 'rolled back', partition => 0); ROLLBACK;));
like(messages('t', '%s\n'), qr/^rolled back$/m, 'it is no part of the transaction');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 0, 'nor of the outbox');

# ---- what it refuses

sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('{"sessionId": "s"}')), '22023', 'the contract');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('no topic', 'x')), '22023', 'a bad topic');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('t', repeat('x', 2000000))), '54000', 'too large for the setting');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('small', repeat(md5(random()::text), 200))), '54000', 'too large for the topic');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('t', 'x', partition => 7)), '38000', 'a partition that isn\'t there');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('none', 'x')), '42704', 'a topic that isn\'t there');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('t', 'x', timeout => NULL)), '22004', 'no timeout');

# ---- 200 at once

my @sessions = map {
	my $n = $_;
	my ($in, $out) = (join('', map { "SELECT nexus_produce_now('t', 'many-$n-$_', partition => 0);\n" } 1 .. 5), '');
	{ out => \$out, handle => IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', \$in, '>', \$out, '2>&1') };
} 1 .. 200;
$_->{handle}->finish for @sessions;
is(scalar(grep { (() = ${ $_->{out} } =~ /"accepted"/g) == 5 } @sessions), 200, '200 sessions, 5 each: all are answered');
my %seen;
$seen{$_}++ for grep { /^many-/ } split /\n/, messages('t', '%s\n');
is(scalar(keys %seen), 1000, 'each message is there');
is(scalar(grep { $_ != 1 } values %seen), 0, 'once');

# ---- one that the topic refuses, among others: the broker refuses their whole batch

sub many
{
	my ($sql, $count) = @_;
	my @running = map {
		my ($in, $out) = ("$sql;\n" x 10, '');
		{ out => \$out, handle => IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, 'postgres' ],
			'<', \$in, '>', \$out, '2>&1') };
	} 1 .. $count;
	return @running;
}
my @good = many(q(SELECT nexus_produce_now('small', 'good')), 10);
my @large = many(q(SELECT nexus_produce_now('small', repeat(md5(random()::text), 200))), 5);
my @rows = many(q(SELECT nexus_produce('small', 'row')), 5);
$_->{handle}->finish for @good, @large, @rows;
is(scalar(grep { (() = ${ $_->{out} } =~ /"accepted"/g) == 10 } @good), 10, 'the good ones are accepted');
is(scalar(grep { (() = ${ $_->{out} } =~ /ERROR/g) == 10 } @large), 5, 'those too large are not');
$node->wait_for_query('postgres', 'SELECT count(*) = 0 FROM nexus_outbox');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no row of the outbox pays for them');
is(scalar(grep { $_ eq 'row' } split /\n/, messages('small', '%s\n')), 50, 'and each is there');

# ---- no answer

$kafka->freeze;
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('t', 'unknown', partition => 0, timeout => '1 s')), '08007',
	'a broker that doesn\'t answer: unknown whether it arrives');
my ($rc, undef, $err) = $node->psql('postgres',
	q(SET statement_timeout = '500ms'; SELECT nexus_produce_now('t', 'cancelled', partition => 0)));
like($err, qr/canceling statement due to statement timeout/, 'it can be cancelled');
$kafka->resume;
$node->wait_for_query('postgres', q(SELECT state = 'running' FROM nexus_status WHERE kind = 'outbox'));
now_is_later('after the broker is back, the next is answered');

$kafka->stop;
$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('t', 'never', partition => 0, timeout => '1 s')), '08006',
	'no broker: not sent');
$kafka->start;
runs_ok($node, 'postgres', 'the broker is back');
now_is_later('and so are the answers');
unlike(messages('t', '%s\n'), qr/^never$/m, 'what was said not to be sent was not');

# ---- the relay's memory

# Bytes of all its memory contexts together, as PostgreSQL writes them into the log.
sub relay_memory
{
	my $before = () = log_lines($node, qr/Grand total: \d+ bytes/);
	my $pid = $node->worker_pid('relay', 'postgres');

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	my @totals;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	do
	{
		die 'no memory contexts in the log' if time > $deadline;
		@totals = log_lines($node, qr/Grand total: \d+ bytes/);
	} until @totals > $before;
	my ($free) = $totals[-1] =~ /; (\d+) free/;
	my ($total) = $totals[-1] =~ /Grand total: (\d+) bytes/;
	return $total - ($free // 0);
}

my $calls = "SELECT count(nexus_produce_now('t', n::text, 'k', '{\"a\": \"b\"}', 0)) FROM generate_series(1, 4000) n";
$node->safe_psql('postgres', $calls);
my $memory = relay_memory();
$node->safe_psql('postgres', $calls);
cmp_ok(relay_memory() - $memory, '<', 200_000, '4000 calls more leave nothing in the relay\'s memory');

# ---- nobody's call is left

$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'nexus_kafka relay'");
now_is_later('after the relay\'s end too');
$node->safe_psql('postgres', 'SELECT nexus_produce_now(\'t\', n::text, partition => 0) FROM generate_series(1, 600) n');
pass('slots are free again');
no_crash_ok($node);
done_testing();

sub now_is_later
{
	my ($name) = @_;

	return like($node->safe_psql('postgres', q(SELECT nexus_produce_now('t', 'x', partition => 0, timeout => '60 s'))),
		qr/"accepted"/, $name);
}
