# A dump carries pipelines with all their options, offsets and dead letters. What is
# restored from it, whole or by its sections, is equal, waits for nexus_resume(), and
# then goes on from there.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = NexusKafka::Cluster->make('dump_pipelines', embedded => 1,
	conf => { max_worker_processes => 64, 'nexus_kafka.max_jobs' => 128 });
my $dir = PostgreSQL::Test::Utils::tempdir();
my @tables = qw(nexus_pipelines nexus_offsets nexus_dead_letters);

sub sql { return $node->safe_psql(@_) }

sub produce
{
	my ($db, $topic, $value) = @_;

	return sql($db, "SELECT nexus_produce('$topic', '$value'::text, '$value')");
}

# Each with other options; in a schema that isn't in the search_path, of a role that owns little.
sql('postgres', 'CREATE ROLE clerk');
$node->safe_psql('postgres', 'CREATE DATABASE original');
sql('original', <<'END');
CREATE SCHEMA "Kafka stuff";
CREATE EXTENSION nexus_kafka SCHEMA "Kafka stuff";
SET search_path = "Kafka stuff", public;
CREATE TABLE public.orders (id integer PRIMARY KEY);
CREATE TABLE public.pages (id integer PRIMARY KEY);
CREATE TABLE public.later (id integer PRIMARY KEY);
CREATE TABLE public.never (id integer PRIMARY KEY);
GRANT INSERT ON public.pages TO clerk;
GRANT USAGE ON SCHEMA "Kafka stuff" TO clerk;
GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb) TO clerk;

SELECT nexus_create_pipeline('orders', 'orders', 'INSERT INTO orders SELECT key::integer FROM nexus_messages()',
  '{"workers": 3, "batch_messages": 17, "batch_bytes": 2048, "max_dead_letters": 1000, "group_id": "the orders"}');
SET ROLE clerk;
SELECT nexus_create_pipeline('pages', '^pages-.*', $$
  INSERT INTO pages
  SELECT key::integer FROM nexus_messages() -- it's a \ and a "
$$, '{"start": {"pages-1": {"0": "earliest"}}, "on_error": "stop"}');
RESET ROLE;
SELECT nexus_create_pipeline('later', 'later-1,later-2', 'INSERT INTO later SELECT key::integer FROM nexus_messages()',
  '{"on_demand": true, "start": "2020-01-01 00:00:00+02"}');
SELECT nexus_create_pipeline('never', 'never', 'INSERT INTO never SELECT key::integer FROM nexus_messages()',
  '{"connection": "elsewhere"}');
SELECT nexus_pause('never');
SELECT nexus_create_pipeline('full', 'full', 'INSERT INTO orders SELECT key::integer FROM nexus_messages()',
  '{"max_dead_letters": 2}');
END
sql('postgres', q(ALTER DATABASE original SET search_path = "Kafka stuff", public));

produce('original', $_, 1) for qw(orders pages-1 later-1 later-2 never);
produce('original', $_, 'bad') for qw(orders full full);
sql('original', "SELECT nexus_produce('orders', '\\xff00'::bytea, '\\x0001'::bytea, '{\"a\": [\"1\", null], \"b\": \"\\u00e9\"}')");
$node->wait_for_query('original', 'SELECT count(*) FROM orders', 1);
$node->wait_for_query('original', 'SELECT count(*) FROM pages', 1);
$node->wait_for_query('original', 'SELECT count(*) FROM nexus_dead_letters', 4);
$node->poll_status('original', 'pipeline', 'full', 'paused', schema => '"Kafka stuff"');

# The original is quiet from here on, so that what is compared stays the same.
sql('original', q(SELECT nexus_pause(name) FROM nexus_pipelines WHERE name IN ('orders', 'pages')));

my %content;
$content{$_} = sql('original', "SELECT to_jsonb(t) FROM $_ t ORDER BY t::text") for @tables;
cmp_ok(scalar split(/\n/, $content{nexus_offsets}), '>=', 4, 'there are offsets');
my $last_id = sql('original', 'SELECT max(id) FROM nexus_dead_letters');

sub plain { return [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $_[1], '-f', $_[0] ] }
sub custom { return [ 'pg_restore', '--exit-on-error', '-d', $_[1], $_[0] ] }
my %restore = (
	plain => [ [ \&plain, '--format=plain' ] ],
	custom => [ [ \&custom, '--format=custom' ] ],
	parts_plain => [ [ \&plain, '--schema-only' ], [ \&plain, '--data-only', '--disable-triggers' ] ],
	parts_custom => [ [ \&custom, '--format=custom', '--schema-only' ], [ \&custom, '--format=custom', '--data-only' ] ],
	inserts => [ [ \&plain, '--inserts' ] ]);

