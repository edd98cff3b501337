# Random streams through an upsert pipeline, with random events in between (kill -9,
# pauses, seeks, other statements and options, replays): the tables equal what a model
# makes of the topic, the dead letters are exactly the bad messages, and at any moment
# rows and offsets agree.
#
# NEXUS_TEST_SEED repeats a run's decisions; the moments at which they fall differ.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Chance;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $steps = scaled(1000, 150);
my $partitions = 3;
my $keys = 40;
my $topic = 'stream';

diag("$steps steps");

# ---- the database

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($topic, $partitions);
my $node = NexusKafka::Cluster->make('property', bootstrap => $kafka->bootstrap, restart_after_crash => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
SELECT nexus_drop_pipeline('prospect_tracking');

CREATE TABLE owners (id integer PRIMARY KEY);
INSERT INTO owners SELECT generate_series(1, 3);

-- every message that was taken in; without a key, so that one taken in twice shows
CREATE TABLE journal (
  n bigint, partition integer, "offset" bigint, key text NOT NULL, gone boolean, amount numeric,
  owner integer REFERENCES owners DEFERRABLE INITIALLY DEFERRED, note text, lenient boolean, version integer,
  CHECK (gone OR amount IS NOT NULL AND amount >= 0));
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.note = 'raise' THEN RAISE 'not this one'; END IF;
  IF NEW.note = 'forbidden' THEN RAISE insufficient_privilege; END IF;
  IF NEW.note = 'strict' AND NOT NEW.lenient THEN RAISE division_by_zero; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER judge BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION judge();

-- the last one of each key
CREATE TABLE items (key text PRIMARY KEY, n bigint, amount numeric, owner integer, note text);

CREATE FUNCTION take_in(lenient boolean, version integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE m record;
BEGIN
  FOR m IN SELECT (headers ->> 'n')::bigint AS n, partition, "offset", key, value FROM nexus_messages()
           ORDER BY partition, "offset" LOOP
    INSERT INTO journal VALUES (m.n, m.partition, m."offset", m.key, m.value IS NULL, (m.value ->> 'amount')::numeric,
      (m.value ->> 'owner')::integer, m.value ->> 'note', lenient, version);
    DELETE FROM items WHERE key = m.key;
    IF m.value IS NOT NULL THEN
      INSERT INTO items VALUES (m.key, m.n, (m.value ->> 'amount')::numeric, (m.value ->> 'owner')::integer,
        m.value ->> 'note');
    END IF;
  END LOOP;
END $$;
CREATE PROCEDURE take_in_all(lenient boolean, version integer) LANGUAGE sql AS 'SELECT take_in(lenient, version)';
END

sub sql { return $node->safe_psql('postgres', $_[0]) }

# ---- the statements: all do the same

my $messages = <<'END';
SELECT (headers ->> 'n')::bigint AS n, partition, "offset", key, value IS NULL AS gone,
    (value ->> 'amount')::numeric AS amount, (value ->> 'owner')::integer AS owner, value ->> 'note' AS note
  FROM nexus_messages()
END
my $raw_messages = $messages =~ s/value ->>/convert_from(value, 'UTF8')::jsonb ->>/gr
  =~ s/ key,/ convert_from(key, 'UTF8') AS key,/r =~ s/nexus_messages/nexus_raw_messages/r;
my $journal = <<'END';
WITH m AS MATERIALIZED (%s),
j AS (INSERT INTO journal SELECT n, partition, "offset", key, gone, amount, owner, note, %s, %d FROM m),
latest AS (SELECT DISTINCT ON (key) * FROM m ORDER BY key, "offset" DESC)
END
my $upsert = $journal . <<'END';
, d AS (DELETE FROM items USING latest WHERE items.key = latest.key AND gone)
INSERT INTO items SELECT key, n, amount, owner, note FROM latest WHERE NOT gone
ON CONFLICT (key) DO UPDATE SET n = excluded.n, amount = excluded.amount, owner = excluded.owner, note = excluded.note
END
my $merge = $journal . <<'END';
MERGE INTO items i USING latest l ON i.key = l.key
WHEN MATCHED AND gone THEN DELETE
WHEN MATCHED THEN UPDATE SET n = l.n, amount = l.amount, owner = l.owner, note = l.note
WHEN NOT MATCHED AND NOT gone THEN INSERT VALUES (l.key, l.n, l.amount, l.owner, l.note)
END
my @statements = (
	sub { sprintf $upsert, $messages, @_ },
	sub { sprintf $upsert, $raw_messages, @_ },
	sub { sprintf $merge, $messages, @_ },
	sub { sprintf $merge, $raw_messages, @_ },
	sub { sprintf 'SELECT take_in(%s, %d)', @_ },
	sub { sprintf 'CALL take_in_all(%s, %d)', @_ });
my $version = 0;

sub new_statement
{
	my ($lenient) = @_;

	return '$s$' . one_of(@statements)->($lenient ? 'true' : 'false', ++$version) . '$s$';
}

# ---- messages

# What is wrong, and the SQLSTATE that it must have among the dead letters.
my %bad = (
	no_json => [ '22P02', sub { value => 'no json' } ],
	cut_off => [ '22P02', sub { value => '{"amount": 1, ' } ],
	empty => [ '22P02', sub { value => '' } ],
	no_utf8 => [ '22021', sub { value => "{\"amount\": 1, \"note\": \"\xff\xfe\"}" } ],
	nul => [ '22P05', sub { value => '{"amount": 1, "note": "\u0000"}' } ],
	key_no_utf8 => [ '22021', sub { key => "\xc3(" } ],
	no_key => [ '23502', sub { key => undef, partition => chance($partitions) } ],
	no_number => [ '22P02', sub { value => '{"amount": "much"}' } ],
	negative => [ '23514', sub { value => '{"amount": -1}' } ],
	missing => [ '23514', sub { value => '{"owner": 1}' } ],
	json_null => [ '23514', sub { value => 'null' } ],
	array => [ '23514', sub { value => '[{"amount": 1}]' } ],
	no_owner => [ '23503', sub { value => '{"amount": 1, "owner": 99}' } ],
	raise => [ 'P0001', sub { value => '{"amount": 1, "note": "raise"}' } ],
	forbidden => [ '42501', sub { value => '{"amount": 1, "note": "forbidden"}' } ]);
my @bad = sort keys %bad;

my %message;    # by number, of committed transactions only
my $n = 0;

# A key is always published to an explicit partition or never, so it has one partition.
sub key_place
{
	my ($key) = @_;
	my ($number) = $key =~ /(\d+)$/;

	return defined $number && $number % 3 == 0 ? $number % $partitions : undef;
}

sub message
{
	my (%fixed) = @_;
	my $key = $fixed{key} // (chance(50) ? 'k' . chance($keys) : '');
	my %m = (n => ++$n, kind => 'good', key => $key, partition => key_place($key));

	if (exists $fixed{partition} || chance(100) < 70)
	{
		@m{qw(amount owner note)} = (chance(1000), one_of(1 .. 3), one_of('plain', 'caf\u00e9', "na\xc3\xafve"));
		$m{value} = qq({"amount": $m{amount}, "owner": $m{owner}, "note": "$m{note}"});
		$m{note} =~ s/\\u00e9/\xc3\xa9/;
	}
	elsif (chance(100) < 45)
	{
		@m{qw(kind value)} = ('gone', undef);
	}
	elsif (chance(100) < 20)
	{
		@m{qw(kind key partition amount owner note)} = ('strict', "s$n", key_place("s$n"), 1, 1, 'strict');
		$m{value} = '{"amount": 1, "owner": 1, "note": "strict"}';
	}
	else
	{
		my $kind = one_of(@bad);
		%m = (%m, kind => $kind, value => '{"amount": 1}', $bad{$kind}[1]->());
	}
	return { %m, %fixed };
}

sub bytea { return defined $_[0] ? "'\\x" . unpack('H*', $_[0]) . "'::bytea" : 'NULL::bytea' }

sub produce_sql
{
	my ($m) = @_;

	return sprintf "SELECT nexus_produce('%s', %s, %s, headers => '{\"n\": \"%d\"}'%s);\n", $topic, bytea($m->{value}),
	  bytea($m->{key}), $m->{n}, defined $m->{partition} ? ", partition => $m->{partition}" : '';
}

sub committed { $message{ $_->{n} } = $_ for @_ }

# Whatever waits for evidence has some: a good message in each partition.
sub produce_evidence
{
	my @good = map { message(key => "e$_", partition => $_) } 0 .. $partitions - 1;

	sql(join '', map { produce_sql($_) } @good);
	committed(@good);
	return;
}

# ---- rows and offsets agree, at any moment (the topic's offsets have no gaps)

my $disagreement = <<"END";
WITH taken AS (
  SELECT partition, "offset" FROM journal
  UNION ALL SELECT partition, "offset" FROM nexus_dead_letters WHERE pipeline = 'stream')
SELECT o.partition, o."offset", count(t."offset"), count(DISTINCT t."offset"), max(t."offset")
FROM nexus_offsets o LEFT JOIN taken t ON t.partition = o.partition
WHERE o.pipeline = 'stream'
GROUP BY 1, 2
HAVING GREATEST(o."offset", 0) <> count(t."offset") OR count(t."offset") <> count(DISTINCT t."offset")
  OR max(t."offset") >= o."offset"
END

# ---- events

my ($paused, $lenient, $kills, $late, @late_messages) = (0, 0, 0);
my %done;

sub end_late
{
	my ($end) = @_;
	my $session = $late or return;

	undef $late;
	if ($end)
	{
		$session->query_safe($end);
		committed(@late_messages) if $end eq 'COMMIT';
	}
	eval { $session->quit };
	return;
}

my %event = (
	produce => [ 20, sub {
			my $script = '';

			foreach my $transaction (0 .. chance(4))
			{
				my @messages = map { message() } 0 .. chance(chance(4) ? 12 : 300);
				my $undone = message();
				my $end = chance(4) ? 'COMMIT' : 'ROLLBACK';

				$script .= join '', "BEGIN;\n", (map { produce_sql($_) } @messages), "SAVEPOINT s;\n", produce_sql($undone),
				  "ROLLBACK TO s;\n$end;\n";
				committed(@messages) if $end eq 'COMMIT';
			}
			sql($script);
		} ],

	# A transaction that stays open while others come and go. Its keys are its own.
	open => [ 2, sub {
			return if $late;
			@late_messages = map { message(key => 'late' . $n, partition => chance($partitions)) } 0 .. chance(5);
			$late = $node->background_psql('postgres');
			$late->query_safe(join '', "BEGIN;\n", map { produce_sql($_) } @late_messages);
		} ],
	close => [ 3, sub { end_late(chance(3) ? 'COMMIT' : 'ROLLBACK') } ],

	kill => [ 3, sub {
			my $pids = "SELECT pid FROM nexus_jobs() WHERE name = 'stream' AND pid IS NOT NULL ORDER BY part";

			return if $paused;
			$node->wait_for_query('postgres', "SELECT count(*) > 0 FROM ($pids) x");
			my $pid = one_of(split /\n/, sql($pids)) // return;
			kill('KILL', $pid) or return;
			$kills++;
			my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
			while ($node->crashes < $kills)
			{
				die 'the server did not notice the death of a worker' if time > $deadline;
				sleep 0.02;
			}
			$node->wait_for_query('postgres', 'SELECT 1', 1);
			end_late();
		} ],
	pause => [ 3, sub {
			sql("SELECT nexus_pause('stream')");
			$paused = 1;

			# One may come up still, and go when it sees that it is paused.
			my $offsets = sql('SELECT sum("offset") FROM nexus_offsets');
			$node->wait_for_query('postgres', "SELECT count(pid) FROM nexus_jobs() WHERE name = 'stream'", 0);
			is(sql('SELECT sum("offset") FROM nexus_offsets'), $offsets, 'paused: nothing moves');
		} ],
	resume => [ 5, sub {
			sql("SELECT nexus_resume('stream')");
			$paused = 0;
		} ],
	seek => [ 4, sub {
			my $again = $paused ? '' : "SELECT nexus_resume('stream');";
			my $offsets = q(SELECT string_agg(concat_ws(' ', partition, "offset"), ',' ORDER BY partition)
				FROM nexus_offsets WHERE pipeline = 'stream');

			sql("SELECT nexus_pause('stream')");
			my $before = sql($offsets);
			foreach (split /,/, $before)
			{
				my ($partition, $offset) = split / /;
				my $position = $offset < 0 ? 'earliest' : $offset;
				sql("SELECT nexus_seek('stream', '$position', '$topic', $partition)");
			}
			is(sql($offsets), $before, "a seek to where it was: $before");
			sql($again);
		} ],
	statement => [ 4, sub {
			$lenient = chance(2);
			sql("SELECT nexus_alter_pipeline('stream', statement => " . new_statement($lenient) . ')');
		} ],
	options => [ 4, sub {
			my %options = (
				workers => 1 + chance(3),
				batch_messages => one_of(1, 2, 7, 100, 1000, 10000),
				batch_bytes => one_of(1024, 5000, 4194304));
			my $name = one_of(sort keys %options);
			sql("SELECT nexus_alter_pipeline('stream', options => '{\"$name\": $options{$name}}')");
			return "$name $options{$name}";
		} ],
	replay => [ 3, sub {
			my $ids = one_of('NULL', 'ARRAY(SELECT id FROM nexus_dead_letters WHERE id % 2 = 0 ORDER BY random())');
			return sql("SELECT nexus_replay('stream', $ids)");
		} ],
	consume => [ 4, sub {
			return if $paused;
			produce_evidence();
			consume();
			my $taken = sql(q(SELECT count(DISTINCT n) FROM (
				SELECT n FROM journal UNION ALL SELECT (headers ->> 'n')::bigint FROM nexus_dead_letters) x));
			is($taken, scalar keys %message, 'after nexus_consume() all that was committed is there');
		} ]);
my @events = map { ($_) x $event{$_}[0] } sort keys %event;

# nexus_consume() answers an error at once if, say, its worker is just being exchanged for another.
sub consume
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $answer;

	do
	{
		$answer = sql("SELECT nexus_consume('stream', '10 s')");
		die "nexus_consume: $answer" if time > $deadline;
	} until $answer =~ /"(success|idle)"/;
	return;
}

sql("SELECT nexus_create_pipeline('stream', '$topic', " . new_statement(0) . q[, '{"workers": 2}')]);
foreach my $step (1 .. $steps)
{
	my $name = one_of(@events);
	my @said = $event{$name}[1]->();
	my $found = sql($disagreement);

	$done{$name}++;
	note("step $step: $name @{[ map { $_ // () } @said ]}");
	next if $found eq '';
	fail("after step $step, $name, rows and offsets disagree");
	diag($found);
}
end_late('COMMIT');
diag(join ', ', map { "$_ $done{$_}" } sort keys %done);

