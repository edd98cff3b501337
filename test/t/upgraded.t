# pg_upgrade starts both servers with its own purpose: nothing of ours runs in them. So no
# message is taken in, by a statement that can't work there, and none goes to the dead letters.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The broker that is there all the time is in a server of its own.
my $kafka = NexusKafka::Cluster->make('upgraded_kafka', embedded => 1);
$kafka->create_extension('postgres');
runs_ok($kafka, 'postgres', 'a broker');
my ($bootstrap) = map { /nexus_kafka broker is running: on ([\d.]+:\d+)/ ? $1 : () } log_lines($kafka, qr/broker is running/);

my $old = NexusKafka::Cluster->make('upgraded_old', bootstrap => $bootstrap);
$old->create_extension('postgres');
$old->safe_psql('postgres', <<'SQL');
CREATE TABLE taken (n integer);
CREATE PROCEDURE take() LANGUAGE plpgsql AS $$
BEGIN
  CREATE TEMPORARY TABLE batch ON COMMIT DROP AS SELECT (value ->> 'n')::integer AS n FROM nexus_messages();
  INSERT INTO taken SELECT n FROM batch;
END
$$;
SELECT nexus_create_pipeline('p', 'numbers', 'CALL take()');
SQL

sub publish
{
	my ($from, $to) = @_;

	$kafka->safe_psql('postgres', "SELECT count(nexus_produce('numbers', jsonb_build_object('n', n)))
		FROM generate_series($from, $to) n");
	return is($kafka->safe_psql('postgres', 'SELECT nexus_flush()'), 't', "numbers $from to $to are in the topic");
}

publish(1, 10);
$old->wait_rows('postgres', 'taken', 10);
pass('are taken in');
$old->safe_psql('postgres', q(SELECT nexus_produce('back', 'waits in the outbox', connection => 'elsewhere')));
$old->stop;
publish(11, 1000);

my $new = NexusKafka::Cluster->make('upgraded_new', bootstrap => $bootstrap, start => 0);
my $bin = $old->config_data('--bindir');
chdir PostgreSQL::Test::Utils::tempdir();
command_ok([ 'pg_upgrade', '--no-sync', '-b', $bin, '-B', $bin, '-d', $old->data_dir, '-D', $new->data_dir,
	'-p', $old->port, '-P', $new->port, '-s', $new->host ], 'pg_upgrade');
$new->start;

is($new->safe_psql('postgres', 'SELECT count(*), max(n) FROM taken'), '10|10', 'nothing was taken in meanwhile');
is($new->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no message is a dead letter');
is($new->status('postgres', 'pipeline', 'p')->{state}, 'paused', 'a cluster that is another one is paused');
is($new->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 1, 'the outbox came along');

$new->safe_psql('postgres', 'SELECT nexus_resume()');
$new->wait_rows('postgres', 'taken', 1000);
is($new->safe_psql('postgres', 'SELECT count(DISTINCT n) FROM taken'), 1000, 'resumed, it takes in the others, each once');
is($new->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'and no dead letter');

# The server of pg_upgrade by itself, with the workers on their way in if there were any.
$new->stop;
publish(1001, 1010);
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-s', '-D', $new->data_dir, '-l', $new->logfile, '-o', '-b', 'start');
is($new->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'nexus_kafka%')), 0,
	'no worker');
is($new->safe_psql('postgres', q(SELECT state FROM nexus_status WHERE kind = 'pipeline' AND name = 'p')), 'disabled',
	'and the status says that there are none');
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-s', '-D', $new->data_dir, 'stop');
$new->start;
$new->wait_rows('postgres', 'taken', 1010);
pass('it goes on in a server of its own again');

no_crash_ok($_) for $kafka, $old, $new;
done_testing();
