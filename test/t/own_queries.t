# The extension's own queries: on its own tables whatever the schemas are called by then,
# with the rights of the tables' owner, and over when the extension is gone.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('own_queries', embedded => 1);

sub sql
{
	my ($db, @statements) = @_;

	return $node->safe_psql($db, join ";\n", @statements);
}

sub not_superuser
{
	my ($role, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql('postgres', qq(SELECT rolsuper FROM pg_roles WHERE rolname = '$role')), 'f', $name);
}

# Makes the role superuser where a superuser calls it.
sub seize_function
{
	my ($role, $name, $returns, $result) = @_;

	return qq(CREATE FUNCTION $name RETURNS $returns LANGUAGE plpgsql AS \$\$
		BEGIN
			IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
				EXECUTE 'ALTER ROLE $role SUPERUSER';
			END IF;
			RETURN $result;
		END \$\$);
}

# ---- the name of the extension's schema becomes another schema's while a query waits for its lock

sql('postgres', 'CREATE ROLE dbo', 'CREATE DATABASE exchanged OWNER dbo');
$node->create_extension('exchanged');
works_ok($node, 'exchanged', 'everything runs');
sql('exchanged', 'SET ROLE dbo', 'CREATE SCHEMA evil', seize_function('dbo', 'evil.seize()', 'boolean', 'false'),
	'CREATE TABLE evil.blocker ()');
my $columns = sql('exchanged', q(SELECT string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attrelid = 'nexus_pipelines'::regclass AND attnum > 0));
sql('exchanged', 'SET ROLE dbo', "CREATE VIEW evil.nexus_pipelines AS SELECT $columns WHERE evil.seize()",
	'CREATE VIEW evil.nexus_identity AS SELECT true AS singleton, system_identifier, 0::oid AS database_oid, 0::oid AS extension_oid FROM pg_control_system() WHERE evil.seize()');

# The owner of the database may do all of this: have a plan made anew, and lock a table by trying to drop it.
sql('exchanged', 'SET ROLE dbo', 'ANALYZE public.nexus_pipelines');
my $gate = $node->background_psql('exchanged');
$gate->query_safe('SET ROLE dbo; BEGIN; LOCK TABLE evil.blocker');
my $drop = $node->background_psql('exchanged', on_error_stop => 0);
$drop->query_until(qr/begun/, "SET ROLE dbo;\n\\echo begun\nDROP TABLE public.nexus_pipelines, evil.blocker;\n");
$node->wait_for_query('exchanged', q(SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DROP TABLE' AND wait_event_type = 'Lock'), 1);
sql('exchanged', 'SELECT public.nexus_resume()');
my $supervisor_waits = q(SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'nexus_kafka supervisor' AND datname = 'exchanged' AND wait_event_type = 'Lock');
$node->wait_for_query('exchanged', $supervisor_waits, 1);
sql('exchanged', 'SET ROLE dbo', 'ALTER SCHEMA public RENAME TO away', 'ALTER SCHEMA evil RENAME TO public');
$gate->query_safe('ROLLBACK');
$node->wait_for_query('exchanged', $supervisor_waits, 0);
$gate->quit;
$drop->quit;
$node->wait_for_query('exchanged', q(SELECT away.nexus_health() ->> 'status'), 'healthy');
not_superuser('dbo', 'the supervisor has asked no planted table');
is(sql('exchanged', q(SELECT count(away.nexus_produce('t', n::text)) FROM generate_series(1, 3) n), 'SELECT away.nexus_flush()'), "3\nt",
	'under the new name everything runs');

# ---- who owns the tables, and not the superuser, gets no superuser's rights by them

sub give_tables
{
	my ($db, $role) = @_;

	return sql($db, qq(DO \$\$ DECLARE r regclass; BEGIN
		FOR r IN SELECT objid FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
			WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'S')
				AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'nexus_kafka')
				AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.objid = c.oid AND i.deptype IN ('i', 'a') AND i.refclassid = 'pg_class'::regclass)
		LOOP EXECUTE format('ALTER TABLE %s OWNER TO $role', r); END LOOP;
	END \$\$));
}

