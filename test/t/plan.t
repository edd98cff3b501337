# The prospect statement looks each message up by the index, also when its plan was
# made while the table was empty or tiny: a plan that reads the table for each batch
# is fine in every short test and ruinous later.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $count = scaled(20000);

# A plan that reads the table once a batch reads ten times the count, since a batch is
# a thousand messages; one that reads it once a message, far more. A tiny table may
# well be read as a whole, while it is tiny.
my $bound = 3 * $count;

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

# By thousands, because the embedded broker keeps no more than a few megabytes. Keys
# without an order: the statement looks up only ids that aren't beyond all others.
sub ingest
{
	my ($from, $to) = @_;
	for (my $next = $from; $next <= $to; $next += 4000)
	{
		my $last = $next + 3999 < $to ? $next + 3999 : $to;
		$node->safe_psql('postgres', <<"END");
SELECT count(nexus_produce('nexus-prospect-ingestion', key => md5(i::text),
         value => jsonb_build_object('sessionId', 's-' || i, 'messages', '[{"role": "user", "content": "Hola"}]'::jsonb)))
FROM generate_series($next, $last) i
END
		like($node->safe_psql('postgres', "SELECT nexus_consume(timeout => '120 s')"), qr/"success"/, "ingested up to $last");
	}
	return;
}

ingest(1, $count);
cmp_ok(sequential_reads($count), '<', $bound, 'planned while the table was empty: no reading of the whole table');
is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), $count, 'all are there');

# A table of 20 rows, and statistics that say so.
$node->safe_psql('postgres', 'TRUNCATE prospect_tracking');
my $pid = $node->worker_pid('ingest', 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->worker_pid('ingest', 'postgres', not => $pid);
ingest($count + 1, $count + 20);
$node->safe_psql('postgres', 'ANALYZE prospect_tracking');
my $before = sequential_reads($count + 20);
ingest($count + 21, 2 * $count + 20);
cmp_ok(sequential_reads(2 * $count + 20) - $before, '<', $bound, 'planned with statistics of 20 rows: neither');

no_crash_ok($node);
done_testing();
