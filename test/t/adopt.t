# prospect_tracking belongs to the user: DROP EXTENSION leaves it, CREATE EXTENSION
# takes one that fits and leaves any other alone.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('adopt', embedded => 1);

sub create_notices
{
	my ($db) = @_;
	my ($rc, $out, $err) = $node->psql($db, 'CREATE EXTENSION nexus_kafka');
	is($rc, 0, "CREATE EXTENSION in $db passes") or diag($err);
	return $err;
}

is(create_notices('postgres'), '', 'where there is no table, no NOTICE');
$node->produce_sessions('postgres', 1, 20);
$node->wait_rows('postgres', 'prospect_tracking', 20);
$node->safe_psql('postgres', 'DROP EXTENSION nexus_kafka');
$node->wait_rows('postgres', 'prospect_tracking', 20);
pass('DROP EXTENSION leaves the table and its rows');

# The new pipeline begins at the topic's start; what it finds there already is skipped.
like(create_notices('postgres'), qr/(?:NOTICE|INFO|WARNING): .*adopted/, 'the table is adopted');
works_ok($node, 'postgres', 'and filled');
is($node->safe_psql('postgres', 'SELECT count(*) FROM prospect_tracking'), 21, 'without a second copy of a row');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'or a dead letter');

$node->safe_psql('postgres', 'CREATE DATABASE wider');
$node->safe_psql('wider', q(
	CREATE TABLE prospect_tracking (
		nr bigint GENERATED ALWAYS AS IDENTITY, message_id varchar PRIMARY KEY, fingerprint_id text, session_id text,
		messages jsonb, metadata jsonb, enqueued_at timestamptz, topic text, partition integer, "offset" bigint,
		note text NOT NULL DEFAULT 'mine')));
like(create_notices('wider'), qr/(?:NOTICE|INFO|WARNING): .*adopted/, 'a table with columns of its own is adopted');
works_ok($node, 'wider', 'and filled');

# As a role that may not do all: the pipeline has the rights of the table's owner.
$node->safe_psql('postgres', 'CREATE ROLE app; ');
$node->safe_psql('postgres', 'CREATE DATABASE owned');
$node->safe_psql('owned', q(
	GRANT USAGE, CREATE ON SCHEMA public TO app;
	SET ROLE app;
	CREATE TABLE prospect_tracking (
		message_id text PRIMARY KEY, fingerprint_id text, session_id text, messages jsonb, metadata jsonb,
		enqueued_at timestamptz, topic text, partition integer, "offset" bigint, who name DEFAULT current_user)));
like(create_notices('owned'), qr/(?:NOTICE|INFO|WARNING): .*owner app/, 'the table of another role is adopted, for that role');
works_ok($node, 'owned', 'and filled');
is($node->safe_psql('owned', 'SELECT DISTINCT who FROM prospect_tracking'), 'app', 'with the rights of its owner');

$node->safe_psql('postgres', 'CREATE DATABASE misfit');
$node->safe_psql('misfit', 'CREATE TABLE prospect_tracking (message_id integer); INSERT INTO prospect_tracking VALUES (1)');
like(create_notices('misfit'), qr/(?:NOTICE|INFO|WARNING): .*left alone.*\n.*column session_id of type text/, 'one that does not fit is left alone');
is($node->safe_psql('misfit', 'SELECT count(*) FROM nexus_pipelines'), 0, 'without a pipeline');
$node->poll_status('misfit', 'outbox', 'outbox', 'running');
$node->produce('misfit');
is($node->safe_psql('misfit', 'SELECT nexus_flush()'), 't', 'producing works there');
is($node->safe_psql('misfit', 'SELECT message_id FROM prospect_tracking'), 1, 'and the table is as it was');

no_crash_ok($node);
done_testing();
