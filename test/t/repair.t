# Repair with SQL: dead letters through today's statement by nexus_replay, the stop before
# a bad message, the pause at too many dead letters.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('repair', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

# Texts to partition 0 of a topic, in their order.
sub publish
{
	my ($topic, @values) = @_;
	my $rows = join ', ', map { "('$_')" } @values;
	sql("SELECT count(nexus_produce('$topic', v, 'k' || v, '{\"h\": \"x\"}'::jsonb, 0))
		FROM (VALUES $rows) AS x (v)");
	return;
}

sub consume { return $node->consume('postgres', @_) }

sub replay_is
{
	my ($arguments, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql("SELECT replayed || ' ' || failed FROM nexus_replay($arguments)"), $expected, $what);
}

sub numbers { return sql(q(SELECT string_agg(n::text, ' ' ORDER BY at) FROM taken)) }

sub letters
{
	my ($name) = @_;
	return sql(qq(SELECT string_agg(convert_from(value, 'UTF8') || ' ' || sqlstate, ', ' ORDER BY id)
		FROM nexus_dead_letters WHERE pipeline = '$name'));
}

# The order of "at" is that of the rows' arrival. Texts: n=<number>, refused if they are no number, or by the trigger.
sql(q(CREATE TABLE taken (n int UNIQUE, at bigint GENERATED ALWAYS AS IDENTITY,
		batch xid8 DEFAULT pg_current_xact_id())),
	'CREATE TABLE refused (n int)', <<'SQL');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM refused r WHERE r.n = new.n) THEN
    RAISE EXCEPTION 'refused: %', new.n USING ERRCODE = '22000', HINT = 'Ask again.';
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON taken FOR EACH ROW EXECUTE FUNCTION refuse();
SQL
my $statement = q($$INSERT INTO taken (n) SELECT convert_from(value, 'UTF8')::int
	FROM nexus_raw_messages() ORDER BY partition, "offset"$$);
sql(q(INSERT INTO refused VALUES (2), (4), (6)));
sql("SELECT nexus_create_pipeline('p', 'p', $statement)");
publish('p', 1, 2, 'three', 4, 5, 6, 7);
consume('p');
is(letters('p'), '2 22000, three 22P02, 4 22000, 6 22000', 'four dead letters');
is(sql(q(SELECT topic, partition, "offset", convert_from(key, 'UTF8'), headers - 'nexus-message-id', message, hint,
	detail, context LIKE '%PL/pgSQL function refuse() line 4 at RAISE%',
	"timestamp" BETWEEN now() - interval '1 h' AND now(), failed_at <= now()
	FROM nexus_dead_letters ORDER BY id LIMIT 1)), 'p|0|1|k2|{"h": "x"}|refused: 2|Ask again.||t|t|t',
	'each whole, with its error');
is(numbers(), '1 5 7', 'the others are in the table');
is($node->status('postgres', 'pipeline', 'p')->{dead_letters}, 4, 'nexus_status counts them');

# ---- the environment's trouble

sql('CREATE SEQUENCE tries', 'CREATE TABLE trouble (sqlstate text, times int)', 'CREATE TABLE passed (n int)',
	<<'SQL', q(SELECT nexus_create_pipeline('t', 't', 'INSERT INTO passed SELECT (value #>> ''{}'')::int FROM nexus_messages()')));
CREATE FUNCTION have_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE now trouble;
BEGIN
  SELECT * INTO now FROM trouble;
  IF nextval('tries') <= now.times THEN
    RAISE EXCEPTION 'not now' USING ERRCODE = now.sqlstate;
  END IF;
  RETURN new;
END $$;
CREATE TRIGGER have_trouble BEFORE INSERT ON passed FOR EACH ROW EXECUTE FUNCTION have_trouble();
SQL
publish('t', 'no number');
consume('t');
sql(q(UPDATE nexus_dead_letters SET value = '7' WHERE pipeline = 't'));

sub trouble
{
	my ($sqlstate, $times) = @_;

	sql('DELETE FROM trouble', "INSERT INTO trouble VALUES ('$sqlstate', $times)", 'ALTER SEQUENCE tries RESTART');
	return;
}

sub ends_after
{
	my ($sqlstate, $tries) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	trouble($sqlstate, 1000);
	sqlstate_is($node, 'postgres', q(SELECT nexus_replay('t')), $sqlstate, "$sqlstate ends a replay");
	return is(sql('SELECT last_value FROM tries'), $tries, "at try $tries");
}

