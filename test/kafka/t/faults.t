# Everything goes wrong at random, two things at a time (NexusKafka::Faults has the table),
# while clients produce, one pipeline takes their sessions in, a second one makes of each
# event a row and a derived message, and a third one takes these in. At the end rows are
# those of committed calls, each derived message is there once by its id, no worker was
# ended by a signal but by the test's, and every state that was shown had its cause.
#
# NEXUS_TEST_FAULTS chooses faults; NEXUS_TEST_SEED repeats their order and lengths, though
# not the moments at which they meet. By default each comes once; NEXUS_TEST_SCALE=1 goes
# on for ten minutes.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Clock;
use NexusKafka::Cluster;
use NexusKafka::Faults;
use NexusKafka::GatedCluster;
use NexusKafka::Load;
use NexusKafka::StandbyPair;
use NexusKafka::Witness;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = scaled(600, 0);
my $prospects = 'nexus-prospect-ingestion';

my $kafka = NexusKafka::GatedCluster->new;
$kafka->create_topic($_, 2) for $prospects, 'events', 'derived';
my $clock = NexusKafka::Clock->new;
my $pair = NexusKafka::StandbyPair->make('faults', bootstrap => $kafka->gated_bootstrap, clock => $clock,
	restart_after_crash => 1, conf => { synchronous_commit => 'on', 'nexus_kafka.max_jobs' => 40, max_worker_processes => 60 });

# Under either name of the schema all is found.
$pair->sql('CREATE SCHEMA nexus; ALTER DATABASE postgres SET search_path = nexus, nexus_away, public');
$pair->sql('CREATE EXTENSION nexus_kafka SCHEMA nexus');
$pair->sql(<<'END');
CREATE TABLE public.sink ("offset" bigint);
CREATE TABLE public.events (id text PRIMARY KEY);
CREATE TABLE public.derived (message_id text, id text, partition integer, "offset" bigint);
SELECT nexus_create_pipeline('events', 'events', $$
  WITH kept AS (
    INSERT INTO events SELECT DISTINCT key FROM nexus_messages() ON CONFLICT DO NOTHING RETURNING id
  )
  SELECT nexus_produce('derived', jsonb_build_object('of', id), key => id) FROM kept
$$);
SELECT nexus_create_pipeline('derived', 'derived', $$
  INSERT INTO derived SELECT headers ->> 'nexus-message-id', key, partition, "offset" FROM nexus_messages()
$$);
END
$pair->primary->poll_status('postgres', @$_, 'running', schema => 'nexus')
  for [qw(outbox outbox)], map { [ pipeline => $_ ] } qw(prospect_tracking events derived);

my $faults = NexusKafka::Faults->new(kafka => $kafka, pair => $pair, clock => $clock, database => 'postgres',
	schema => 'nexus', target => 'prospect_tracking', growing => 'events',
	flows => sub { $pair->sql('SELECT count(*) FROM derived') });
my $clients = clients_start($pair, { pause => 0.05, topic => 'events' }, ('postgres') x 2);
$pair->primary->wait_for_query('postgres', 'SELECT count(*) > 50 FROM derived');
my $witness = NexusKafka::Witness->start($pair->connstr('postgres'), $pair->primary->logfile =~ s/_1\.log$/_*.log/r);

ok($faults->run($seconds), 'all faults came and went');
my $journal = clients_stop($clients);

# ---- the end of it

recovered_ok();
my @seen = $witness->end;
my %unknown = %{ $faults->{unknown} };
truncated_is_unknown($prospects);
exactly_once_ok($pair->primary, 'postgres', $journal);
consumed_ok($_) for qw(events derived);
events_ok();
derived_ok();
missing_topics_ok();
is(join("\n", $faults->causeless(@seen)), '', 'every state that was shown had its cause');
cmp_ok(scalar @seen, '>', 10, 'states were seen: ' . @seen);
no_crash_ok($_, kills => $faults->kills($_)) for $pair->nodes;

