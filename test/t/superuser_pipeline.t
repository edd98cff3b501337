# A superuser's pipeline, prospect_tracking first of all: nobody becomes superuser by what
# it writes to, calls or looks at, not as the owner of the table, the schema or the database.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('superuser_pipeline', embedded => 1);
my $columns = 'message_id text PRIMARY KEY, fingerprint_id text, session_id text, messages jsonb, metadata jsonb,
	enqueued_at timestamptz, topic text, partition integer, "offset" bigint';

# Whatever of it runs as a superuser makes mallory one.
my $seize = q(
	CREATE FUNCTION seize(n integer DEFAULT 1) RETURNS integer LANGUAGE plpgsql SET search_path = public, away IMMUTABLE AS $$
	BEGIN PERFORM seize_now(); RETURN n; END $$;
	CREATE FUNCTION seize_now() RETURNS void LANGUAGE plpgsql SET search_path = public, away AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE mallory SUPERUSER; END IF;
	END $$;
	CREATE FUNCTION seize_trigger() RETURNS trigger LANGUAGE plpgsql SET search_path = public, away AS $$ BEGIN PERFORM seize_now(); RETURN new; END $$;
);

sub sql
{
	my ($db, @statements) = @_;

	return $node->safe_psql($db, join ";\n", @statements);
}

# A database of the superuser's with the extension, and of mallory what comes of $seize in the schema public.
sub make_database
{
	my ($db, $owner) = @_;

	sql('postgres', "CREATE DATABASE $db" . ($owner ? " OWNER $owner" : ''));
	sql($db, 'GRANT CREATE ON SCHEMA public TO mallory', 'CREATE EXTENSION nexus_kafka', 'SET ROLE mallory', $seize);
	return;
}

# Why it fails, once that isn't any more that something was missing while it was exchanged.
sub reason
{
	my ($db, $schema, $pipeline) = @_;
	my $status = "FROM $schema.nexus_status WHERE kind = 'pipeline' AND name = '$pipeline'";

	$node->wait_for_query($db, "SELECT state = 'failing' AND reason NOT LIKE '%does not exist%' $status", 't');
	return sql($db, "SELECT reason $status");
}