ends_after($_, 5) for qw(08006 40001 53200 57014 58030);
ends_after('55P03', 1);
is(letters('t'), '7 22P02', 'the letter is still there, with its own error');
trouble('53200', 4);
replay_is(q('t'), '1 0', 'trouble that passes in time ends no replay');
sql(q(SELECT nexus_drop_pipeline('t')));

# ---- replay

replay_is(q('p'), '0 4', 'nothing mended: all stay');
sql(q(UPDATE refused SET n = n + 10 WHERE n = 4), q(ALTER FUNCTION refuse() RENAME TO say_no),
	q(CREATE TABLE before AS SELECT id, failed_at FROM nexus_dead_letters));
replay_is(q('p'), '1 3', 'one mended');
is(numbers(), '1 5 7 4', 'what works is in the table');
is(letters('p'), '2 22000, three 22P02, 6 22000', 'and leaves the dead letters; the others stay');
is(sql(q(SELECT bool_and(d.context LIKE '%say_no%' OR d.sqlstate = '22P02'), bool_and(d.failed_at > b.failed_at)
	FROM nexus_dead_letters d JOIN before b USING (id))),
	't|t', 'with their new error');
is($node->status('postgres', 'pipeline', 'p')->{dead_letters}, 4, 'a replay is not counted as reading');

# A message whose number is there by now is refused with another error.
sql('DELETE FROM refused', 'INSERT INTO taken (n) VALUES (6)');
replay_is(q('p', (SELECT array_agg(id) FROM nexus_dead_letters
	WHERE convert_from(value, 'UTF8') IN ('6', 'three'))), '0 2',
	'by ids');
is(letters('p'), '2 22000, three 22P02, 6 23505', 'those and no other were tried');
is(sql(q(SELECT detail FROM nexus_dead_letters WHERE sqlstate = '23505')), 'Key (n)=(6) already exists.',
	'and the error is the new one');
replay_is(q('p', '{}'), '0 0', 'no ids: none');
replay_is(q('p', ARRAY[NULL, -1, 0, 999999]), '0 0', 'ids that aren\'t there');
sql('DELETE FROM taken WHERE n IN (4, 6)');
replay_is(q('p', (SELECT array_agg(id ORDER BY id DESC) || array_agg(id)
	FROM nexus_dead_letters WHERE pipeline = 'p')), '2 1',
	'in whatever order, and twice');
is(numbers(), '1 5 7 2 6', 'they are taken in in the order of their ids, once');

# Today's statement, and letters of another pipeline.
sql("SELECT nexus_create_pipeline('other', 'other', $statement)");
publish('other', 'x', 'y');
consume('other');
sql(q(SELECT nexus_alter_pipeline('p', statement => $$INSERT INTO taken (n)
	SELECT CASE convert_from(value, 'UTF8') WHEN 'three' THEN 3 ELSE convert_from(value, 'UTF8')::int END
	FROM nexus_raw_messages()$$)));
replay_is(q('p', (SELECT array_agg(id) FROM nexus_dead_letters)), '1 0', 'by today\'s statement');
is(letters('p') . letters('other'), 'x 22P02, y 22P02', 'letters of another pipeline are left alone');
replay_is(q('p'), '0 0', 'nothing left');

# What the statement reads is what it read then.
sql(q(CREATE TABLE seen (topic text, part int, at bigint, stamp timestamptz, key text, value jsonb, headers jsonb,
	n int)));
sql(q(SELECT nexus_create_pipeline('seen', 'seen', $$INSERT INTO seen
	SELECT m.*, 1 / CASE WHEN m.value ? 'bad' AND NOT EXISTS (SELECT FROM pg_tables WHERE tablename = 'mended')
		THEN 0 ELSE 1 END FROM nexus_messages() m$$)));
sql(q(SELECT count(nexus_produce('seen', '{"bad": 1}'::jsonb, k, h::jsonb, 0))
	FROM (VALUES ('k', '{"h": ["x", null], "i": "y"}'), (NULL, NULL)) v (k, h)));
sql(q(SELECT nexus_produce('seen', '{"good": 1}'::jsonb, 'k', '{"h": ["x", null], "i": "y"}', 0)));
consume('seen');
sql('CREATE TABLE mended ()', q(CREATE TABLE letters AS SELECT * FROM nexus_dead_letters WHERE pipeline = 'seen'));
replay_is(q('seen'), '2 0', 'mended');
is(sql(q(SELECT bool_and(s.topic = l.topic AND s.part = l.partition AND s.stamp = l."timestamp"
	AND convert_to(s.key, 'UTF8') IS NOT DISTINCT FROM l.key
	AND s.value = convert_from(l.value, 'UTF8')::jsonb AND s.headers IS NOT DISTINCT FROM l.headers), count(*)
	FROM seen s JOIN letters l ON l."offset" = s.at)),
	't|2', 'topic, partition, offset, time, key, value and headers of a replayed message are those of the message');
