# Two-phase commit: what was called in a prepared transaction counts from COMMIT PREPARED
# on, whoever commits it, also after a restart. Until then its pipelines keep still.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('prepared', embedded => 1, conf => { max_prepared_transactions => 10 });

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub workers
{
	my ($name) = @_;
	return sql("SELECT count(*) FROM nexus_jobs() WHERE kind = 'ingest' AND name = '$name' AND pid IS NOT NULL");
}

sub state_of { return $node->status('postgres', 'pipeline', $_[0])->{state} }

# The supervisor has looked at everything that was committed before.
sub looked
{
	sql(q(SELECT nexus_create_pipeline('look', 'look', 'SELECT * FROM nexus_messages()')));
	$node->poll_status('postgres', 'pipeline', 'look', 'running');
	sql(q(SELECT nexus_drop_pipeline('look')));
	return;
}

# ---- the extension itself

sql('BEGIN', 'CREATE EXTENSION nexus_kafka', q(PREPARE TRANSACTION 'extension'));
is(scalar $node->worker_pids('supervisor'), 0, 'a CREATE EXTENSION that is prepared starts nothing');
sql(q(COMMIT PREPARED 'extension'));
runs_ok($node, 'postgres', 'COMMIT PREPARED does');

# ---- resume

sql('CREATE TABLE taken (n integer CONSTRAINT small CHECK (n < 10))');
sql(q(SELECT nexus_create_pipeline('p', 'p', 'INSERT INTO taken SELECT (value ->> ''n'')::integer FROM nexus_messages()',
	'{"on_error": "stop"}')));
sql(q(SELECT nexus_produce('p', '{"n": 1}'::jsonb)));
$node->wait_rows('postgres', 'taken', 1);
sql(q(SELECT nexus_produce('p', '{"n": 10}'::jsonb)));
$node->poll_status('postgres', 'pipeline', 'p', 'stopped');
sql('ALTER TABLE taken DROP CONSTRAINT small');

sql('BEGIN', q(SELECT nexus_resume('p')), q(PREPARE TRANSACTION 'resume'));
looked();
is(state_of('p'), 'stopped', 'a nexus_resume that is prepared has not happened');
sql(q(ROLLBACK PREPARED 'resume'));
looked();
is(state_of('p'), 'stopped', 'nor has one that was rolled back then');
sql('BEGIN', q(SELECT nexus_resume('p')), q(PREPARE TRANSACTION 'resume'));
sql(q(COMMIT PREPARED 'resume'));
$node->wait_rows('postgres', 'taken', 2);
pass('with COMMIT PREPARED the pipeline that had stopped goes on');
$node->poll_status('postgres', 'pipeline', 'p', 'running');

# ---- pause, alter, drop

sql('BEGIN', q(SELECT nexus_pause('p')), q(PREPARE TRANSACTION 'pause'));
looked();
is(workers('p'), 0, 'a nexus_pause that is prepared keeps the worker away');
like($node->status('postgres', 'pipeline', 'p')->{reason}, qr/transaction .* has not ended/, 'and the status says why');
sql(q(ROLLBACK PREPARED 'pause'));
$node->poll_status('postgres', 'pipeline', 'p', 'running');
pass('rolled back, it goes on');

sql('BEGIN', q(SELECT nexus_pause('p')), q(PREPARE TRANSACTION 'pause'));
$node->restart;
looked();
is(workers('p'), 0, 'also after a restart');
sql(q(COMMIT PREPARED 'pause'));
looked();
is(state_of('p') . workers('p'), 'paused0', 'committed, it is paused');
sql(q(SELECT nexus_resume('p')));
is(state_of('p'), 'running', 'until it is resumed');

sql('BEGIN', q(SELECT nexus_alter_pipeline('p', statement =>
	'INSERT INTO taken SELECT 100 + (value ->> ''n'')::integer FROM nexus_messages()')), q(PREPARE TRANSACTION 'alter'));
sql(q(SELECT nexus_produce('p', '{"n": 5}'::jsonb)), q(SELECT nexus_flush()));
looked();
is(workers('p'), 0, 'nothing is taken in by the definition that a prepared transaction replaces');
sql(q(COMMIT PREPARED 'alter'));
$node->wait_rows('postgres', 'taken WHERE n = 105', 1);
pass('but by the new one');

sql('BEGIN', q(SELECT nexus_drop_pipeline('p')), q(PREPARE TRANSACTION 'drop'));
is(workers('p'), 0, 'a drop that is prepared');
sql(q(COMMIT PREPARED 'drop'));
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_jobs() WHERE name = 'p'), 0);
pass('is done with COMMIT PREPARED');

# ---- produce

my $id = 'prepared-1';
sql('BEGIN', qq(SELECT nexus_produce('{"messages": [{"role": "user", "content": "Hola"}], "fingerprint": "f",
	"sessionId": "s", "messageId": "$id"}'::jsonb)), q(PREPARE TRANSACTION 'produce'));
works_ok($node, 'postgres', 'others publish meanwhile');
is(sql(q(SELECT count(*) FROM prospect_tracking WHERE session_id = 's')), 0, 'what is prepared is not published');
sql(q(COMMIT PREPARED 'produce'));
$node->wait_rows('postgres', q(prospect_tracking WHERE session_id = 's'), 1);
pass('before COMMIT PREPARED');

no_crash_ok($node);
done_testing();
