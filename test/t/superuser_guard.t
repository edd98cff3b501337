# While a statement has a superuser's rights, or those of a role as good as one, nothing of
# anybody else's runs or is planned: each attack here makes mallory superuser, or writes a
# file into the server's directory, if it works. The error names what it is, and whose. The
# same, of a superuser's own, works.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('superuser_guard', embedded => 1);
my $to_file = q(lo_export(lo_from_bytea(0, 'x'), 'seized'));

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub nothing_seized_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql(q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'), q(SELECT count(*) FROM pg_ls_dir('.') d WHERE d = 'seized')),
		"f\n0", "$name: nothing is seized");
	sql('ALTER ROLE mallory NOSUPERUSER');
	unlink $node->data_dir . '/seized';
	return;
}

# By hand: what is refused when it is planned is refused when the pipeline is made.
sub add_pipeline
{
	my ($name, $statement, $run_as) = @_;

	my $role = $run_as ? "'$run_as'" : 'current_user';

	sql(qq(INSERT INTO nexus_pipelines (name, topic, statement, run_as) VALUES ('$name', 'a', \$s\$$statement\$s\$, $role)),
		"SELECT nexus_resume('$name')");
	return;
}

# What becomes of the message: the reason of the failure, or 'taken in'.
sub outcome
{
	my ($name) = @_;
	my $taken_in = qq(EXISTS (SELECT FROM nexus_partitions WHERE pipeline = '$name' AND "offset" > 0));
	my $status = "FROM nexus_status WHERE kind = 'pipeline' AND name = '$name'";

	$node->wait_for_query('postgres', "SELECT state = 'failing' OR $taken_in $status", 't');
	return sql("SELECT CASE WHEN $taken_in THEN 'taken in' ELSE reason END $status");
}

sub drop_pipelines { return sql('SELECT nexus_drop_pipeline(name) FROM nexus_pipelines WHERE name <> $$prospect_tracking$$') }

sub refuses_ok
{
	my ($name, $culprit, $role) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$role //= 'postgres';
	like(outcome($name), qr/the pipeline runs as (?:superuser )?"$role".*, but $culprit.* \(SQLSTATE 42501\)/,
		"$name: refused, with the reason");
	nothing_seized_ok($name);
	return;
}

$node->create_extension('postgres');
sql('CREATE ROLE mallory', 'GRANT CREATE ON SCHEMA public TO mallory', 'CREATE EXTENSION postgres_fdw',
	'GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO mallory');
