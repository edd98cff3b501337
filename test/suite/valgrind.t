# A short session with a server under valgrind. PostgreSQL, librdkafka and what they use have
# much that memcheck frowns on: what counts is what has a function of ours on its stack.
use strict;
use warnings;

use Cwd qw(getcwd);
use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $reports = PostgreSQL::Test::Utils::tempdir;

$ENV{VALGRIND_REPORTS} = $reports;
$ENV{PATH} = getcwd() . "/test/sanitize:$ENV{PATH}";

# A worker that is busy under valgrind answers late.
my $node = NexusKafka::Cluster->make('valgrind', embedded => 1);

sub sql
{
	my (@statements) = @_;

	return $node->safe_psql('postgres', join ';', @statements);
}

sub consumed_ok
{
	my ($pipeline, $messages, $name) = @_;

	return like(sql("SELECT nexus_consume('$pipeline', '300 s')"), qr/"success", "processedCount": $messages\b/, $name);
}

$node->create_extension('postgres');
runs_ok($node, 'postgres', 'CREATE EXTENSION');

sql($node->produce_sessions_sql(1, 50));
consumed_ok('prospect_tracking', 50, 'sessions become rows');
like(sql(q(SELECT nexus_produce_now('{"messages":[{"role":"user","content":"Hola"}],"sessionId":"s",
		"fingerprint":"f"}'::jsonb, '300 s'))),
	qr/"offset"/, 'one is published at once');
consumed_ok('prospect_tracking', 1, 'and becomes a row');

sql('CREATE TABLE taken (key text, n int, headers jsonb)',
	q(SELECT nexus_create_pipeline('numbers', topic => 'numbers',
		statement => 'INSERT INTO taken SELECT key, (value->>''n'')::int, headers FROM nexus_messages()')));
sql(q(SELECT nexus_produce('numbers', '{"n": 1}'::jsonb, key => 'a', headers => '{"h": ["x", null], "i": "y"}')),
	q(SELECT nexus_produce('numbers', '{"n": "one"}'::jsonb)),
	q(SELECT nexus_produce('numbers', 'no json'::text)),
	q(SELECT nexus_produce('numbers', '\x7b226e223a327d'::bytea, key => '\xff'::bytea)),
	q(SELECT nexus_produce('numbers', NULL::text)));
consumed_ok('numbers', 5, 'what fails is taken for consumed');
is(sql('SELECT count(*) FROM nexus_dead_letters'), 3, 'and is dead letters');

sql(q(ALTER TABLE taken ALTER n TYPE text),
	q(SELECT nexus_alter_pipeline('numbers', statement =>
		'INSERT INTO taken SELECT encode(key, ''hex''), encode(value, ''escape'') FROM nexus_raw_messages()')));
$node->poll_status('postgres', 'pipeline', 'numbers', 'running');
is(sql(q(SELECT replayed FROM nexus_replay('numbers'))), 3, 'the dead letters are replayed');

sql(q(SELECT nexus_pause('numbers')));
sql(q(SELECT nexus_seek('numbers', 'earliest')));
sql(q(SELECT nexus_resume('numbers')));
$node->poll_status('postgres', 'pipeline', 'numbers', 'running');
consumed_ok('numbers', 5, 'paused, moved to the beginning, resumed');
sql('TABLE nexus_status', 'TABLE nexus_partitions', 'SELECT * FROM nexus_topics()', q(SELECT nexus_create_topic('made')), 'SELECT nexus_health()');
sql(q(SELECT nexus_drop_pipeline('numbers')));

$node->reconfigure('nexus_kafka.max_message_bytes' => 500000);
sql('SELECT nexus_flush()');
sql('DROP EXTENSION nexus_kafka');
$node->wait_no_worker($_, 'postgres') for qw(supervisor relay ingest);
pass('DROP EXTENSION');
$node->create_extension('postgres');
runs_ok($node, 'postgres', 'and CREATE EXTENSION once more');
$node->stop('fast');
no_crash_ok($node);

my @files = glob "$reports/*.xml";
my @errors = map { slurp_file($_) =~ m{<error>.*?</error>}gs } @files;

cmp_ok(scalar @files, '>', 10, 'each process of the server was watched');
is(join("\n", map { told($_) } grep { m{<obj>[^<]*/nexus_kafka\.so</obj>} } @errors), '', 'nothing is found in ours');
done_testing();

# What memcheck says of an error, and where, from its XML.
sub told
{
	my ($error) = @_;
	my $told = '';

	while ($error =~ m{<(kind|what|text|auxwhat)>(.*?)</\1>|<frame>(.*?)</frame>}gs)
	{
		my $frame = $3;
		$told .= defined $frame
		  ? '    ' . join(' ', map { $frame =~ m{<$_>(.*?)</$_>} ? $1 : () } qw(fn file line obj)) . "\n"
		  : "$2\n";
	}
	return $told;
}
