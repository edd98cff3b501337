# Attacks by roles that are not superusers: from inside a pipeline's statement, wherever
# code of theirs runs there; against the functions that write with their owner's rights;
# against the table of pipelines. And by those who only send messages.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('attacks', embedded => 1);

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub not_superuser
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql(q(SELECT count(*) FROM pg_roles WHERE rolname IN ('mallory', 'operator') AND rolsuper)), 0, $name);
}

$node->create_extension('postgres');
my $superuser = sql('SELECT current_user');

# ---- inside a pipeline's statement

# Each must fail, wherever it is tried. (@: the superuser)
my @forbidden = map { s/@/$superuser/gr } (
	'SET ROLE "@"', 'SET ROLE NONE', 'RESET ROLE', 'SET LOCAL ROLE "@"',
	'SET SESSION AUTHORIZATION "@"', 'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION',
	q(SELECT set_config('role', '@', false)), q(SELECT set_config('session_authorization', '@', true)),
	'ALTER FUNCTION mallory.harmless() SET role = "@"', 'ALTER FUNCTION mallory.harmless() OWNER TO "@"',
	'ALTER ROLE mallory SUPERUSER', 'GRANT "@" TO mallory', 'CREATE ROLE accomplice SUPERUSER',
	q(COPY (SELECT 1) TO PROGRAM 'true'), q(COPY mallory.target FROM '/etc/passwd'), q(SELECT pg_read_file('PG_VERSION')),
	q(SELECT lo_import('/etc/passwd')),
	q(CREATE FUNCTION mallory.c() RETURNS jsonb LANGUAGE c AS '$libdir/nexus_kafka', 'nexus_produce_prospect'),
	'ALTER SYSTEM SET log_statement = \'all\'', q(SET log_statement = 'none'), 'SET session_replication_role = replica',
	q(SET nexus_kafka.topic = 'mine'), 'SET nexus_kafka.mine = 1', q(LOAD '/tmp/mine.so'),
	'SELECT * FROM public.nexus_outbox', 'SELECT * FROM public.nexus_dead_letters',
	'UPDATE public.nexus_offsets SET "offset" = 0', q(UPDATE public.nexus_pipelines SET run_as = '@'),
	q(INSERT INTO public.nexus_topic_rights VALUES ('mallory', '*')), 'SELECT public.nexus_resume()',
	q(SELECT public.nexus_pause('mallory')), q(SELECT public.nexus_alter_pipeline('mallory', topic => 'other')),
	'SELECT pg_terminate_backend(pg_backend_pid())', 'SELECT pg_cancel_backend(pg_backend_pid())',
	'DISCARD ALL', 'COMMIT', 'LISTEN mine', 'DROP EXTENSION nexus_kafka', 'DROP TABLE public.nexus_offsets');

# Each may be done, and must not matter to the batches that follow: the worker's own queries work as before.
my @littering = (
	(map { "CREATE TEMP TABLE IF NOT EXISTS $_ (name text, pipeline text, topic text)" } qw(nexus_offsets nexus_pipelines nexus_dead_letters pg_extension)),
	'CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false)',
	'CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE plpgsql AS \'BEGIN RAISE EXCEPTION $c$called$c$; END\'',
	'CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS \'BEGIN RAISE EXCEPTION $c$called$c$; END\'',
	'SET search_path = pg_temp, mallory', 'SET default_transaction_read_only = on',
	'SET default_transaction_isolation = serializable', 'SET default_transaction_deferrable = on',
	'SET standard_conforming_strings = off', 'SET transform_null_equals = on', q(SET "TimeZone" = 'Asia/Tokyo'),
	q(SET "DateStyle" = 'German'), 'SET bytea_output = escape', 'SET enable_indexscan = off',
	'SET synchronous_commit = on', q(SET application_name = 'nobody'),
	'SELECT pg_advisory_lock(pg_backend_pid())', 'PREPARE mine AS SELECT 1',
	'DECLARE mine CURSOR WITH HOLD FOR SELECT mallory.note(\'cursor\')');

sub array { return 'ARRAY[' . join(', ', map { "\$x\$$_\$x\$" } @_) . ']' }

sql('CREATE ROLE mallory', 'GRANT CREATE ON DATABASE postgres TO mallory',
	'GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb) TO mallory');
