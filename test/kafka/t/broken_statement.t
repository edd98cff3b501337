# A column that the statement needs is dropped under load: no message is to blame, so none
# goes to the dead letters. When the column is back the pipeline goes on by itself.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('numbers', 2);
my $node = NexusKafka::Cluster->make('broken_statement', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE numbers (partition int, "offset" bigint, n bigint);
SELECT nexus_create_pipeline('numbers', 'numbers', 'INSERT INTO numbers (partition, "offset", n)
  SELECT partition, "offset", (value ->> ''n'')::bigint FROM nexus_messages()');
END

my $numbers = numbers_start($kafka, 'numbers');
foreach my $time (1 .. 3)
{
	wait_for_load();
	$node->safe_psql('postgres', 'ALTER TABLE numbers DROP COLUMN n');
	my $status = $node->poll_status('postgres', 'pipeline', 'numbers', 'failing');
	like($status->{reason}, qr/column "n" of relation "numbers" does not exist \(SQLSTATE 42703\)/, 'failing, with the reason');
	is($status->{last_error_sqlstate}, '42703', 'and the error');
	$node->wait_for_query('postgres', "SELECT retries > $status->{retries} + 2 FROM nexus_status WHERE name = 'numbers'");
	is($node->status('postgres', 'pipeline', 'numbers')->{dead_letters}, 0, 'no dead letter, however often it is tried');

	# what was in the column when it was dropped is gone, as ever
	$node->safe_psql('postgres', 'ALTER TABLE numbers ADD COLUMN n bigint');
	quick_ok('from the column to the first row', 10, sub {
		$node->wait_for_query('postgres', 'SELECT count(n) > 0 FROM numbers');
	});
	$node->poll_status('postgres', 'pipeline', 'numbers', 'running');
}
wait_for_load();
my $count = numbers_stop($numbers);

like($node->safe_psql('postgres', q(SELECT nexus_consume('numbers', '60 s'))), qr/"(success|idle)"/, 'all is consumed');
is($node->safe_psql('postgres', <<'END'), "$count $count $count", "each of $count messages is one row, in the place that it had in the topic");
SELECT concat_ws(' ', count(*), count(DISTINCT (partition, "offset")),
  (SELECT sum("offset") FROM nexus_partitions WHERE pipeline = 'numbers')) FROM numbers
END
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');

no_crash_ok($node);
done_testing();

sub wait_for_load
{
	my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM numbers');

	$node->wait_for_query('postgres', "SELECT count(*) > $rows + 500 FROM numbers");
	return;
}
