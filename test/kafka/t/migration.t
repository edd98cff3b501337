# docs/migration.md as it is: its blocks of SQL run in order, over SASL_SSL with an .env
# file, with kcat in the place of the old producer and of the old consumer, on a table
# that the old consumer writes. Nothing is lost and nothing comes twice, there, back, and
# there again.
use strict;
use warnings;

use IPC::Run ();
use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $topic = 'nexus-prospect-ingestion';
my $group = 'nexus-consumer-group';
my %blocks = blocks('docs/migration.md');
my $published = 0;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($topic, 1);
my $node = NexusKafka::Cluster->make('migration', start => 0);
my $file = $node->data_dir . '/kafka.env';
open(my $handle, '>', $file) or die "$file: $!";
print $handle "NODE_ENV=production\nCONFLUENT_BOOTSTRAP_SERVER=", $kafka->sasl_bootstrap, "\nCONFLUENT_API_KEY=key\n",
  'CONFLUENT_API_SECRET="', NexusKafka::Broker::SASL_PASSWORD, "\"\nssl.ca.location=", $kafka->ca_file, "\n";
close $handle;
chmod 0600, $file;
$node->configure('nexus_kafka.config_file' => $file);
$node->start;
$node->safe_psql('postgres', q{
	CREATE TABLE prospect_tracking (
		id uuid PRIMARY KEY DEFAULT gen_random_uuid(), fingerprint_id text, session_id text NOT NULL, messages jsonb,
		metadata jsonb, created_at timestamptz NOT NULL DEFAULT now())});

# ---- the old system

# By the old producer: a key of its own, no messageId.
sub publish
{
	my ($n) = @_;

	for (1 .. $n)
	{
		my $i = ++$published;
		$kafka->produce($topic, [ qq({"messages":[{"role":"user","content":"$i"}],"fingerprint":"f","sessionId":"s-$i",)
			  . '"metadata":{"enqueuedAt":"2026-11-24T08:00:00.000Z","url":"/"}}' ], key => "nanoid-$i");
	}
	return;
}

# A run of the old consumer that takes n messages: rows first, then (at its end) the offsets.
sub consume_old
{
	my ($n) = @_;
	my @values = split /\n/, $kafka->kcat('-G', $group, '-q', '-c', $n, '-X', 'auto.offset.reset=earliest', '-f', '%s\n', $topic);

	is(scalar @values, $n, "the old consumer takes $n");
	return write_old(@values);
}

sub write_old
{
	my (@values) = @_;

	return $node->safe_psql('postgres', join '', map {
		"INSERT INTO prospect_tracking (fingerprint_id, session_id, messages, metadata)
			SELECT v ->> 'fingerprint', v ->> 'sessionId', v -> 'messages', v -> 'metadata' FROM (SELECT '$_'::jsonb v) x;" } @values);
}

# One that stays in the group until it is told to end.
sub start_member
{
	my $member = { out => '' };

	$member->{handle} = IPC::Run::start([ 'kcat', '-b', $kafka->bootstrap, '-G', $group, '-q', '-u', '-f', '%s\n', $topic ],
		'<', \undef, '>', \$member->{out}, '2>', \$member->{err});
	return $member;
}

sub member_takes
{
	my ($member, $session) = @_;
	my $deadline = time + 60;

	until ($member->{out} =~ /"\Q$session\E"/)
	{
		die "the old consumer does not take $session: $member->{out}$member->{err}" if time > $deadline;
		$member->{handle}->pump_nb;
		select undef, undef, undef, 0.05;
	}
	return;
}

# ---- what the document says

sub blocks
{
	my ($path) = @_;
	my $document = slurp_file($path);
	my $step = 0;
	my %found;

	while ($document =~ /^## (\d)|^```sql\n(.*?)^```$/msg)
	{
		$step = $1 if defined $1;
		push @{ $found{$step} }, $2 if defined $2;
	}
	return %found;
}

sub run_block
{
	my ($sql, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);

	is($rc, 0, $name) or diag($err);
	return $out;
}

# The end of the check's output: no row.
sub check_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $out = run_block($blocks{5}[1], 'the check runs');

	unlike($out, qr/^s-/m, "$name: nothing lost, nothing twice");
	return;
}

sub sessions
{
	return $node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT session_id) FROM prospect_tracking');
}

is_deeply({ map { $_ => scalar @{ $blocks{$_} } } keys %blocks }, { 3 => 3, 4 => 3, 5 => 3, 6 => 2, 7 => 1 },
	'the document has the blocks that are run here');

publish(3);
consume_old(3);

# ---- 3: the table doesn't fit, and is made to

my ($rc, undef, $err) = $node->psql('postgres', $blocks{3}[0]);
isnt($rc, 0, 'a table that does not fit: an error');
like($err, qr/Missing: column message_id.*there is no pipeline/s, 'that says what is missing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_extension WHERE extname = $$nexus_kafka$$'), 0, 'and nothing is made');
run_block($blocks{3}[1], 'the columns');
run_block($blocks{3}[0], 'the extension');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');
like(run_block($blocks{3}[2], 'a look'), qr/^prospect_tracking\|paused\|.*^$topic\|0\|1\|1\|1\|0\|3$/ms, 'paused, and the topic is there');

# ---- 4: side by side

run_block($blocks{4}[0], 'the witness');
$node->poll_status('postgres', 'pipeline', 'prospect_tracking_check', 'running');
publish(3);
like(run_block($blocks{4}[1], 'the check'), qr/^s-5\|[^|]*\|1\|0$/m, 'it sees what is not in the table yet');
consume_old(3);
unlike(run_block($blocks{4}[1], 'the check'), qr/^s-/m, 'and that the old consumer has taken all');
like(run_block($blocks{4}[2], 'the witness and its offsets'), qr/^$topic\|0\|3\|3$/m, 'without gaps');

# ---- 5: the takeover, with the last run of the old consumer in the group still

my $member = start_member();
publish(2);
member_takes($member, 's-8');
run_block($blocks{5}[0], 'the pipeline is let go on');
$node->wait_for_query('postgres', q(SELECT state = 'waiting' AND reason ~ 'nexus-consumer-group.* 1 members'
	FROM nexus_status WHERE name = 'prospect_tracking'));
pass('it waits for the old consumer');
publish(1);
member_takes($member, 's-9');
write_old(split /\n/, $member->{out});
$member->{handle}->signal('TERM');
$member->{handle}->finish;
publish(1);
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'running');
check_ok('taken over');
is($node->safe_psql('postgres', 'SELECT count(*) FILTER (WHERE topic IS NULL), count(topic) FROM prospect_tracking'), '9|1',
	'each row by the one or the other');

