# On a standby nothing runs, and says so; promoted, it goes on by itself.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $primary = NexusKafka::Cluster->make('primary', embedded => 1, allows_streaming => 1);
$primary->create_extension('postgres');
works_ok($primary, 'postgres', 'the primary works');
$primary->backup('backup');

my $standby = NexusKafka::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->produce_sessions('postgres', 1, 100);
$primary->wait_rows('postgres', 'prospect_tracking', 101);
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 101, 'the rows are replicated');
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'nexus_kafka%'"),
	0, 'no process of the extension runs on the standby');
foreach my $line ([ 'outbox', 'outbox' ], [ 'pipeline', 'prospect_tracking' ])
{
	my $status = $standby->status('postgres', @$line);
	is($status->{state}, 'standby', "$line->[1] on the standby: standby");
	ok(length($status->{reason} // ''), 'with a reason');
}
like($standby->safe_psql('postgres', 'SELECT nexus_health()'), qr/"role": "standby"/, 'nexus_health says standby');
sqlstate_is($standby, 'postgres', q(SELECT nexus_produce('t', 'v'::text)), '25006', 'nexus_produce: read only');
sqlstate_is($standby, 'postgres', 'SELECT nexus_flush()', '55000', 'nexus_flush: not here');

# Rows that the primary's relay never published belong to whoever is promoted.
my $closed = PostgreSQL::Test::Cluster::get_free_port();
$primary->reconfigure('nexus_kafka.embedded_broker' => 'off', 'nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
$primary->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
my $id = $primary->produce('postgres');
$primary->wait_for_catchup($standby);
$primary->stop('fast');

$standby->promote;
runs_ok($standby, 'postgres', 'promoted, everything runs');
$standby->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
pass('what the primary had committed and not published arrives');
works_ok($standby, 'postgres', 'and what is produced now');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 103, 'nothing came twice');

no_crash_ok($_) for $primary, $standby;
done_testing();
