# Everything SQL can say works as a pipeline's statement: each kind of statement and of
# target once, with what it leaves in the tables.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('statements', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub literal
{
	my ($text) = @_;
	return 'NULL' if !defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Messages of one transaction, to partition 0 of a topic; each is [ key, value, headers ].
sub publish
{
	my ($topic, @messages) = @_;
	my $rows = join ', ', map { my $m = $_; '(' . join(', ', map { literal($m->[$_]) } 0 .. 2) . ')' } @messages;
	sql(qq(SELECT count(nexus_produce('$topic', value, key, headers::jsonb, 0))
		FROM (VALUES $rows) AS m (key, value, headers)));
	return;
}

sub consume { return $node->consume('postgres', @_) }

# A pipeline with the topic of its name. What is in the topic before comes in few batches.
sub pipeline
{
	my ($name, $statement) = @_;
	sql('SELECT nexus_flush()', "SELECT nexus_create_pipeline('$name', '$name', \$pipeline\$$statement\$pipeline\$)");
	consume($name);
	return;
}

sub more
{
	my ($name, @messages) = @_;
	publish($name, @messages);
	consume($name);
	return;
}

sub dead_letters
{
	my ($name) = @_;
	return sql(qq(SELECT string_agg(concat_ws(' ', convert_from(key, 'UTF8'), sqlstate), ', ' ORDER BY "offset")
		FROM nexus_dead_letters WHERE pipeline = '$name'));
}

# All that a case should have left, and no more workers than there must be.
sub ends_with
{
	my ($name, $query, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql($query), $expected, $what);
	sql("SELECT nexus_drop_pipeline('$name')");
	return;
}

# ---- INSERT, and changes of what is there

sql(q(CREATE TABLE appended
	(topic text, part int, at bigint, stamp timestamptz, key text, value jsonb, headers jsonb)));
publish('append', [ 'k1', '{"n": 1}', '{"h": "x"}' ], [ undef, '[]', '{"h": ["x", null, "y"]}' ], [ 'k3', undef ]);
pipeline('append', 'INSERT INTO appended SELECT * FROM nexus_messages()');
ends_with('append', q(SELECT topic, part, at, stamp BETWEEN now() - interval '1 hour' AND now(),
	key, value, headers - 'nexus-message-id'
	FROM appended ORDER BY at), <<'ROWS' =~ s/\n\z//r, 'append: all that a message has');
append|0|0|t|k1|{"n": 1}|{"h": "x"}
append|0|1|t||[]|{"h": ["x", null, "y"]}
append|0|2|t|k3||{}
ROWS

my $last_ones = q(SELECT DISTINCT ON (key) key, value FROM nexus_messages() ORDER BY key, partition, "offset" DESC);

sql('CREATE TABLE upserted (id text PRIMARY KEY, n int)');
publish('upsert', map { [ 'k' . $_ % 7, qq({"n": $_}) ] } 1 .. 100);
pipeline('upsert', qq(
	INSERT INTO upserted SELECT key, (value ->> 'n')::int FROM ($last_ones) m
	ON CONFLICT (id) DO UPDATE SET n = excluded.n));
is(sql("SELECT batches < 100 FROM nexus_status WHERE name = 'upsert'"), 't', 'upsert: keys repeat within a batch');
is(dead_letters('upsert'), '', 'upsert: which no message dies of');
is(sql('SELECT string_agg(n::text, \' \' ORDER BY id) FROM upserted'), '98 99 100 94 95 96 97',
	'upsert: the last one wins');
more('upsert', [ 'k0', '{"n": 200}' ], [ 'k9', '{"n": 201}' ], [ 'k0', '{"n": 202}' ]);
ends_with('upsert', 'SELECT string_agg(n::text, \' \' ORDER BY id) FROM upserted', '202 99 100 94 95 96 97 201',
	'upsert: also over what was there before');

sql('CREATE TABLE mirrored (id text PRIMARY KEY, n int)');
publish('tombstones', (map { [ "k$_", qq({"n": $_}) ] } 1 .. 5), [ 'k2', undef ], [ 'k3', undef ],
	[ 'k3', '{"n": 33}' ]);
pipeline('tombstones', qq(
	WITH m AS ($last_ones),
	gone AS (DELETE FROM mirrored t USING m WHERE t.id = m.key AND m.value IS NULL)
	INSERT INTO mirrored SELECT key, (value ->> 'n')::int FROM m WHERE value IS NOT NULL
	ON CONFLICT (id) DO UPDATE SET n = excluded.n));
is(sql('SELECT string_agg(id || n, \' \' ORDER BY id) FROM mirrored'), 'k11 k333 k44 k55',
	'a tombstone deletes within a batch');
more('tombstones', [ 'k1', undef ], [ 'k9', undef ], [ 'k4', '{"n": 44}' ]);
ends_with('tombstones', 'SELECT string_agg(id || n, \' \' ORDER BY id) FROM mirrored', 'k333 k444 k55',
	'and what came before; one for an unknown key does nothing');

sql('CREATE TABLE merged (id text PRIMARY KEY, n int)');
publish('merge', (map { [ "k$_", qq({"n": $_}) ] } 1 .. 4), [ 'k2', undef ], [ 'k3', '{"n": 33}' ]);
pipeline('merge', qq(
	MERGE INTO merged t USING ($last_ones) m ON t.id = m.key
	WHEN MATCHED AND m.value IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET n = (m.value ->> 'n')::int
	WHEN NOT MATCHED AND m.value IS NOT NULL THEN INSERT VALUES (m.key, (m.value ->> 'n')::int)));
more('merge', [ 'k1', undef ], [ 'k4', '{"n": 44}' ], [ 'k5', '{"n": 5}' ]);
ends_with('merge', 'SELECT string_agg(id || n, \' \' ORDER BY id) FROM merged', 'k333 k444 k55', 'MERGE');

sql(q(CREATE TABLE stock (id text PRIMARY KEY, n int)),
	q(INSERT INTO stock SELECT 'k' || n, 0 FROM generate_series(1, 5) n));
publish('update', map { [ "k$_", qq({"n": $_}) ] } 2 .. 7);
pipeline('update', q(UPDATE stock s SET n = s.n + (m.value ->> 'n')::int FROM nexus_messages() m WHERE s.id = m.key));
ends_with('update', 'SELECT string_agg(id || n, \' \' ORDER BY id) FROM stock', 'k10 k22 k33 k44 k55',
	'UPDATE … FROM');
publish('delete', map { [ "k$_", undef ] } 4 .. 9);
pipeline('delete', q(DELETE FROM stock s USING nexus_messages() m WHERE s.id = m.key));
ends_with('delete', 'SELECT string_agg(id || n, \' \' ORDER BY id) FROM stock', 'k10 k22 k33', 'DELETE … USING');

sql('CREATE TABLE orders (id int PRIMARY KEY, customer text)',
	'CREATE TABLE items (order_id int REFERENCES orders, sku text, n int CHECK (n > 0))');
publish('two-tables',
	[ 'o1', '{"id": 1, "customer": "c1", "items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}' ],
	[ 'o2', '{"id": 2, "customer": "c1", "items": []}' ],
	[ 'o3', '{"id": 3, "customer": "c2", "items": [{"sku": "a", "n": 1}, {"sku": "c", "n": 0}]}' ],
	[ 'o4', '{"id": 4, "customer": "c2", "items": [{"sku": "d", "n": 4}]}' ]);
pipeline('two-tables', q(
	WITH m AS (SELECT (value ->> 'id')::int AS id, value FROM nexus_messages()),
	o AS (INSERT INTO orders SELECT id, value ->> 'customer' FROM m)
	INSERT INTO items SELECT m.id, i.sku, i.n FROM m
	CROSS JOIN LATERAL jsonb_to_recordset(m.value -> 'items') AS i (sku text, n int)));
is(dead_letters('two-tables'), 'o3 23514', 'a WITH that writes two tables: a bad item is its whole message');
ends_with('two-tables', q(SELECT (SELECT string_agg(id || customer, ' ' ORDER BY id) FROM orders),
	(SELECT string_agg(order_id || sku || n, ' ' ORDER BY order_id, sku) FROM items)), '1c1 2c1 4c2|1a1 1b2 4d4',
	'and nothing of it is in either table');

sql('CREATE TABLE per_minute (minute timestamptz PRIMARY KEY, n int NOT NULL, total numeric NOT NULL)');
sql(q(SELECT count(nexus_produce('windows',
		jsonb_build_object('at', timestamptz '2026-01-01 00:00+00' + n * interval '1 s', 'total', n)))
	FROM generate_series(0, 2999) n));
sql(q(SELECT nexus_create_pipeline('windows', 'windows', $$
	INSERT INTO per_minute
	SELECT date_trunc('minute', (value ->> 'at')::timestamptz), count(*), sum((value ->> 'total')::numeric)
	FROM nexus_messages() GROUP BY 1
	ON CONFLICT (minute) DO UPDATE SET n = per_minute.n + excluded.n, total = per_minute.total + excluded.total
	$$, '{"batch_messages": 100}')));
consume('windows');
is(sql(q(SELECT batches >= 30 FROM nexus_status WHERE name = 'windows')), 't', 'windows: in many batches');
ends_with('windows', 'SELECT count(*), min(n), max(n), sum(total) FROM per_minute', '50|60|60|4498500',
	'counts and sums a window add up');

# ---- code that reads the messages itself

sql('CREATE TABLE taken (way text, key text, n int)', <<'SQL');
CREATE PROCEDURE take_by_procedure(way text) LANGUAGE plpgsql AS $$
DECLARE
  m record;
BEGIN
  FOR m IN SELECT * FROM nexus_messages() LOOP
    INSERT INTO taken VALUES (way, m.key, (m.value ->> 'n')::int);
  END LOOP;
END $$;
CREATE FUNCTION take_by_function(way text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  CREATE TEMPORARY TABLE batch ON COMMIT DROP AS SELECT key, value FROM nexus_messages();
  INSERT INTO taken SELECT way, key, (value ->> 'n')::int FROM batch;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;
CREATE FUNCTION take_by_sql(way text) RETURNS SETOF taken LANGUAGE sql VOLATILE AS $$
  INSERT INTO taken SELECT way, key, (value ->> 'n')::int FROM nexus_messages() RETURNING *;
$$;
SQL
my %ways = (
	procedure => q(CALL take_by_procedure('procedure')),
	function => q(SELECT take_by_function('function')),
	'sql-function' => q(SELECT count(*) FROM take_by_sql('sql-function')),
	block => q(DO $$BEGIN INSERT INTO taken SELECT 'block', key, (value ->> 'n')::int FROM nexus_messages(); END$$));
foreach my $way (sort keys %ways)
{
	publish($way, map { [ "k$_", $_ == 3 ? '{"n": "three"}' : qq({"n": $_}) ] } 1 .. 5);
	pipeline($way, $ways{$way});
	more($way, [ 'k6', '{"n": 6}' ], [ 'k7', '{"n": 7}' ]);
	is(dead_letters($way), 'k3 22P02', "$way: the bad message is a dead letter");
	ends_with($way, "SELECT string_agg(key || n, ' ' ORDER BY n) FROM taken WHERE way = '$way'",
		'k11 k22 k44 k55 k66 k77',
		"$way: $ways{$way}");
}

# The transaction is the worker's.
sql(q(CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$BEGIN PERFORM count(*) FROM nexus_messages(); COMMIT; END$$));
publish('commits', [ 'k', '{}' ]);
sql(q(SELECT nexus_create_pipeline('commits', 'commits', 'CALL commits()')));
is($node->poll_status('postgres', 'pipeline', 'commits', 'failing')->{last_error_sqlstate}, '2D000',
	'a procedure that commits by itself: failing, for it would tear rows and offsets apart');
ends_with('commits', q(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'commits'), 0,
	'and no message is lost by it');

# ---- targets

sql(q(CREATE TABLE measured (at timestamptz NOT NULL, n int) PARTITION BY RANGE (at)),
	q(CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')),
	q(CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')));
publish('partitioned', map { [ "m$_", qq({"at": "2026-0$_-15T00:00:00Z", "n": $_}) ] } 1 .. 3);
pipeline('partitioned', q(INSERT INTO measured SELECT (value ->> 'at')::timestamptz, (value ->> 'n')::int
	FROM nexus_messages()));
is(dead_letters('partitioned'), 'm3 23514', 'a partitioned table: what has no partition is a dead letter');
ends_with('partitioned', 'SELECT string_agg(tableoid::regclass::text || n, \' \' ORDER BY n) FROM measured',
	'measured_11 measured_22',
	'the others are in theirs');

sql(q(CREATE TABLE audited (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int,
		doubled int GENERATED ALWAYS AS (n * 2) STORED, who text, at int DEFAULT 7)),
	'CREATE TABLE audit (id bigint, n int)', <<'SQL');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.who := lower(new.who); RETURN new; END$$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit VALUES (new.id, new.n);
  RETURN NULL;
END $$;
CREATE FUNCTION note_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit SELECT 0, sum(n) FROM new_rows;
  RETURN NULL;
END $$;
CREATE TRIGGER stamp BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER note AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_all AFTER INSERT ON audited REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION note_all();
SQL
publish('triggers', map { [ undef, qq({"n": $_, "who": "WHO$_"}) ] } 1 .. 3);
pipeline('triggers', q(INSERT INTO audited (n, who) SELECT (value ->> 'n')::int, value ->> 'who'
	FROM nexus_messages() ORDER BY "offset"));
is(sql('SELECT string_agg(concat_ws(\'/\', id, n, doubled, who, at), \' \' ORDER BY id) FROM audited'),
	'1/1/2/who1/7 2/2/4/who2/7 3/3/6/who3/7', 'identity, generated and default columns, a BEFORE trigger');
ends_with('triggers', q(SELECT string_agg(n::text, ' ' ORDER BY n) FILTER (WHERE id > 0),
	sum(n) FILTER (WHERE id = 0) FROM audit), '1 2 3|6', 'AFTER triggers, for rows and with a transition table');

sql(q(CREATE ROLE tenant), q(CREATE TABLE tenants (tenant text, n int)),
	q(ALTER TABLE tenants ENABLE ROW LEVEL SECURITY),
	q(CREATE POLICY own ON tenants TO tenant USING (tenant = 'a') WITH CHECK (tenant = 'a')),
	q(GRANT SELECT, INSERT ON tenants TO tenant),
	q(GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb) TO tenant));
publish('tenants', map { [ "k$_", '{"tenant": "' . ($_ == 4 ? 'b' : 'a') . qq(", "n": $_}) ] } 1 .. 6);
sql(q(SET ROLE tenant), q(SELECT nexus_create_pipeline('tenants', 'tenants',
	$$INSERT INTO tenants SELECT value ->> 'tenant', (value ->> 'n')::int FROM nexus_messages()$$)));
consume('tenants');
is(dead_letters('tenants'), 'k4 42501',
	'row-level security, as the pipeline\'s role: what it refuses is a dead letter');
ends_with('tenants', q(SELECT string_agg(tenant || n, ' ' ORDER BY n) FROM tenants), 'a1 a2 a3 a5 a6',
	'and the rest is there');

# A role without the right to the table: nobody's message is to blame.
sql(q(REVOKE INSERT ON tenants FROM tenant), q(SET ROLE tenant), q(SELECT nexus_create_pipeline('weak', 'tenants',
	$$INSERT INTO tenants SELECT value ->> 'tenant', (value ->> 'n')::int FROM nexus_messages()$$)));
is($node->poll_status('postgres', 'pipeline', 'weak', 'failing')->{last_error_sqlstate}, '42501',
	'no right to the table: failing');
ends_with('weak', q(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'weak'), 0, 'not a dead letter');

sql(q(CREATE TABLE countries (code text PRIMARY KEY)), q(INSERT INTO countries VALUES ('es'), ('de')),
	q(CREATE TABLE cities (name text, country text REFERENCES countries DEFERRABLE INITIALLY DEFERRED)));
publish('deferred', [ 'Cádiz', '{"country": "es"}' ], [ 'Oz', '{"country": "oz"}' ],
	[ 'Ulm', '{"country": "de"}' ], [ 'Ys', '{"country": "ys"}' ]);
pipeline('deferred', q(INSERT INTO cities SELECT key, value ->> 'country' FROM nexus_messages()));
is(dead_letters('deferred'), 'Oz 23503, Ys 23503',
	'a deferred constraint that fails at the commit: the messages\' dead letters');
ends_with('deferred', q(SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM cities), 'Cádiz Ulm',
	'the others are in the table');

# A deferred trigger, at the commit, sees the batch too.
sql(q(CREATE TABLE heads (n int)), q(CREATE TABLE totals (at_commit bigint)), <<'SQL',
CREATE FUNCTION note_total() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO totals SELECT count(*) FROM nexus_messages();
  RETURN NULL;
END $$
SQL
	q(CREATE CONSTRAINT TRIGGER note_total AFTER INSERT ON heads DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION note_total()));
publish('heads', map { [ undef, qq({"n": $_}) ] } 1 .. 3);
pipeline('heads', q(INSERT INTO heads SELECT min((value ->> 'n')::int) FROM nexus_messages()));
ends_with('heads', q(SELECT sum(at_commit) FROM totals), 3, 'a deferred trigger reads the batch at the commit');

sql(q(CREATE SCHEMA "The shop"), q(CREATE TABLE "The shop".sales (n int)), q(CREATE TABLE public.sales (n text)));
publish('schema', map { [ undef, qq({"n": $_}) ] } 1 .. 3);
sql(q(SET search_path = "The shop", public), q(SELECT nexus_create_pipeline('schema', 'schema',
	$$INSERT INTO sales SELECT (value ->> 'n')::int FROM nexus_messages()$$)));
consume('schema');
ends_with('schema', q(SELECT sum(n), (SELECT count(*) FROM public.sales) FROM "The shop".sales), '6|0',
	'another schema, by the search_path of the pipeline\'s creator');

# ---- what isn't JSON

sql('CREATE TABLE lines (line text)', 'CREATE TABLE csv (a text, b int, c text)',
	'CREATE TABLE readings (sensor int, reading int, size int)');
publish('text', [ undef, 'no json' ], [ undef, '¡Hola!' ], [ undef, '' ]);
sql(q(SELECT nexus_produce('text', '\xff00'::bytea, partition => 0)));
pipeline('text', q(INSERT INTO lines SELECT convert_from(value, 'UTF8') FROM nexus_raw_messages()));
is(dead_letters('text'), '22021', 'text: what isn\'t UTF-8 is a dead letter');
ends_with('text', q(SELECT string_agg(format('%L', line), ' ' ORDER BY line COLLATE "C") FROM lines),
	q('' 'no json' '¡Hola!'), 'text');
publish('csv', [ undef, 'x;1;one' ], [ undef, 'y;;' ], [ undef, 'z; 3 ;three' ], [ 'bad', 'z;no number;' ]);
pipeline('csv', q(INSERT INTO csv SELECT f[1], NULLIF(trim(f[2]), '')::int, f[3]
	FROM (SELECT string_to_array(convert_from(value, 'UTF8'), ';') AS f FROM nexus_raw_messages()) m));
is(dead_letters('csv'), 'bad 22P02', 'CSV: a bad field');
ends_with('csv', q(SELECT string_agg(csv::text, ' ' ORDER BY a) FROM csv), '(x,1,one) (y,,"") (z,3,three)', 'CSV');
sql(q(SELECT nexus_produce('binary', set_byte('\x0100000000fe'::bytea, 4, n), partition => 0)
	FROM generate_series(1, 3) n));
pipeline('binary', q(INSERT INTO readings
	SELECT get_byte(value, 0), ('x' || encode(substring(value FROM 2 FOR 4), 'hex'))::bit(32)::int, octet_length(value)
	FROM nexus_raw_messages()));
ends_with('binary', q(SELECT string_agg(readings::text, ' ' ORDER BY reading) FROM readings),
	'(1,1,6) (1,2,6) (1,3,6)', 'binary');

# ---- telling others

my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN news');
publish('notify', [ 'k1', '"one"' ], [ 'k2', '"two"' ], [ 'k3', 'no json' ]);
pipeline('notify', q(SELECT pg_notify('news', key || value::text) FROM nexus_messages()));
my $heard = $listener->query_safe('SELECT 1');
is(join(' ', sort $heard =~ /notification "news" with payload "(.*)" received/g), 'k1"one" k2"two"',
	'listeners are notified, of what was taken in only');
$listener->quit;
sql(q(SELECT nexus_drop_pipeline('notify')));

# Consume, transform, produce on: what is derived is published with the rows or not at all.
sql(q(CREATE TABLE customers (id text PRIMARY KEY, name text)),
	q(INSERT INTO customers SELECT 'c' || n, 'name ' || n FROM generate_series(0, 4) n),
	q(CREATE TABLE sold (id int PRIMARY KEY, name text, answer jsonb)),
	q(CREATE TABLE derived (key text, value jsonb)));
publish('bought', map { [ "o$_", qq({"id": ) . ($_ == 33 ? 32 : $_) . ', "customer": "c' . $_ % 5 . '"}' ] } 1 .. 40);
my $derive = q(
	INSERT INTO sold
	SELECT (m.value ->> 'id')::int, c.name,
		nexus_produce('derived', jsonb_build_object('order', m.value -> 'id', 'name', c.name), m.key, partition => 0)
	FROM nexus_messages() m JOIN customers c ON c.id = m.value ->> 'customer');
pipeline('bought', $derive);
is(dead_letters('bought'), 'o33 23505', 'derived messages: one of the batch fails');
publish('derived', [ 'end', '{}' ]);
pipeline('derived', 'INSERT INTO derived SELECT key, value FROM nexus_messages()');
is(sql(q(SELECT count(*), count(DISTINCT key), count(*) FILTER (WHERE key = 'o33')
	FROM derived WHERE key <> 'end')), '39|39|0',
	'each derived message is published once, none of the message that failed, whatever was tried and rolled back');
is(sql(q(SELECT bool_and(d.value = jsonb_build_object('order', s.id, 'name', s.name))
	FROM sold s JOIN derived d ON d.key = 'o' || s.id)), 't',
	'and fits to its row');

sql('ALTER TABLE sold DROP COLUMN name');
publish('bought', map { [ "o$_", qq({"id": $_, "customer": "c1"}) ] } 41 .. 50);
$node->poll_status('postgres', 'pipeline', 'bought', 'failing');
$node->wait_for_query('postgres', q(SELECT retries >= 3 FROM nexus_status WHERE name = 'bought'));
is(sql(q(SELECT count(*) FROM nexus_outbox WHERE topic = 'derived')), 0,
	'while the statement fails nothing is derived');
sql('ALTER TABLE sold ADD COLUMN name text', q(SELECT nexus_alter_pipeline('bought',
		statement => replace(statement, 'INTO sold', 'INTO sold (id, name, answer)'))
	FROM nexus_pipelines WHERE name = 'bought'));
consume('bought');
sql('SELECT nexus_flush()');
consume('derived');
is(sql(q(SELECT count(*), count(DISTINCT key) FROM derived WHERE key <> 'end')), '49|49',
	'mended, each is derived once');
sql(q(SELECT nexus_drop_pipeline(name) FROM (VALUES ('bought'), ('derived')) p (name)));

# ---- in whatever place of a statement: by scan.c's scan or by the function, the rows are the same

my $columns = 'topic, partition, "offset", "timestamp", key, value, headers';
my %forms = (
	plain => "SELECT $columns FROM nexus_messages()",
	'whole row' => 'SELECT m FROM nexus_messages() m',
	'whole row beside columns' => 'SELECT m.* FROM nexus_messages() m WHERE m IS NOT NULL OR m.topic IS NOT NULL',
	'select list' => 'SELECT (nexus_messages()).*',
	ordinality => "SELECT $columns FROM nexus_messages() WITH ORDINALITY o WHERE o.ordinality > 0",
	'rows from' => "SELECT $columns FROM ROWS FROM (nexus_messages(), generate_series(1, 3))
		r (topic, partition, \"offset\", \"timestamp\", key, value, headers, n) WHERE topic IS NOT NULL",
	'self join' => 'SELECT a.topic, b.partition, a."offset", b."timestamp", a.key, b.value, a.headers
		FROM nexus_messages() a JOIN nexus_messages() b USING (partition, "offset")',
	'outer join' => 'SELECT a.* FROM nexus_messages() a
		LEFT JOIN nexus_messages() b ON a."offset" = b."offset" + 1000000',
	lateral => "SELECT l.* FROM generate_series(0, 8) n
		CROSS JOIN LATERAL (SELECT $columns FROM nexus_messages() m WHERE m.\"offset\" = n) l",
	correlated => "SELECT $columns FROM nexus_messages() a
		WHERE (SELECT count(*) FROM nexus_messages() b WHERE b.\"offset\" <= a.\"offset\") > 0",
	subquery => "SELECT $columns FROM nexus_messages()
		WHERE \"offset\" IN (SELECT \"offset\" FROM nexus_messages() OFFSET 0)",
	exists => 'SELECT m.* FROM nexus_messages() m
		WHERE EXISTS (SELECT FROM nexus_messages() n WHERE n."offset" = m."offset")',
	union => "SELECT * FROM nexus_messages() WHERE \"offset\" % 2 = 0
		UNION SELECT * FROM nexus_messages() WHERE \"offset\" % 2 = 1",
	with => 'SELECT m.* FROM m',
	sorted => "SELECT $columns FROM nexus_messages() ORDER BY key DESC, \"offset\" LIMIT 1000",
	window => "SELECT $columns FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY \"offset\")
		FROM nexus_messages()) m",
	view => 'SELECT * FROM messages_view',
	cursor => 'SELECT * FROM by_cursor()',
	raw => q(SELECT topic, partition, "offset", "timestamp", convert_from(key, 'UTF8'),
		convert_from(value, 'UTF8')::jsonb, headers FROM nexus_raw_messages()));
my %odd = map { $_ => 1 } 'whole row';

sql('CREATE TABLE forms (form text, content jsonb)', 'CREATE TABLE plans (form text, line text)',
	'CREATE VIEW messages_view AS SELECT * FROM nexus_messages()', <<'SQL');
CREATE FUNCTION by_cursor() RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
  c CURSOR FOR SELECT * FROM nexus_messages();
BEGIN
  FOR m IN c LOOP
    RETURN NEXT m;
  END LOOP;
END $$;
CREATE FUNCTION plan_of(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || statement;
END $$;
SQL
$forms{cursor} .= ' AS (topic text, partition int, "offset" bigint,
	"timestamp" timestamptz, key text, value jsonb, headers jsonb)';
my $named = 'x (topic, partition, "offset", "timestamp", key, value, headers)';
my @rows = map {
	my $of = $odd{$_} ? "SELECT to_jsonb(m) FROM ($forms{$_}) x" : "SELECT to_jsonb(x) FROM ($forms{$_}) $named";
	"SELECT '$_', f.* FROM ($of) f"
} sort keys %forms;
my $all = 'WITH m AS MATERIALIZED (SELECT * FROM nexus_messages()), p AS (INSERT INTO plans
	SELECT form, plan_of(statement) FROM (VALUES '
  . join(', ', map { "('$_', " . literal($forms{$_}) . ')' } grep { $_ ne 'with' } sort keys %forms)
  . ') f (form, statement)) INSERT INTO forms ' . join ' UNION ALL ', @rows;
publish('forms', [ 'a', '{"n": 0}', '{"h": "x"}' ], [ 'b', undef ], [ undef, '[1, 2]', '{"h": ["x", "y"]}' ],
	[ 'a', '"' . 'long ' x 5000 . '"' ], [ '', 'null' ], [ 'ü', '{"ü": "ü"}' ], [ 'a', '7' ]);
pipeline('forms', $all);
is(dead_letters('forms'), '', 'all forms: no dead letter');
is(sql(q(SELECT count(*) FROM forms WHERE form = 'plain')), 7, 'plain: all messages');
foreach my $form (sort keys %forms)
{
	is(sql(qq(SELECT count(*) FROM forms WHERE form = '$form')), 7, "$form: as many");
	is(sql(qq(SELECT count(*) FROM (SELECT content FROM forms WHERE form = '$form'
		EXCEPT ALL SELECT content FROM forms WHERE form = 'plain') x)), 0,
		"$form: the same");
}
is(sql(q(SELECT string_agg(DISTINCT form, ', ' ORDER BY form) FROM plans p
	WHERE NOT EXISTS (SELECT FROM plans q WHERE q.form = p.form AND q.line LIKE '%Custom Scan (NexusMessages)%'))),
	'cursor, ordinality, rows from, select list, whole row, whole row beside columns', 'the others by the scan');
sql(q(SELECT nexus_drop_pipeline('forms')));

is(sql(q(SELECT count(*) FROM nexus_status WHERE kind = 'pipeline')), 1, 'all the pipelines were dropped');
no_crash_ok($node);
done_testing();