# ---- back, and there again

publish(1);
$node->safe_psql('postgres', 'SELECT nexus_consume(), pg_sleep(6)');
$node->safe_psql('postgres', q(SELECT nexus_pause('prospect_tracking')));
publish(2);
consume_old(2);
is(sessions(), '13|13', 'back: the old consumer goes on where the pipeline stopped');
run_block($blocks{5}[2], 'there again');
$node->poll_status('postgres', 'pipeline', 'prospect_tracking', 'running');
publish(1);
check_ok('taken over again');
is(sessions(), '14|14', 'each session once');

# ---- 6: the producer

run_block($blocks{6}[0], 'the role of the route');
my $body = q('{"sessionId": "s-new-%d", "fingerprint": "f", "messages": [{"role": "user", "content": "x"}]}');
my $answer = $node->safe_psql('postgres', 'SET ROLE app; SELECT nexus_produce(' . sprintf($body, 1) . '::jsonb)');
like($answer, qr/"status": "accepted"/, 'it may produce');
$answer = $node->safe_psql('postgres', 'SET ROLE app; SELECT nexus_produce_now(' . sprintf($body, 2) . '::jsonb)');
like($answer, qr/"kafka": \{"offset": \d+, "partition": 0\}/, 'also with the place in the answer');
publish(1);
$node->safe_psql('postgres', 'SELECT nexus_flush()');
check_ok('old and new route side by side');
like(run_block($blocks{6}[1], 'who produces'), qr/^t\n0\|0\n1\.0\|2\|/m, 'nothing waits, nothing was refused, two are of nexus_produce');

# ---- 7: the end

run_block($blocks{7}[0], 'the witness is cleared away');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter in all that');
is(sessions(), '17|17', 'each session once');
no_crash_ok($node);
done_testing();