is(sql(q(SELECT count(DISTINCT headers - 'nexus-message-id') FROM seen WHERE key = 'k')), 1,
	'as of one that is read from the topic');

# ---- rights

sql('CREATE ROLE nobody', 'CREATE ROLE repairer', 'GRANT EXECUTE ON FUNCTION nexus_replay(text, bigint[]) TO repairer');
sqlstate_is($node, 'postgres', q(SET ROLE nobody; SELECT nexus_replay('other')), '42501',
	'nobody may replay without EXECUTE');
is(sql('SET ROLE repairer', q(SELECT failed FROM nexus_replay('other'))), 2,
	'that is all that it takes: the statement runs as the pipeline\'s role');
sqlstate_is($node, 'postgres', q(SELECT nexus_replay('unknown')), '42704', 'an unknown pipeline');
sql(q(SELECT nexus_drop_pipeline('other')));
sqlstate_is($node, 'postgres', q(SELECT nexus_replay('other')), '42704', 'one that is dropped');
sql(q(SELECT nexus_create_pipeline('other', 'elsewhere', $$SELECT 1 FROM nexus_raw_messages()$$)));
replay_is(q('other'), '2 0', 'and made again: its letters are there still');

# ---- many, while it runs, is paused, is stopped, runs on demand

sql('TRUNCATE taken', "SELECT nexus_alter_pipeline('p', statement => $statement)",
	'INSERT INTO refused SELECT n FROM generate_series(1, 3000) n');
sql(q(SELECT count(nexus_produce('p', n::text, partition => 0)) FROM generate_series(1, 3010) n));
consume('p');
is(sql(q(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'p')), 3000, '3,000 dead letters');
is(numbers(), join(' ', 3001 .. 3010), 'and ten rows');
sql('DELETE FROM refused WHERE n % 10 <> 0', 'TRUNCATE taken');
replay_is(q('p'), '2700 300', 'replayed, but for 300');
is(sql('SELECT count(*), bool_and(ordered) FROM (SELECT n > lag(n, 1, 0) OVER (ORDER BY at) AS ordered FROM taken) t'),
	'2700|t', 'in their order');
is(sql(q(SELECT string_agg(convert_from(value, 'UTF8'), ' ' ORDER BY id)
		= string_agg((row * 10)::text, ' ' ORDER BY id)
	FROM (SELECT *, row_number() OVER (ORDER BY id) AS row
		FROM nexus_dead_letters WHERE pipeline = 'p') d)), 't', 'the 300 are the right ones');
