# The clock is set back by an hour while messages flow, wait, and fail: nothing stands still.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Clock;
use NexusKafka::Cluster;
use Test::More;

my $clock = NexusKafka::Clock->new;
my $node = NexusKafka::Cluster->make('clock', embedded => 1, clock => $clock);
$node->create_extension('postgres');
works_ok($node, 'postgres', 'it works');

$node->safe_psql('postgres', <<'END');
CREATE TABLE later (n integer);
SELECT nexus_create_topic('fails', 1);
SELECT nexus_create_pipeline('fails', 'fails', 'INSERT INTO later SELECT value::integer FROM nexus_messages()');
ALTER TABLE later RENAME TO away;
SELECT nexus_produce('fails', '1'::jsonb);
END
my $failing = $node->poll_status('postgres', 'pipeline', 'fails', 'failing');
like($failing->{reason}, qr/"later" does not exist/, 'a pipeline fails, and tries again');

my $late = $node->background_psql('postgres');
$late->query_safe('BEGIN');
$late->query_safe(q(SELECT nexus_produce('fails', '2'::jsonb)));
works_ok($node, 'postgres', 'while a transaction with an older id is open');

$clock->set(-3600);
is($node->safe_psql('postgres', "SELECT clock_timestamp() < pg_postmaster_start_time() - interval '50 min'"), 't',
	'the clock is set back by an hour');
works_ok($node, 'postgres', "messages flow on ($_)") for 1 .. 3;
$late->query_safe('COMMIT');
$late->quit;
$node->safe_psql('postgres', 'ALTER TABLE away RENAME TO later');
$node->wait_rows('postgres', 'later', 2);
pass('what failed is tried again, and what was committed late is published');

# From now on each of these begins and ends with the clock an hour back.
$node->safe_psql('postgres', 'ALTER TABLE later RENAME TO away');
$node->safe_psql('postgres', q(SELECT nexus_produce('fails', '3'::jsonb)));
$node->poll_status('postgres', 'pipeline', 'fails', 'failing');
$clock->set(0);
$node->safe_psql('postgres', 'ALTER TABLE away RENAME TO later');
$node->wait_rows('postgres', 'later', 3);
works_ok($node, 'postgres', 'and on again when the clock is right again');

# Workers that are to be started again are, whatever the clock says meanwhile.
foreach my $type (qw(ingest relay supervisor))
{
	my ($pid) = $node->worker_pids($type, 'postgres');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$clock->set(-3600);
	works_ok($node, 'postgres', "the $type ends, the clock is set back: another one comes");
	$clock->set(0);
}

no_crash_ok($node);
done_testing();