sql('SET ROLE mallory', 'CREATE SCHEMA mallory', 'SET search_path = mallory',
	'CREATE TABLE attempts (place text, what text, result text, who name DEFAULT current_user)',
	'CREATE FUNCTION harmless() RETURNS void LANGUAGE sql RETURN NULL',
	'CREATE FUNCTION note(place text) RETURNS text LANGUAGE sql AS $$
		INSERT INTO mallory.attempts VALUES (place, $n$it runs$n$, $n$as$n$) RETURNING place $$',
	# A try that works is undone by its own name as an error, but litter stays.
	'CREATE FUNCTION attack(place text) RETURNS boolean LANGUAGE plpgsql AS $$
		DECLARE what text; result text;
		BEGIN
			PERFORM mallory.note(place);
			FOREACH what IN ARRAY ' . array(@forbidden) . ' LOOP
				BEGIN
					EXECUTE what;
					result := $x$succeeded$x$;
				EXCEPTION WHEN OTHERS THEN result := SQLSTATE; END;
				INSERT INTO mallory.attempts VALUES (place, what, result);
			END LOOP;
			RETURN true;
		END $$',
	'CREATE FUNCTION litter() RETURNS void LANGUAGE plpgsql AS $$
		DECLARE what text; result text;
		BEGIN
			FOREACH what IN ARRAY ' . array(@littering) . ' LOOP
				BEGIN EXECUTE what; EXCEPTION WHEN duplicate_object OR duplicate_function OR duplicate_cursor OR duplicate_prepared_statement THEN NULL; END;
			END LOOP;
			SET search_path = mallory;
		END $$',
	# Code that PostgreSQL runs by itself.
	'CREATE FUNCTION of_index(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM mallory.attack($x$index$x$); RETURN n; END $$',
	'CREATE FUNCTION of_cast(t mallory.attempts) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.attack($x$cast$x$); RETURN 1; END $$',
	'CREATE CAST (mallory.attempts AS integer) WITH FUNCTION of_cast(mallory.attempts)',
	'CREATE FUNCTION of_operator(a integer, b integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.attack($x$operator$x$); RETURN a; END $$',
	'CREATE OPERATOR ||| (FUNCTION = of_operator, LEFTARG = integer, RIGHTARG = integer)',
	'CREATE DOMAIN checked AS integer CHECK (mallory.attack($x$domain$x$))',
	'CREATE FUNCTION of_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.attack(tg_name); RETURN new; END $$',
	'CREATE FUNCTION of_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.attack(tg_name); PERFORM mallory.litter(); RETURN new; END $$',
	'CREATE TABLE target (n integer CHECK (mallory.attack($x$check$x$)), d checked, o integer, t integer,
		b boolean DEFAULT mallory.attack($x$default$x$))',
	'CREATE INDEX ON target (of_index(n))',
	'ALTER TABLE target ENABLE ROW LEVEL SECURITY', 'ALTER TABLE target FORCE ROW LEVEL SECURITY',
	'CREATE POLICY p ON target WITH CHECK (mallory.attack($x$policy$x$))',
	'CREATE TRIGGER before BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION of_trigger()',
	'CREATE TRIGGER after AFTER INSERT ON target FOR EACH STATEMENT EXECUTE FUNCTION of_trigger()',
	'CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON target DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION of_commit()',
	'CREATE RULE r AS ON INSERT TO target DO ALSO SELECT mallory.attack($x$rule$x$)',
	q(SELECT public.nexus_create_pipeline('mallory', 'mallory', $$
		INSERT INTO target (n, d, o, t)
		SELECT (value ->> 'n')::integer, (value ->> 'n')::integer, (value ->> 'n')::integer ||| 1,
			ROW('', '', '', '')::attempts::integer
		FROM public.nexus_messages() WHERE attack('where') $$)));
for my $n (1 .. 3)
{
	sql("SELECT nexus_produce('mallory', '{\"n\": $n}'::jsonb, partition => 0)");
	$node->consume('postgres', 'mallory');
	is(sql('SELECT count(*) FROM mallory.target'), $n, "batch $n is taken in, whatever the last one left behind");
}
is(sql(q(SELECT DISTINCT "offset" FROM nexus_partitions WHERE pipeline = 'mallory' AND partition = 0)), 3, 'offsets move');
is(sql('SELECT DISTINCT who FROM mallory.attempts'), 'mallory', 'all code ran as the pipeline\'s role');
is(sql(q(SELECT string_agg(DISTINCT place, ' ' ORDER BY place) FROM mallory.attempts)),
	'after before cast check cursor default deferred domain index operator policy rule where', 'in all places');
is(sql(q(SELECT string_agg(DISTINCT place || ': ' || what, '; ') FROM mallory.attempts WHERE result = 'succeeded')), '',
	'and nothing that is forbidden succeeded');
