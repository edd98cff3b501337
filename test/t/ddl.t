# Workers are sessions, but are never in the way: commands that want a database
# without sessions take the workers' leave for granted. No FORCE anywhere here.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Two seconds are the aim; the bound leaves room for a busy machine.
my $bound = 15;

my $node = NexusKafka::Cluster->make('ddl', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub make_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->create_extension($db);
	works_ok($node, $db, "the workers of $db work");
}

sub command_quick_ok
{
	my ($sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	quick_ok($sql, $bound, sub { $node->safe_psql('postgres', $sql) });
}

make_database('doomed');
command_quick_ok('DROP DATABASE doomed');

make_database('before');
command_quick_ok('ALTER DATABASE before RENAME TO after');
works_ok($node, 'after', 'the workers come back under the new name');

my $directory = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$directory'");
command_quick_ok('ALTER DATABASE after SET TABLESPACE elsewhere');
works_ok($node, 'after', 'the workers come back in the new tablespace');

command_quick_ok('CREATE DATABASE copy TEMPLATE after');
works_ok($node, 'after', 'the workers of the template come back');

my $status = $node->poll_status('copy', 'pipeline', 'prospect_tracking', 'paused');
like($status->{reason}, qr/nexus_resume/, 'a copy is paused, and the reason says what to do');
is($node->status('copy', 'outbox', 'outbox')->{state}, 'paused', 'its outbox too');
diag("reason: $status->{reason}");

my $id = $node->produce('copy');
works_ok($node, 'after', 'meanwhile the original works');
is($node->safe_psql('copy', 'SELECT count(*) FROM nexus_outbox'), 1, 'what the copy produced waits');
is($node->safe_psql('after', "SELECT count(*) FROM prospect_tracking WHERE message_id = '$id'"), 0, 'unpublished');

$node->safe_psql('copy', 'SELECT nexus_resume()');
$node->wait_rows('copy', "prospect_tracking WHERE message_id = '$id'", 1);
pass('after nexus_resume() it arrives');

# A restart must not undo either decision.
$node->safe_psql('postgres', 'CREATE DATABASE copy2 TEMPLATE after');
$node->restart;
works_ok($node, 'copy', 'a resumed copy runs after a restart');
$node->poll_status('copy2', 'pipeline', 'prospect_tracking', 'paused');
is(scalar $node->worker_pids('ingest', 'copy2'), 0, 'one that was not resumed does not');

command_quick_ok("DROP DATABASE $_") for qw(copy copy2 after);
works_ok($node, 'postgres', 'through all this, the other database works');

# While transactions keep the workers out of some databases, others get theirs.
my @open;
for my $n (1 .. 4)
{
	$node->safe_psql('postgres', "CREATE DATABASE kept$n");
	$node->create_extension("kept$n");
	works_ok($node, "kept$n", "kept$n works");
	my $session = $node->background_psql("kept$n");
	$session->query_safe('BEGIN');
	$session->query_safe('DROP EXTENSION nexus_kafka');
	push @open, $session;
}
$node->safe_psql('postgres', 'CREATE DATABASE another');
$node->create_extension('another');
works_ok($node, 'another', 'and another one, while DROP EXTENSION is not committed in four');
$_->query_safe('ROLLBACK') for @open;
works_ok($node, "kept$_", "kept$_: its workers are back") for 1 .. 4;
$_->quit for @open;

no_crash_ok($node);
done_testing();