# ---- the end: a lenient statement for all, what it takes leaves the dead letters

sub finish
{
	sql("SELECT nexus_alter_pipeline('stream', statement => " . new_statement(1) . ')');
	sql("SELECT nexus_resume('stream')");
	produce_evidence();
	consume();
	sql("SELECT nexus_replay('stream')");
	return;
}

# The topic, as kcat reads it: for each partition its messages, in order.
sub read_topic
{
	my @places;

	foreach (split /\n/, $kafka->kcat('-C', '-t', $topic, '-e', '-q', '-f', '%p %o %h\n'))
	{
		my ($partition, $offset, $number) = /^(\d+) (\d+) .*\bn=(\d+)/ or die "kcat read: $_";
		push @{ $places[$partition] }, { offset => $offset, message => $message{$number}, n => $number };
	}
	return map { [ sort { $a->{offset} <=> $b->{offset} } @{ $_ // [] } ] } @places[ 0 .. $partitions - 1 ];
}

sub line { return join '|', map { $_ // '' } @_ }

# What journal, items and dead letters must be, each as sorted lines.
sub model
{
	my @topic = @_;
	my (@journal, %items, @dead);

	foreach my $partition (0 .. $#topic)
	{
		foreach my $place (@{ $topic[$partition] })
		{
			my $m = $place->{message};
			my @at = ($partition, $place->{offset});

			if ($bad{ $m->{kind} })
			{
				push @dead, line(@at, $bad{ $m->{kind} }[0], map { defined $_ ? unpack('H*', $_) : 'null' } @{$m}{qw(key value)});
				next;
			}
			push @journal, line(@at, @{$m}{qw(n key amount owner note)});
			$items{ $m->{key} } = line(@{$m}{qw(key n amount owner note)});
			delete $items{ $m->{key} } if $m->{kind} eq 'gone';
		}
	}
	return map { [ sort @$_ ] } \@journal, [ values %items ], \@dead;
}

sub rows { return [ sort map { tr/\t/|/r } split /\n/, sql("COPY ($_[0]) TO STDOUT (NULL '')") ] }

sub same_ok
{
	my ($got, $expected, $name) = @_;
	my %count;

	$count{$_}++ for @$expected;
	$count{$_}-- for @$got;
	my @missing = grep { $count{$_} > 0 } sort keys %count;
	my @surplus = grep { $count{$_} < 0 } sort keys %count;
	ok(!@missing && !@surplus, sprintf '%s: %d', $name, scalar @$expected)
	  or diag(map { "$_\n" } 'missing:', splice(@missing, 0, 10), 'too many:', splice(@surplus, 0, 10));
	return;
}

sub model_ok
{
	my ($name, @topic) = @_;
	my ($journal, $items, $dead) = model(@topic);

	same_ok(rows('SELECT partition, "offset", n, key, amount, owner, note FROM journal'), $journal,
		"$name: each good message was taken in, once");
	same_ok(rows('SELECT key, n, amount, owner, note FROM items'), $items, "$name: the last one of each key is the item");
	same_ok(rows(q(SELECT partition, "offset", sqlstate, COALESCE(encode(key, 'hex'), 'null'),
			COALESCE(encode(value, 'hex'), 'null') FROM nexus_dead_letters)), $dead, "$name: the dead letters are the bad ones");
	is(sql($disagreement), '', "$name: rows and offsets agree");
	return;
}

finish();
my @topic = read_topic();
my (%partition_of, %times, @disorder);
foreach my $partition (0 .. $#topic)
{
	my $last = 0;
	foreach my $place (@{ $topic[$partition] })
	{
		my $m = $place->{message} or next;
		$partition_of{ $m->{key} }{$partition} = 1 if defined $m->{key};
		next if $times{ $m->{n} }++ || $m->{key} && $m->{key} =~ /^late/;
		push @disorder, $m->{n} if $m->{n} < $last;
		$last = $m->{n};
	}
}
cmp_ok(scalar keys %message, '>', $steps, 'there was something to do');
is(join(' ', grep { !$times{$_} } sort { $a <=> $b } keys %message), '', 'all that was committed is in the topic');
is(join(' ', map { $_->{n} } grep { !$_->{message} } map { @$_ } @topic), '', 'nothing else is');
is("@disorder", '', 'in its order');
is(join(' ', grep { keys %{ $partition_of{$_} } > 1 } sort keys %partition_of), '', 'each key in one partition');

model_ok('in the end', @topic);
is(sql(q(SELECT count(*) FROM (SELECT version < lag(version) OVER (PARTITION BY partition ORDER BY "offset") AS back
	FROM journal WHERE note IS DISTINCT FROM 'strict') x WHERE back)), 0, 'after a new statement no older one took anything in');

sql(q(SELECT nexus_pause('stream');));
sql(q(TRUNCATE journal, items; DELETE FROM nexus_dead_letters;
	SELECT nexus_seek('stream', 'earliest'); SELECT nexus_resume('stream')));
consume();
model_ok('from the beginning once more', @topic);

no_crash_ok($node, kills => $kills);
done_testing();