is(sql('SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');
not_superuser('mallory is not superuser');

# What a message that fails leaves behind, by a replay too.
sql('SET ROLE mallory', 'ALTER TABLE mallory.target ADD CONSTRAINT four CHECK (n <> 4)');
sql(q(SELECT nexus_produce('mallory', '{"n": 4}'::jsonb, partition => 0)));
$node->consume('postgres', 'mallory');
sql('ALTER TABLE mallory.target DROP CONSTRAINT four');
is(sql(q(SELECT * FROM nexus_replay('mallory'))), '1|0', 'a dead letter is replayed');
is(sql(q(SELECT string_agg(DISTINCT place || ': ' || what, '; ') FROM mallory.attempts WHERE result = 'succeeded')), '',
	'nothing succeeded in the replay\'s worker');
is(sql('SELECT DISTINCT who FROM mallory.attempts'), 'mallory', 'where all code ran as the pipeline\'s role');
not_superuser('mallory is not superuser');

# ---- against the functions that write with their owner's rights

sql('CREATE ROLE operator', 'GRANT CREATE ON SCHEMA public TO operator', 'GRANT mallory TO operator',
	q(DO $$
		DECLARE f regprocedure;
		BEGIN
			FOR f IN SELECT oid FROM pg_proc WHERE proname ~ '^nexus_' LOOP
				EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO operator', f);
			END LOOP;
		END $$),
	'GRANT SELECT ON nexus_status, nexus_partitions TO operator', q(INSERT INTO nexus_topic_rights VALUES ('operator', '*')));

# Whatever has a name and can be found first: types, functions and operators that become superuser when a superuser uses them.
my $trap = q(CREATE FUNCTION %s.seize() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE operator SUPERUSER; END IF;
		RETURN true;
	END $$);
my @types = map { "CREATE DOMAIN %s.$_ AS pg_catalog.$_ CHECK (%s.seize())" } qw(text name int4 int8 bytea jsonb timestamptz bool oid regrole);
my @functions = map { "CREATE FUNCTION %s.$_ LANGUAGE plpgsql AS \$\$ BEGIN PERFORM %s.seize(); RETURN NULL; END \$\$" }
  ('now() RETURNS pg_catalog.timestamptz', 'clock_timestamp() RETURNS pg_catalog.timestamptz', 'count(a pg_catalog.int8) RETURNS pg_catalog.int8',
	'max(a pg_catalog.int8) RETURNS pg_catalog.int8', 'unnest(a pg_catalog.int8[]) RETURNS pg_catalog.int8',
	'starts_with(a pg_catalog.text, b pg_catalog.text) RETURNS pg_catalog.bool',
	'trap(a pg_catalog.text, b pg_catalog.text) RETURNS pg_catalog.bool', 'trap(a pg_catalog.int8, b pg_catalog.int8) RETURNS pg_catalog.bool',
	'trap(a pg_catalog.int4, b pg_catalog.int4) RETURNS pg_catalog.bool');
my @operators = map { my $type = $_; map { "CREATE OPERATOR %s.$_ (FUNCTION = %s.trap, LEFTARG = pg_catalog.$type, RIGHTARG = pg_catalog.$type)" }
	  qw(= <> < > <= >=) } qw(text int8 int4);
my @calls = (
	q(public.nexus_produce('t', 'v'::pg_catalog.text)), q(public.nexus_produce_now('t', 'v'::pg_catalog.text)),
	q(public.nexus_produce('{"messages":[{"role":"user","content":"x"}],"sessionId":"s","fingerprint":"f"}'::pg_catalog.jsonb)),
	q(public.nexus_flush()),
	q(public.nexus_create_pipeline('p', 'p', 'SELECT FROM public.nexus_messages()')), q(public.nexus_pause('p')),
	q(public.nexus_seek('p', 'earliest'::pg_catalog.text, 'p'::pg_catalog.text, 3)), q(public.nexus_resume('p')),
	q(public.nexus_consume('p')), q(public.nexus_replay('p')),
	q(public.nexus_alter_pipeline('p', options => '{"workers": 2}')), q(public.nexus_drop_pipeline('p')),
	q(public.nexus_resume()), q((SELECT pg_catalog.count(*) FROM public.nexus_topics())),
	q((SELECT pg_catalog.count(*) FROM public.nexus_status)), q((SELECT pg_catalog.count(*) FROM public.nexus_partitions)),
	q(public.nexus_health()));
for my $schema (qw(pg_temp traps))
{
	my @traps = map { s/%s/$schema/gr } $trap, @types, @functions, $schema eq 'pg_temp' ? () : @operators;
	my @before = $schema eq 'pg_temp' ? @traps : 'SET search_path = traps, pg_catalog, public';

	sql('CREATE SCHEMA traps AUTHORIZATION operator', 'SET ROLE operator', @traps) if $schema eq 'traps';
	for my $call (@calls, "public.nexus_create_topic('made-$schema'::pg_catalog.text)")
	{
		sqlstate_is($node, 'postgres', join(";\n", 'SET ROLE operator', @before, "SELECT $call"), '00000', "with traps in $schema: $call");
	}
	not_superuser("none of the functions fell into a trap in $schema");
}

# A superuser who makes or changes the pipeline of another is left with nothing of theirs.
sql('SET ROLE mallory', 'CREATE FUNCTION mallory.settle(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN PERFORM set_config($x$search_path$x$, $x$mallory$x$, false); RETURN n; END $$');
is(sql(q(SELECT nexus_create_pipeline('p', 'p', 'SELECT mallory.settle(1) FROM public.nexus_messages()', '{"run_as": "mallory"}')),
	'SHOW search_path', q(SELECT nexus_drop_pipeline('p'))), "\n\"\$user\", public\n", 'what planning a statement sets is not left behind');
sqlstate_is($node, 'postgres',
	qq(SET ROLE operator; SELECT nexus_create_pipeline('p', 'p', 'SELECT FROM nexus_messages()', '{"run_as": "$superuser"}')), '42501',
	'nobody lets a pipeline run as a role whose rights they have not');
sqlstate_is($node, 'postgres',
	qq(SET ROLE operator; SELECT nexus_alter_pipeline('mallory', options => '{"run_as": "$superuser"}')), '42501',
	'nor changes one to it');

# ---- against the table of pipelines

sql('CREATE ROLE writer IN ROLE pg_write_all_data, pg_read_all_data');
for my $statement (
	qq(INSERT INTO nexus_pipelines (name, topic, statement, run_as) VALUES ('w', 'w', 'ALTER ROLE writer SUPERUSER', '$superuser')),
	q(UPDATE nexus_pipelines SET statement = 'ALTER ROLE writer SUPERUSER'), 'DELETE FROM nexus_pipelines',
	q(INSERT INTO nexus_pipelines SELECT * FROM nexus_pipelines ON CONFLICT (name) DO UPDATE SET statement = ''))
{
	sqlstate_is($node, 'postgres', "SET ROLE writer; $statement", '42501', "pg_write_all_data is not enough for: $statement");
}

# ---- by messages

sql('CREATE TABLE notes (key text PRIMARY KEY, value text, headers jsonb)', 'CREATE TABLE sent (key text, value text, headers jsonb)',
	q(SELECT nexus_create_pipeline('notes', 'notes', 'INSERT INTO notes SELECT key, value #>> ''{}'', headers FROM nexus_messages()')));
my @hostile = (q('; DROP TABLE notes; --), q($$; DROP TABLE notes; $$), q(\\'; DROP TABLE notes; --), q(" OR "1"="1), q(E'\\x27'), '%s%n%d',
	q(`rm -rf /`), q(\! touch /tmp/x), q(:'var' :x), "\t\r\n\x1b[2J", '\\N', '\\.', '{"a": 1}', '@nexus_outbox', '$1');
for my $text (@hostile)
{
	sql(qq(INSERT INTO sent VALUES (\$q\$$text\$q\$, \$q\$$text\$q\$, jsonb_build_object(\$q\$$text\$q\$, \$q\$$text\$q\$))));
}
sql(q(SELECT nexus_produce('notes', to_jsonb(value), key, headers) FROM sent),
	q(SELECT nexus_produce('notes', to_jsonb(value || ' twice'), key, headers) FROM sent));
$node->consume('postgres', 'notes');
is(sql('SELECT count(*) FROM sent JOIN notes n USING (key, value) WHERE n.headers @> sent.headers'), scalar @hostile,
	'hostile texts arrive as they are');
is(sql(q(SELECT count(*) FROM sent JOIN nexus_dead_letters d ON d.key = convert_to(sent.key, 'UTF8') AND d.value = convert_to(to_jsonb(sent.value || ' twice')::text, 'UTF8')
	WHERE d.headers @> sent.headers AND d.sqlstate = '23505' AND strpos(d.detail, sent.key) > 0)), scalar @hostile,
	'and as dead letters, with errors that quote them');
sql('DELETE FROM notes');
is(sql(q(SELECT * FROM nexus_replay('notes'))), scalar(@hostile) . '|0', 'from where they are replayed');
is(sql(q(SELECT count(*) FROM sent JOIN notes n ON n.key = sent.key AND n.value = sent.value || ' twice' WHERE n.headers @> sent.headers)),
	scalar @hostile, 'as they are');

no_crash_ok($node);
done_testing();
