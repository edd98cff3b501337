# Without shared_preload_libraries the functions are there, produce writes the outbox
# and warns, and whatever needs a worker says clearly that there is none.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('notpreloaded', preload => 0);
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION nexus_kafka');
is($rc, 0, 'CREATE EXTENSION passes') or diag($err);

($rc, $out, $err) = $node->psql('postgres', $node->produce_sessions_sql(1, 3));
is("$rc:$out", '0:3', 'nexus_produce passes');
like($err, qr/WARNING: .*\n.*shared_preload_libraries|WARNING: .*shared_preload_libraries/s, 'and warns of what is missing');
is(() = $err =~ /WARNING/g, 1, 'once a session') or diag($err);
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 3, 'the outbox has the messages');

foreach my $kind (qw(outbox pipeline))
{
	my $status = $node->status('postgres', $kind, $kind eq 'outbox' ? 'outbox' : 'prospect_tracking');
	is($status->{state}, 'disabled', "the $kind is disabled");
	like($status->{reason}, qr/shared_preload_libraries/, 'and says why');
}

($rc, $out, $err) = $node->psql('postgres', 'SELECT nexus_flush()');
like($err, qr/ERROR: .*shared_preload_libraries/s, 'nexus_flush says why it can not');
sqlstate_is($node, 'postgres', 'SELECT nexus_flush()', '55000', 'SQLSTATE of nexus_flush');
sqlstate_is($node, 'postgres', 'SELECT nexus_consume()', '55000', 'SQLSTATE of nexus_consume');
sqlstate_is($node, 'postgres', 'SELECT * FROM nexus_messages()', '55000', 'SQLSTATE of nexus_messages');

# Preloaded later, it catches up.
$node->configure(shared_preload_libraries => 'nexus_kafka', 'nexus_kafka.embedded_broker' => 'on');
$node->restart;
$node->wait_rows('postgres', 'prospect_tracking', 3);
pass('preloaded, it publishes what was waiting');

no_crash_ok($node);
done_testing();