foreach my $name (sort keys %restore)
{
	my $db = "restored_$name";

	sql('postgres', "CREATE DATABASE $db");
	sql('postgres', qq(ALTER DATABASE $db SET search_path = "Kafka stuff", public));
	foreach my $part (@{ $restore{$name} })
	{
		my ($restore, @options) = @$part;
		my $file = "$dir/$name@options";
		$node->command_ok([ 'pg_dump', @options, '-f', $file, 'original' ], "$name: pg_dump @options");
		$node->command_ok($restore->($file, $db), "$name: restored");
	}

	is(sql($db, "SELECT to_jsonb(t) FROM $_ t ORDER BY t::text"), $content{$_}, "$name: $_ is the same") for @tables;
	foreach my $line ([ 'outbox', 'outbox' ], map { [ 'pipeline', $_ ] } qw(prospect_tracking orders pages later never full))
	{
		my $status = $node->poll_status($db, @$line, 'paused', schema => '"Kafka stuff"');
		like($status->{reason}, qr/nexus_resume\(\)/, "$name: $line->[1] is paused; the reason says what to do");
	}
	is(scalar $node->worker_pids($_, $db), 0, "$name: no $_") for qw(relay ingest);
	like(sql($db, "SELECT nexus_consume('later', '100 ms')"), qr/error/, "$name: nexus_consume() makes nothing run");
	is(sql($db, 'SELECT count(*) FROM later'), 0, "$name: and nothing came");
}

foreach my $db (map { "restored_$_" } sort keys %restore)
{
	sql($db, q(SELECT nexus_resume(); SELECT nexus_resume(name) FROM nexus_pipelines WHERE name IN ('orders', 'pages')));
	$node->poll_status($db, 'pipeline', $_, 'running', schema => '"Kafka stuff"') for qw(orders pages);
	is($node->status($db, 'pipeline', 'never', schema => '"Kafka stuff"')->{state}, 'paused', "$db: what was paused is so");
	like($node->status($db, 'pipeline', 'full', schema => '"Kafka stuff"')->{reason}, qr/max_dead_letters/,
		"$db: and for its own reason");
}
produce('original', $_, 2) for qw(orders pages-1);
produce('original', 'pages-2', 20);	# a new topic: found when the worker looks, or starts anew
produce('original', 'orders', 'too bad');
foreach my $db (map { "restored_$_" } sort keys %restore)
{
	$node->wait_for_query($db, 'SELECT array_agg(id ORDER BY id) FROM orders', '{1,2}');
	$node->wait_for_query($db, 'SELECT array_agg(id ORDER BY id) FROM pages WHERE id < 20', '{1,2}');
	pass("$db goes on from its own offsets");
	$node->wait_for_query($db, "SELECT count(*) FROM nexus_dead_letters WHERE key = 'too bad' AND id > $last_id", 1);
	pass("$db: dead letters have ids that are free");
	like(sql($db, "SELECT nexus_consume('later')"), qr/"processedCount": 2/, "$db: on demand as before");
	is(sql($db, "SELECT nexus_replay('orders')"), '(0,3)', "$db: its dead letters can be replayed");
}

# Roles are not in a database's dump: where the pipeline's is missing, that is shown, and it can be mended or dropped.
sql('restored_plain', "SELECT nexus_drop_pipeline('orders')");
sql($_, 'DROP OWNED BY clerk') for qw(original), map { "restored_$_" } sort keys %restore;
sql('postgres', 'DROP ROLE clerk');
produce('original', 'pages-1', 3);
my $status = $node->poll_status('restored_plain', 'pipeline', 'pages', 'failing', schema => '"Kafka stuff"');
like($status->{reason}, qr/role "clerk" does not exist/, 'a role that is gone: failing, with the reason');
sql('restored_plain', "SELECT nexus_drop_pipeline('pages')");
sql('postgres', 'CREATE ROLE clerk');
sql('restored_custom', 'GRANT INSERT ON pages TO clerk; GRANT USAGE ON SCHEMA "Kafka stuff" TO clerk;
	GRANT EXECUTE ON FUNCTION nexus_messages() TO clerk');
$status = $node->poll_status('restored_custom', 'pipeline', 'pages', 'failing', schema => '"Kafka stuff"');
like($status->{reason}, qr/role "clerk" (?:does not exist|is not the one that the pipeline had)/, 'another one of its name is not the one that it had');
sql('restored_custom', q(SELECT nexus_alter_pipeline('pages', options => '{"run_as": "clerk"}')));
$node->wait_for_query('restored_custom', 'SELECT array_agg(id ORDER BY id) FROM pages', '{1,2,3,20}');
pass('it goes on when the role is there again and was given to it');

no_crash_ok($node);
done_testing();