sql('DELETE FROM refused', 'TRUNCATE taken', q(SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 50}')));
replay_is(q('p'), '300 0', 'the rest');
is(sql('SELECT count(*), count(DISTINCT batch) FROM taken'), '300|6', 'a transaction a batch');
publish('p', 4000);
consume('p');
is(sql('SELECT count(*) FROM taken'), 301, 'it ran all the time');

# Bad messages $from … $to, which are good afterwards.
sub bad_ones
{
	my ($from, $to) = @_;
	sql("INSERT INTO refused SELECT n FROM generate_series($from, $to) n");
	publish('p', $from .. $to);
	consume('p');
	sql('DELETE FROM refused');
	return;
}
bad_ones(5001, 5005);
sql(q(SELECT nexus_pause('p')));
replay_is(q('p'), '5 0', 'while it is paused');
is($node->status('postgres', 'pipeline', 'p')->{state}, 'paused', 'it stays so');
sql(q(SELECT nexus_resume('p')));
bad_ones(5011, 5015);
sql(q(SELECT nexus_alter_pipeline('p', options => '{"on_demand": true}')));
$node->poll_status('postgres', 'pipeline', 'p', 'on_demand');
replay_is(q('p'), '5 0', 'while it waits for nexus_consume');
sql(q(SELECT nexus_alter_pipeline('p', options => '{"on_demand": false, "workers": 3}')));
bad_ones(5021, 5025);
replay_is(q('p'), '5 0', 'beside three workers');
sql(q(SELECT nexus_alter_pipeline('p', options => '{"on_error": "stop", "workers": 1}')));
sql("INSERT INTO nexus_dead_letters (origin, pipeline, topic, partition, \"offset\", value, message)
	SELECT 'pipeline', 'p', 'p', 0, 0, v, 'by hand' FROM (VALUES ('bad'::bytea), ('5031')) x (v)");
publish('p', 'bad');
$node->poll_status('postgres', 'pipeline', 'p', 'stopped');
replay_is(q('p'), '1 1', 'while it is stopped; on_error is for what is read');
sql('DELETE FROM nexus_dead_letters');
sql(q(SELECT nexus_alter_pipeline('p', options => '{"on_error": "dead_letter"}')));
$node->poll_status('postgres', 'pipeline', 'p', 'running');
consume('p');
is(letters('p'), 'bad 22P02', 'altered to dead_letter it goes on past the bad message');
sql('DELETE FROM nexus_dead_letters');

# ---- trouble of the environment: nothing is lost, and the caller is told

bad_ones(5041, 5045);
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE taken IN ACCESS EXCLUSIVE MODE');
my ($rc, $out, $err) = $node->psql('postgres', q(SELECT nexus_replay('p')),
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  55P03: the replay could not go on: canceling statement due to lock timeout
DETAIL:  0 messages were taken in before/,
	'the table is locked: reported');
is(sql(q(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'p' AND sqlstate = '22000')), 5,
	'all letters are there, with their error of before');
$lock->query_safe('ROLLBACK');
replay_is(q('p'), '5 0', 'unlocked, they work');

# The caller itself may be the one in the way.
bad_ones(5051, 5053);
sqlstate_is($node, 'postgres', q(BEGIN; LOCK TABLE taken; SELECT nexus_replay('p')), '55P03',
	'a lock of the caller: reported too');
replay_is(q('p'), '3 0', 'nothing is lost');

# Two at once.
bad_ones(6001, 6020);
sql(q(SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 2}')));
$lock->query_safe('BEGIN; LOCK TABLE taken IN ACCESS EXCLUSIVE MODE');
my @runs = map { $node->background_psql('postgres') } 1 .. 3;
$_->query_until(qr/started/, qq(\\echo started\nSELECT 'result ' || replayed || ' ' || failed
	FROM nexus_replay('p');\n)) foreach @runs;
$node->wait_for_query('postgres', q(SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'nexus_kafka replay' AND wait_event_type = 'Lock'), 3);
$lock->query_safe('ROLLBACK');
my ($replayed, $failed) = (0, 0);
foreach my $run (@runs)
{
	my ($r, $f) = $run->query_until(qr/result \d+ \d+/, '') =~ /result (\d+) (\d+)/;
	$replayed += $r;
	$failed += $f;
	$run->quit;
}
is("$replayed $failed", '20 0', 'three replays at once: each letter once');
is(sql('SELECT count(*) FROM taken WHERE n BETWEEN 6001 AND 6020'), 20, 'a row each');
is(letters('p'), '', 'no letter is left');
$lock->quit;
$node->wait_no_worker('replay');
pass('no worker is left');

# ---- on_error: stop

sql(q(SELECT nexus_alter_pipeline('p', options => '{"on_error": "stop", "batch_messages": 1000}')), 'TRUNCATE taken');
consume('p');
my $next = sql(q(SELECT "offset" FROM nexus_offsets WHERE pipeline = 'p' AND partition = 0));
sql(q(INSERT INTO refused VALUES (7004)));
publish('p', 7001 .. 7006);
my $status = $node->poll_status('postgres', 'pipeline', 'p', 'stopped');
my $bad = $next + 3;
is($status->{reason}, qq(offset $bad of partition 0 of topic "p": refused: 7004 (SQLSTATE 22000)),
	'it stops, and says before which message and why');
is("$status->{last_error_sqlstate} $status->{last_error}", '22000 refused: 7004', 'with the error');
is(numbers(), '7001 7002 7003', 'what came before the bad message is taken in, nothing behind it');
is(sql(q(SELECT "offset" FROM nexus_offsets WHERE pipeline = 'p' AND partition = 0)), $bad,
	'the offset is the bad message\'s');
is(letters('p'), '', 'no dead letter');
like(sql(q(SELECT nexus_consume('p', '60 s'))), qr/"error": "stopped: offset $bad of partition 0/,
	'nexus_consume says it too, at once');
sql(q(SELECT nexus_resume('p')));
is($node->poll_status('postgres', 'pipeline', 'p', 'stopped')->{reason}, $status->{reason},
	'resumed and not mended, it stops there again');
sql('DELETE FROM refused', q(SELECT nexus_resume('p')));
consume('p');
is(numbers(), '7001 7002 7003 7004 7005 7006', 'mended, it goes on');

# Several at once.
sql(q(INSERT INTO refused VALUES (7011), (7012)),
	"SELECT nexus_create_pipeline('q', 'q', $statement, '{\"on_error\": \"stop\"}')");
publish('p', 7011);
publish('q', 7012);
$node->poll_status('postgres', 'pipeline', $_, 'stopped') foreach qw(p q);
sql('DELETE FROM refused', q(SELECT nexus_resume(name) FROM nexus_pipelines WHERE name IN ('p', 'q')));
is($node->status('postgres', 'pipeline', $_)->{state}, 'running', "$_ is resumed") foreach qw(p q);
consume($_) foreach qw(p q);
sql(q(SELECT nexus_drop_pipeline('q')), 'DELETE FROM taken WHERE n IN (7011, 7012)');
$next++;

publish('p', 'no number', 7007);
$node->poll_status('postgres', 'pipeline', 'p', 'stopped');
$bad = $next + 6;
like($node->status('postgres', 'pipeline', 'p')->{reason}, qr/^offset $bad of partition 0 .*SQLSTATE 22P02/,
	'a message that nothing mends');
sqlstate_is($node, 'postgres', q(SELECT nexus_seek('p', '0', 'p', 0)), '55000',
	'nexus_seek is refused while it is stopped, not paused');
sql(q(SELECT nexus_pause('p')));
is(sql("SELECT nexus_seek('p', '@{[ $bad + 1 ]}', 'p', 0)"), 1, 'sought past it');
sql(q(SELECT nexus_resume('p')));
consume('p');
is(numbers(), '7001 7002 7003 7004 7005 7006 7007', 'it goes on behind it');

# What can't be decoded, and the statement of several at once.
sql(q(SELECT nexus_create_pipeline('decoded', 'decoded', 'INSERT INTO taken SELECT (value ->> ''n'')::int
	FROM nexus_messages()', '{"on_error": "stop"}')));
publish('decoded', '{"n": 1}', '{"n": ', '{"n": 3}');
like($node->poll_status('postgres', 'pipeline', 'decoded', 'stopped')->{reason},
	qr/^offset 1 of partition 0 of topic "decoded": .*SQLSTATE 22P02/,
	'a message that can\'t be decoded');
is(sql('SELECT count(*) FROM taken WHERE n IN (1, 3)'), 1, 'the one before is taken in');
sql(q(SELECT nexus_alter_pipeline('decoded', statement =>
	'INSERT INTO taken SELECT substring(convert_from(value, ''UTF8'') FROM ''[0-9]+'')::int FROM nexus_raw_messages()')));
consume('decoded');
is(sql('SELECT count(*) FROM taken WHERE n IN (1, 3)'), 2, 'another statement lets it go on by itself');
sql(q(SELECT nexus_drop_pipeline('decoded')));

# ---- max_dead_letters

sql('DELETE FROM nexus_dead_letters', q(SELECT nexus_alter_pipeline('p',
	options => '{"on_error": "dead_letter", "max_dead_letters": 3, "batch_messages": 1}')));
publish('p', 'a', 8001, 'b', 8002, 'c', 8003, 'd', 8004);
$status = $node->poll_status('postgres', 'pipeline', 'p', 'paused');
is($status->{reason}, 'it has 3 dead letters or more (max_dead_letters): look at nexus_dead_letters, '
	  . 'replay or delete them, then nexus_resume(pipeline)', 'at so many dead letters it pauses, and says why');
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_jobs()
	WHERE kind = 'ingest' AND name = 'p' AND pid IS NOT NULL), 0);
is(letters('p'), 'a 22P02, b 22P02, c 22P02', 'after the third');
is(sql('SELECT string_agg(n::text, \' \') FROM taken WHERE n > 8000'), '8001 8002', 'what comes behind is not read');
sql(q(SELECT nexus_resume('p')));
$node->poll_status('postgres', 'pipeline', 'p', 'paused');
is(letters('p'), 'a 22P02, b 22P02, c 22P02, d 22P02', 'resumed with all of them there, it pauses at the next one');
sql(q(DELETE FROM nexus_dead_letters WHERE pipeline = 'p'), q(SELECT nexus_resume('p')));
consume('p');
is(sql('SELECT string_agg(n::text, \' \') FROM taken WHERE n > 8000'), '8001 8002 8003 8004',
	'without them it goes on');
is($node->status('postgres', 'pipeline', 'p')->{reason}, undef, 'and the reason is gone');
sql(q(SELECT nexus_alter_pipeline('p', options => '{"max_dead_letters": null}')));
publish('p', 'e', 'f', 'g', 'h', 8005);
consume('p');
is(sql(q(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'p')), 4, 'null: never');

no_crash_ok($node);
done_testing();