sql('postgres', 'CREATE ROLE keeper', 'CREATE ROLE mallory', 'CREATE DATABASE given');
$node->create_extension('given');
works_ok($node, 'given', 'everything runs');
sql('given', 'ALTER TABLE nexus_outbox OWNER TO keeper');
my $half = q(the tables of extension nexus_kafka belong to different roles);
like(($node->psql('given', q(SELECT nexus_produce('t', '1'))))[2], qr/$half/, 'a single table of another owner is refused');
sql('given', 'ALTER TABLE nexus_outbox OWNER TO CURRENT_USER');
works_ok($node, 'given', 'and with it given back everything goes on');

give_tables('given', 'keeper');
sql('given', 'GRANT CREATE ON SCHEMA public TO keeper', 'SET ROLE keeper',
	'CREATE TABLE ran (place text, who name DEFAULT current_user)',
	seize_function('keeper', 'seize()', 'boolean', 'true'), seize_function('keeper', 'seize_trigger()', 'trigger', 'NULL'),
	'CREATE FUNCTION seize_expression(n bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.seize(); RETURN n; END $$',
	'CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO public.ran VALUES (tg_table_name || $n$ $n$ || tg_op);
			EXECUTE $n$SET search_path = pg_temp$n$;
			RETURN NULL;
		END $$',
	(map { ("CREATE TRIGGER seize AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH STATEMENT EXECUTE FUNCTION seize_trigger()",
		"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH STATEMENT EXECUTE FUNCTION note()",
		"ALTER TABLE $_ FORCE ROW LEVEL SECURITY", "ALTER TABLE $_ ENABLE ROW LEVEL SECURITY", "CREATE POLICY seize ON $_ USING (seize())") }
		qw(nexus_outbox nexus_offsets)),
	'CREATE INDEX ON nexus_outbox (seize_expression(id)) WHERE seize_expression(1) = 1');
sql('given', 'SET ROLE keeper', 'CREATE TABLE kept (n integer)');
sql('given', 'GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb) TO keeper, mallory',
	'SET ROLE keeper',
	q(SELECT nexus_create_pipeline('kept', 'kept', 'INSERT INTO kept SELECT (value #>> ''{}'')::integer FROM nexus_messages()')));
is(sql('given', q(SELECT nexus_produce('kept', '1'::jsonb) ->> 'status'), 'SHOW search_path'), qq(accepted\n"\$user", public),
	'what a trigger sets ends with the query');
$node->wait_rows('given', 'kept', 1);
$node->wait_for_query('given', q(SELECT string_agg(DISTINCT place || ' as ' || who, ', ' ORDER BY place || ' as ' || who) FROM ran),
	'nexus_offsets INSERT as keeper, nexus_offsets UPDATE as keeper, nexus_outbox DELETE as keeper, nexus_outbox INSERT as keeper');
pass('the owner\'s triggers run with the owner\'s rights, in workers and in a superuser\'s session');
not_superuser('keeper', 'the owner of the tables is not superuser');

# What is left for the commit would have the worker's rights.
sql('given', 'SET ROLE keeper', 'CREATE CONSTRAINT TRIGGER late AFTER INSERT ON nexus_outbox DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION seize_trigger()');
sqlstate_is($node, 'given', q(SELECT nexus_produce('kept', '2'::jsonb)), '42501', 'a deferred trigger is refused');
sql('given', 'DROP TRIGGER late ON nexus_outbox');

# The right TRIGGER is not the right to the owner's rights: neither by a function, nor by a
# WHEN clause, nor by what takes the place of a trigger of ours.
sql('given', 'GRANT ALL ON nexus_outbox TO mallory', 'GRANT CREATE ON SCHEMA public TO mallory', 'SET ROLE mallory',
	seize_function('mallory', 'mallory_trigger()', 'trigger', 'NULL'), seize_function('mallory', 'mallory_seizes()', 'boolean', 'false'));
my $harmless = 'FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()';
sql('given', 'GRANT ALL ON nexus_pipelines TO mallory');
sqlstate_is($node, 'given', "SET ROLE mallory; $_", '42501', "refused to who isn't the owner: $_")
	for 'CREATE TRIGGER mallory AFTER INSERT ON nexus_outbox FOR EACH STATEMENT EXECUTE FUNCTION mallory_trigger()',
	"CREATE TRIGGER mallory BEFORE UPDATE ON nexus_pipelines FOR EACH ROW WHEN (mallory_seizes()) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
	"CREATE OR REPLACE TRIGGER nexus_refuse_direct_writes BEFORE UPDATE ON nexus_pipelines $harmless";
