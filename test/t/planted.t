# What somebody with CREATE in the extension's schema puts there before CREATE EXTENSION:
# tables and functions of its names, functions and operators that fit its calls better
# than PostgreSQL's own, a table to be adopted.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('planted', embedded => 1);

sub sql
{
	my ($db, @statements) = @_;

	return $node->safe_psql($db, join ";\n", @statements);
}

sub not_superuser
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql('postgres', q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory')), 'f', $name);
}

sub plant
{
	my ($db, @statements) = @_;

	sql('postgres', "DROP DATABASE IF EXISTS $db", "CREATE DATABASE $db");
	sql($db, 'GRANT CREATE ON SCHEMA public TO mallory', 'SET ROLE mallory', @statements);
	return;
}

sql('postgres', 'CREATE ROLE mallory');

# ---- the extension's own names

my %names = (
	'CREATE TABLE nexus_outbox (id bigint)' => '42P07',
	'CREATE VIEW nexus_status AS SELECT 1' => '42P07',
	'CREATE SEQUENCE nexus_pipelines' => '42P07',
	'CREATE TYPE nexus_topic_rights AS (a integer)' => '42P07',
	'CREATE FUNCTION nexus_produce(payload jsonb) RETURNS jsonb LANGUAGE sql AS \'SELECT $1\'' => '42723',
	'CREATE FUNCTION nexus_health() RETURNS jsonb LANGUAGE sql AS \'SELECT NULL::jsonb\'' => '42723',
	'CREATE FUNCTION nexus_refuse_direct_writes() RETURNS trigger LANGUAGE plpgsql AS \'BEGIN RETURN new; END\'' => '42723');
for my $planted (sort keys %names)
{
	my ($what) = $planted =~ /^CREATE (\w+ \w+)/;

	plant('named', $planted);
	my $sqlstate = sqlstate_of($node, 'named', 'CREATE EXTENSION nexus_kafka');
	like($sqlstate, qr/^(?:42P07|42710|42723)$/, "a $what that is there already: CREATE EXTENSION refuses to take it over");
	is(sql('named', q(SELECT count(*) FROM pg_extension WHERE extname = 'nexus_kafka')), 0, 'and nothing is made');
}

# ---- traps for the install script: each makes mallory superuser when a superuser comes by

sub trap
{
	my ($kind, $signature, $returns, $value) = @_;

	return qq(CREATE FUNCTION $signature RETURNS $returns LANGUAGE plpgsql AS \$\$
		BEGIN
			IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN ALTER ROLE mallory SUPERUSER; END IF;
			RETURN $value;
		END \$\$);
}

my @traps = (
	map({ trap('function', @$_) }
		[ 'format(text, text, text)', 'text', q('x')], [ 'format(text, name)', 'text', q('SELECT 1') ],
		[ 'format(text, text)', 'text', q('SELECT 1') ], [ 'format(text, text, text, text)', 'text', q('SELECT 1') ],
		[ 'quote_ident(name)', 'text', q('x') ], [ 'format_type(oid, text)', 'text', q('text') ],
		[ 'to_regclass(varchar)', 'regclass', 'NULL' ], [ 'string_agg(text, varchar)', 'text', 'NULL' ],
		[ 'pg_get_userbyid(integer)', 'name', 'NULL' ], [ 'pg_has_role(name, oid, varchar)', 'boolean', 'true' ],
		[ 'concat_ws(text, text, integer, bigint)', 'text', q('x') ], [ 'current_setting(varchar)', 'text', q('on') ],
		[ 'octet_length(varchar)', 'integer', '1' ], [ 'aclexplode(anyarray)', 'record', 'NULL' ],
		[ 'trap(text, varchar)', 'boolean', 'true' ], [ 'trap(name, text)', 'boolean', 'true' ], [ 'trap(bigint, integer)', 'boolean', 'true' ],
		[ 'trap(text, integer)', 'text', 'NULL' ], [ 'trap(oid, integer)', 'boolean', 'true' ], [ 'trap(timestamptz, timestamptz)', 'interval', 'NULL' ]),
	(map { my $o = $_; map { "CREATE OPERATOR $o (FUNCTION = trap, LEFTARG = " . join(', RIGHTARG = ', @$_) . ')' }
		[qw(text varchar)], [qw(name text)], [qw(bigint integer)], [qw(text integer)], [qw(oid integer)], [qw(timestamptz timestamptz)] } qw(= <> < > <= >= ~ || - ->>)),
	map({ "CREATE DOMAIN $_ AS pg_catalog.$_" } qw(text name int4 int8 jsonb timestamptz oid regclass)));

