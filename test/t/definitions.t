# What stands in nexus_pipelines, whoever wrote it: it ends no worker, gives no right, and
# its pipeline says what is wrong. And the role, which is that one and not its name.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = NexusKafka::Cluster->make('definitions', embedded => 1);

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub create
{
	my ($name, $options) = @_;

	return qq(SELECT nexus_create_pipeline('$name', '$name', 'INSERT INTO public.taken SELECT topic, current_user FROM nexus_messages()', '$options'));
}

sub reason
{
	my ($pipeline, $pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return like($node->poll_status('postgres', 'pipeline', $pipeline, 'failing')->{reason}, $pattern, $name);
}

$node->create_extension('postgres');
my $maker_rights = 'GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb),
	nexus_alter_pipeline(text, text, text, jsonb) TO ';
sql('CREATE TABLE taken (topic text, who name)', 'GRANT INSERT ON taken TO PUBLIC',
	'CREATE ROLE maker', "$maker_rights maker", 'CREATE ROLE keeper');

like(sql('BEGIN', create('unseen', '{}'), q(SELECT state FROM nexus_status WHERE name = 'unseen'), 'ROLLBACK'), qr/starting/,
	'a pipeline that has no worker yet does not run');

# ---- a name

for my $name ("'a' || chr(10) || 'b'", "chr(27) || '[2J'", "'a' || chr(127)", "''", "repeat('x', 64)")
{
	sqlstate_is($node, 'postgres', "SELECT nexus_create_pipeline($name, 't', 'SELECT FROM nexus_messages()')", '22023', "no pipeline is called $name");
}
sql('ALTER TABLE nexus_pipelines DROP CONSTRAINT nexus_pipelines_name_check');
sql(qq(INSERT INTO nexus_pipelines (name, topic, statement) VALUES ('a' || chr(10) || '2026-01-01 LOG:  forged', 'a', 'SELECT FROM nexus_messages()')),
	'SELECT nexus_resume()', create('waker', '{}'));
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_status WHERE name ~ 'forged' AND state = 'failing' AND reason ~ 'control'), 1);
is(scalar(grep { /^\s*2026-01-01 LOG:/ } split /\n/, slurp_file($node->logfile)), 0, 'a name in the table makes no line of the log');
is(scalar(log_lines($node, qr/ingest a 2026-01-01 LOG:  forged of database postgres is failing/)), 1, 'the name is in a line of ours');
sql(q(DELETE FROM nexus_pipelines WHERE name ~ 'forged'));

# ---- columns that nobody could write by the functions

my $constraints = sql(q(SELECT string_agg(format('DROP CONSTRAINT %I', conname), ', ') FROM pg_constraint WHERE conrelid = 'nexus_pipelines'::regclass AND contype = 'c'));
sql("ALTER TABLE nexus_pipelines $constraints", map({ "ALTER TABLE nexus_pipelines ALTER $_ DROP NOT NULL" }
	qw(topic statement run_as search_path start workers batch_messages batch_bytes on_error on_demand paused created_at)));
