# A broker that has lost touch with the others answers by what it knew before: it lacks the
# partitions that came since. A pipeline doesn't take its word for it that the topic was made
# anew: it waits for what the others say, reads on in the partitions that are there, and takes
# in nothing twice.
use strict;
use warnings;

use NexusKafka::BrokerCluster;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;

my $kafka = NexusKafka::BrokerCluster->new;
my $node = NexusKafka::Cluster->make('stale', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$kafka->create_topic('grown', 1);
$node->safe_psql('postgres', <<'END');
CREATE TABLE grown (partition int, n bigint);
SELECT nexus_create_pipeline('grown', 'grown', $$
  INSERT INTO grown SELECT partition, (value ->> 'n')::bigint FROM nexus_messages() $$);
END
my $stale = $kafka->leader('grown');
my @others = grep { $_ != $stale } $kafka->nodes;

numbers($stale, 'grown', [ 1 .. 5 ], partition => 0);
numbers_are(1 .. 5);

# The partitions come while one broker hears nothing.
numbers_are_published_while_paused(6 .. 10);
$stale->freeze;
grow();
resume();
$node->wait_for_query('postgres', "SELECT count(*) FROM nexus_partitions WHERE pipeline = 'grown'", 3);
pass('the pipeline knows three partitions');
pause();

# Then that one is all there is. What the others led moved to it, or stays without a leader.
$_->freeze for @others;
$stale->resume;
resume();
state_is('waiting', qr/topic "grown" had a partition 2 and has 1 partitions by the brokers that answer \(1 of 3\)/,
	'a broker that knows less');
numbers_are(1 .. 10);
is($node->status('postgres', 'pipeline', 'grown')->{state}, 'waiting', 'the partition that is there is read, and the pipeline does not stop');

$_->resume for @others;
$kafka->wait_in_sync;
$node->poll_status('postgres', 'pipeline', 'grown', 'running');
numbers($others[0], 'grown', [ 11 .. 13 ], partition => 1);
numbers($others[0], 'grown', [ 14 .. 16 ], partition => 2);
numbers($others[0], 'grown', [ 17 .. 18 ], partition => 0);
numbers_are(1 .. 18);
unlike(slurp_file($node->logfile), qr/ingest grown of database postgres is stopped/, 'it was never stopped');

no_crash_ok($node);
done_testing();

sub pause { $node->safe_psql('postgres', q(SELECT nexus_pause('grown'))); return $node->poll_status('postgres', 'pipeline', 'grown', 'paused') }
sub resume { return $node->safe_psql('postgres', q(SELECT nexus_resume('grown'))) }

# If the one that hears nothing was the controller, another has to become it first.
sub grow
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	until (eval { $others[0]->grow_topic('grown', 3); 1 })
	{
		my $error = $@;

		last if $others[0]->kcat('-L', '-t', 'grown') =~ /topic "grown" with 3 partitions/;
		die $error if time > $deadline;
	}
	return;
}

sub numbers_are_published_while_paused
{
	my (@numbers) = @_;

	pause();
	numbers($stale, 'grown', \@numbers, partition => 0);
	return;
}

sub numbers_are
{
	my (@numbers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_rows('postgres', 'grown', scalar @numbers);
	return is($node->safe_psql('postgres', q(SELECT string_agg(n::text, ' ' ORDER BY n) FROM grown)), "@numbers",
		"rows $numbers[0] to $numbers[-1], once each");
}

sub state_is
{
	my ($state, $reason, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $seen;

	do
	{
		$seen = $node->poll_status('postgres', 'pipeline', 'grown', $state)->{reason} // '';
	} until ($seen =~ $reason || time > $deadline);
	return like($seen, $reason, "$test: $state, with the reason");
}
