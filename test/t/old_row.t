# A row of the outbox that is older than half of all transaction ids: it stands there frozen,
# with an id that looks like one of the future. It's published, and so are others.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('old_row', embedded => 1);
$node->create_extension('postgres');
my $closed = PostgreSQL::Test::Cluster::get_free_port();
$node->reconfigure('nexus_kafka.embedded_broker' => 'off', 'nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
$node->safe_psql('postgres', <<'END_SQL');
SELECT nexus_produce('t', 'old');
UPDATE pg_database SET datallowconn = true WHERE datname = 'template0';
END_SQL
my $xmin = $node->safe_psql('postgres', 'SELECT xmin FROM nexus_outbox');

# Everything is frozen, and the server goes on with that transaction id.
sub move_to
{
	my ($xid) = @_;
	my $segment = sprintf '%s/pg_xact/%04X', $node->data_dir, $xid / (32768 * 32);

	$node->command_ok([ 'vacuumdb', '--all', '--freeze' ], 'all is frozen');
	$node->stop;
	if (!-e $segment)
	{
		open my $file, '>', $segment or die "$segment: $!";
		print $file "\0" x (8192 * 32);
		close $file or die "$segment: $!";
	}
	$node->command_ok([ 'pg_resetwal', '-x', $xid, '-D', $node->data_dir ], "the next transaction is $xid");
	$node->start;
	return;
}

move_to(1_500_000_000);
move_to($xmin + 2**31 + 100_000);
# and of the transactions' states only those from here on are kept
$node->command_ok([ 'vacuumdb', '--all', '--freeze' ], 'all is frozen');
is($node->safe_psql('postgres', 'SELECT xmin FROM nexus_outbox'), $xmin, 'the row stands there with its id');

$node->reconfigure('nexus_kafka.embedded_broker' => 'on', 'nexus_kafka.bootstrap_servers' => '');
$node->safe_psql('postgres', q(SELECT nexus_produce('t', 'new')));
$node->wait_rows('postgres', 'nexus_outbox', 0);
pass('it is published, and so is a new one');
$node->poll_status('postgres', 'outbox', 'outbox', 'running');

no_crash_ok($node);
done_testing();