my %bad = (
	workers => [ '1000000', qr/option workers takes 1 to 32, not 1000000/ ], batch_messages => [ '-1', qr/batch_messages takes 1 to 10000/ ],
	batch_bytes => [ '2147483647', qr/batch_bytes takes/ ], max_dead_letters => [ '-5', qr/max_dead_letters takes/ ],
	topic => [ q{'^('}, qr/parentheses/ ], statement => [ 'NULL', qr/null/ ], search_path => [ 'NULL', qr/null/ ],
	start => [ q('yesteryear'), qr/yesteryear/ ], group_id => [ q(repeat('g', 300)), qr/consumer group's name/ ],
	connection => [ q('no/name'), qr/no\/name/ ], created_at => [ q('infinity'), qr/created_at/ ], run_as => [ q('nobody_at_all'), qr/role "nobody_at_all" does not exist/ ]);
for my $column (sort keys %bad)
{
	sql(create($column, '{}'));
	$node->poll_status('postgres', 'pipeline', $column, 'running');
	sql("UPDATE nexus_pipelines SET $column = $bad{$column}[0] WHERE name = '$column'", 'SELECT nexus_resume()');
	reason($column, $bad{$column}[1], "$column = $bad{$column}[0]: the pipeline says so");
}
sql(q(UPDATE nexus_pipelines SET start = repeat('{"a":', 100000) WHERE name = 'start'), 'SELECT nexus_resume()');
reason('start', qr/stack depth/, 'start nested beyond what can be read: the pipeline says so, and no other is held up');
sql(q(UPDATE nexus_pipelines SET on_error = NULL, on_demand = NULL, paused = NULL WHERE name = 'waker'), 'SELECT nexus_resume()');
sql(q(SELECT nexus_produce('waker', '1')));
$node->wait_rows('postgres', q(taken WHERE topic = 'waker'), 1);
pass('what can be understood otherwise is');
sqlstate_is($node, 'postgres', q(SELECT * FROM nexus_replay('topic')), '2201B', 'nexus_replay() says it too');
sql(q(UPDATE nexus_pipelines SET workers = 1 WHERE name = 'workers'), 'SELECT nexus_resume()');
$node->poll_status('postgres', 'pipeline', 'workers', 'running');
pass('mended, it runs');
sql(q(DELETE FROM nexus_pipelines WHERE name NOT IN ('waker', 'prospect_tracking')), 'SELECT nexus_resume()');

# ---- the role

sql('SET ROLE maker', create('made', '{}'));
sql(q(SELECT nexus_produce('made', '1')));
$node->wait_rows('postgres', q(taken WHERE topic = 'made' AND who = 'maker'), 1);
sql('ALTER ROLE maker RENAME TO builder', q(SELECT nexus_produce('made', '2')));
$node->wait_rows('postgres', q(taken WHERE topic = 'made' AND who = 'builder'), 1);
pass('a renamed role keeps its pipelines');

sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', q(SELECT nexus_produce('made', '3')));
reason('made', qr/role "builder" may not connect to this database/, 'a role that may not connect runs no pipeline');
sql('GRANT CONNECT ON DATABASE postgres TO PUBLIC', 'SELECT nexus_resume()');
$node->wait_rows('postgres', q(taken WHERE topic = 'made'), 3);
pass('and when it may again, it does');

sqlstate_is($node, 'postgres', 'DROP ROLE builder', '2BP01', 'PostgreSQL knows that the role is needed');
sql('DROP OWNED BY builder', 'DROP ROLE builder', 'CREATE ROLE maker SUPERUSER', q(SELECT nexus_produce('made', '4')));
reason('made', qr/role "maker" is not the one that the pipeline had/, 'another role of the name is not that one');
is(sql(q(SELECT count(*) FROM taken WHERE topic = 'made')), 3, 'and nothing ran');
sql('SELECT nexus_resume()');
reason('made', qr/is not the one that the pipeline had/, 'nor by nexus_resume() in a database that was at home');
sql(q(SELECT nexus_alter_pipeline('made', options => '{"run_as": "maker"}')));
$node->wait_rows('postgres', q(taken WHERE topic = 'made' AND who = 'maker'), 2);
pass('until somebody who may says so');
sql('ALTER ROLE maker NOSUPERUSER', "$maker_rights maker");

# ---- a consumer group of others

for my $options ('{"group_id": "billing"}', '{"start": "group:billing"}')
{
	sqlstate_is($node, 'postgres', 'SET ROLE maker; ' . create('grouped', $options), '42501', "no maker commits offsets to a group of others: $options");
	sqlstate_is($node, 'postgres', "SET ROLE maker; SELECT nexus_alter_pipeline('made', options => '$options')", '42501', 'nor by a change');
}
sqlstate_is($node, 'postgres', 'SET ROLE maker; ' . create('grouped', '{"group_id": "nexus_kafka-postgres-grouped.lag"}'), '00000', 'to its own it does');
sqlstate_is($node, 'postgres', create('given', '{"group_id": "billing", "run_as": "maker"}'), '00000', 'and the owner of the extension gives any');
sqlstate_is($node, 'postgres', q(SET ROLE maker; SELECT nexus_alter_pipeline('given', topic => 'other')), '42501', 'but not for other topics');
sqlstate_is($node, 'postgres', q(SET ROLE maker; SELECT nexus_alter_pipeline('given', statement => 'SELECT FROM nexus_messages()')), '00000', 'only as it is');

# ---- who owns the table writes a row, and gets no rights by it

sql('CREATE DATABASE owned');
$node->safe_psql('owned', join ";\n", 'CREATE EXTENSION nexus_kafka', 'CREATE TABLE taken (topic text, who name)', 'GRANT INSERT ON taken TO PUBLIC', "$maker_rights maker, keeper",
	(map { "ALTER TABLE $_ OWNER TO keeper" } qw(nexus_identity nexus_pipelines nexus_offsets nexus_dead_letters nexus_outbox nexus_topic_rights)),
	'ALTER SEQUENCE nexus_outbox_named_id OWNER TO keeper');
$node->safe_psql('owned', 'SET ROLE keeper; ' . create('own', '{}') .
	"; INSERT INTO nexus_pipelines (name, topic, statement, run_as) VALUES ('seizing', 'seizing', 'ALTER ROLE keeper SUPERUSER', (SELECT rolname FROM pg_roles WHERE oid = 10)), ('others', 'others', 'SELECT FROM public.nexus_messages()', 'maker')");
$node->safe_psql('owned', q(SELECT nexus_resume(); SELECT nexus_produce(t, '1') FROM unnest(ARRAY['own', 'seizing', 'others']) t));
$node->wait_rows('owned', q(taken WHERE who = 'keeper'), 1);
pass('its own pipelines run');
for my $pipeline (qw(seizing others prospect_tracking))
{
	like($node->poll_status('owned', 'pipeline', $pipeline, 'failing')->{reason}, qr/tables belong to "keeper", who hasn't the rights of that role/, "$pipeline: not as a role whose rights it has not");
}
is(sql(q(SELECT rolsuper FROM pg_roles WHERE rolname = 'keeper')), 'f', 'keeper is not superuser');

# ---- nor does it crash a worker by NULL where none can be

$node->safe_psql('owned', join ";\n", 'SET ROLE keeper', 'ALTER TABLE nexus_offsets DROP CONSTRAINT nexus_offsets_pkey',
	'ALTER TABLE nexus_offsets ALTER topic DROP NOT NULL, ALTER partition DROP NOT NULL',
	'ALTER TABLE nexus_dead_letters ALTER topic DROP NOT NULL',
	q(INSERT INTO nexus_offsets (pipeline, "offset") VALUES ('own', 0)),
	q(INSERT INTO nexus_dead_letters (origin, pipeline, message) VALUES ('pipeline', 'own', 'topic is NULL')));
is($node->safe_psql('owned', q(SELECT * FROM nexus_replay('own'))), '1|0', 'a dead letter without a topic');
$node->safe_psql('owned', q(SELECT nexus_resume('own')));
$node->poll_status('owned', 'pipeline', 'own', 'running');
$node->safe_psql('owned', q(SELECT nexus_produce('own', '2')));
$node->wait_for_query('owned', q(SELECT count(*) FROM taken WHERE topic = 'own'), 2);
pass('an offset without a topic and a partition');

# ---- nor by columns of other types

$node->safe_psql('owned', q(
	SELECT nexus_create_pipeline('strict', 'strict', 'INSERT INTO taken SELECT value ->> ''x'', NULL FROM nexus_messages()', '{"run_as": "keeper"}')));
$node->safe_psql('owned', q(SELECT nexus_produce('strict', 'no json'::text, 'key')));
$node->wait_rows('owned', 'nexus_dead_letters', 1);
$node->safe_psql('owned', q(SET ROLE keeper; ALTER TABLE nexus_dead_letters ALTER headers TYPE integer USING 7));
sqlstate_is($node, 'owned', q(SELECT * FROM nexus_replay('strict')), '42846', 'headers that are a number are none: in a replay');
$node->safe_psql('owned', q(SET ROLE keeper; ALTER TABLE nexus_outbox ALTER key TYPE integer USING 7;
	INSERT INTO nexus_outbox (topic, key, message_id) VALUES ('strict', 7, 'm')));
sqlstate_is($node, 'owned', q(SELECT nexus_produce('strict', '1'::text)), '42804', 'nor is a key, in nexus_produce()');
$node->safe_psql('owned', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'nexus_kafka relay' AND datname = 'owned'));
$node->wait_for_query('owned', q(SELECT state <> 'running' AND last_error ~ 'cannot cast type integer to bytea' FROM nexus_status WHERE kind = 'outbox'));
pass('and in the relay');

no_crash_ok($node);
done_testing();