# The pipeline doesn't take the message in, says why, and mallory is no more than before.
sub refuses_ok
{
	my ($db, $pipeline, $culprit, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	like(reason($db, 'public', $pipeline), qr/the pipeline runs as superuser .*$culprit" belongs to "mallory" \(SQLSTATE 42501\)/, "$name: refused, with the reason");
	is(sql('postgres', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', "$name: mallory is not superuser");
	return;
}

sub takes_in_ok
{
	my ($db, $pipeline, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query($db, $query, $expected);
	is(sql('postgres', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', $name);
	return;
}

sql('postgres', 'CREATE ROLE mallory');

# ---- prospect_tracking: given away, dropped and made again, planted under the schema's old name

make_database('given');
sql('given', 'ALTER TABLE prospect_tracking OWNER TO mallory', 'SET ROLE mallory',
	'CREATE TRIGGER seize BEFORE INSERT ON prospect_tracking FOR EACH ROW EXECUTE FUNCTION seize_trigger()');
my $id = $node->produce('given');
refuses_ok('given', 'prospect_tracking', 'table "prospect_tracking', 'a table that was given away');
sql('given', 'GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_valid_prospect(jsonb) TO mallory',
	q(SELECT nexus_alter_pipeline('prospect_tracking', options => '{"run_as": "mallory"}')));
takes_in_ok('given', 'prospect_tracking', "SELECT count(*) FROM prospect_tracking WHERE message_id = '$id'", 1,
	'with run_as the owner it is filled');

make_database('remade', 'mallory');
sql('remade', 'SET ROLE mallory', 'DROP TABLE prospect_tracking',
	"CREATE TABLE prospect_tracking ($columns, n integer DEFAULT seize(), CHECK (seize(1) = 1))",
	'CREATE TRIGGER seize BEFORE INSERT ON prospect_tracking FOR EACH ROW EXECUTE FUNCTION seize_trigger()',
	'CREATE INDEX ON prospect_tracking (seize(partition))');
$node->produce('remade');
refuses_ok('remade', 'prospect_tracking', '(?:table "prospect_tracking|function "seize)', 'a table that the owner of the database has put there');

make_database('renamed', 'mallory');
sql('renamed', 'SET ROLE mallory', 'ALTER SCHEMA public RENAME TO away', 'CREATE SCHEMA public',
	"CREATE TABLE public.prospect_tracking ($columns)",
	q(CREATE FUNCTION public.nexus_messages(OUT topic text, OUT partition integer, OUT "offset" bigint, OUT "timestamp" timestamptz,
		OUT key text, OUT value jsonb, OUT headers jsonb) RETURNS SETOF record LANGUAGE plpgsql AS $$
		BEGIN PERFORM away.seize(); RETURN; END $$),
	q(CREATE FUNCTION public.nexus_valid_prospect(value jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT away.seize() = 1'));
sql('renamed', q(SELECT away.nexus_produce('{"messages":[{"role":"user","content":"x"}],"sessionId":"s","fingerprint":"f"}'::jsonb)));
like(reason('renamed', 'away', 'prospect_tracking'), qr/belongs to "mallory"/,
	'functions under the schema\'s old name: refused, with the reason');
is(sql('postgres', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', 'mallory is not superuser');

# ---- other pipelines of a superuser: what they write to, read and call

make_database('others');
sql('others', 'CREATE TABLE mine (n integer)', 'GRANT TRIGGER ON mine TO mallory', 'CREATE TABLE log (n integer)', 'GRANT INSERT, SELECT ON log TO mallory');
sql('others', 'SET ROLE mallory', 'CREATE TABLE theirs (n integer, d text DEFAULT pg_read_file($x$PG_VERSION$x$))',
	'CREATE TABLE ruled (n integer)', 'CREATE RULE r AS ON INSERT TO ruled DO INSTEAD SELECT seize()',
	'CREATE VIEW view AS SELECT pg_read_file($x$PG_VERSION$x$) AS text', 'CREATE VIEW writable AS SELECT n FROM log',
	'CREATE TABLE plain AS SELECT 7 AS n', 'GRANT SELECT ON plain TO PUBLIC',
	'CREATE FUNCTION inlined() RETURNS text LANGUAGE sql STABLE AS $$ SELECT pg_read_file($x$PG_VERSION$x$) $$',
	'CREATE PROCEDURE proc(n integer) LANGUAGE plpgsql AS $$ BEGIN PERFORM seize_now(); END $$',
	'CREATE FUNCTION logged(n integer) RETURNS integer LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO log VALUES (n) RETURNING n $$',
	'CREATE FUNCTION plus(a text, b text) RETURNS text LANGUAGE sql AS $$ SELECT seize()::text $$',
	'CREATE OPERATOR ||| (FUNCTION = plus, LEFTARG = text, RIGHTARG = text)', 'CREATE DOMAIN dom AS text CHECK (seize() = 1)');
sql('others', 'CREATE FUNCTION mine(n integer) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO theirs VALUES (n); END $$');
my %refused = (
	default => [ 'INSERT INTO theirs SELECT 1 FROM nexus_messages()', 'table "theirs' ],
	update => [ 'UPDATE theirs SET n = 2 FROM nexus_messages()', 'table "theirs' ],
	delete => [ 'DELETE FROM theirs USING nexus_messages()', 'table "theirs' ],
	with => [ 'WITH x AS (INSERT INTO theirs SELECT 1 FROM nexus_messages() RETURNING n) INSERT INTO mine SELECT n FROM x', 'table "theirs' ],
	rule => [ 'INSERT INTO ruled SELECT 1 FROM nexus_messages()', '(?:table "ruled|function "seize)' ],
	view => [ 'INSERT INTO log SELECT 1 FROM nexus_messages(), view', 'view "view' ],
	writable => [ 'INSERT INTO writable SELECT 1 FROM nexus_messages()', 'view "writable' ],
	function => [ 'SELECT seize(1) FROM nexus_messages()', 'function "seize' ],
	inlined => [ 'SELECT inlined() FROM nexus_messages()', 'function "inlined' ],
	operator => [ 'SELECT key ||| key FROM nexus_messages()', 'function "plus' ],
	domain => [ 'SELECT key::dom FROM nexus_messages()', 'domain "dom' ],
	definer => [ 'INSERT INTO log SELECT logged(1) FROM nexus_messages()', 'function "logged' ],
	called => [ 'SELECT mine(1) FROM nexus_messages()', 'table "theirs' ],
	procedure => [ 'DO $do$ BEGIN PERFORM FROM nexus_messages(); CALL proc(1); END $do$', 'procedure "proc' ]);
for my $name (sort keys %refused)
{
	# A statement that is refused when it is planned is refused when the pipeline is made; so it is put in by hand.
	sql('others', qq(INSERT INTO nexus_pipelines (name, topic, statement) VALUES ('$name', 'others', \$s\$$refused{$name}[0]\$s\$)), "SELECT nexus_resume('$name')");
}
sql('others', q(SELECT nexus_create_pipeline('plain', 'others', 'INSERT INTO log SELECT n FROM plain, nexus_messages()')),
	q(SELECT nexus_create_pipeline('mine', 'others', 'INSERT INTO mine SELECT 1 FROM nexus_messages()')));
sql('others', q(SELECT nexus_produce('others', '1'::jsonb, key => 'k')));
refuses_ok('others', $_, $refused{$_}[1], $_) for sort keys %refused;
takes_in_ok('others', 'plain', 'SELECT count(*) FROM log', 1, 'a table that is only read may be anybody\'s');
takes_in_ok('others', 'mine', 'SELECT count(*) FROM mine', 1, 'a table of the superuser\'s is filled');
sql('others', 'SET ROLE mallory', 'CREATE TRIGGER seize BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION seize_trigger()');
sql('others', q(SELECT nexus_produce('others', '1'::jsonb, key => 'k')));
refuses_ok('others', 'mine', 'function "seize_trigger', 'a trigger of one who may make triggers on it');
is(sql('others', 'SELECT count(*) FROM theirs'), 0, 'nothing was written to the tables of others');

no_crash_ok($node);
done_testing();
