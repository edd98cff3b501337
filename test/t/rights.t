# Whose rights a pipeline's statement has, and that nobody gets others by it: not from
# a trigger, not from one that is deferred to the commit, not by a renamed schema.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('rights', embedded => 1);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE ROLE owner_of_target;
GRANT CREATE ON SCHEMA public TO owner_of_target;
GRANT EXECUTE ON FUNCTION nexus_messages() TO owner_of_target;
SET ROLE owner_of_target;
CREATE TABLE target (n int, who text, attempt text, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE deferred_attempts (who text, attempt text);
CREATE FUNCTION escape() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  new.who := current_user;
  EXECUTE 'RESET SESSION AUTHORIZATION';
  RETURN new;
EXCEPTION WHEN OTHERS THEN
  new.attempt := SQLSTATE;
  RETURN new;
END $$;
CREATE FUNCTION escape_deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'SET ROLE NONE';
  INSERT INTO deferred_attempts VALUES (current_user, 'succeeded');
  RETURN new;
EXCEPTION WHEN OTHERS THEN
  INSERT INTO deferred_attempts VALUES (current_user, SQLSTATE);
  RETURN new;
END $$;
CREATE TRIGGER escape BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION escape();
CREATE CONSTRAINT TRIGGER escape_deferred AFTER INSERT ON target DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION escape_deferred();
RESET ROLE;
INSERT INTO nexus_pipelines (name, topic, statement, run_as, search_path)
VALUES ('p', 'p', 'INSERT INTO target SELECT (value ->> ''n'')::int FROM nexus_messages()', 'owner_of_target', 'public');
SELECT nexus_resume('p');
SELECT nexus_produce('p', jsonb_build_object('n', n), partition => 0) FROM unnest(ARRAY[1, 2, 2, 3]) n;
END

$node->wait_rows('postgres', 'target', 3);
is($node->safe_psql('postgres', 'SELECT DISTINCT who, attempt FROM target'), 'owner_of_target|42501',
	'the statement has the role\'s rights, and a trigger gets no others');
is($node->safe_psql('postgres', 'SELECT DISTINCT who, attempt FROM deferred_attempts'), 'owner_of_target|42501',
	'neither does one that is deferred to the commit');
$node->wait_rows('postgres', q(nexus_dead_letters WHERE pipeline = 'p' AND sqlstate = '23505'), 1);
pass('what breaks a deferred constraint is a dead letter');

# An error's text, cut to fit, has no half a character: é has two bytes.
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = (SELECT 'x' || repeat('é', 400));
END $$;
CREATE TRIGGER complain BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION complain();
SELECT nexus_produce('p', '{"n": 4}'::jsonb, partition => 0);
END
my $status = $node->poll_status('postgres', 'pipeline', 'p', 'waiting');
like($status->{last_error}, qr/^x\x{e9}+$/, 'a long error is cut between two characters');
$node->safe_psql('postgres', 'DROP TRIGGER complain ON target');
$node->wait_rows('postgres', 'target', 4);
pass('the pipeline goes on when the trouble is over');

# A session that has produced keeps its plans; the schema's old name is somebody else's now.
$node->safe_psql('postgres', 'CREATE DATABASE renamed');
$node->safe_psql('renamed', 'CREATE SCHEMA kafka');
$node->create_extension('renamed', 'kafka');
is($node->safe_psql('renamed', <<'END'), "0\n2", 'after a rename nothing goes to a planted table of the old name');
\set QUIET 1
\o /dev/null
SELECT kafka.nexus_produce('t', '1');
ALTER SCHEMA kafka RENAME TO kafka_moved;
CREATE SCHEMA kafka;
CREATE TABLE kafka.nexus_outbox (id bigint GENERATED ALWAYS AS IDENTITY, topic text, partition int, key bytea,
  value bytea, headers jsonb, message_id text);
BEGIN;
SELECT kafka_moved.nexus_produce('t', '2');
\o
SELECT count(*) FROM kafka.nexus_outbox;
\o /dev/null
COMMIT;
\o
SELECT last_value FROM pg_sequences WHERE schemaname = 'kafka_moved' AND sequencename = 'nexus_outbox_id_seq';
END
is($node->safe_psql('renamed', <<'END'), "\n1", 'and a pipeline is made');
SELECT kafka_moved.nexus_create_pipeline('moved', 't', 'SELECT * FROM kafka_moved.nexus_messages()');
SELECT count(*) FROM kafka_moved.nexus_pipelines WHERE name = 'moved';
END

no_crash_ok($node);
done_testing();
