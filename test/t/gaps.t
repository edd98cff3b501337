# Ids of the outbox that the relay has passed while a transaction is open that may have taken
# them: what it remembers of them doesn't grow with their number, and nothing is lost or
# published twice for it.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 30_000;
my $node = NexusKafka::Cluster->make('gaps', embedded => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE taken (n int);
SELECT nexus_create_pipeline('taken', topic => 'taken',
	statement => $$INSERT INTO taken SELECT (value #>> '{}')::int FROM nexus_messages()$$);
END
runs_ok($node, 'postgres');

# Bytes that the relay has for what it passed, as its own log tells.
sub bytes_of_gaps
{
	my $pid = $node->worker_pid('relay', 'postgres');
	my $from = -s $node->logfile;

	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	$node->wait_for_log(qr/Grand total: /, $from);
	my ($bytes) = substr(slurp_file($node->logfile), $from) =~ /nexus_kafka gaps: .* (\d+) used/;
	return $bytes;
}

my @late = map { $node->background_psql('postgres') } 1 .. 2;
foreach my $n (1 .. 2)
{
	$late[ $n - 1 ]->query_safe('BEGIN');
	$late[ $n - 1 ]->query_safe("SELECT nexus_produce('taken', '-$n'::jsonb)");
}

# Behind each row is an id that has none: as that of another connection, or of a rollback.
sub produce_with_gaps
{
	my ($from, $to) = @_;

	$node->safe_psql('postgres', "SELECT count(nexus_produce('taken', n::text::jsonb)),
		count(nextval(pg_get_serial_sequence('nexus_outbox', 'id'))) FROM generate_series($from, $to) n");
	$node->wait_rows('postgres', 'taken', $to);
	return;
}

produce_with_gaps(1, 100);
my $few = bytes_of_gaps();
produce_with_gaps(101, $rows);
my $many = bytes_of_gaps();
diag("bytes for what was passed: $few with 100 rows, $many with $rows");
cmp_ok($many, '<', $few + 200_000, 'what the relay remembers doesn\'t grow with the ids that it passed');

# What is open is over, one after the other: each row is found among all that was passed.
foreach my $n (1 .. 2)
{
	$late[ $n - 1 ]->query_safe('COMMIT');
	$node->wait_rows('postgres', "taken WHERE n = -$n", 1);
	pass("the row of transaction $n that commits late is published");
}
is($node->safe_psql('postgres', q(SELECT nexus_flush('60 s'))), 't', 'flushed');
$node->wait_rows('postgres', 'nexus_outbox', 0);
is($node->safe_psql('postgres', 'SELECT count(*) || \' \' || count(DISTINCT n) FROM taken'), ($rows + 2) . ' ' . ($rows + 2),
	'each row is published once');
cmp_ok(bytes_of_gaps(), '<', $few + 200_000, 'and then nothing of it is remembered');
$_->quit for @late;

no_crash_ok($node);
done_testing();
