# pg_cron calls nexus_consume(), as the old consumer was called. Its version 1.4, in
# Debian 12, knows no seconds: then each minute, so that this test takes up to one.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('cron', start => 0, embedded => 1, conf => {
	shared_preload_libraries => 'nexus_kafka,pg_cron',
	'cron.database_name' => 'postgres',
	'cron.use_background_workers' => 'on' });
unless (-e $node->config_data('--sharedir') . '/extension/pg_cron.control')
{
	die 'pg_cron is not installed' if $ENV{CI};
	plan(skip_all => 'pg_cron is not installed');
}
$node->start;
$node->create_extension('postgres');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron; CREATE TABLE answers (answer jsonb)');
$node->produce_sessions('postgres', 1, 7);

my $schedule = sub {
	my ($when) = @_;
	return $node->psql('postgres',
		"SELECT cron.schedule('nexus-consumer', '$when', 'INSERT INTO answers SELECT nexus_consume()')");
};
my ($rc, $out, $err) = $schedule->('10 seconds');
($rc, $out, $err) = $schedule->('* * * * *') if $rc != 0;
is($rc, 0, 'scheduled') or diag($err);

$node->wait_for_query('postgres', 'SELECT count(*) > 0 FROM answers');
is($node->safe_psql('postgres', 'SELECT answer FROM answers LIMIT 1'),
	'{"status": "success", "processedCount": 7}', 'the job got the answer');
$node->wait_for_query('postgres', q(SELECT count(*) > 0 FROM cron.job_run_details WHERE status = 'succeeded'));
pass('and pg_cron notes a success');

no_crash_ok($node);
done_testing();