sql('SET ROLE mallory', q(
	CREATE FUNCTION seize(n integer DEFAULT 1) RETURNS integer LANGUAGE plpgsql IMMUTABLE SET search_path = public AS $$
	BEGIN PERFORM seize_now(); RETURN n; END $$;
	CREATE FUNCTION seize_now() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN ALTER ROLE mallory SUPERUSER; END IF;
	END $$;
	CREATE FUNCTION simple(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT n + seize(n)';
	CREATE FUNCTION invoker_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM seize(); RETURN COALESCE(new, old); END $$;
	CREATE FUNCTION leave_cursor() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
	BEGIN
		BEGIN EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT seize()'; EXCEPTION WHEN duplicate_cursor THEN NULL; END;
		RETURN 1;
	END $$;
	CREATE FUNCTION cursor_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
	BEGIN PERFORM leave_cursor(); RETURN COALESCE(new, old); END $$;
));

# ---- what a superuser's statement touches, of mallory's

my (%statement, %culprit);

sub attack
{
	my ($name, $statement, $culprit, @setup) = @_;

	$statement{$name} = $statement;
	$culprit{$name} = $culprit;
	my @mine = map { /^mallory: (.*)/s ? ('SET ROLE mallory', $1, 'RESET ROLE') : $_ } @setup;
	sql(@mine) if @mine;
	return;
}

attack('held', 'INSERT INTO held SELECT 1 FROM nexus_messages()', 'function "cursor_trigger" belongs to "mallory"',
	'CREATE TABLE held (n integer)', 'GRANT TRIGGER ON held TO mallory',
	'mallory: CREATE TRIGGER t AFTER INSERT ON held FOR EACH ROW EXECUTE FUNCTION cursor_trigger()');
attack('deferred', 'INSERT INTO deferred SELECT 1 FROM nexus_messages()', 'function "cursor_trigger" belongs to "mallory"',
	'CREATE TABLE deferred (n integer)', 'GRANT TRIGGER ON deferred TO mallory',
	'mallory: CREATE CONSTRAINT TRIGGER t AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cursor_trigger()');
attack('cascade', 'DELETE FROM parent USING nexus_messages()', 'table "child" belongs to "mallory"',
	'CREATE TABLE parent (n integer PRIMARY KEY)', 'INSERT INTO parent VALUES (1)', 'GRANT REFERENCES, SELECT ON parent TO mallory',
	'mallory: CREATE TABLE child (n integer REFERENCES parent ON DELETE CASCADE)', 'mallory: INSERT INTO child VALUES (1)',
	'mallory: CREATE TRIGGER t BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION cursor_trigger()');
attack('definer', 'SELECT leave_cursor() FROM nexus_messages()', 'function "leave_cursor" belongs to "mallory"');
attack('cached', 'INSERT INTO cached SELECT 1 FROM nexus_messages() RETURNING helper(n)', 'function "cached_trigger" belongs to "mallory"',
	'CREATE TABLE cached (n integer)', 'GRANT TRIGGER ON cached TO mallory',
	'CREATE FUNCTION helper(n integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN seize(n); END $$',
	'mallory: CREATE FUNCTION cached_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM helper(1); RETURN new; END $$',
	'mallory: CREATE TRIGGER t BEFORE INSERT ON cached FOR EACH ROW EXECUTE FUNCTION cached_trigger()');
attack('domain', 'SELECT key::dom FROM nexus_messages()', 'domain "dom" belongs to "mallory"',
	"mallory: CREATE DOMAIN dom AS text CHECK ($to_file = 1)");
attack('domain_column', 'INSERT INTO domained SELECT key FROM nexus_messages()', 'domain "dom" belongs to "mallory"',
	'CREATE TABLE domained (d dom)');
attack('domain_in_json', q(SELECT json_populate_record(NULL::domained, '{"d": "x"}') FROM nexus_messages()), 'domain "dom" belongs to "mallory"');
attack('domain_inside', 'SELECT with_variable(key) FROM nexus_messages()', 'domain "dom" belongs to "mallory"',
	'CREATE FUNCTION with_variable(v text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE d dom; BEGIN d := v; RETURN d; END $$');
my $rewrite = qq(SELECT 'a'::tsquery, 'b'::tsquery FROM (SELECT $to_file OFFSET 0) x) =~ s/'/''/gr;
attack('aggregate', "SELECT agg('$rewrite') FROM nexus_messages()", 'aggregate "agg" belongs to "mallory"',
	q(mallory: CREATE AGGREGATE agg(text) (SFUNC = ts_rewrite, STYPE = tsquery, INITCOND = 'a')));
attack('operator', "SELECT 'a'::tsquery |&| '$rewrite'::text FROM nexus_messages()", 'operator "\|&\|" belongs to "mallory"',
	'mallory: CREATE OPERATOR |&| (FUNCTION = ts_rewrite, LEFTARG = tsquery, RIGHTARG = text)');
attack('partition', 'INSERT INTO parted SELECT 1 FROM nexus_messages()', 'table "part" belongs to "mallory"',
	'CREATE TABLE parted (n integer) PARTITION BY RANGE (n)', 'CREATE TABLE part PARTITION OF parted DEFAULT', 'ALTER TABLE part OWNER TO mallory',
	"mallory: ALTER TABLE part ADD CHECK ($to_file = 1) NOT VALID");
attack('inherited', 'UPDATE ancestor SET n = 2 FROM nexus_messages()', 'table "heir" belongs to "mallory"',
	'CREATE TABLE ancestor (n integer)', 'CREATE TABLE heir () INHERITS (ancestor)', 'INSERT INTO heir VALUES (1)', 'ALTER TABLE heir OWNER TO mallory',
	'mallory: CREATE TRIGGER t BEFORE UPDATE ON heir FOR EACH ROW EXECUTE FUNCTION cursor_trigger()');
attack('partition_key', 'SELECT count(*) FROM by_key, nexus_messages() WHERE n = 1', 'function "seize" belongs to "mallory"',
	'mallory: CREATE TABLE by_key (n integer) PARTITION BY RANGE (seize(n))', 'mallory: CREATE TABLE by_key_1 PARTITION OF by_key DEFAULT');
attack('index', 'SELECT count(*) FROM indexed, nexus_messages()', 'function "seize" belongs to "mallory"',
	'mallory: CREATE TABLE indexed (n integer)', 'mallory: CREATE INDEX ON indexed (seize(1))');
attack('statistics', 'SELECT count(*) FROM counted, nexus_messages()', 'function "seize" belongs to "mallory"',
	'mallory: CREATE TABLE counted (n integer)', 'mallory: CREATE STATISTICS s ON (seize(n)) FROM counted');
attack('condition', 'INSERT INTO conditional SELECT 1 FROM nexus_messages()',
	'the condition of trigger "t" on table "conditional" of "postgres" calls function "lo_\w+"',
	'CREATE TABLE conditional (n integer)', 'GRANT TRIGGER ON conditional TO mallory',
	"mallory: CREATE TRIGGER t BEFORE INSERT ON conditional FOR EACH ROW WHEN ($to_file = 1) EXECUTE FUNCTION suppress_redundant_updates_trigger()");
attack('condition_reads', 'INSERT INTO conditional_too SELECT 1 FROM nexus_messages()',
	'the condition of trigger "t" on table "conditional_too" of "postgres" calls function "table_to_xml"',
	'CREATE TABLE conditional_too (n integer)', 'GRANT TRIGGER ON conditional_too TO mallory',
	"mallory: CREATE TRIGGER t BEFORE INSERT ON conditional_too FOR EACH ROW WHEN (table_to_xml('pg_authid'::regclass, false, false, '')::text::integer > 0) EXECUTE FUNCTION suppress_redundant_updates_trigger()");
# The statement calls the same function: so it is known as one that a superuser's text calls.
attack('condition_of_partition', "INSERT INTO whole SELECT 1 FROM nexus_messages() WHERE lo_from_bytea(0, 'x') > 0::oid",
	'the condition of trigger "t" on table "whole_1" of "postgres" calls function "lo_from_bytea"',
	'CREATE TABLE whole (n integer) PARTITION BY RANGE (n)', 'CREATE TABLE whole_1 PARTITION OF whole DEFAULT', 'GRANT TRIGGER ON whole_1 TO mallory',
	"mallory: CREATE TRIGGER t BEFORE INSERT ON whole_1 FOR EACH ROW WHEN (lo_from_bytea(0, 'x') = 0::oid) EXECUTE FUNCTION suppress_redundant_updates_trigger()");
attack('domain_reads', 'SELECT with_reading(key) FROM nexus_messages()', 'domain "reading" belongs to "mallory"',
	"mallory: CREATE DOMAIN reading AS text CHECK (table_to_xml('pg_authid'::regclass, false, false, '')::text <> '')",
	'CREATE FUNCTION with_reading(v text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE d reading; BEGIN d := v; RETURN d; END $$');
attack('nested', q(DO $d$ BEGIN PERFORM FROM nexus_messages();
	PERFORM nexus_create_pipeline('inner', 'a', 'SELECT public.seize()', '{"run_as": "mallory"}'); PERFORM seize(); END $d$),
	'function "seize" belongs to "mallory"');
attack('copied', q(DO $d$ BEGIN PERFORM FROM nexus_messages(); COPY copied FROM PROGRAM 'echo 1'; END $d$),
	'the condition of trigger "t" on table "copied"',
	'CREATE TABLE copied (n integer)', 'GRANT TRIGGER ON copied TO mallory',
	"mallory: CREATE TRIGGER t AFTER INSERT ON copied FOR EACH ROW WHEN ($to_file = 1) EXECUTE FUNCTION invoker_trigger()");
attack('truncated', q(DO $d$ BEGIN PERFORM FROM nexus_messages(); TRUNCATE truncated; END $d$), 'table "truncated" belongs to "mallory"',
	'mallory: CREATE TABLE truncated (n integer)');
attack('range', "SELECT '[a,b)'::span && '[b,c)' FROM nexus_messages()", '(?:type "span|function "difference)" belongs to "mallory"',
	'mallory: CREATE FUNCTION difference(a text, b text) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM seize(); RETURN 1; END $$',
	'mallory: CREATE TYPE span AS RANGE (SUBTYPE = text, SUBTYPE_DIFF = difference)');
attack('cursor', q(DO $d$ BEGIN PERFORM FROM nexus_messages(); EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; END $d$),
	'cursor "c" of "postgres" is to outlive the transaction');
attack('foreign', 'SELECT n FROM remote, nexus_messages()', 'foreign table "remote" belongs to "mallory"',
	'mallory: CREATE VIEW seizing AS SELECT seize() AS n', 'mallory: GRANT SELECT ON seizing TO PUBLIC',
	sprintf(q(mallory: CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres')), $node->host, $node->port),
	q(mallory: CREATE USER MAPPING FOR PUBLIC SERVER loopback OPTIONS (user 'postgres')),
	q(mallory: CREATE FOREIGN TABLE remote (n integer) SERVER loopback OPTIONS (schema_name 'public', table_name 'seizing')));
attack('server', 'SELECT n FROM remote_of_ours, nexus_messages()', 'server "loopback" belongs to "mallory"',
	q(CREATE FOREIGN TABLE remote_of_ours (n integer) SERVER loopback OPTIONS (schema_name 'public', table_name 'seizing')));

# In rounds: a worker each is a lot.
sql(q(SELECT nexus_produce('a', '1'::jsonb, key => 'k')));
my @attacks = sort keys %statement;
while (my @round = splice @attacks, 0, 16)
{
	add_pipeline($_, $statement{$_}) for @round;
	refuses_ok($_, $culprit{$_}) for @round;
	drop_pipelines();
}

# ---- in the backend, where the statement is planned when the pipeline is made

for my $name (qw(index domain aggregate operator partition_key foreign partition))
{
	my (undef, undef, $error) = $node->psql('postgres', "SELECT nexus_create_pipeline('new', 'new', \$s\$$statement{$name}\$s\$)");
	like($error, qr/the pipeline runs as superuser "postgres", but $culprit{$name}/, "$name: refused when the pipeline is made");
	nothing_seized_ok("$name, in the backend");
}
is(sql(q(DO $d$ BEGIN PERFORM nexus_create_pipeline('new', 'new', 'SELECT seize() FROM nexus_messages()'); EXCEPTION WHEN insufficient_privilege THEN NULL; END $d$),
	'SELECT simple(1) - simple(1)', 'BEGIN', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'COMMIT', 'FETCH c'), "0\n1",
	'the guard is off again after it refused');
sql('ALTER ROLE mallory NOSUPERUSER');

# ---- roles as good as superusers

my %as_good = (filer => 'IN ROLE pg_write_server_files', reader => 'IN ROLE pg_read_server_files',
	runner => 'IN ROLE pg_execute_server_program', member => 'IN ROLE postgres', giver => 'NOINHERIT IN ROLE postgres');
$as_good{granter} = 'CREATEROLE' if sql('SHOW server_version_num') < 160000;
for my $role (sort keys %as_good)
{
	sql("CREATE ROLE $role $as_good{$role}", "GRANT EXECUTE ON FUNCTION nexus_messages() TO $role",
		"CREATE TABLE of_$role (n integer)", "ALTER TABLE of_$role OWNER TO $role", "CREATE TABLE own_of_$role (n integer)",
		"CREATE FUNCTION own_$role() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.n := 2; RETURN new; END'", "ALTER FUNCTION own_$role OWNER TO $role",
		"CREATE TRIGGER t BEFORE INSERT ON own_of_$role FOR EACH ROW EXECUTE FUNCTION own_$role()", "ALTER TABLE own_of_$role OWNER TO $role",
		"GRANT TRIGGER ON of_$role TO mallory", 'SET ROLE mallory',
		"CREATE TRIGGER t BEFORE INSERT ON of_$role FOR EACH ROW EXECUTE FUNCTION invoker_trigger()");
	add_pipeline($role, "INSERT INTO public.of_$role SELECT 1 FROM public.nexus_messages()", $role);
	add_pipeline("own_$role", "INSERT INTO public.own_of_$role SELECT 1 FROM public.nexus_messages()", $role);
	refuses_ok($role, 'function "invoker_trigger" belongs to "mallory"', $role);
	is(outcome("own_$role"), 'taken in', "what is of $role ($as_good{$role}) runs in its own pipeline");
}
sql('CREATE ROLE app', 'GRANT EXECUTE ON FUNCTION nexus_messages() TO app', 'CREATE TABLE of_app (n integer)', 'ALTER TABLE of_app OWNER TO app',
	'GRANT TRIGGER ON of_app TO mallory', 'SET ROLE mallory', 'CREATE TRIGGER t BEFORE INSERT ON of_app FOR EACH ROW EXECUTE FUNCTION cursor_trigger()');
add_pipeline('app', 'INSERT INTO public.of_app SELECT 1 FROM public.nexus_messages()', 'app');
is(outcome('app'), 'taken in', 'an ordinary role\'s pipeline may meet anybody\'s trigger');

# One that becomes superuser while its worker runs is on guard from then on.
sql('ALTER ROLE app SUPERUSER', q(SELECT nexus_produce('a', '2'::jsonb, key => 'k')));
$node->poll_status('postgres', 'pipeline', 'app', 'failing');
like($node->status('postgres', 'pipeline', 'app')->{reason}, qr/superuser "app", but function "cursor_trigger" belongs to "mallory"/, 'not once the role is superuser');
nothing_seized_ok('app');
drop_pipelines();

# ---- the same of a superuser's own

sql('CREATE TABLE log (n integer, what text)', "CREATE DOMAIN our_dom AS text CHECK (lo_creat(-1) > 0)",
	q(CREATE AGGREGATE our_agg(text) (SFUNC = ts_rewrite, STYPE = tsquery, INITCOND = 'a')),
	'CREATE OPERATOR |+| (FUNCTION = ts_rewrite, LEFTARG = tsquery, RIGHTARG = text)',
	'CREATE FUNCTION our_variable(v text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE d our_dom; BEGIN d := v; RETURN d; END $$',
	'CREATE FUNCTION our_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO log VALUES (1, tg_name); RETURN new; END $$',
	'CREATE TABLE ours (n integer, d our_dom, u uuid DEFAULT gen_random_uuid(), t timestamptz DEFAULT clock_timestamp()) PARTITION BY RANGE (n)',
	'CREATE TABLE ours_1 PARTITION OF ours DEFAULT',
	'CREATE TRIGGER b BEFORE INSERT ON ours FOR EACH ROW WHEN (new.n > 0 AND pg_trigger_depth() < 9) EXECUTE FUNCTION our_trigger()',
	'CREATE CONSTRAINT TRIGGER c AFTER INSERT ON ours DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION our_trigger()',
	'CREATE FUNCTION our_sql(n integer) RETURNS integer LANGUAGE sql STABLE AS $$ SELECT n + 1 $$',
	q(CREATE FUNCTION our_volatile(n integer DEFAULT lo_from_bytea(0, 'y')::integer) RETURNS integer LANGUAGE sql AS $$ SELECT lo_unlink(lo_create(0)) $$),
	'CREATE SERVER ours FOREIGN DATA WRAPPER postgres_fdw OPTIONS (' . sprintf(q(host '%s', port '%s', dbname 'postgres'), $node->host, $node->port) . ')',
	'CREATE USER MAPPING FOR CURRENT_USER SERVER ours', q(CREATE FOREIGN TABLE our_remote (n integer) SERVER ours OPTIONS (table_name 'parent')),
	'CREATE TABLE their_plain AS SELECT 7 AS n', 'ALTER TABLE their_plain ADD CHECK (n > 0)', 'ALTER TABLE their_plain OWNER TO mallory');
my %works = (
	ours => 'INSERT INTO ours SELECT 1, key FROM nexus_messages()',
	our_agg => "SELECT our_agg('SELECT ''a''::tsquery, ''b''::tsquery') FROM nexus_messages()",
	our_operator => "SELECT 'a'::tsquery |+| 'SELECT ''a''::tsquery, ''b''::tsquery'::text FROM nexus_messages()",
	our_sql => 'INSERT INTO log SELECT our_sql(1), our_variable(key) FROM nexus_messages()',
	our_volatile => 'SELECT our_volatile() FROM nexus_messages()',
	our_file => "SELECT lo_unlink(lo_from_bytea(0, 'x')) FROM nexus_messages()",
	our_remote => 'INSERT INTO log SELECT r.n, query_to_xml($$SELECT 1$$, true, true, $$$$)::text FROM our_remote r, nexus_messages()',
	our_copy => q(DO $d$ BEGIN PERFORM FROM nexus_messages(); COPY ours (n) FROM PROGRAM 'echo 3'; END $d$),
	their_plain => 'INSERT INTO log SELECT n FROM their_plain, nexus_messages()',
	our_command => q(DO $d$ BEGIN PERFORM FROM nexus_messages(); CREATE TEMP TABLE t (n serial, u uuid DEFAULT gen_random_uuid()) ON COMMIT DROP;
		INSERT INTO t DEFAULT VALUES; CREATE INDEX ON t (n); UPDATE t SET n = 2; END $d$));
for my $name (sort keys %works)
{
	sql("SELECT nexus_create_pipeline('$name', 'a', \$s\$$works{$name}\$s\$)");
}
is(outcome($_), 'taken in', "$_: a superuser's own works") for sort keys %works;

# Given away, it is refused with the next message.
for my $given ([ 'ours', 'TABLE ours_1', 'table "ours_1"' ], [ 'our_sql', 'FUNCTION our_sql', 'function "our_sql"' ],
	[ 'our_agg', 'AGGREGATE our_agg(text)', 'aggregate "our_agg"' ])
{
	my ($name, $object, $culprit) = @$given;

	sql("ALTER $object OWNER TO mallory", q(SELECT nexus_produce('a', '3'::jsonb, key => 'k')));
	$node->poll_status('postgres', 'pipeline', $name, 'failing');
	like($node->status('postgres', 'pipeline', $name)->{reason}, qr/$culprit belongs to "mallory"/, "$object, given away: refused");
}

# As the owner's, it works.
sql('GRANT EXECUTE ON FUNCTION nexus_messages() TO mallory', 'GRANT INSERT, SELECT ON held TO mallory',
	q(SELECT nexus_create_pipeline('held', 'a', 'INSERT INTO held SELECT 1 FROM nexus_messages()', '{"run_as": "mallory"}')));
is(outcome('held'), 'taken in', 'with run_as, mallory\'s trigger runs, as mallory');
nothing_seized_ok('run_as');

no_crash_ok($node);
done_testing();
