# Steering with SQL: pause, resume, seek, alter, drop, on demand, several workers, several
# topics, where to start. What a function says is so when it returns.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('steering', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub create
{
	my ($name, $topic, $options) = @_;
	$options //= '{}';
	sql(qq(SELECT nexus_create_pipeline('$name', '$topic', \$\$INSERT INTO taken
		SELECT '$name', topic, partition, "offset", (value ->> 'n')::int FROM nexus_messages()\$\$, '$options')));
	return;
}

# Numbers $from … $to as {"n": …} of one transaction, acknowledged; without a partition by the key.
sub publish
{
	my ($topic, $from, $to, $partition) = @_;
	my $place = defined $partition ? "partition => $partition" : 'key => n::text';
	sql("SELECT count(nexus_produce('$topic', jsonb_build_object('n', n), $place))
		FROM generate_series($from, $to) n");
	is(sql('SELECT nexus_flush()'), 't', "$from to $to are in topic $topic");
	return;
}

sub numbers
{
	my ($name) = @_;
	return sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM taken WHERE pipeline = '$name'");
}

sub consume_is
{
	my ($name, $expected, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(sql("SELECT nexus_consume('$name', '60 s')"), $expected, $what);
}

sub success { return qq({"status": "success", "processedCount": $_[0]}) }

sub workers
{
	my ($name) = @_;
	return sql("SELECT count(*) FROM nexus_jobs() WHERE kind = 'ingest' AND name = '$name' AND pid IS NOT NULL");
}

my $idle = '{"status": "idle"}';
sql('CREATE TABLE taken (pipeline text, topic text, part int, at bigint, n int)');

# ---- pause and resume

create('p', 'a');
publish('a', 1, 3, 0);
consume_is('p', success(3), 'it runs');
sql(q(SELECT nexus_pause('p')));
is(workers('p'), 0, 'nexus_pause returns when the worker has stopped');
my $status = $node->status('postgres', 'pipeline', 'p');
is("$status->{state}: $status->{reason}", 'paused: nexus_pause() was called; nexus_resume(pipeline) lets it go on',
	'and the status says why');
publish('a', 4, 5, 0);
is(numbers('p'), '1 2 3', 'nothing is read meanwhile');
like(sql(q(SELECT nexus_consume('p', '1 s'))), qr/"error"/, 'nexus_consume says that it does not run');
sql(q(SELECT nexus_resume('p')));
is($node->status('postgres', 'pipeline', 'p')->{state}, 'running', 'nexus_resume returns when it runs');
consume_is('p', success(2), 'and what came meanwhile is read');
is(numbers('p'), '1 2 3 4 5', 'each once');

# Held back from inside the transaction, and let go where that is rolled back.
my $session = $node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT nexus_pause('p')));
is(workers('p'), 0, 'paused in a transaction that is open still');
publish('a', 6, 6, 0);
$session->query_safe('ROLLBACK');
consume_is('p', success(1), 'rolled back, it goes on');
$session->query_safe(q(BEGIN; SELECT nexus_pause('p')));
$session->query_safe('COMMIT');
$node->poll_status('postgres', 'pipeline', 'p', 'paused');
is(workers('p'), 0, 'committed, it is paused');
$session->query_safe(q(BEGIN; SELECT nexus_resume('p')));
is($node->status('postgres', 'pipeline', 'p')->{state}, 'paused', 'nexus_resume counts from the commit on');
$session->query_safe('COMMIT');
is($node->status('postgres', 'pipeline', 'p')->{state}, 'running', 'then it runs');
sql(q(SELECT nexus_pause('p'), nexus_pause('p')), q(SELECT nexus_pause('p')));
is(workers('p'), 0, 'a pause of what is paused is one');
sql(q(SELECT nexus_resume('p')), q(SELECT nexus_resume('p')));
runs_ok($node, 'postgres');

# ---- seek

