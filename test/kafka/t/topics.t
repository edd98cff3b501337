# Topics that go and come back, trimmed ones, brokers of another cluster, topics that come
# later, and the ways to begin: a pipeline never reads from a wrong place, says why it
# doesn't go on, and goes on when it is told where.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = NexusKafka::Broker->new(conf => { 'log.cleaner.backoff.ms' => 100 });
my $other = NexusKafka::Broker->new;
my $node = NexusKafka::Cluster->make('topics', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');

deleted_while_running();
made_anew("again_$_->[0]", @$_) for
  [ 'fewer_running', 2, 0 ], [ 'same_running', 5, 0 ], [ 'more_running', 9, 0 ],
  [ 'fewer_paused', 2, 1 ], [ 'same_paused', 5, 1 ], [ 'more_paused', 9, 1 ];
made_anew_at_once();
made_anew_with_fewer_partitions();
trimmed();
compacted();
listed_topics();
pattern();
starts();
start_at_group();
another_cluster();

no_crash_ok($node);
done_testing();

# A table, and a pipeline of its name that fills it with the messages' numbers.
sub pipeline
{
	my ($name, $topic, %options) = @_;
	my $options = join ', ', map { qq("$_": $options{$_}) } sort keys %options;

	$node->safe_psql('postgres', <<"END");
CREATE TABLE $name (topic text, partition int, n bigint);
SELECT nexus_create_pipeline('$name', '$topic', 'INSERT INTO $name
  SELECT topic, partition, (value ->> ''n'')::bigint FROM nexus_messages()', '{$options}');
END
	return;
}

sub state_is
{
	my ($name, $state, $reason, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $seen;

	do
	{
		$seen = $node->poll_status('postgres', 'pipeline', $name, $state)->{reason} // '';
	} until ($seen =~ $reason || time > $deadline);
	return like($seen, $reason, "$test: $state, with the reason");
}

# What the pipeline takes in, in the end, is these numbers.
sub numbers_are
{
	my ($name, $numbers, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_rows('postgres', $name, scalar @$numbers);
	return is($node->safe_psql('postgres', "SELECT string_agg(n::text, ' ' ORDER BY n) FROM $name"), "@$numbers", $test);
}

sub steer
{
	my ($name, $position) = @_;

	$node->safe_psql('postgres', "SELECT nexus_$_('$name'" . ($_ eq 'seek' ? ", '$position')" : ')')) for qw(pause seek resume);
	return;
}

sub deleted_while_running
{
	$kafka->create_topic('deleted');
	pipeline('deleted', 'deleted');
	numbers($kafka, 'deleted', [ 1 .. 5 ]);
	numbers_are('deleted', [ 1 .. 5 ], 'a topic is read');
	$kafka->delete_topic('deleted');
	state_is('deleted', 'waiting', qr/topic "deleted" does not exist/, 'deleted');

	# several looks later
	my $looks = () = log_lines($node, qr/ingest deleted of database/);
	my $pid = $node->status('postgres', 'pipeline', 'deleted')->{pid};
	pipeline('later', 'deleted');
	state_is('later', 'waiting', qr/topic "deleted" does not exist/, 'missing from the start');
	$node->safe_psql('postgres', q(SELECT nexus_consume('deleted', '3 s')));
	is($node->status('postgres', 'pipeline', 'deleted')->{pid}, $pid, 'the worker waits, and is not started again');
	is(scalar(() = log_lines($node, qr/ingest deleted of database/)), $looks, 'and says nothing more');
	return;
}

# The topic had five messages, and now has others, of which none is read until a person says where.
sub made_anew
{
	my ($name, $what, $messages, $paused) = @_;

	$kafka->create_topic($name);
	pipeline($name, $name);
	numbers($kafka, $name, [ 1 .. 5 ]);
	numbers_are($name, [ 1 .. 5 ], "$what: a topic is read");
	$node->safe_psql('postgres', "SELECT nexus_pause('$name')") if $paused;
	$kafka->delete_topic($name);
	state_is($name, 'waiting', qr/does not exist/, "$what: deleted") unless $paused;
	$kafka->create_topic($name);
	numbers($kafka, $name, [ 11 .. 10 + $messages ]);
	$node->safe_psql('postgres', "SELECT nexus_resume('$name')") if $paused;
	stopped_and_told($name, $what, [ 11 .. 10 + $messages ]);
	return;
}

sub stopped_and_told
{
	my ($name, $what, $numbers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	state_is($name, 'stopped', qr/nexus_seek\(\) says where to go on/, "$what: made anew");
	is($node->safe_psql('postgres', "SELECT count(*) FROM $name WHERE n > 10"), 0, 'and nothing of it is read');
	$node->safe_psql('postgres', "SELECT nexus_resume('$name')");
	state_is($name, 'stopped', qr/nexus_seek\(\) says where to go on/, "$what: nexus_resume() alone changes nothing");
	steer($name, 'earliest');
	numbers_are($name, [ 1 .. 5, @$numbers ], 'nexus_seek() lets it go on');
	$node->poll_status('postgres', 'pipeline', $name, 'running');
	return;
}

# Perhaps before anybody has looked.
sub made_anew_at_once
{
	my $name = 'again_at_once';

	$kafka->create_topic($name);
	pipeline($name, $name);
	numbers($kafka, $name, [ 1 .. 5 ]);
	numbers_are($name, [ 1 .. 5 ], 'at once: a topic is read');
	$kafka->delete_topic($name);
	$kafka->create_topic($name);
	state_is($name, 'stopped', qr/nexus_seek\(\) says where to go on/, 'at once: made anew, and empty');
	numbers($kafka, $name, [ 11 .. 30 ]);
	stopped_and_told($name, 'at once', [ 11 .. 30 ]);
	return;
}

sub made_anew_with_fewer_partitions
{
	my $name = 'again_narrow';

	$kafka->create_topic($name, 3);
	pipeline($name, $name);
	numbers($kafka, $name, [ 1 .. 5 ], partition => 0);
	numbers_are($name, [ 1 .. 5 ], 'fewer partitions: a topic is read');
	$node->safe_psql('postgres', "SELECT nexus_pause('$name')");
	$kafka->delete_topic($name);
	$kafka->create_topic($name, 2);
	numbers($kafka, $name, [ 11 .. 15 ]);
	$node->safe_psql('postgres', "SELECT nexus_resume('$name')");
	stopped_and_told($name, 'fewer partitions', [ 11 .. 15 ]);
	is($node->safe_psql('postgres', "SELECT count(*) FROM nexus_partitions WHERE pipeline = '$name'"), 2, 'and the third is forgotten');
	return;
}

# The last message that was taken in is gone by retention: no reason to stop. What was not is.
sub trimmed
{
	$kafka->create_topic('trimmed');
	pipeline('trimmed', 'trimmed');
	numbers($kafka, 'trimmed', [ 1 .. 5 ]);
	numbers_are('trimmed', [ 1 .. 5 ], 'a topic is read');
	$node->safe_psql('postgres', q(SELECT nexus_pause('trimmed')));
	numbers($kafka, 'trimmed', [ 6 .. 8 ]);
	$kafka->trim_topic('trimmed', 0, 5);
	$node->safe_psql('postgres', q(SELECT nexus_resume('trimmed')));
	numbers_are('trimmed', [ 1 .. 8 ], 'trimmed up to the offset: it goes on');

	$node->safe_psql('postgres', q(SELECT nexus_pause('trimmed')));
	numbers($kafka, 'trimmed', [ 9 .. 12 ]);
	$kafka->trim_topic('trimmed', 0, 10);
	$node->safe_psql('postgres', q(SELECT nexus_resume('trimmed')));
	state_is('trimmed', 'stopped', qr/offset 8 of partition 0 of topic "trimmed" is not on the broker any more/, 'trimmed beyond the offset');
	steer('trimmed', 'earliest');
	numbers_are('trimmed', [ 1 .. 8, 11, 12 ], 'nexus_seek() lets it go on');
	return;
}

# The last message that was taken in is gone by compaction.
sub compacted
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $n = 5;

	$kafka->create_topic('compacted', 1, 'cleanup.policy' => 'compact', 'segment.ms' => 100, 'min.cleanable.dirty.ratio' => '0.01');
	pipeline('compacted', 'compacted');
	numbers($kafka, 'compacted', [ 1 .. 5 ]);
	numbers_are('compacted', [ 1 .. 5 ], 'a topic is read');
	$node->safe_psql('postgres', q(SELECT nexus_pause('compacted')));
	do
	{
		die 'timed out waiting for the compaction' if time > $deadline;
		$n++;
		$kafka->produce('compacted', [ qq({"n":$n}) ], key => 5);
	} until $kafka->kcat('-C', '-t', 'compacted', '-o', 'beginning', '-e', '-q', '-f', '[%o]') !~ /\[4\]/;
	$node->safe_psql('postgres', q(SELECT nexus_resume('compacted')));
	$node->wait_rows('postgres', "compacted WHERE n = $n", 1);
	pass('the last message was compacted away: it goes on');
	is($node->safe_psql('postgres', 'SELECT count(*) - count(DISTINCT n) FROM compacted'), 0, 'and reads nothing again');
	return;
}

sub listed_topics
{
	$kafka->create_topic('list_a');
	pipeline('listed', 'list_a,list_b');
	numbers($kafka, 'list_a', [ 1 .. 3 ]);
	numbers_are('listed', [ 1 .. 3 ], 'of two topics one is there: it is read');
	state_is('listed', 'running', qr/topic "list_b" does not exist/, 'the other is missing');
	my $pid = $node->status('postgres', 'pipeline', 'listed')->{pid};
	$node->safe_psql('postgres', q(SELECT nexus_consume('listed', '2 s')));
	is($node->status('postgres', 'pipeline', 'listed')->{pid}, $pid, 'for which the worker waits in peace');

	$kafka->create_topic('list_b', 2);
	numbers($kafka, 'list_b', [ 4 .. 9 ]);
	numbers_are('listed', [ 1 .. 9 ], 'when it comes it is read, from its beginning');
	state_is('listed', 'running', qr/^$/, 'nothing is missing');

	$kafka->delete_topic('list_b');
	state_is('listed', 'running', qr/topic "list_b" does not exist/, 'deleted');
	numbers($kafka, 'list_a', [ 10 .. 12 ]);
	numbers_are('listed', [ 1 .. 12 ], 'the other one is read on');

	# what is given for each can't begin without one
	pipeline('given', 'list_a,list_c', start => '{"list_a": {"0": 2}, "list_c": {"0": 1}}');
	state_is('given', 'waiting', qr/topic "list_c" does not exist/, 'offsets for a topic that is missing');
	$kafka->create_topic('list_c');
	numbers($kafka, 'list_c', [ 20 .. 22 ]);
	numbers_are('given', [ 3, 10 .. 12, 21, 22 ], 'it begins at the offsets that were given, by topic');
	return;
}

sub pattern
{
	pipeline('pattern', '^pat_');
	state_is('pattern', 'waiting', qr/no topic matches "\^pat_"/, 'no topic yet');
	$kafka->create_topic('pat_a', 2);
	$kafka->create_topic('not_pat_a');
	numbers($kafka, $_, [ 1 .. 5 ]) for qw(pat_a not_pat_a);
	numbers_are('pattern', [ 1 .. 5 ], 'a topic that matches is read');
	$kafka->create_topic('pat_b');
	numbers($kafka, 'pat_b', [ 6 .. 9 ]);
	$node->safe_psql('postgres', q(SELECT nexus_consume('pattern', '30 s')));
	numbers_are('pattern', [ 1 .. 9 ], 'and one that comes later');
	is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT topic, \',\') FROM pattern'), 'pat_a,pat_b', 'and no other');
	return;
}

sub starts
{
	$kafka->create_topic('starts', 2);
	numbers($kafka, 'starts', [ 1 .. 5 ], partition => 0);
	my $time = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	numbers($kafka, 'starts', [ 6 .. 9 ], partition => 0);
	pipeline('latest', 'starts', start => '"latest"');
	pipeline('by_time', 'starts', start => qq("$time"));
	pipeline('by_offsets', 'starts', start => '{"0": 7, "1": "latest"}');
	$node->poll_status('postgres', 'pipeline', $_, 'running') for qw(latest by_time by_offsets);
	numbers($kafka, 'starts', [ 10 .. 11 ], partition => 1);
	numbers($kafka, 'starts', [ 12 .. 13 ], partition => 0);
	numbers_are('latest', [ 10 .. 13 ], 'latest: what comes after its creation');
	numbers_are('by_time', [ 6 .. 13 ], 'a timestamp: from then on');
	numbers_are('by_offsets', [ 8 .. 13 ], 'offsets, by partition');
	return;
}

sub start_at_group
{
	$kafka->create_topic('grouped', 2);
	numbers($kafka, 'grouped', [ 1 .. 4 ], partition => 0);
	numbers($kafka, 'grouped', [ 5 .. 8 ], partition => 1);

	pipeline('of_stranger', 'grouped', start => '"group:nobody"');
	state_is('of_stranger', 'stopped', qr/consumer group "nobody" has committed no offset/, 'a group without offsets');
	$node->safe_psql('postgres', q(SELECT nexus_alter_pipeline('of_stranger', options => '{"start": {"0": 3}}')));
	numbers_are('of_stranger', [ 4 .. 8 ], 'another start lets it go on');

	from_group('classic', qr/consumer group "classic" has 1 members still/,
		'kcat', '-b', $kafka->bootstrap, '-q', '-u', '-X', 'auto.offset.reset=earliest', '-G', 'classic', 'grouped_classic');
	# of KIP-848, which tells others nothing of its members
	from_group('consumer', qr/consumer group "consumer" has members still/, $kafka->java_command(
			'org.apache.kafka.tools.consumer.ConsoleConsumer', '--bootstrap-server', $kafka->bootstrap,
			'--group', 'consumer', '--topic', 'grouped_consumer', '--from-beginning', '--command-property', 'group.protocol=consumer'));
	return;
}

# The group's one member reads the topic grouped_GROUP and prints the messages until it is ended.
sub from_group
{
	my ($group, $reason, @command) = @_;
	my $topic = "grouped_$group";

	$kafka->create_topic($topic, 2);
	numbers($kafka, $topic, [ 1 .. 8 ]);
	my $member = IPC::Run::start(\@command, '>', \my $read, '2>', \my $errors,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$member->pump until $read =~ /(?:.*"n":.*\n){8}/;
	pipeline($topic, $topic, start => qq("group:$group"));
	# a moment ago the group may have had no offsets yet
	$node->safe_psql('postgres', "SELECT nexus_resume('$topic')")
	  until $node->safe_psql('postgres', "SELECT reason FROM nexus_status WHERE name = '$topic'") =~ $reason;
	pass("the $group group is at work: waiting");
	numbers($kafka, $topic, [ 9 .. 12 ]);
	$member->pump until $read =~ /(?:.*"n":.*\n){12}/;
	is($node->safe_psql('postgres', "SELECT count(*) FROM $topic"), 0, 'nothing is read meanwhile');
	$member->signal('TERM');
	$member->finish;
	numbers($kafka, $topic, [ 13 .. 15 ]);
	numbers_are($topic, [ 13 .. 15 ], 'when it has left, reading goes on from its offsets');
	return;
}

# As when a name in the network leads to another broker; and the same at the old one's address.
sub another_cluster
{
	$_->create_topic('moved') for $kafka, $other;
	pipeline('moved', 'moved');
	numbers($kafka, 'moved', [ 1 .. 5 ]);
	numbers($other, 'moved', [ 11 .. 19 ]);
	numbers_are('moved', [ 1 .. 5 ], 'a topic is read');
	my $before = $node->safe_psql('postgres', q(SELECT cluster_id FROM nexus_partitions WHERE pipeline = 'moved'));
	$node->reconfigure('nexus_kafka.bootstrap_servers' => $other->bootstrap);
	state_is('moved', 'stopped', qr/the offsets belong to Kafka cluster \Q$before\E, but the broker is of cluster .*nexus_seek\(\) says where/, 'another cluster');
	$node->safe_psql('postgres', q(SELECT nexus_resume('moved')));
	state_is('moved', 'stopped', qr/the offsets belong to Kafka cluster/, 'nexus_resume() alone changes nothing');
	steer('moved', '7');
	numbers_are('moved', [ 1 .. 5, 18, 19 ], 'nexus_seek() lets it go on there');

	numbers($kafka, 'moved', [ 21 .. 40 ]);
	$other->stop;
	$kafka->take_place_of($other);
	state_is('moved', 'stopped', qr/the offsets belong to Kafka cluster .*, but the broker is of cluster \Q$before\E/, 'another cluster at the same address');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM moved'), 7, 'and nothing of it was read');
	return;
}