sql('given', 'SET ROLE mallory', 'CREATE TABLE hers (n integer)', "CREATE TRIGGER hers BEFORE UPDATE ON hers $harmless");
pass('on a table of her own she may');
sql('given', 'SET ROLE keeper', "CREATE TRIGGER mallory BEFORE UPDATE ON nexus_outbox FOR EACH ROW WHEN (mallory_seizes()) EXECUTE FUNCTION suppress_redundant_updates_trigger()");
like(($node->psql('given', q(SELECT nexus_produce('t', '1'))))[2],
	qr/trigger "mallory" of table "nexus_outbox" has a WHEN clause/, 'a WHEN clause is refused, whoever wrote it');
sql('given', 'DROP TRIGGER mallory ON nexus_outbox', 'SET ROLE keeper',
	'CREATE TRIGGER mallory AFTER INSERT ON nexus_outbox FOR EACH STATEMENT EXECUTE FUNCTION mallory_trigger()');
like(($node->psql('given', q(SELECT nexus_produce('t', '1'))))[2],
	qr/trigger "mallory" of table "nexus_outbox" runs a function of role "mallory"/, 'a trigger of somebody else\'s is refused');
sql('given', 'DROP TRIGGER mallory ON nexus_outbox');
sqlstate_is($node, 'given', q(SELECT nexus_produce('t', '1'::jsonb)), '00000', 'and without it all goes on');
not_superuser('mallory', 'mallory is not superuser');

# ---- the extension goes by its schema, and comes again elsewhere

sql('postgres', 'CREATE DATABASE dropped');
sql('dropped', 'CREATE SCHEMA first', 'CREATE SCHEMA second', 'CREATE EXTENSION nexus_kafka SCHEMA first');
my $session = $node->background_psql('dropped');
like($session->query_safe(q(SELECT first.nexus_produce('t', '1'))), qr/accepted/, 'a session produces');
$node->wait_for_query('dropped', q(SELECT first.nexus_health() ->> 'status'), 'healthy');
sql('dropped', 'DROP SCHEMA first CASCADE');
$node->wait_no_worker($_, 'dropped') for qw(supervisor relay ingest);
pass('DROP SCHEMA … CASCADE ends the workers');
sql('dropped', 'DROP TABLE IF EXISTS second.prospect_tracking', 'CREATE EXTENSION nexus_kafka SCHEMA second');
like($session->query_safe(q(SELECT second.nexus_produce('t', '2'))), qr/accepted/, 'the session produces in the new schema');
$session->quit;
$node->wait_for_query('dropped', q(SELECT second.nexus_health() ->> 'status'), 'healthy');
is(sql('dropped', 'SELECT second.nexus_flush()', 'SELECT count(*) FROM second.nexus_outbox'), "t\n0", 'and it is published');

# The same while the supervisor is at work: it leaves, however the drop comes between its queries.
sql('dropped', 'DROP SCHEMA second CASCADE; CREATE SCHEMA third; CREATE EXTENSION nexus_kafka SCHEMA third');
$node->wait_for_query('dropped', q(SELECT third.nexus_health() ->> 'status'), 'healthy');
pass('dropped and made again in one transaction: it runs');

# ---- a database whose sessions begin as another role

sql('postgres', 'CREATE ROLE app', 'CREATE DATABASE of_app', 'ALTER DATABASE of_app SET role = app');
sql('of_app', 'SET ROLE NONE', 'CREATE EXTENSION nexus_kafka');
$node->wait_for_query('of_app', 'RESET ROLE; SET ROLE NONE; SELECT nexus_health() ->> \'status\'', 'healthy');
sql('of_app', 'SET ROLE NONE', q(SELECT nexus_produce('{"messages": [{"role": "user", "content": "x"}], "sessionId": "of app", "fingerprint": "f"}')));
$node->wait_for_query('of_app', 'SET ROLE NONE; SELECT count(*) FROM prospect_tracking WHERE session_id = \'of app\'', 1);
pass('ALTER DATABASE … SET role is not for the workers');

# ---- or in which any error is the end of the session

sql('postgres', 'CREATE DATABASE short_lived', 'ALTER DATABASE short_lived SET exit_on_error = on');
$node->create_extension('short_lived');
sql('short_lived', q(SELECT nexus_produce('nexus-prospect-ingestion', 'no json'::text)));
$node->wait_rows('short_lived', 'nexus_dead_letters', 1);
works_ok($node, 'short_lived', 'a bad message ends no worker');

no_crash_ok($node);
done_testing();