publish('a', 11, 13, 1);
consume_is('p', success(3), 'three more, in another partition');
sqlstate_is($node, 'postgres', q(SELECT nexus_seek('p', 'earliest')), '55000',
	'nexus_seek of what is not paused is refused');

# Seeks, resumes, and says which numbers were taken in then.
sub after_seek
{
	my (@arguments) = @_;
	my $arguments = join ', ', map { "'$_'" } 'p', @arguments;
	sql(q(SELECT nexus_pause('p')), 'DELETE FROM taken WHERE pipeline = \'p\'');
	my $moved = sql("SELECT nexus_seek($arguments)");
	sql(q(SELECT nexus_resume('p')));
	like(sql(q(SELECT nexus_consume('p', '60 s'))), qr/"(success|idle)"/, "seek $arguments");
	return "$moved: " . numbers('p');
}

is(after_seek('earliest'), '4: 1 2 3 4 5 6 11 12 13', 'to the earliest: all partitions');
is(after_seek('latest'), '4: ', 'to the latest: nothing that was there');
publish('a', 7, 7, 0);
consume_is('p', success(1), 'but what comes then');
is(after_seek('earliest', 'a', 1), '1: 11 12 13', 'one partition');
is(after_seek('earliest', 'a'), '4: 1 2 3 4 5 6 7 11 12 13', 'one topic');
is(after_seek('5', 'a', 0), '1: 6 7', 'to an offset');
is(after_seek('2'), '4: 3 4 5 6 7 13', 'to an offset in all partitions');
my $between = sql('SELECT clock_timestamp()');
$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$between' + interval '10 ms'");
publish('a', 8, 8, 0);
publish('a', 14, 14, 1);
consume_is('p', success(2), 'two more');
is(after_seek($between), '4: 8 14', 'to a time');
is(after_seek('2000-01-01'), '4: 1 2 3 4 5 6 7 8 11 12 13 14', 'to a time long ago');

# The embedded broker forgets the oldest messages. What is gone there is no reason to read others once more.
is(after_seek('99', 'a', 2), '1: ', 'to an offset that is not there');
publish('a', 15, 15, 2);
consume_is('p', success(1), 'what comes there is read');
is(numbers('p'), '15', 'the other partitions are where they were');

sql(q(SELECT nexus_pause('p')));
sql(q(BEGIN), q(SELECT nexus_seek('p', 'earliest')), q(ROLLBACK));
is(sql(q(BEGIN), q(SELECT nexus_seek('p', 3, 'a', 0)), q(SELECT "offset" FROM nexus_offsets
	WHERE pipeline = 'p' AND topic = 'a' AND partition = 0), q(ROLLBACK)), "1\n3", 'an offset may be a number');
sql(q(SELECT nexus_resume('p')));
consume_is('p', $idle, 'a seek that is rolled back moved nothing');

sql(q(DELETE FROM taken), q(BEGIN), q(SELECT nexus_pause('p')), q(SELECT nexus_seek('p', '6', 'a', 0)),
	q(SELECT nexus_resume('p')), q(COMMIT));
consume_is('p', success(2), 'pause, seek and resume in one transaction');
is(numbers('p'), '7 8', 'from there on');

# What is produced after the call is read, also what is produced before the resume.
sql(q(SELECT nexus_pause('p')), q(DELETE FROM taken WHERE pipeline = 'p'));
my $flushed = sql('SELECT clock_timestamp()');
$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$flushed' + interval '10 ms'");
sql(q(SELECT nexus_seek('p', 'latest')));
publish('a', 9, 9, 3);
sql(q(SELECT nexus_resume('p')));
consume_is('p', success(1), 'the latest is the time of the call');
is(numbers('p'), '9', 'and nothing older is read');

# ---- alter, while it runs

