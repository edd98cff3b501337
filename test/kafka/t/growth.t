# Partitions that are added to a topic are read within half a minute. Several workers
# share the partitions out, each owned by one at a time, and what they take in is what
# one worker takes in, also when their number changes under load.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;

my %workers = (one => 1, two => 2, four => 4);
my $new = 30;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('stream', 2);
my $node = NexusKafka::Cluster->make('growth', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
foreach my $name (sort keys %workers)
{
	$node->safe_psql('postgres', <<"END");
CREATE TABLE $name (partition int, "offset" bigint, n bigint);
SELECT nexus_create_pipeline('$name', 'stream', 'INSERT INTO $name
  SELECT partition, "offset", (value ->> ''n'')::bigint FROM nexus_messages()', '{"workers": $workers{$name}}');
END
}
my $numbers = numbers_start($kafka, 'stream');
wait_for_load($_) for sort keys %workers;
shared_out_ok($_, $workers{$_}, 2) for sort keys %workers;

added_partitions();
shared_out_ok($_, $workers{$_}, 5) for sort keys %workers;
other_numbers_of_workers();
same_content(numbers_stop($numbers) + 3 * $new);

no_crash_ok($node);
done_testing();

sub wait_for_load
{
	my ($name) = @_;
	my $rows = $node->safe_psql('postgres', "SELECT count(*) FROM $name");

	$node->wait_for_query('postgres', "SELECT count(*) > $rows + 500 FROM $name");
	return;
}

# Each partition has one owner, and no worker is idle that could have one.
sub shared_out_ok
{
	my ($name, $workers, $partitions) = @_;
	my $owners = $workers < $partitions ? $workers : $partitions;

	$node->wait_for_query('postgres', <<"END", "$partitions $partitions $owners $workers");
SELECT concat_ws(' ', count(*), count(pid), count(DISTINCT pid),
  (SELECT workers FROM nexus_status WHERE name = '$name'))
FROM nexus_partitions WHERE pipeline = '$name'
END
	return pass("$workers workers share $partitions partitions");
}

sub new_numbers
{
	my ($partition) = @_;

	return [ map { -($partition * $new + $_) } 1 .. $new ];
}

sub added_partitions
{
	$kafka->grow_topic('stream', 5);
	quick_ok('from new partitions to their rows', 30, sub {
		numbers($kafka, 'stream', new_numbers($_), partition => $_) for 2 .. 4;
		$node->wait_rows('postgres', "$_ WHERE partition >= 2 AND n < 0", 3 * $new) for sort keys %workers;
	});
	return;
}

sub other_numbers_of_workers
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $twice = 0;

	foreach my $workers (4, 1, 3, 2)
	{
		$node->safe_psql('postgres', qq(SELECT nexus_alter_pipeline('two', options => '{"workers": $workers}')));
		for (my $owners = ''; $owners ne "5 $workers";)
		{
			die "timed out, last seen: $owners" if time > $deadline;
			($owners, my $doubled) = split /\|/, $node->safe_psql('postgres', <<'END');
SELECT count(pid) || ' ' || count(DISTINCT pid),
  (SELECT count(*) FROM (SELECT FROM nexus_job_partitions() GROUP BY pipeline, topic, partition HAVING count(*) > 1) p)
FROM nexus_partitions WHERE pipeline = 'two'
END
			$twice += $doubled;
		}
		wait_for_load('two');
	}
	is($twice, 0, 'at no time had a partition two owners');
	return;
}

sub same_content
{
	my ($count) = @_;

	foreach my $name (sort keys %workers)
	{
		like($node->safe_psql('postgres', "SELECT nexus_consume('$name', '60 s')"), qr/"(success|idle)"/, "$name has consumed all");
		is($node->safe_psql('postgres', <<"END"), "$count $count $count", "$name: every message is one row");
SELECT concat_ws(' ', count(*), count(DISTINCT n), count(DISTINCT (partition, "offset"))) FROM $name
END
		is($node->safe_psql('postgres', "SELECT count(*) FROM ((TABLE one EXCEPT TABLE $name) UNION ALL (TABLE $name EXCEPT TABLE one)) d"),
			0, "$name has what one worker took in");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');
	return;
}
