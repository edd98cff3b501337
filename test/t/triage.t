# Whose fault is an error: the message's (a dead letter), the surroundings' (wait),
# or the statement's (nothing moves until it is mended). No message is lost by it, and
# a topic never empties into the dead letters.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('triage', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub state_ok
{
	my ($state, $sqlstate, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $status = $node->poll_status('postgres', 'pipeline', 'prospect_tracking', $state);
	is($status->{last_error_sqlstate}, $sqlstate, "$name: $state, $sqlstate");
	ok($status->{last_error} && $status->{reason}, 'with the error and a reason');
	return;
}

sub dead_letters_are
{
	my ($count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), $count, $name);
}

# The statement.
$node->safe_psql('postgres', 'ALTER TABLE prospect_tracking DROP COLUMN fingerprint_id');
$node->produce_sessions('postgres', 1, 20);
state_ok('failing', '42703', 'a dropped column');
$node->wait_for_query('postgres', q(SELECT retries >= 3 FROM nexus_status WHERE kind = 'pipeline'));
dead_letters_are(0, 'after three tries still no dead letter');
is($node->status('postgres', 'pipeline', 'prospect_tracking')->{state}, 'failing', 'and still failing');
$node->safe_psql('postgres', 'ALTER TABLE prospect_tracking ADD COLUMN fingerprint_id text');
$node->wait_rows('postgres', 'prospect_tracking', 20);
runs_ok($node, 'postgres', 'mended, it goes on by itself');
dead_letters_are(0, 'and nothing was lost');

$node->safe_psql('postgres', 'ALTER TABLE prospect_tracking RENAME TO away');
$node->produce_sessions('postgres', 21, 30);
state_ok('failing', '42P01', 'a table that is gone');
$node->safe_psql('postgres', 'ALTER TABLE away RENAME TO prospect_tracking');
$node->wait_rows('postgres', 'prospect_tracking', 30);
dead_letters_are(0, 'and nothing was lost');

# The message, with errors that a broken statement could raise too.
$node->safe_psql('postgres', q(
	CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'refused' USING ERRCODE = substr(NEW.fingerprint_id, 7);
	END $$;
	CREATE TRIGGER raise BEFORE INSERT ON prospect_tracking
	FOR EACH ROW WHEN (NEW.fingerprint_id LIKE 'raise-%') EXECUTE FUNCTION raise()));
my $rows = 30;
foreach my $sqlstate (qw(XX000 42501 0A000 P0001 23514))
{
	$node->safe_psql('postgres', qq(SELECT count(nexus_produce(jsonb_build_object('sessionId', 's', 'messages',
		'[{"role":"user","content":"x"}]'::jsonb, 'fingerprint', CASE n WHEN 50 THEN 'raise-$sqlstate' ELSE 'fine' END)))
		FROM generate_series(1, 100) n));
	$node->wait_rows('postgres', 'prospect_tracking', $rows += 99);
	$node->wait_rows('postgres', "nexus_dead_letters WHERE sqlstate = '$sqlstate' AND message = 'refused'", 1);
	pass("$sqlstate for one message of many: that one is a dead letter");
}
dead_letters_are(5, 'no other');
runs_ok($node, 'postgres');

# Alone, such an error proves nothing; the next message that passes does.
$node->produce('postgres', { fingerprint => 'raise-XX000' });
state_ok('failing', 'XX000', 'alone in the topic');
dead_letters_are(5, 'no dead letter yet');
my $id = $node->produce('postgres');
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
$node->wait_rows('postgres', 'nexus_dead_letters', 6);
pass('another message passes: it was the message');

# Also where a transaction has room for one message only.
$node->safe_psql('postgres', q(SELECT nexus_alter_pipeline('prospect_tracking', options => '{"batch_messages": 1}')));
$node->produce('postgres', { fingerprint => $_ }) for qw(raise-XX000 raise-42501 fine);
$node->wait_rows('postgres', 'prospect_tracking', $rows += 2);
$node->wait_rows('postgres', 'nexus_dead_letters', 8);
pass('a batch of one message has evidence in the next ones');
$node->safe_psql('postgres', q(SELECT nexus_alter_pipeline('prospect_tracking', options => '{"batch_messages": 1000}')));

# And where those that pass are hidden among bad ones, and nothing more comes.
my @hidden = ('raise-42501', 'fine', 'fine', ('raise-22000') x 20);
$node->safe_psql('postgres', join ';', "SELECT nexus_pause('prospect_tracking')", map {
		qq(SELECT nexus_produce('{"sessionId": "s", "messages": [{"role": "user", "content": "x"}], "fingerprint": "$_"}')) }
	@hidden);
is($node->safe_psql('postgres', 'SELECT nexus_flush()'), 't', 'bad ones are published');
$node->safe_psql('postgres', "SELECT nexus_resume('prospect_tracking')");
$node->wait_rows('postgres', 'prospect_tracking', $rows += 2);
$node->wait_rows('postgres', 'nexus_dead_letters', 29);
pass('a message that passes is found wherever it is in the batch');

# A data error needs no other evidence.
$node->produce('postgres', { fingerprint => 'raise-22000' });
$node->wait_rows('postgres', q(nexus_dead_letters WHERE sqlstate = '22000'), 21);
pass('a data error alone in the topic is a dead letter');

# The surroundings: a lock that is not given up in time.
$node->safe_psql('postgres', q(ALTER DATABASE postgres SET lock_timeout = '200ms'));
my $pid = $node->worker_pid('ingest', 'postgres');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->worker_pid('ingest', 'postgres', not => $pid);
runs_ok($node, 'postgres');
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE prospect_tracking IN ACCESS EXCLUSIVE MODE');
$id = $node->produce('postgres');
state_ok('waiting', '55P03', 'lock_timeout');
$lock->query_safe('ROLLBACK');
$lock->quit;
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
pass('unlocked, it goes on by itself');

foreach my $sqlstate (qw(40001 53100 57014))
{
	$id = $node->produce('postgres', { fingerprint => "raise-$sqlstate" });
	state_ok('waiting', $sqlstate, 'raised by a trigger');
	$node->safe_psql('postgres', 'ALTER TABLE prospect_tracking DISABLE TRIGGER raise');
	$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
	$node->safe_psql('postgres', 'ALTER TABLE prospect_tracking ENABLE TRIGGER raise');
	pass("$sqlstate is retried until it passes");
}
dead_letters_are(30, 'none of those was a dead letter');

no_crash_ok($node);
done_testing();