$session->query_safe(q(BEGIN; SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 999}')));
is(workers('p'), 0, 'no batch is taken in by the old definition once nexus_alter_pipeline has returned');
$session->query_safe('ROLLBACK');
consume_is('p', $idle, 'rolled back, it goes on as before');
$session->query_safe(q(BEGIN; SELECT nexus_alter_pipeline('p')));
is(workers('p'), 1, 'nothing changed: it goes on');
$session->query_safe('COMMIT');
my $server_started = sql('SELECT pg_postmaster_start_time()');
sql(q(SELECT nexus_alter_pipeline('p', statement => $$
	INSERT INTO taken SELECT 'altered', topic, partition, "offset", 2 * (value ->> 'n')::int FROM nexus_messages()$$)));
publish('a', 21, 23);
consume_is('p', success(3), 'altered while it runs');
is(numbers('altered'), '42 44 46', 'the new statement takes in what comes after it');
sql(q(SELECT nexus_alter_pipeline('p', statement => replace(statement,
	'''altered'', topic, partition, "offset", 2 *', '''p'', topic, partition, "offset",'))
	FROM nexus_pipelines WHERE name = 'p'), q(DELETE FROM taken),
	q(SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 2}')));
consume_is('p', $idle, 'another change');
my $batches = $node->status('postgres', 'pipeline', 'p')->{batches};
publish('a', 31, 40, 0);
consume_is('p', success(10), 'batch_messages');
cmp_ok($node->status('postgres', 'pipeline', 'p')->{batches} - $batches, '>=', 5,
	'are as small as the new option says');
sql(q(SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 1000, "batch_bytes": 1024}')));
$batches = $node->status('postgres', 'pipeline', 'p')->{batches};
sql(q(SELECT count(nexus_produce('a', jsonb_build_object('n', n, 'x', repeat('x', 600)), partition => 0))
	FROM generate_series(41, 46) n));
consume_is('p', success(6), 'batch_bytes');
cmp_ok($node->status('postgres', 'pipeline', 'p')->{batches} - $batches, '>=', 6, 'too');
is(numbers('p'), join(' ', 31 .. 46), 'nothing is lost or doubled by it');

sql(q(SELECT nexus_alter_pipeline('p', 'b')), q(DELETE FROM taken));
publish('b', 1, 3);
consume_is('p', success(3), 'another topic');
publish('a', 50, 52);
consume_is('p', $idle, 'the old one is not read any more');
sql(q(SELECT nexus_alter_pipeline('p', 'b,a')));
consume_is('p', success(3), 'and is, when it is named again, from where that had ended');
is(sql(q(SELECT string_agg(DISTINCT topic, ' ' ORDER BY topic) || ' ' || count(*) FROM taken)), 'a b 6', 'both');
is(sql('SELECT pg_postmaster_start_time()'), $server_started, 'no restart');
sqlstate_is($node, 'postgres', q(SELECT nexus_alter_pipeline('p', options => '{"start": "latest"}')), '55000',
	'a new start of what has begun is refused');
sqlstate_is($node, 'postgres', q(SELECT nexus_alter_pipeline('p', options => '{"start": "earliest"}')), '00000',
	'the same one isn\'t new');

# ---- drop

publish('dead', 1, 3, 0);
sql(q(SELECT nexus_create_pipeline('d', 'dead', 'INSERT INTO taken (n) SELECT 1 / ((value ->> ''n'')::int - 2)
	FROM nexus_messages()')));
consume_is('d', success(3), 'a pipeline with a dead letter');
$session->query_safe(q(BEGIN; SELECT nexus_drop_pipeline('d')));
is(workers('d'), 0, 'nexus_drop_pipeline returns when it has stopped');
$session->query_safe('ROLLBACK');
publish('dead', 4, 4, 0);
consume_is('d', success(1), 'rolled back, it goes on');
sql(q(SELECT nexus_drop_pipeline('d')));
is(sql(q(SELECT (SELECT count(*) FROM nexus_offsets WHERE pipeline = 'd'),
	(SELECT count(*) FROM nexus_pipelines WHERE name = 'd'), (SELECT count(*) FROM nexus_status WHERE name = 'd'),
	(SELECT count(*) FROM nexus_dead_letters WHERE pipeline = 'd'))), '0|0|0|1',
	'dropped: its offsets are gone, its dead letters are not');
sqlstate_is($node, 'postgres', q(SELECT nexus_drop_pipeline('d')), '42704', 'it is not there any more');
create('d', 'dead');
consume_is('d', success(4), 'its name can be used again, and begins anew');
is(numbers('d'), '1 2 3 4', 'with all of the topic');
sql(q(BEGIN), q(SELECT nexus_drop_pipeline('d')), q(DELETE FROM taken), q(SELECT nexus_create_pipeline('d', 'dead',
	'INSERT INTO taken SELECT ''d'', topic, partition, "offset", (value ->> ''n'')::int
	FROM nexus_messages()')), q(COMMIT));
$node->wait_for_query('postgres', q(SELECT count(*) FROM taken WHERE pipeline = 'd'), 4);
pass('also in the transaction that drops it');
sql(q(SELECT nexus_drop_pipeline('d')));

# ---- on demand

publish('demand', 1, 3);
create('o', 'demand', '{"on_demand": true}');
is($node->poll_status('postgres', 'pipeline', 'o', 'on_demand')->{reason}, 'nexus_consume() makes it run',
	'on demand: waits to be called');
is(workers('o') . numbers('o'), '0', 'no worker runs');
consume_is('o', success(3), 'nexus_consume answers with what it took in');
$node->poll_status('postgres', 'pipeline', 'o', 'on_demand');
is(workers('o'), 0, 'then no worker again');
publish('demand', 4, 8);
is(numbers('o'), '1 2 3', 'what comes is not read');
consume_is('o', success(5), 'until it is called again');
consume_is('o', $idle, 'and then there is nothing');
is(numbers('o'), '1 2 3 4 5 6 7 8', 'each once');
sql(q(SELECT nexus_alter_pipeline('o', options => '{"workers": 3}')));
publish('demand', 9, 20);
consume_is('o', success(12), 'with three workers too');
is(numbers('o'), join(' ', 1 .. 20), 'each once');
$node->poll_status('postgres', 'pipeline', 'o', 'on_demand');
sql(q(SELECT nexus_alter_pipeline('o', options => '{"on_demand": false}')));
publish('demand', 21, 21);
$node->wait_for_query('postgres', q(SELECT count(*) FROM taken WHERE pipeline = 'o'), 21);
pass('no longer on demand, it runs by itself');
sql(q(SELECT nexus_drop_pipeline('o')));

# ---- workers

publish('w', 1, 400);
create('w', 'w', '{"workers": 3}');
consume_is('w', success(400), 'three workers');
is(sql(q(SELECT count(*), count(DISTINCT n) FROM taken WHERE pipeline = 'w')), '400|400', 'all rows arrive once');
$node->wait_for_query('postgres', q(SELECT workers FROM nexus_status WHERE name = 'w'), 3);
$node->wait_for_query('postgres', q(SELECT count(*) || ' ' || count(DISTINCT partition) || ' ' || count(DISTINCT pid)
	FROM nexus_partitions WHERE pipeline = 'w'), '4 4 3');
pass('each partition has one owner');
is(sql(q(SELECT bool_and(j.pid IS NOT NULL) FROM nexus_partitions p
	LEFT JOIN nexus_jobs() j ON j.name = p.pipeline AND j.pid = p.pid WHERE p.pipeline = 'w')),
	't', 'a worker of that pipeline');
sql(q(SELECT nexus_alter_pipeline('w', options => '{"workers": 1}')));
publish('w', 401, 500);
consume_is('w', success(100), 'down to one, without a restart');
$node->wait_for_query('postgres', q(SELECT workers FROM nexus_status WHERE name = 'w'), 1);
$node->wait_for_query('postgres', q(SELECT count(*) || ' ' || count(DISTINCT pid)
	FROM nexus_partitions WHERE pipeline = 'w'), '4 1');
sql(q(SELECT nexus_alter_pipeline('w', options => '{"workers": 5}')));
publish('w', 501, 600);
consume_is('w', success(100), 'up to more than there are partitions');
$node->wait_for_query('postgres', q(SELECT workers FROM nexus_status WHERE name = 'w'), 5);
$node->wait_for_query('postgres', q(SELECT count(*) || ' ' || count(DISTINCT pid)
	FROM nexus_partitions WHERE pipeline = 'w'), '4 4');
sql(q(SELECT nexus_pause('w')));
is(workers('w'), 0, 'a pause stops them all');
sql(q(SELECT nexus_resume('w')));
publish('w', 601, 700);
consume_is('w', success(100), 'and they all go on');
is(sql(q(SELECT count(*), count(DISTINCT n) FROM taken WHERE pipeline = 'w')), '700|700', 'all rows arrived once');
sql(q(SELECT nexus_drop_pipeline('w')));

# ---- topics

publish('t1', 1, 2);
create('list', 't1,t2');
consume_is('list', success(2), 'a list of topics');
publish('t2', 3, 4);
publish('t1', 5, 5);
consume_is('list', success(3), 'both are read');
is(sql(q(SELECT string_agg(topic || n, ' ' ORDER BY n) FROM taken WHERE pipeline = 'list')), 't11 t12 t23 t24 t15',
	'each once');
sql(q(SELECT nexus_drop_pipeline('list')));

publish('log.one', 1, 2);
create('pattern', '^log\\.(one|two|three)$');
consume_is('pattern', success(2), 'a pattern');
publish('log.four', 9, 9);
publish('log.two', 3, 4);
$node->wait_rows('postgres', q(taken WHERE pipeline = 'pattern'), 4);
is(numbers('pattern'), '1 2 3 4', 'a topic that matches later is read, from its beginning');
is(sql(q(SELECT string_agg(DISTINCT topic, ' ') FROM nexus_partitions WHERE pipeline = 'pattern')), 'log.one log.two',
	'no other');
sql(q(SELECT nexus_drop_pipeline('pattern')));

# ---- where to start

sql(q(SELECT nexus_create_pipeline('nothing', '^no-such', 'SELECT * FROM nexus_messages()')));
like($node->poll_status('postgres', 'pipeline', 'nothing', 'waiting')->{reason}, qr/no topic matches "\^no-such"/,
	'a pattern that nothing matches');
sql(q(SELECT nexus_drop_pipeline('nothing')));

publish('start', 1, 3, 0);
my $before = sql('SELECT clock_timestamp()');
$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$before' + interval '10 ms'");
publish('start', 4, 5, 0);
my $after = sql('SELECT clock_timestamp()');
$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$after' + interval '10 ms'");
create('latest', 'start', '{"start": "latest"}');
create('time', 'start', qq({"start": "$before"}));
create('offset', 'start', '{"start": 2}');
create('offsets', 'start', '{"start": {"0": 4, "1": "latest"}}');
create('by-topic', 'start', '{"start": {"start": {"0": 3}, "other": {"0": 0}}}');
create('demanded', 'start', '{"start": "latest", "on_demand": true}');
consume_is('latest', $idle, 'start latest: nothing that was there');
consume_is('time', success(2), 'start at a time');
consume_is('offset', success(3), 'start at an offset');
consume_is('offsets', success(1), 'start at offsets of partitions');
consume_is('by-topic', success(2), 'start at offsets of a topic\'s partitions');
publish('start', 6, 6, 0);
publish('start', 7, 7, 1);
consume_is($_, success(2), "$_: and what comes") foreach qw(latest time offset offsets by-topic);
consume_is('demanded', success(2), 'the latest is the time when it was made, not when it first ran');
is(numbers($_->[0]), $_->[1], "$_->[0]: those numbers")
	foreach [ 'latest', '6 7' ], [ 'time', '4 5 6 7' ], [ 'offset', '3 4 5 6 7' ],
	[ 'offsets', '5 6 7' ], [ 'by-topic', '4 5 6 7' ], [ 'demanded', '6 7' ];

$session->quit;
no_crash_ok($node);
done_testing();
