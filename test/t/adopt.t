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
like(create_notices('owned'), qr/WARNING: .*belongs to app: adopted, and its pipeline paused/,
	'the table of a role that may create tables is adopted, for that role, but paused');
my $status = $node->poll_status('owned', 'pipeline', 'prospect_tracking', 'paused');
like($status->{reason}, qr/belongs to app.*nexus_resume\(pipeline\)/, 'and the reason says why');
my $id = $node->produce('owned');
is($node->safe_psql('owned', 'SELECT nexus_flush()'), 't', 'a message comes to the topic');
is($node->safe_psql('owned', 'SELECT count(*) FROM prospect_tracking'), 0, 'and not to whoever made the table');
$node->safe_psql('owned', q(SELECT nexus_resume('prospect_tracking')));
works_ok($node, 'owned', 'when that is agreed to, it is filled');
is($node->safe_psql('owned', 'SELECT DISTINCT who FROM prospect_tracking'), 'app', 'with the rights of its owner');

# The owner of the schema could have put any table there.
$node->safe_psql('postgres', 'CREATE ROLE landlord; CREATE DATABASE landlords OWNER landlord');
$node->safe_psql('landlords', q(
	SET ROLE landlord;
	CREATE TABLE prospect_tracking (
		message_id text PRIMARY KEY, fingerprint_id text, session_id text, messages jsonb, metadata jsonb,
		enqueued_at timestamptz, topic text, partition integer, "offset" bigint, who name DEFAULT current_user)));
like(create_notices('landlords'), qr/INFO: .*owner landlord/, 'the table of the database\'s owner is adopted, for that one');
works_ok($node, 'landlords', 'and filled');

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
