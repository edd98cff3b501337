# Bad messages among good ones: each is, whole, a dead letter, or a row where the
# contract allows it; all the good ones are rows; one worker did it all.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $good = scaled(10000);
my $node = NexusKafka::Cluster->make('bad', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');
my $pid = $node->worker_pid('ingest', 'postgres');

# The text of a session with one of its parts replaced.
sub session_text
{
	my (%part) = @_;
	%part = (messages => '[{"role":"user","content":"Hola"}]', fingerprint => '"fp"', sessionId => '"bad"', %part);
	return '{' . join(',', map { "\"$_\":$part{$_}" } grep { defined $part{$_} } sort keys %part) . '}';
}

# Name (and key), value as an SQL expression of type bytea, SQLSTATE of the dead
# letter ("row": it is no bad message; "any": the contract leaves it open).
sub text_case { return ($_[0], "convert_to('$_[1]', 'UTF8')", $_[2]) }
my @cases = (
	[ text_case('not JSON', 'no json', '22P02') ],
	[ text_case('half of a JSON', '{"messages":[', '22P02') ],
	[ 'not UTF-8', q('\x7b2261223a22fffe227d'::bytea), '22021' ],
	[ text_case('NUL in a string', session_text(fingerprint => '"a\\u0000b"'), '22P05') ],
	[ 'a NUL byte', q('\x7b00'::bytea), '22021' ],
	[ text_case('half a surrogate pair', session_text(fingerprint => '"\\ud800"'), '22P02') ],
	[ 'empty value', q(''::bytea), '22P02' ],
	[ 'tombstone', 'NULL::bytea', '22023' ],
	[ text_case('an array', '[1,2]', '22023') ],
	[ text_case('a string', '"Hola"', '22023') ],
	[ text_case('null', 'null', '22023') ],
	[ text_case('no sessionId', session_text(sessionId => undef), '22023') ],
	[ text_case('sessionId empty', session_text(sessionId => '""'), '22023') ],
	[ text_case('no messages', session_text(messages => undef), '22023') ],
	[ text_case('messages a string', session_text(messages => '"Hola"'), '22023') ],
	[ text_case('metadata a number', session_text(metadata => '7'), 'any') ],
	[ text_case('enqueuedAt not a date', session_text(metadata => '{"enqueuedAt":"yesterday-ish"}'), '22007') ],
	[ text_case('no fingerprint', session_text(fingerprint => undef), 'row') ],
	[ 'a large one', "convert_to(jsonb_build_object('sessionId', 's', 'messages', jsonb_build_array("
		  . "jsonb_build_object('role', 'user', 'content', repeat('x', 900000))))::text, 'UTF8')", 'row' ],
	[ 'a number of 100,000 digits',
		q(convert_to('{"sessionId":"s","messages":[{"role":"user","content":"x"}],"n":' || repeat('7', 100000) || '}', 'UTF8')),
		'any' ],
	[ '10,000 levels deep', q(convert_to('{"sessionId":"s","messages":[{"role":"user","content":"x"}],"n":'
		|| repeat('[', 10000) || repeat(']', 10000) || '}', 'UTF8')), 'any' ]);

$node->safe_psql('postgres', 'CREATE TABLE bad (n int, name text, value bytea, expected text);'
	. join '', map { "INSERT INTO bad SELECT $_, '$cases[$_][0]', $cases[$_][1], '$cases[$_][2]';" } 0 .. $#cases);

# Spread evenly, all committed at once, so that full batches have bad messages inside.
my $distance = int($good / @cases) || 1;
$node->safe_psql('postgres', qq(
	SELECT count(CASE WHEN b.n IS NULL
		THEN nexus_produce(jsonb_build_object('sessionId', 'good-' || g, 'fingerprint', 'good', 'messages',
			jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'Hola'))))
		ELSE nexus_produce('nexus-prospect-ingestion', b.value, convert_to(b.name, 'UTF8')) END)
	FROM (SELECT g, NULL::int AS n FROM generate_series(1, $good) g
		UNION ALL SELECT n * $distance, n FROM bad ORDER BY g) s LEFT JOIN bad b USING (n)));

like($node->safe_psql('postgres', "SELECT nexus_consume(timeout => '120 s')"), qr/"success"/, 'all is consumed');
is($node->safe_psql('postgres', q(SELECT count(DISTINCT session_id) || ' ' || count(*)
	FROM prospect_tracking WHERE fingerprint_id = 'good')), "$good $good", 'all the good ones are in the table, once');

my %outcome = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q(
	SELECT b.name, COALESCE(string_agg(CASE WHEN d.id IS NOT NULL THEN d.sqlstate END, '+'), '')
		|| CASE WHEN count(p.message_id) > 0 THEN 'row' ELSE '' END
	FROM bad b
	LEFT JOIN nexus_dead_letters d ON d.key = convert_to(b.name, 'UTF8') AND d.value IS NOT DISTINCT FROM b.value
		AND d.pipeline = 'prospect_tracking' AND d."offset" IS NOT NULL AND d.message <> ''
	LEFT JOIN prospect_tracking p ON p.message_id = b.name
	GROUP BY b.name));
foreach my $case (@cases)
{
	my ($name, $expected) = @$case[0, 2];
	my $pattern = $expected eq 'any' ? qr/^(row|[0-9A-Z]{5})$/ : qr/^$expected$/;
	like($outcome{$name}, $pattern, "$name: $outcome{$name}");
}

# Nobody's text needs a key or an id: then the place in the topic is the id.
$node->safe_psql('postgres', q(SELECT nexus_produce('nexus-prospect-ingestion',
	'{"sessionId":"anonymous","messages":[{"role":"user","content":"x"}]}'::text)));
$node->wait_rows('postgres', q(prospect_tracking WHERE session_id = 'anonymous'
	AND message_id = concat_ws('/', topic, partition, "offset")), 1);
pass('without key and messageId');

is($node->worker_pid('ingest', 'postgres'), $pid, 'one worker did it all');
is($node->status('postgres', 'pipeline', 'prospect_tracking')->{lag}, 0, 'nothing is left');
no_crash_ok($node);
done_testing();
