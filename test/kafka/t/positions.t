# Where to start and where to seek to, said to a real Kafka, which knows the times of its
# messages and where its partitions end (the embedded broker doesn't).
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic(@$_) foreach [ 'nexus-prospect-ingestion', 1 ], [ 'a', 3 ];
my $node = NexusKafka::Cluster->make('positions', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub publish
{
	my ($partition, $from, $to) = @_;
	sql("SELECT count(nexus_produce('a', n::text, partition => $partition)) FROM generate_series($from, $to) n");
	is(sql('SELECT nexus_flush()'), 't', "$from to $to are in partition $partition");
	return;
}

# A time that is later than all messages before and earlier than all that come.
sub time_between
{
	my $time = sql('SELECT clock_timestamp()');
	$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$time' + interval '10 ms'");
	my $between = sql('SELECT clock_timestamp()');
	$node->wait_for_query('postgres', "SELECT clock_timestamp() > timestamptz '$between' + interval '10 ms'");
	return $between;
}

sub consumed
{
	my ($name) = @_;
	my $answer = sql("SELECT nexus_consume('$name', '60 s')");
	$answer =~ /"(success|idle)"/ or die "nexus_consume('$name') answered $answer";
	return sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM taken WHERE pipeline = '$name'");
}

sql('CREATE TABLE taken (pipeline text, n int)');
publish(0, 1, 3);
publish(1, 11, 12);
my $between = time_between();
publish(0, 4, 5);
time_between();

my %starts = (
	earliest => [ '"earliest"', '1 2 3 4 5 11 12' ],
	latest => [ '"latest"', '' ],
	time => [ "\"$between\"", '4 5' ],
	offsets => [ '{"0": 4, "1": "latest"}', '5' ],
	'by-topic' => [ qq({"a": {"0": "$between", "1": 1}}), '4 5 12' ]);
foreach my $name (sort keys %starts)
{
	sql(qq(SELECT nexus_create_pipeline('$name', 'a',
		'INSERT INTO taken SELECT ''$name'', value::int FROM nexus_messages()', '{"start": $starts{$name}[0]}')));
	is(consumed($name), $starts{$name}[1], "start $starts{$name}[0]");
}
publish(1, 13, 13);
publish(2, 21, 21);
is(consumed($_), join(' ', grep { $_ ne '' } $starts{$_}[1], '13 21'), "$_: and what comes") foreach sort keys %starts;
sql(q(SELECT nexus_drop_pipeline(name) FROM nexus_pipelines WHERE name NOT IN ('earliest', 'prospect_tracking')));

sub after_seek
{
	my ($arguments) = @_;
	sql(q(SELECT nexus_pause('earliest')), 'DELETE FROM taken', "SELECT nexus_seek('earliest', $arguments)",
		q(SELECT nexus_resume('earliest')));
	return consumed('earliest');
}

is(after_seek(q('latest')), '', 'seek to the latest: nothing that was there');
publish(2, 22, 22);
is(consumed('earliest'), '22', 'but what comes then');
is(after_seek(qq('$between')), '4 5 13 21 22', 'seek to a time');
is(after_seek(q('2000-01-01', 'a', 1)), '11 12 13', 'of one partition, to a time long ago');
is(after_seek(q('1', 'a', 0)), '2 3 4 5', 'seek to an offset');
is(after_seek(q('earliest')), '1 2 3 4 5 11 12 13 21 22', 'seek to the earliest');

# Beyond the end: not silently read from somewhere else.
sql(q(SELECT nexus_pause('earliest')), 'DELETE FROM taken', q(SELECT nexus_seek('earliest', '99', 'a', 0)),
	q(SELECT nexus_resume('earliest')));
like($node->poll_status('postgres', 'pipeline', 'earliest', 'stopped')->{reason},
	qr/^offset 99 of partition 0 of topic "a" is not on the broker/, 'seek beyond the end: stopped, with the place');
is(after_seek(q('5', 'a', 0)), '', 'from the end it goes on');
publish(0, 6, 6);
is(consumed('earliest'), '6', 'with what comes');

no_crash_ok($node);
done_testing();
