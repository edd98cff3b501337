# A message is published if and only if its transaction commits, whatever the kind of
# transaction and whatever the order of commits.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $node = NexusKafka::Cluster->make('produce', embedded => 1, conf => { max_prepared_transactions => 5 });
$node->create_extension('postgres');
runs_ok($node, 'postgres');

# The SQL that produces the session of that id.
sub session
{
	my ($id) = @_;
	return "SELECT nexus_produce('" . session_value($id) . "'::jsonb);";
}

# Exactly these sessions are in the table. All that is committed has been published
# and ingested when nexus_consume() answers.
sub arrived_ok
{
	my ($ids, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	like($node->safe_psql('postgres', "SELECT nexus_consume(timeout => '60 s')"), qr/success|idle/, "$name: consumed");
	is($node->safe_psql('postgres', q(SELECT string_agg(session_id, ' ' ORDER BY session_id) FROM prospect_tracking)),
		join(' ', sort @$ids), $name);
	$node->safe_psql('postgres', 'TRUNCATE prospect_tracking');
	return;
}

$node->safe_psql('postgres', join "\n",
	'BEGIN;', session('rolled-back'), 'ROLLBACK;',
	'BEGIN;', session('committed'), 'COMMIT;');
arrived_ok(['committed'], 'a rolled back transaction publishes nothing');

$node->safe_psql('postgres', join "\n", 'BEGIN;', session('outer'),
	'SAVEPOINT a;', session('undone'), 'SAVEPOINT b;', session('undone-inner'), 'ROLLBACK TO a;',
	session('again'), 'RELEASE a;', 'COMMIT;');
arrived_ok([qw(again outer)], 'nor does a subtransaction that is rolled back');

$node->safe_psql('postgres', q(
	DO $$
	BEGIN
		BEGIN
			PERFORM nexus_produce('{"messages":[{"role":"user","content":"x"}],"sessionId":"caught","fingerprint":"f"}');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			PERFORM nexus_produce('{"messages":[{"role":"user","content":"x"}],"sessionId":"handler","fingerprint":"f"}');
		END;
	END $$));
arrived_ok(['handler'], 'nor a block of PL/pgSQL whose error is caught');

$node->safe_psql('postgres', join "\n", 'BEGIN;', session('prepared'), q(PREPARE TRANSACTION 'p';),
	'BEGIN;', session('prepared-undone'), q(PREPARE TRANSACTION 'q';));
$node->safe_psql('postgres', session('between'));
arrived_ok(['between'], 'a prepared transaction publishes nothing');
$node->safe_psql('postgres', q(COMMIT PREPARED 'p'));
$node->safe_psql('postgres', q(ROLLBACK PREPARED 'q'));
arrived_ok(['prepared'], 'until it is committed');

# Ids are given at the call and seen at commit: a relay that only goes upwards would
# never see the first one.
my $others = scaled(5000);
my $late = $node->background_psql('postgres');
$late->query_safe('BEGIN; ' . session('late'));
$node->safe_psql('postgres', qq(
	DO \$\$
	BEGIN
		FOR n IN 1 .. $others LOOP
			PERFORM nexus_produce('other', 'value'::text);
			COMMIT;
		END LOOP;
	END \$\$));
is($node->safe_psql('postgres', 'SELECT nexus_flush()'), 't', "$others commits later all of those are published");
$node->wait_rows('postgres', 'nexus_outbox', 0);
# So long after them that an acknowledgement of theirs would be overdue: its own is not.
$node->safe_psql('postgres', 'SELECT pg_sleep(11)');
$late->query_safe('COMMIT');
$late->quit;
arrived_ok(['late'], 'a transaction that produced first and commits last arrives');
is(scalar log_lines($node, qr/relay .* is waiting/), 0, 'and its acknowledgement was not overdue');

# A reader's old snapshot is in nobody's way either.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM nexus_outbox');
$node->safe_psql('postgres', session('beside-a-snapshot'));
arrived_ok(['beside-a-snapshot'], 'a message arrives while an old snapshot is held');
$reader->quit;

my %refused = (
	'22023 no messages' => q(nexus_produce('{"sessionId":"s"}')),
	'22023 messages empty' => q(nexus_produce('{"messages":[],"sessionId":"s"}')),
	'22023 no sessionId' => q(nexus_produce('{"messages":[{"role":"user","content":"x"}]}')),
	'22004 topic missing' => q(nexus_produce(NULL, 'v'::text)),
	'22023 topic empty' => q(nexus_produce('', 'v'::text)),
	'22023 topic with a blank' => q(nexus_produce('a b', 'v'::text)),
	'22023 topic of two dots' => q(nexus_produce('..', 'v'::text)),
	'22023 topic too long' => q(nexus_produce(repeat('t', 250), 'v'::text)),
	'22023 partition negative' => q(nexus_produce('t', 'v'::text, partition => -1)),
	'22023 headers an array' => q(nexus_produce('t', 'v'::text, headers => '[1]')),
	'54000 value too large' => q(nexus_produce('t', repeat('x', 1000001))),
	'54000 session too large' => q(nexus_produce(jsonb_build_object('sessionId', 's', 'fingerprint', 'f', 'messages',
		jsonb_build_array(jsonb_build_object('role', 'user', 'content', repeat('x', 1000001)))))));
foreach my $case (sort keys %refused)
{
	my ($sqlstate, $what) = split / /, $case, 2;
	sqlstate_is($node, 'postgres', "SELECT $refused{$case}", $sqlstate, "refused: $what");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 0, 'what is refused is not written');

$node->reconfigure('nexus_kafka.max_message_bytes' => 2000);
$node->wait_for_query('postgres', q(SELECT current_setting('nexus_kafka.max_message_bytes') = '2000B'));
sqlstate_is($node, 'postgres', q(SELECT nexus_produce('t', repeat('x', 2001))), '54000', 'the limit can be lowered');

# A partition that the topic doesn't have is known to the broker only.
$node->safe_psql('postgres', q(SELECT nexus_produce('nexus-prospect-ingestion', 'v'::text, 'k', partition => 999)));
$node->safe_psql('postgres', session('behind'));
arrived_ok(['behind'], 'those behind a message that the broker refuses go on');
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_dead_letters WHERE origin = 'outbox' AND key = 'k')),
	1, 'which is a dead letter of the outbox');

is($node->status('postgres', 'outbox', 'outbox')->{lag}, 0, 'at the end the outbox is empty');
no_crash_ok($node);
done_testing();
