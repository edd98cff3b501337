# The prospect statement looks each message up by the index, also when its plan was
# made while the table was empty or tiny: a plan that reads the table for each batch
# is fine in every short test and ruinous later.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

# A tiny table may well be read as a whole while it is tiny: only what comes after
# these counts. An index look-up a message reads next to nothing by sequential scans
# then; a plan that reads the table once a batch of a thousand, some ten times $count.
my $first = 4000;
my $count = scaled(20000);

# No autovacuum: its ANALYZE would have the plan made anew.
my $node = NexusKafka::Cluster->make('plan', embedded => 1, conf => { autovacuum => 'off' });
$node->create_extension('postgres');

# Rows that sequential scans of the table have read so far. The worker reports its
# statistics after its batch, so wait until all the inserted rows are counted.
sub sequential_reads
{
	my ($inserted) = @_;
	$node->wait_for_query('postgres',
		"SELECT n_tup_ins >= $inserted FROM pg_stat_user_tables WHERE relname = 'prospect_tracking'");
	return $node->safe_psql('postgres',
		"SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'prospect_tracking'");
}

# With keys in no order, as old producers have them: one beyond all that are in the
# table needs no look-up. By thousands, because the embedded broker keeps no more than
# a few megabytes.
my $produced = 0;
sub ingest
{
	my ($messages) = @_;
	for (my $end = $produced + $messages; $produced < $end;)
	{
		my $last = $produced + 4000 < $end ? $produced + 4000 : $end;
		$node->safe_psql('postgres', "SELECT count(nexus_produce('nexus-prospect-ingestion', "
			  . session_sql('md5(n::text)') . ", md5(n::text))) FROM generate_series($produced + 1, $last) n");
		like($node->safe_psql('postgres', "SELECT nexus_consume(timeout => '120 s')"), qr/"success"/, "ingested up to $last");
		$produced = $last;
	}
	return;
}

sub looked_up_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ingest($first);
	my $before = sequential_reads($produced);
	ingest($count);
	return cmp_ok(sequential_reads($produced) - $before, '<', $count, $name);
}

# The value of a session as an SQL expression, for an id that is one.
sub session_sql
{
	my ($id) = @_;
	return "replace('" . session_value('ID') . "', 'ID', $id)";
}

looked_up_ok('planned while the table was empty: an index look-up a message');

# A table of 20 rows, statistics that say so, and a worker that has no plan yet.
$node->safe_psql('postgres', 'TRUNCATE prospect_tracking');
ingest(20);
$node->safe_psql('postgres', 'ANALYZE prospect_tracking');
my $pid = $node->worker_pid('ingest', 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->worker_pid('ingest', 'postgres', not => $pid);
looked_up_ok('planned with statistics of 20 rows: likewise');

is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 20 + $first + $count, 'all are there');
no_crash_ok($node);
done_testing();
