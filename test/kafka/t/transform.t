# Consume, transform, produce on, under kill -9 of the ingest worker, the relay and the
# postmaster: the rows, the offset and the derived messages commit together. The derived
# topic, read with duplicates removed by their ids, has each derived message once.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);
use Test::More;

my $rounds = scaled(8, 3);
my $kills = 0;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($_, 2) for qw(numbers derived);
my $node = NexusKafka::Cluster->make('transform', bootstrap => $kafka->bootstrap, restart_after_crash => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE factors (factor bigint);
INSERT INTO factors VALUES (2), (3);
CREATE TABLE numbers (partition int, "offset" bigint, n bigint PRIMARY KEY);
SELECT nexus_create_pipeline('numbers', 'numbers', $$
  WITH message AS (
    SELECT partition, "offset", (value ->> 'n')::bigint AS n FROM nexus_messages()
  ), kept AS (
    INSERT INTO numbers SELECT * FROM message
  )
  SELECT nexus_produce('derived', jsonb_build_object('n', n, 'factor', factor, 'product', n * factor), n::text)
  FROM message CROSS JOIN factors
$$);
END

my $numbers = numbers_start($kafka, 'numbers');
foreach (1 .. $rounds)
{
	foreach my $type (qw(ingest relay))
	{
		wait_for_load();
		kill_worker($type);
	}
	wait_for_load();
	$node->kill9_and_start;
}
wait_for_load();
my $count = numbers_stop($numbers);

$node->wait_rows('postgres', 'numbers', $count);
is($node->safe_psql('postgres', 'SELECT concat_ws(\' \', count(*), min(n), max(n), count(DISTINCT (partition, "offset"))) FROM numbers'),
	"$count 1 $count $count", 'every message is one row');
is($node->safe_psql('postgres', q(SELECT sum("offset") FROM nexus_partitions WHERE pipeline = 'numbers')), $count,
	'the offsets are at the ends');
$node->wait_for_query('postgres', q(SELECT lag FROM nexus_status WHERE kind = 'outbox'), 0);
derived_ok();
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');

no_crash_ok($node, kills => $kills);
done_testing();

# Both at work.
sub wait_for_load
{
	my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM numbers');

	$node->wait_for_query('postgres', "SELECT count(*) > $rows + 500 FROM numbers");
	$node->wait_for_query('postgres', q(SELECT messages > 0 FROM nexus_status WHERE kind = 'outbox'));
	return;
}

# The ingest worker of the pipeline numbers, or the relay.
sub kill_worker
{
	my ($type) = @_;
	my $name = $type eq 'relay' ? 'outbox' : 'numbers';
	my $pid = $node->status('postgres', $type eq 'relay' ? 'outbox' : 'pipeline', $name)->{pid};

	kill('KILL', $pid);
	$kills++;
	$node->wait_for_query('postgres', "SELECT pid <> $pid FROM nexus_status WHERE name = '$name'");
	return;
}

sub derived_ok
{
	my $read = 0;
	my %ids;
	my %derived;

	foreach my $line (split /\n/, $kafka->kcat('-C', '-t', 'derived', '-o', 'beginning', '-e', '-q', '-f', "%h|%k|%s\n"))
	{
		my ($headers, $key, $value) = split /\|/, $line, 3;
		my ($id) = $headers =~ /nexus-message-id=([^,]+)/ or die "no id in: $line";

		$read++;
		die "two messages of the id $id" if $ids{$id} && $ids{$id} ne "$key $value";
		$derived{"$key $value"}++ unless $ids{$id};
		$ids{$id} = "$key $value";
	}
	diag("$read messages read, of " . keys(%ids) . ' ids');

	my @expected = split /\n/, $node->safe_psql('postgres', <<'END');
SELECT n || ' ' || jsonb_build_object('n', n, 'factor', factor, 'product', n * factor) FROM numbers CROSS JOIN factors
END
	is(scalar(grep { ($derived{$_} // 0) != 1 } @expected), 0, 'each derived message is there once');
	is(scalar keys %derived, scalar @expected, 'and no other');
	return;
}
