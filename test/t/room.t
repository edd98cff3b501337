# Many pipelines, and many that want workers: any number of them in one transaction, and the
# table of jobs has room for the other databases. Who finds none says so, and gets it when
# there is some.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('room', embedded => 1, conf => { max_worker_processes => 48, 'nexus_kafka.max_jobs' => 32 });
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub jobs { return sql("SELECT count(*) FROM nexus_jobs() WHERE kind = 'ingest' AND name = '$_[0]'") }

sub create_many
{
	my ($n) = @_;

	sql("SELECT count(nexus_create_pipeline('many' || n, 'many', 'SELECT * FROM nexus_messages()')) FROM generate_series(1, $n) n");
	return;
}

# ---- any number in one transaction

create_many(150);
$node->poll_status('postgres', 'pipeline', 'many1', 'running');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
for my $what ("nexus_alter_pipeline(name, options => '{\"batch_messages\": 7}')", 'nexus_pause(name)', 'nexus_resume(name)',
	'nexus_pause(name)', "nexus_seek(name, 'earliest', 'many', 0)")
{
	is($session->query_safe("SELECT count($what) FROM nexus_pipelines WHERE name LIKE 'many%'"), 150, "150 times $what");
}
is(sql(q(SELECT count(pid) FROM nexus_jobs() WHERE name LIKE 'many%')), 0, 'none of them has a worker then');
works_ok($node, 'postgres', 'the other pipeline runs meanwhile');
$session->query_safe('ROLLBACK');
$node->poll_status('postgres', 'pipeline', 'many1', 'running');
pass('rolled back, they run again');
is(sql(q(SELECT count(nexus_drop_pipeline(name)) FROM nexus_pipelines WHERE name LIKE 'many%')), 150,
	'150 are dropped in one transaction');
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_jobs() WHERE name LIKE 'many%'), 0);

$session->query_safe('BEGIN');
$session->query_safe(q(SELECT nexus_pause('prospect_tracking')));
$session->query_safe('SAVEPOINT s');
$session->query_safe(q(SELECT nexus_resume('prospect_tracking')));
$session->query_safe('ROLLBACK TO s');
$session->query_safe('COMMIT');
is($node->status('postgres', 'pipeline', 'prospect_tracking')->{state}, 'paused', 'a resume that was rolled back to a savepoint is none');
is(sql(q(SELECT count(nexus_resume('prospect_tracking')) FROM generate_series(1, 1000))), 1000, 'a thousand calls of nexus_resume');
is($node->status('postgres', 'pipeline', 'prospect_tracking')->{state}, 'running', 'are one');

# ---- a pipeline that nobody asks for

sql('CREATE TABLE taken (pipeline text, n integer)');
for my $name (qw(one two))
{
	sql(qq(SELECT nexus_create_pipeline('$name', 'demand', 'INSERT INTO taken
		SELECT ''$name'', (value ->> ''n'')::integer FROM nexus_messages()', '{"on_demand": true, "workers": 32}')));
	$node->poll_status('postgres', 'pipeline', $name, 'on_demand');
	is(jobs($name), 1, 'a pipeline on demand with 32 workers takes one place while nobody asks');
}
sql(q(SELECT nexus_alter_pipeline('one', options => '{"workers": 8}')));
sql(q(SELECT count(nexus_produce('demand', jsonb_build_object('n', n), partition => n % 4)) FROM generate_series(1, 40) n));
is(sql(q(SELECT nexus_consume('one', '60 s'))), '{"status": "success", "processedCount": 40}', 'asked, it has its workers');
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_jobs() WHERE name = 'one'), 1);
pass('and none but its one place afterwards');
is($node->status('postgres', 'pipeline', 'one')->{messages}, 40, 'what its workers have counted stays');
is(sql(q(SELECT nexus_consume('one', '60 s'))), '{"status": "idle"}', 'asked again, there is nothing new');
is(sql(q(SELECT count(*), count(DISTINCT n) FROM taken)), '40|40', 'each message once');

# ---- those that run take what is there, but not all of it

sql(q(SELECT nexus_create_pipeline('greedy' || n, 'greedy', 'SELECT * FROM nexus_messages()', '{"workers": 32}'))
	. 'FROM generate_series(1, 2) n');
$node->wait_for_query('postgres', q(SELECT state FROM nexus_jobs() WHERE kind = 'supervisor'), 'no_worker');
like(sql(q(SELECT nexus_consume('two', '60 s'))), qr/"error": "no_worker: no room for its workers: raise nexus_kafka.max_jobs"/,
	'nexus_consume of a pipeline that finds no room for its workers says so, at once');
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->create_extension('second');
runs_ok($node, 'second', 'another database has room beside two pipelines that want 64 workers');
works_ok($node, 'second', 'and works');
sql(q(SELECT nexus_drop_pipeline('greedy1'), nexus_drop_pipeline('greedy2')));
$node->wait_for_query('postgres', q(SELECT state FROM nexus_jobs() WHERE kind = 'supervisor'), 'running');
pass('dropped, nobody lacks any');

# ---- no room at all

my $small = NexusKafka::Cluster->make('room_small', conf => { 'nexus_kafka.max_jobs' => 8 });
for my $n (1 .. 4)
{
	$small->safe_psql('postgres', "CREATE DATABASE d$n");
	$small->create_extension("d$n");
	$small->poll_status("d$n", 'outbox', 'outbox', $n < 4 ? 'not_configured' : 'no_worker');
}
like($small->status('d4', 'outbox', 'outbox')->{reason}, qr/no room for one more database: raise nexus_kafka.max_jobs/,
	'a database that there is no room for says so');
$small->safe_psql('d1', 'DROP EXTENSION nexus_kafka');
$small->poll_status('d4', 'outbox', 'outbox', 'not_configured');
pass('and has its workers when another one has left');
is(scalar(log_lines($small, qr/no room for one more database/)), 1, 'the log says it once');

no_crash_ok($_) for $node, $small;
done_testing();
