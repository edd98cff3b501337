# A dump carries the rows and the set-up, and what is restored from it waits for
# nexus_resume(); pg_restore --exit-on-error and ON_ERROR_STOP pass.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = NexusKafka::Cluster->make('dump', embedded => 1);
my $dir = PostgreSQL::Test::Utils::tempdir();

$node->create_extension('postgres');
$node->produce_sessions('postgres', 1, 50);
$node->safe_psql('postgres', q(SELECT nexus_produce('nexus-prospect-ingestion', 'no json'::text, 'bad')));
$node->wait_rows('postgres', 'prospect_tracking', 50);
$node->wait_rows('postgres', 'nexus_dead_letters', 1);

# An outbox row that the dump must not carry: the original will publish it.
$node->safe_psql('postgres', "SELECT nexus_pause('prospect_tracking')");
my $closed = PostgreSQL::Test::Cluster::get_free_port();
$node->reconfigure('nexus_kafka.embedded_broker' => 'off', 'nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
$node->produce('postgres');

my %restore = (
	plain => sub { [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $_[1], '-f', $_[0] ] },
	custom => sub { [ 'pg_restore', '--exit-on-error', '-d', $_[1], $_[0] ] },
	plain_with_policies => sub { [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $_[1], '-f', $_[0] ] },
	custom_with_policies => sub { [ 'pg_restore', '--exit-on-error', '--enable-row-security', '-d', $_[1], $_[0] ] });

foreach my $format (sort keys %restore)
{
	my ($file, $db) = ("$dir/$format.dump", "restored_$format");
	my @dump = ('pg_dump', $format =~ /(plain|custom)/ ? "--format=$1" : (), $format =~ /policies/ ? '--enable-row-security' : ());
	$node->command_ok([ @dump, '-f', $file, 'postgres' ], "@dump");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->command_ok($restore{$format}->($file, $db), "restore of the $format dump");

	foreach my $table (qw(prospect_tracking nexus_pipelines nexus_dead_letters nexus_offsets))
	{
		my $content = "SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM $table t";
		is($node->safe_psql($db, $content), $node->safe_psql('postgres', $content), "$table is the same");
	}
	is($node->safe_psql($db, 'SELECT count(*) FROM nexus_outbox'), 0, 'the outbox is not in the dump');

	foreach my $line ([ 'outbox', 'outbox' ], [ 'pipeline', 'prospect_tracking' ])
	{
		my $status = $node->poll_status($db, @$line, 'paused');
		like($status->{reason}, qr/nexus_resume\(\)/, "$line->[1] is paused; the reason says what to do");
	}
	is(scalar $node->worker_pids($_, $db), 0, "no $_") for qw(relay ingest);
}

$node->reconfigure('nexus_kafka.embedded_broker' => 'on');
$node->safe_psql('postgres', "SELECT nexus_resume('prospect_tracking')");
works_ok($node, 'postgres', 'the original goes on');
foreach my $db (map { "restored_$_" } sort keys %restore)
{
	is($node->status($db, 'outbox', 'outbox')->{state}, 'paused', "$db is still paused");
	$node->safe_psql($db, "SELECT nexus_resume(); SELECT nexus_resume('prospect_tracking')");
	works_ok($node, $db, 'and works after nexus_resume()');
	$node->safe_psql($db, "SELECT nexus_produce('nexus-prospect-ingestion', 'no json'::text, 'bad in $db')");
	$node->wait_rows($db, "nexus_dead_letters WHERE key = 'bad in $db'", 1);
	pass('dead letters have ids that are free');
}

# Only the data, into an extension that is at work: what comes of it waits too.
$node->safe_psql('postgres', 'CREATE DATABASE at_work');
$node->create_extension('at_work');
runs_ok($node, 'at_work');
$node->safe_psql('at_work', q(SELECT nexus_drop_pipeline('prospect_tracking'); DELETE FROM nexus_offsets));
$node->command_ok([ 'pg_restore', '--data-only', '--exit-on-error', '--table=nexus_pipelines', '-d', 'at_work', "$dir/custom.dump" ],
	'the pipelines of a dump are restored by themselves');
$node->safe_psql('at_work', 'SELECT nexus_resume()');
like($node->poll_status('at_work', 'pipeline', 'prospect_tracking', 'paused')->{reason}, qr/restored from a dump.*nexus_resume\(pipeline\)/,
	'and wait for somebody to say so');

no_crash_ok($node);
done_testing();
