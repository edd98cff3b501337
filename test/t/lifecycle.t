# The workers start with the server and with CREATE EXTENSION, in each database that
# has the extension, and leave with DROP EXTENSION.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('lifecycle', embedded => 1);

$node->worker_pid('launcher');
pass('the launcher runs');
is(scalar $node->worker_pids('supervisor'), 0, 'no supervisor without the extension');

$node->create_extension('postgres');
runs_ok($node, 'postgres', 'CREATE EXTENSION starts the workers, without a restart');
works_ok($node, 'postgres', 'a session becomes a row');

$node->safe_psql('postgres', 'CREATE DATABASE second; ');
$node->safe_psql('postgres', 'CREATE DATABASE third');
$node->safe_psql('second', 'BEGIN; CREATE EXTENSION nexus_kafka; ROLLBACK');
$node->safe_psql('third', 'CREATE SCHEMA elsewhere');
$node->create_extension('third', 'elsewhere');
$node->poll_status('third', 'pipeline', 'prospect_tracking', 'running', schema => 'elsewhere');
pass('another database, and another schema');
works_ok($node, 'postgres', 'the first one goes on');

# The launcher has been busy since then, so that it would have started it by now.
is(scalar $node->worker_pids('supervisor', 'second'), 0, 'a CREATE EXTENSION that was rolled back starts nothing');
$node->create_extension('second');
works_ok($node, 'second', 'one that commits does');

$node->restart;
runs_ok($node, 'postgres', 'they start with the server');
works_ok($node, $_, "a session becomes a row in $_ after the restart") for qw(postgres second);

$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION nexus_kafka; ROLLBACK');
works_ok($node, 'postgres', 'a DROP EXTENSION that was rolled back stops nothing for good');
my $rows = $node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking');
$node->safe_psql('postgres', 'DROP EXTENSION nexus_kafka');
$node->wait_no_worker($_, 'postgres') for qw(supervisor relay ingest);
pass('DROP EXTENSION stops the workers of its database');
is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), $rows, 'and leaves the rows');
works_ok($node, 'second', 'those of another database go on');

$node->create_extension('postgres');
works_ok($node, 'postgres', 'made again, it works again');

my ($before) = $node->worker_pids('supervisor', 'postgres');
$node->safe_psql('postgres', 'DROP EXTENSION nexus_kafka; CREATE EXTENSION nexus_kafka');
works_ok($node, 'postgres', 'dropped and made again at once, it works too');

no_crash_ok($node);
done_testing();