diag(join "\n", 'what happened:', $faults->story) unless Test::More->builder->is_passing;
done_testing();

sub recovered_ok
{
	my $trouble = q(SELECT string_agg(format('%s %s: %s, lag %s, %s', kind, name, state, lag, reason), E'\n')
		FROM nexus_status WHERE state <> 'running' OR reason IS NOT NULL OR lag IS DISTINCT FROM 0);
	my $calm = eval { $pair->primary->wait_for_query('postgres', $trouble, ''); 1 };

	ok($calm, 'afterwards everything runs, and nothing is behind') or diag($@);
	return;
}

# Of what was in the outbox when it was truncated nobody knows whether it is published.
sub truncated_is_unknown
{
	my ($topic) = @_;

	delete $journal->{done}{$_} for keys %{ $unknown{$topic} // {} };
	return;
}

sub consumed_ok
{
	my ($pipeline) = @_;

	return like($pair->sql("SELECT nexus_consume('$pipeline', '60 s')"), qr/"(success|idle)"/, "$pipeline: all is taken in");
}

# The ids of the messages with each key, as a topic has them: { key => { id => how often } }.
sub ids_by_key
{
	my ($topic) = @_;
	my %ids;

	foreach (split /\n/, $kafka->kcat('-C', '-q', '-e', '-t', $topic, '-f', '%k|%h\n'))
	{
		my ($key, $id) = /^([^|]*)\|.*nexus-message-id=([^,]+)/ or die "$topic has a message without an id: $_";
		$ids{$key}{$id}++;
	}
	return \%ids;
}

sub none_ok
{
	my ($name, @wrong) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(join(' ', (sort @wrong)[ 0 .. ($#wrong < 9 ? $#wrong : 9) ]), '', $name);
}

# The events are those of committed calls, each under one id.
sub events_ok
{
	my $published = ids_by_key('events');
	my %row = map { $_ => 1 } split /\n/, $pair->sql('SELECT id FROM events');
	my %late = %{ $faults->{late_ids} };
	my %committed = map { $_ => 1 } keys %{ $journal->{done} }, grep { $late{$_} eq 'COMMIT' } keys %late;
	my %possible = map { $_ => 1 } keys %{ $journal->{try} }, grep { $late{$_} ne 'ROLLBACK' } keys %late;

	delete $committed{$_} for keys %{ $unknown{events} // {} };
	none_ok('no event of a committed call is lost', grep { !$published->{$_} } keys %committed);
	none_ok('none of a call that was not committed is published', grep { !$possible{$_} } keys %$published);
	none_ok('none is published under two ids', grep { keys %{ $published->{$_} } > 1 } keys %$published);
	none_ok('each that is published is a row', grep { !$row{$_} } keys %$published);
	none_ok('and no other is', grep { !$published->{$_} } keys %row);
	return;
}

sub derived_ok
{
	my $published = ids_by_key('derived');
	my %row = map { $_ => 1 } split /\n/, $pair->sql('SELECT id FROM events');
	my $messages = 0;

	$messages += $_ for map { values %$_ } values %$published;
	diag(sprintf '%d events, %d derived messages', scalar keys %row, $messages);
	none_ok('each event has its derived message', grep { !$published->{$_} && !$unknown{derived}{$_} } keys %row);
	none_ok('none is derived of what is no event', grep { !$row{$_} } keys %$published);
	none_ok('none is derived twice', grep { keys %{ $published->{$_} } > 1 } keys %$published);
	is($pair->sql('SELECT count(*) || \' \' || count(DISTINCT (partition, "offset")) FROM derived'), "$messages $messages",
		'the third pipeline took in each message of the topic once');
	return;
}

sub missing_topics_ok
{
	my %missing = %{ $faults->{missing} };

	foreach my $topic (sort keys %missing)
	{
		my $ids = ids_by_key($topic)->{x} // {};
		none_ok("$topic has what waited for it", grep { !$ids->{$_} && !$unknown{$topic}{x} } @{ $missing{$topic} });
	}
	return;
}