# With each branch of the script: no table, one that fits, one that misses columns, a key, a default.
my $columns = 'fingerprint_id text, session_id text, messages jsonb, metadata jsonb, enqueued_at timestamptz,
	topic text, partition integer, "offset" bigint';
my %tables = (
	none => 'SELECT 1',
	fits => "CREATE TABLE prospect_tracking (message_id text PRIMARY KEY, $columns)",
	columns => 'CREATE TABLE prospect_tracking (message_id text PRIMARY KEY)',
	key => "CREATE TABLE prospect_tracking (message_id text, $columns)",
	default => "CREATE TABLE prospect_tracking (message_id text PRIMARY KEY, $columns, more integer NOT NULL)");
for my $kind (sort keys %tables)
{
	plant('trapped', $tables{$kind}, @traps);
	sqlstate_is($node, 'trapped', 'CREATE EXTENSION nexus_kafka', '00000', "traps all around, table: $kind: CREATE EXTENSION passes");
	not_superuser('and fell into none');
	$node->poll_status('trapped', 'outbox', 'outbox', 'running');
	works_ok($node, 'trapped', 'it works') if $kind eq 'none';
	sql('trapped', 'SELECT * FROM nexus_status, nexus_health()', 'SELECT * FROM nexus_partitions');
	not_superuser('neither do its views');
}

# ---- a table to be adopted, full of code

plant('adopted', "CREATE TABLE prospect_tracking (message_id text PRIMARY KEY, $columns)",
	trap('trigger', 'seize()', 'trigger', 'new'), trap('function', 'seize_now()', 'integer', '1'),
	trap('function', 'seize_then(n integer)', 'integer', 'n') =~ s/LANGUAGE plpgsql/LANGUAGE plpgsql IMMUTABLE/r,
	'ALTER TABLE prospect_tracking ADD extra integer DEFAULT seize_now(), ADD CHECK (seize_now() = 1)',
	'CREATE INDEX ON prospect_tracking (seize_then(partition))',
	'CREATE TRIGGER seize BEFORE INSERT ON prospect_tracking FOR EACH ROW EXECUTE FUNCTION seize()',
	'CREATE RULE also AS ON INSERT TO prospect_tracking DO ALSO SELECT seize_now()',
	'ALTER TABLE prospect_tracking ENABLE ROW LEVEL SECURITY', 'ALTER TABLE prospect_tracking FORCE ROW LEVEL SECURITY',
	'CREATE POLICY p ON prospect_tracking USING (seize_now() = 1)');
$node->create_extension('adopted');
my $status = $node->poll_status('adopted', 'pipeline', 'prospect_tracking', 'paused');
like($status->{reason}, qr/belongs to mallory, who gets all messages/, 'a table of one who may only create tables: adopted, but paused');
sql('adopted', q(SELECT nexus_resume('prospect_tracking')));
works_ok($node, 'adopted', 'resumed, it is filled');
not_superuser('and its owner\'s code had the owner\'s rights only');
is(sql('adopted', 'SELECT run_as FROM nexus_pipelines'), 'mallory', 'as the pipeline\'s role says');

no_crash_ok($node);
done_testing();
