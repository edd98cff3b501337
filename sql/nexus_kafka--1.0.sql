/* nexus_kafka 1.0: the install script. Order: tables, functions of the engine,
 * the message contract, steering, views, and at the end the prospect pipeline. */

-- complain if the script is sourced in psql rather than by CREATE EXTENSION
\echo Use "CREATE EXTENSION nexus_kafka" to load this file. \quit

/* Without the extension's schema, in which others may have put a function or operator
 * that fits better than PostgreSQL's own. So all of ours is qualified. */
SET LOCAL search_path = pg_catalog, pg_temp;


/* ---------------------------------------------------------------- tables */

CREATE TABLE @extschema@.nexus_identity (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  system_identifier bigint NOT NULL,
  database_oid oid NOT NULL,
  extension_oid oid NOT NULL
);
COMMENT ON TABLE @extschema@.nexus_identity IS
  'The cluster, database and CREATE EXTENSION that the pipelines and the outbox belong to. If they differ from the real ones (a restored dump, a copied database), nothing runs until nexus_resume().';

CREATE TABLE @extschema@.nexus_pipelines (
  name text PRIMARY KEY CHECK (name <> '' AND octet_length(name) <= 63 AND name !~ '[\u0001-\u001f\u007f]'),
  topic text NOT NULL CHECK (topic ~ '^(\^.*|[a-zA-Z0-9._-]{1,249}(,[a-zA-Z0-9._-]{1,249})*)$'),
  statement text NOT NULL,
  run_as name NOT NULL DEFAULT current_user,
  run_as_oid oid,
  search_path text NOT NULL DEFAULT current_setting('search_path'),
  start text NOT NULL DEFAULT 'earliest',
  workers integer NOT NULL DEFAULT 1 CHECK (workers BETWEEN 1 AND 32),
  batch_messages integer NOT NULL DEFAULT 1000 CHECK (batch_messages BETWEEN 1 AND 10000),
  batch_bytes integer NOT NULL DEFAULT 4194304 CHECK (batch_bytes BETWEEN 1024 AND 67108864),
  on_error text NOT NULL DEFAULT 'dead_letter' CHECK (on_error IN ('dead_letter', 'stop')),
  max_dead_letters integer CHECK (max_dead_letters >= 1),
  group_id text CHECK (group_id <> '' AND octet_length(group_id) <= 249),
  on_demand boolean NOT NULL DEFAULT false,
  connection text CHECK (connection ~ '^[a-zA-Z0-9_-]{1,63}$'),
  paused boolean NOT NULL DEFAULT false,
  paused_reason text,
  resumes bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz
);
COMMENT ON TABLE @extschema@.nexus_pipelines IS
  'One row a pipeline: a topic, and the SQL statement that takes its messages in. Change it with nexus_create_pipeline, nexus_alter_pipeline and nexus_drop_pipeline, which check what they are given.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.topic IS
  'A topic, several with commas between them, or a regular expression that begins with ^.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.statement IS
  'One SQL statement that reads nexus_messages() or nexus_raw_messages(); a batch of messages is one execution of it.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.run_as IS
  'The role whose rights the statement has, by the name that it had when it was given.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.run_as_oid IS
  'The same role, whatever it is called now; one that is made later under its name is another. NULL: there is none.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.search_path IS 'The search_path under which the statement runs.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.start IS
  'Where to begin, in the partitions that are there when the pipeline first sees its topics: earliest, latest, a timestamp, group:NAME, or offsets as a JSON object. Partitions that come later are read from their beginning.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.workers IS 'How many processes share the partitions.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.batch_messages IS 'The largest number of messages in one transaction.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.batch_bytes IS
  'The largest number of bytes of keys and values in one transaction (a single message may be larger).';
COMMENT ON COLUMN @extschema@.nexus_pipelines.on_error IS
  'A message that the statement refuses: dead_letter puts it into nexus_dead_letters, stop stops the pipeline before it.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.max_dead_letters IS
  'The pipeline pauses itself when it has this many dead letters; NULL: never.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.group_id IS
  'The consumer group in which the broker is told the offsets, for the tools that show lag; NULL: nexus_kafka-DATABASE-NAME, or the group of start.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.on_demand IS 'Runs only while a nexus_consume() waits for it.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.connection IS
  'The section of nexus_kafka.config_file that says which Kafka cluster it reads from; NULL: the default connection.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.paused_reason IS 'Why it is paused; NULL: by nexus_pause().';
COMMENT ON COLUMN @extschema@.nexus_pipelines.resumes IS
  'Calls of nexus_resume(): with each, the pipeline''s workers begin anew, also one that had stopped.';
COMMENT ON COLUMN @extschema@.nexus_pipelines.started_at IS 'When start took effect; NULL: not yet.';

CREATE TABLE @extschema@.nexus_offsets (
  pipeline text NOT NULL,
  topic text NOT NULL,
  partition integer NOT NULL CHECK (partition >= 0),
  "offset" bigint NOT NULL CHECK ("offset" >= -3),
  start_time timestamptz CHECK (("offset" = -3) = (start_time IS NOT NULL)),
  last_offset bigint,
  last_hash bigint,
  cluster_id text,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 10);
COMMENT ON TABLE @extschema@.nexus_offsets IS
  'Where each pipeline goes on reading. Written in the transaction that writes the rows; nothing else decides.';
COMMENT ON COLUMN @extschema@.nexus_offsets."offset" IS
  'The next offset to read; -2: the earliest one of the partition; -3: the first one from start_time on.';
COMMENT ON COLUMN @extschema@.nexus_offsets.last_offset IS
  'The last message taken in, and (last_hash) a hash of it: a topic that was deleted and made again has another one there.';
COMMENT ON COLUMN @extschema@.nexus_offsets.cluster_id IS 'The Kafka cluster that the offset belongs to.';

CREATE TABLE @extschema@.nexus_dead_letters (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  origin text NOT NULL CHECK (origin IN ('pipeline', 'outbox')),
  pipeline text,
  topic text NOT NULL,
  partition integer,
  "offset" bigint,
  "timestamp" timestamptz,
  key bytea,
  value bytea,
  headers jsonb,
  message_id text,
  connection text,
  sqlstate text,
  message text NOT NULL,
  detail text,
  hint text,
  context text,
  failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((origin = 'pipeline') = (pipeline IS NOT NULL))
);
CREATE INDEX nexus_dead_letters_pipeline ON @extschema@.nexus_dead_letters (pipeline, id);
COMMENT ON TABLE @extschema@.nexus_dead_letters IS
  'Complete messages that a pipeline could not take in, or that could not be published from the outbox, with their errors.';
COMMENT ON COLUMN @extschema@.nexus_dead_letters.origin IS
  'pipeline: a message of a topic that the pipeline''s statement refused; outbox: a message of nexus_produce that the broker refused.';
COMMENT ON COLUMN @extschema@.nexus_dead_letters.connection IS
  'For the outbox: the connection that the message was for; NULL: the default one.';
COMMENT ON COLUMN @extschema@.nexus_dead_letters.headers IS
  'An object; a repeated name has an array; a name or value that is not UTF-8 is written as \x and hexadecimal digits.';
COMMENT ON COLUMN @extschema@.nexus_dead_letters.sqlstate IS 'SQLSTATE of the error; for the outbox, Kafka''s error name.';

/* 1152921504606846976 is 2^60: the ids of the default connection are below it, those of all others from there on.
 * No CHECK says so: PostgreSQL would read it anew for each INSERT, which makes nexus_produce half as fast. */
CREATE SEQUENCE @extschema@.nexus_outbox_named_id MINVALUE 1152921504606846976;
COMMENT ON SEQUENCE @extschema@.nexus_outbox_named_id IS
  'Ids of nexus_outbox for rows of connections that have a name.';

CREATE TABLE @extschema@.nexus_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY (MAXVALUE 1152921504606846975) PRIMARY KEY,
  topic text NOT NULL,
  partition integer,
  key bytea,
  value bytea,
  headers jsonb,
  message_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  connection text
);
CREATE FUNCTION @extschema@.nexus_outbox_keep() RETURNS trigger
  AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.nexus_outbox_keep() IS
  'Refuses TRUNCATE of nexus_outbox: rows in flight would be lost, and their ids given anew. SQLSTATE 55000.';
CREATE TRIGGER nexus_outbox_keep BEFORE TRUNCATE ON @extschema@.nexus_outbox
  FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.nexus_outbox_keep();
CREATE INDEX nexus_outbox_connection ON @extschema@.nexus_outbox (connection, id) WHERE connection IS NOT NULL;
COMMENT ON TABLE @extschema@.nexus_outbox IS
  'Messages that wait for the broker''s acknowledgement. nexus_produce writes here, in the caller''s transaction; the relay publishes and deletes. Don''t write it directly.';
COMMENT ON COLUMN @extschema@.nexus_outbox.connection IS
  'The section of nexus_kafka.config_file that says to which Kafka cluster it goes; NULL: the default connection.';

CREATE TABLE @extschema@.nexus_topic_rights (
  role regrole NOT NULL CHECK (role::oid <> 0),
  topic text NOT NULL CHECK (topic ~ '^([a-zA-Z0-9._-]{1,249}|[a-zA-Z0-9._-]{0,248}[*])$'),
  connection text NOT NULL DEFAULT '' CHECK (connection ~ '^([a-zA-Z0-9_-]{0,63}|[*])$'),
  PRIMARY KEY (role, topic, connection)
);
COMMENT ON TABLE @extschema@.nexus_topic_rights IS
  'Who may produce to which topics with nexus_produce(topic, …) and nexus_produce_now(topic, …), besides having EXECUTE on them. A row for a role covers its members. Superusers and the extension''s owner may produce to all.';
COMMENT ON COLUMN @extschema@.nexus_topic_rights.role IS
  'A role; kept by its oid: one that is renamed keeps its rights, one that is made anew has none.';
COMMENT ON COLUMN @extschema@.nexus_topic_rights.topic IS
  'A topic, or the beginning of topics'' names and an asterisk; * alone: all.';
COMMENT ON COLUMN @extschema@.nexus_topic_rights.connection IS
  'The section of nexus_kafka.config_file whose topics are meant; empty: the default connection; *: all.';

/* Who may write a pipeline's row may choose its statement, and a superuser as its role.
 * Rights on all tables (pg_write_all_data) are not meant to be that. */
CREATE FUNCTION @extschema@.nexus_refuse_direct_writes()
RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = tg_relid), 'USAGE') THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied to write table %I', tg_table_name),
      DETAIL = 'A pipeline runs as the role that its row names.',
      HINT = 'Use nexus_create_pipeline(), nexus_alter_pipeline() and nexus_drop_pipeline().';
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.nexus_refuse_direct_writes() IS
  'Trigger of nexus_pipelines: only the functions write it, and the extension''s owner.';
CREATE TRIGGER nexus_refuse_direct_writes BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.nexus_pipelines
  FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.nexus_refuse_direct_writes();

/* Each script of pg_dump, and each session of pg_restore, begins with settings that no
 * other session has all of: four that are set in it, whatever the options. */
CREATE FUNCTION @extschema@.nexus_find_role()
RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  ours boolean;
BEGIN
  IF tg_op = 'UPDATE' AND new.run_as = old.run_as THEN
    RETURN new;
  END IF;
  new.run_as_oid := (SELECT oid FROM pg_roles WHERE rolname = new.run_as);
  IF tg_op = 'INSERT' AND (
    SELECT count(*) = 4 FROM pg_settings
    WHERE source = 'session' AND name IN ('xmloption', 'standard_conforming_strings', 'statement_timeout',
                                          'idle_in_transaction_session_timeout')
  ) THEN
    -- the schema may have another name by now
    EXECUTE format('SELECT EXISTS (
        SELECT FROM %I.nexus_identity i, pg_database d, pg_extension e
        WHERE d.datname = current_database() AND d.oid = i.database_oid
          AND e.extname = ''nexus_kafka'' AND e.oid = i.extension_oid)', tg_table_schema) INTO ours;
    IF ours THEN
      new.paused := true;
      new.paused_reason := 'it was restored from a dump into a database whose pipelines run: nexus_resume(pipeline) lets it run too';
    END IF;
  END IF;
  RETURN new;
END
$$;
COMMENT ON FUNCTION @extschema@.nexus_find_role() IS
  'Trigger of nexus_pipelines: which role the name run_as means, here and now. What a dump brings into a database that is at work is paused.';
CREATE TRIGGER nexus_find_role BEFORE INSERT ON @extschema@.nexus_pipelines
  FOR EACH ROW EXECUTE FUNCTION @extschema@.nexus_find_role();
CREATE TRIGGER nexus_find_new_role BEFORE UPDATE OF run_as ON @extschema@.nexus_pipelines
  FOR EACH ROW EXECUTE FUNCTION @extschema@.nexus_find_role();

/* The outbox isn't dumped: a restore would publish its messages once more. */
SELECT pg_catalog.pg_extension_config_dump('@extschema@.nexus_identity', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.nexus_pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.nexus_offsets', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.nexus_dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.nexus_topic_rights',
  'WHERE role IN (SELECT oid FROM pg_catalog.pg_roles)');  -- a dropped role's number is another's elsewhere
SELECT pg_catalog.pg_extension_config_dump(
  pg_catalog.pg_get_serial_sequence('@extschema@.nexus_dead_letters', 'id')::pg_catalog.regclass, '');


/* ------------------------------------- what a pipeline's statement reads */

CREATE FUNCTION @extschema@.nexus_messages(
  OUT topic text, OUT partition integer, OUT "offset" bigint, OUT "timestamp" timestamptz,
  OUT key text, OUT value jsonb, OUT headers jsonb)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 1000
AS 'MODULE_PATHNAME', 'nexus_messages';
COMMENT ON FUNCTION @extschema@.nexus_messages() IS
  'The messages of the batch that the pipeline works on: key as text, value as jsonb (NULL for a tombstone), headers as an object. Only inside a pipeline''s statement; elsewhere SQLSTATE 55000.';

CREATE FUNCTION @extschema@.nexus_raw_messages(
  OUT topic text, OUT partition integer, OUT "offset" bigint, OUT "timestamp" timestamptz,
  OUT key bytea, OUT value bytea, OUT headers jsonb)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 1000
AS 'MODULE_PATHNAME', 'nexus_raw_messages';
COMMENT ON FUNCTION @extschema@.nexus_raw_messages() IS
  'As nexus_messages(), with key and value as they came, undecoded. Only inside a pipeline''s statement; elsewhere SQLSTATE 55000.';


/* --------------------------------------------------------------- produce */

CREATE FUNCTION @extschema@.nexus_produce(payload jsonb)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_prospect';
COMMENT ON FUNCTION @extschema@.nexus_produce(jsonb) IS
  'Publishes a prospect''s session to the topic nexus_kafka.topic if and only if the transaction commits; answers {"status":"accepted","messageId",…}. SQLSTATE 22023 for a payload that breaks the contract, 54000 for one larger than nexus_kafka.max_message_bytes.';

CREATE FUNCTION @extschema@.nexus_produce(
  topic text, value text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_text';
COMMENT ON FUNCTION @extschema@.nexus_produce(text, text, text, jsonb, integer, text) IS
  'Publishes any message if and only if the transaction commits. value NULL: a tombstone. partition NULL: by the murmur2 hash of the key, as the Java client does. connection: a section of nexus_kafka.config_file, that is another Kafka cluster; NULL: the default one. SQLSTATE 22023 for a bad topic, header or partition, 54000 for a message larger than nexus_kafka.max_message_bytes.';

CREATE FUNCTION @extschema@.nexus_produce(
  topic text, value jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_jsonb';
COMMENT ON FUNCTION @extschema@.nexus_produce(text, jsonb, text, jsonb, integer, text) IS
  'As nexus_produce(topic, value text, …), with a value of type jsonb.';

CREATE FUNCTION @extschema@.nexus_produce(
  topic text, value bytea, key bytea DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_bytea';
COMMENT ON FUNCTION @extschema@.nexus_produce(text, bytea, bytea, jsonb, integer, text) IS
  'As nexus_produce(topic, value text, …), with key and value of type bytea.';

CREATE FUNCTION @extschema@.nexus_produce_now(payload jsonb, timeout interval DEFAULT '8 s')
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_now_prospect';
COMMENT ON FUNCTION @extschema@.nexus_produce_now(jsonb, interval) IS
  'As nexus_produce(payload), but at once, not as part of the transaction, and waits until all in-sync replicas have the message; answers with "kafka": {"partition", "offset"}. SQLSTATE 08006: not sent, and will not be; 08007: sent, may still be published; 42704: no such topic; 42501: the broker refuses it; 38000: refused for another reason; 55000 where no relay can run.';

CREATE FUNCTION @extschema@.nexus_produce_now(
  topic text, value text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  timeout interval DEFAULT '8 s', connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_now_text';
COMMENT ON FUNCTION @extschema@.nexus_produce_now(text, text, text, jsonb, integer, interval, text) IS
  'As nexus_produce(topic, value text, …), but at once and with the broker''s answer: see nexus_produce_now(jsonb, interval).';

CREATE FUNCTION @extschema@.nexus_produce_now(
  topic text, value jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  timeout interval DEFAULT '8 s', connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_now_jsonb';
COMMENT ON FUNCTION @extschema@.nexus_produce_now(text, jsonb, text, jsonb, integer, interval, text) IS
  'As nexus_produce(topic, value jsonb, …), but at once and with the broker''s answer: see nexus_produce_now(jsonb, interval).';

CREATE FUNCTION @extschema@.nexus_produce_now(
  topic text, value bytea, key bytea DEFAULT NULL, headers jsonb DEFAULT NULL, partition integer DEFAULT NULL,
  timeout interval DEFAULT '8 s', connection text DEFAULT NULL)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_produce_now_bytea';
COMMENT ON FUNCTION @extschema@.nexus_produce_now(text, bytea, bytea, jsonb, integer, interval, text) IS
  'As nexus_produce(topic, value bytea, …), but at once and with the broker''s answer: see nexus_produce_now(jsonb, interval).';

CREATE FUNCTION @extschema@.nexus_flush(timeout interval DEFAULT '30 s')
RETURNS boolean
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'nexus_flush';
COMMENT ON FUNCTION @extschema@.nexus_flush(interval) IS
  'Waits until the broker has acknowledged everything that was committed before the call: true; false if the timeout passed first or if a message of it went to nexus_dead_letters. What the calling transaction itself produced is not committed, so not waited for. SQLSTATE 55000 where no relay can run.';


/* --------------------------------------------------------------- consume */

CREATE FUNCTION @extschema@.nexus_consume(
  pipeline text DEFAULT 'prospect_tracking', timeout interval DEFAULT '8 s')
RETURNS jsonb
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'nexus_consume';
COMMENT ON FUNCTION @extschema@.nexus_consume(text, interval) IS
  'Waits until everything that is in the pipeline''s topic now, and what this database committed for it, is ingested. Answers {"status":"success","processedCount":n} with the messages ingested since the last such answer, {"status":"idle"} if there were none, {"status":"error","error":…} if it can''t be done in time. SQLSTATE 42704 if there is no such pipeline.';

CREATE FUNCTION @extschema@.nexus_valid_prospect(value jsonb)
RETURNS boolean
LANGUAGE C IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'nexus_valid_prospect';
COMMENT ON FUNCTION @extschema@.nexus_valid_prospect(jsonb) IS
  'True for the value of a prospect message that keeps to the contract; otherwise an error that says what is wrong (SQLSTATE 22023). For the statement of the pipeline prospect_tracking.';


/* ------------------------------------------------------------- pipelines */

CREATE FUNCTION @extschema@.nexus_create_pipeline(
  name text, topic text, statement text, options jsonb DEFAULT '{}')
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_create_pipeline';
COMMENT ON FUNCTION @extschema@.nexus_create_pipeline(text, text, text, jsonb) IS
  'Makes a pipeline: a topic (several with commas between them, or ^ and a regular expression) and the SQL statement that takes its messages in, with the rights and the search_path of the caller. Options: start, workers, batch_messages, batch_bytes, on_error, max_dead_letters, group_id, on_demand, run_as, connection. SQLSTATE 42710 if the name is taken, 22023 for a bad topic or option, 42601 for a statement that can''t be one; what PostgreSQL says of the statement otherwise.';

CREATE FUNCTION @extschema@.nexus_alter_pipeline(
  name text, topic text DEFAULT NULL, statement text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_alter_pipeline';
COMMENT ON FUNCTION @extschema@.nexus_alter_pipeline(text, text, text, jsonb) IS
  'Changes what you give of a pipeline, at the commit; the pipeline stands still until then. What is NULL, and options that you don''t name, stay. A new statement takes the caller''s search_path with it. SQLSTATE 42704 if there is none of that name, 42501 without the rights of its role, 55000 for a new start of one that has begun; otherwise as nexus_create_pipeline().';

CREATE FUNCTION @extschema@.nexus_drop_pipeline(name text)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'nexus_drop_pipeline';
COMMENT ON FUNCTION @extschema@.nexus_drop_pipeline(text) IS
  'Stops a pipeline and removes it with its offsets. Its dead letters stay. SQLSTATE 42704 if there is none of that name, 42501 without the rights of its role.';


/* -------------------------------------------------------------- steering */

CREATE FUNCTION @extschema@.nexus_pause(pipeline text)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'nexus_pause';
COMMENT ON FUNCTION @extschema@.nexus_pause(text) IS
  'Stops a pipeline until nexus_resume(pipeline); it has stopped when the function returns, and goes on if the transaction is rolled back. Its offsets stay. SQLSTATE 42704 if there is none of that name.';

CREATE FUNCTION @extschema@.nexus_resume(pipeline text)
RETURNS void
LANGUAGE C VOLATILE STRICT
AS 'MODULE_PATHNAME', 'nexus_resume_pipeline';
COMMENT ON FUNCTION @extschema@.nexus_resume(text) IS
  'Lets a paused or stopped pipeline go on when this transaction commits; the commit waits until it runs, or shows why not, 2 s at most. SQLSTATE 42704 if there is none of that name.';

CREATE FUNCTION @extschema@.nexus_seek(
  pipeline text, "position" text, topic text DEFAULT NULL, partition integer DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_seek';
COMMENT ON FUNCTION @extschema@.nexus_seek(text, text, text, integer) IS
  'Moves a paused pipeline to a position: earliest, latest (what comes after this call), an offset, or a timestamp (the first message from then on); in all its partitions, those of a topic, or one. Returns how many partitions it moved. SQLSTATE 55000 if the pipeline is not paused or knows no such partition, 42704 if there is none of that name, 22007 or 22023 for what is no position.';

CREATE FUNCTION @extschema@.nexus_seek(
  pipeline text, "offset" bigint, topic text DEFAULT NULL, partition integer DEFAULT NULL)
RETURNS bigint
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
  SELECT @extschema@.nexus_seek(nexus_seek.pipeline, nexus_seek."offset"::text, nexus_seek.topic, nexus_seek.partition);
END;
COMMENT ON FUNCTION @extschema@.nexus_seek(text, bigint, text, integer) IS
  'As nexus_seek(pipeline, position text, …), with an offset.';

CREATE FUNCTION @extschema@.nexus_replay(
  pipeline text, ids bigint[] DEFAULT NULL, OUT replayed bigint, OUT failed bigint)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_replay';
COMMENT ON FUNCTION @extschema@.nexus_replay(text, bigint[]) IS
  'Runs dead letters of a pipeline (those with such ids; NULL: all that are there now) through its statement of today, in order of their ids, each batch a transaction of its own, in a worker. What works leaves nexus_dead_letters, what doesn''t stays with its new error. The pipeline need not run. SQLSTATE 42704 if there is none of that name, 55000 where no worker can run, 53400 if there is no room for one; an error of the environment ends it.';

CREATE FUNCTION @extschema@.nexus_resume()
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_resume_database';
COMMENT ON FUNCTION @extschema@.nexus_resume() IS
  'For a database that was restored from a dump or copied from another: makes this database the owner of its pipelines and its outbox, so that they run. Make sure that the original doesn''t, or that you want both.';


/* ---------------------------------------------------------------- topics */

CREATE FUNCTION @extschema@.nexus_create_topic(
  topic text, partitions integer DEFAULT 1, replication_factor integer DEFAULT NULL, config jsonb DEFAULT NULL,
  timeout interval DEFAULT '30 s', connection text DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_create_topic';
COMMENT ON FUNCTION @extschema@.nexus_create_topic(text, integer, integer, jsonb, interval, text) IS
  'Makes a topic on the broker, at once: replication_factor NULL is the broker''s default, config an object of topic settings ({"retention.ms": "604800000"}). SQLSTATE 42710 if there is one, 42501 if the broker doesn''t allow it, 28000 if a policy of the broker forbids it, 22023 for what it finds wrong, 08006 without an answer, 08007 if it may be done still.';

CREATE FUNCTION @extschema@.nexus_topics_json(timeout interval, connection text)
RETURNS jsonb
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_topics_json';
COMMENT ON FUNCTION @extschema@.nexus_topics_json(interval, text) IS 'What nexus_topics() is made of.';

CREATE FUNCTION @extschema@.nexus_topics(timeout interval DEFAULT '30 s', connection text DEFAULT NULL)
RETURNS TABLE (topic text, partition integer, leader integer, replicas integer, in_sync integer,
               first_offset bigint, end_offset bigint)
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
  SELECT t.topic, t.partition, t.leader, t.replicas, t.in_sync, t.first_offset, t.end_offset
  FROM pg_catalog.jsonb_to_recordset(@extschema@.nexus_topics_json(nexus_topics.timeout, nexus_topics.connection))
    AS t (topic text, partition integer, leader integer, replicas integer, in_sync integer,
          first_offset bigint, end_offset bigint)
  ORDER BY t.topic COLLATE "C", t.partition;
END;
COMMENT ON FUNCTION @extschema@.nexus_topics(interval, text) IS
  'The topics that the broker shows, one row a partition: its leader''s id (NULL: none), replicas, those in sync, the first offset that is there, and the end. SQLSTATE 08006 without an answer.';


/* ------------------------------------------------------------------ look */

CREATE FUNCTION @extschema@.nexus_jobs(
  OUT kind text, OUT name text, OUT part integer, OUT state text, OUT reason text, OUT since timestamptz, OUT pid integer,
  OUT messages bigint, OUT rows bigint, OUT batches bigint, OUT dead_letters bigint, OUT retries bigint,
  OUT lag bigint, OUT last_message_at timestamptz, OUT last_error text, OUT last_error_sqlstate text,
  OUT last_error_at timestamptz, OUT counted_since timestamptz, OUT link text, OUT topic_found boolean)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'nexus_jobs';
COMMENT ON FUNCTION @extschema@.nexus_jobs() IS
  'What shared memory knows of this database''s workers (kind: supervisor, relay, ingest). Read nexus_status instead.';

CREATE FUNCTION @extschema@.nexus_job_partitions(
  OUT pipeline text, OUT topic text, OUT partition integer, OUT end_offset bigint, OUT pid integer)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'nexus_job_partitions';
COMMENT ON FUNCTION @extschema@.nexus_job_partitions() IS
  'What the ingest workers of this database know of their partitions. Read nexus_partitions instead.';

CREATE FUNCTION @extschema@.nexus_database_state(OUT state text, OUT reason text)
RETURNS record
LANGUAGE C VOLATILE
AS 'MODULE_PATHNAME', 'nexus_database_state';
COMMENT ON FUNCTION @extschema@.nexus_database_state() IS
  'Why nothing can run in this database as a whole (not preloaded, a standby, a restored dump or a copy), or NULLs.';

/* Several workers of a pipeline are one row: the state of the one that is worst off. */
CREATE VIEW @extschema@.nexus_status AS
WITH RECURSIVE jobs AS (
  SELECT j.*, pg_catalog.array_position(
      ARRAY['stopped', 'failing', 'no_worker', 'not_configured', 'unreachable', 'waiting', 'starting', 'paused',
            'on_demand', 'running'], j.state) AS rank
  FROM @extschema@.nexus_jobs() j
), waiting AS (
  /* the connections that have rows: from one to the next by the index */
  (SELECT o.connection FROM @extschema@.nexus_outbox o WHERE o.connection IS NOT NULL ORDER BY o.connection LIMIT 1)
  UNION ALL
  SELECT (SELECT o.connection FROM @extschema@.nexus_outbox o
          WHERE o.connection > n.connection ORDER BY o.connection LIMIT 1)
  FROM waiting n
  WHERE n.connection IS NOT NULL
), works AS (
  SELECT j.kind, j.name,
    (pg_catalog.array_agg(j.state ORDER BY j.rank, j.part))[1] AS state,
    (pg_catalog.array_agg(j.reason ORDER BY j.rank, j.part))[1] AS reason,
    (pg_catalog.array_agg(j.since ORDER BY j.rank, j.part))[1] AS since,
    pg_catalog.min(j.pid) AS pid, pg_catalog.count(j.pid)::integer AS workers,
    pg_catalog.sum(j.messages)::bigint AS messages, pg_catalog.sum(j.rows)::bigint AS rows,
    pg_catalog.sum(j.batches)::bigint AS batches, pg_catalog.sum(j.dead_letters)::bigint AS dead_letters,
    pg_catalog.sum(j.retries)::bigint AS retries, pg_catalog.sum(j.lag)::bigint AS lag,
    pg_catalog.min(j.last_message_at) FILTER (WHERE j.lag > 0) AS last_message_at,
    (pg_catalog.array_agg(j.last_error ORDER BY j.last_error_at DESC NULLS LAST))[1] AS last_error,
    (pg_catalog.array_agg(j.last_error_sqlstate ORDER BY j.last_error_at DESC NULLS LAST))[1] AS last_error_sqlstate,
    pg_catalog.max(j.last_error_at) AS last_error_at, pg_catalog.min(j.counted_since) AS counted_since
  FROM jobs j
  WHERE j.kind IN ('relay', 'ingest')
  GROUP BY j.kind, j.name
)
SELECT c.kind, c.name,
  COALESCE(h.state, CASE WHEN c.paused THEN 'paused' END, w.state,
    CASE WHEN c.unknown AND s.state = 'running' THEN 'not_configured' END, NULLIF(s.state, 'running'), 'starting') AS state,
  CASE
    WHEN h.state IS NOT NULL THEN h.reason
    WHEN c.paused THEN COALESCE(c.paused_reason, 'nexus_pause() was called; nexus_resume(pipeline) lets it go on')
    WHEN w.state IS NOT NULL THEN w.reason
    WHEN c.unknown AND s.state = 'running' THEN 'nexus_kafka.config_file has no section of this name, or can''t be read'
    ELSE s.reason
  END AS reason,
  w.since, w.pid, COALESCE(w.workers, 0) AS workers, COALESCE(w.messages, 0) AS messages, COALESCE(w.rows, 0) AS rows,
  COALESCE(w.batches, 0) AS batches, COALESCE(w.dead_letters, 0) AS dead_letters, COALESCE(w.retries, 0) AS retries,
  CASE WHEN c.kind = 'pipeline' THEN w.lag
    WHEN c.connection IS NULL THEN (SELECT pg_catalog.count(*) FROM (
      SELECT FROM @extschema@.nexus_outbox o WHERE o.connection IS NULL LIMIT 100000) o)
    ELSE (SELECT pg_catalog.count(*) FROM (
      SELECT FROM @extschema@.nexus_outbox o WHERE o.connection = c.connection LIMIT 100000) o)
  END AS lag,
  CASE
    WHEN c.kind = 'outbox' THEN COALESCE(EXTRACT(epoch FROM clock_timestamp() - CASE
      WHEN c.connection IS NULL THEN (SELECT o.created_at FROM @extschema@.nexus_outbox o
                                      WHERE o.connection IS NULL ORDER BY o.id LIMIT 1)
      ELSE (SELECT o.created_at FROM @extschema@.nexus_outbox o
            WHERE o.connection = c.connection ORDER BY o.connection, o.id LIMIT 1) END), 0)
    WHEN w.lag = 0 THEN 0
    ELSE EXTRACT(epoch FROM clock_timestamp() - w.last_message_at)
  END::double precision AS lag_seconds,
  w.last_error, w.last_error_sqlstate, w.last_error_at, w.counted_since, c.connection
FROM (SELECT 'outbox' AS kind, COALESCE(o.connection, 'outbox') AS name, o.connection, 'relay' AS job,
        o.connection AS job_name, o.connection IS NOT NULL AS unknown, false AS paused, NULL::text AS paused_reason
      FROM (SELECT NULL::text AS connection
            UNION SELECT j.name FROM jobs j WHERE j.kind = 'relay'
            UNION SELECT n.connection FROM waiting n) o
      UNION ALL
      SELECT 'pipeline', p.name, p.connection, 'ingest', p.name, false, p.paused, p.paused_reason
      FROM @extschema@.nexus_pipelines p) c
CROSS JOIN @extschema@.nexus_database_state() h
LEFT JOIN works w ON w.kind = c.job AND w.name IS NOT DISTINCT FROM c.job_name
LEFT JOIN jobs s ON s.kind = 'supervisor';
COMMENT ON VIEW @extschema@.nexus_status IS
  'One row for the outbox, one for that of each other connection, and one a pipeline: its state, why and since when, its workers that run, what it has done since counted_since (messages, rows, batches, dead letters, retries), how far behind it is (lag: messages, of the outbox counted up to 100,000; lag_seconds), its last error.';

CREATE VIEW @extschema@.nexus_partitions AS
SELECT o.pipeline, o.topic, o.partition, o."offset", j.end_offset,
  CASE WHEN o."offset" >= 0 THEN GREATEST(j.end_offset - o."offset", 0) END AS lag,
  o.cluster_id, o.updated_at, j.pid
FROM @extschema@.nexus_offsets o
LEFT JOIN @extschema@.nexus_job_partitions() j
  ON j.pipeline = o.pipeline AND j.topic = o.topic AND j.partition = o.partition;
COMMENT ON VIEW @extschema@.nexus_partitions IS
  'One row a pipeline and partition: the next offset to read (-2: the earliest), the partition''s end as last seen, the messages between, and the worker that owns it. Offsets have gaps where the topic is compacted or transactional, so lag is an upper bound.';

CREATE FUNCTION @extschema@.nexus_health()
RETURNS jsonb
LANGUAGE SQL VOLATILE
BEGIN ATOMIC
  WITH known AS (
    SELECT pg_catalog.bool_and(j.link IN ('up', 'not_authenticated')) AS reachable,
      CASE WHEN pg_catalog.bool_or(j.link = 'not_authenticated') THEN false
           WHEN pg_catalog.bool_or(j.link = 'up') THEN true END AS authenticated,
      COALESCE(pg_catalog.bool_and(j.topic_found) FILTER (WHERE j.kind = 'ingest'),
               pg_catalog.bool_and(j.topic_found) FILTER (WHERE j.name IS NULL)) AS topic_found,
      pg_catalog.count(j.pid) AS running,
      pg_catalog.count(*) FILTER (WHERE j.state NOT IN ('paused', 'on_demand') OR j.pid IS NOT NULL) AS wanted
    FROM @extschema@.nexus_jobs() j
    WHERE j.kind IN ('relay', 'ingest')
  )
  SELECT pg_catalog.jsonb_build_object(
    'status', CASE
        WHEN pg_catalog.bool_and(s.state IN ('running', 'on_demand') OR s.state = 'paused' AND h.state IS NULL) THEN 'healthy'
        WHEN pg_catalog.bool_or(s.state = 'running') THEN 'degraded'
        ELSE 'unhealthy' END,
    'version', (SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'nexus_kafka'),
    'role', CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby' ELSE 'primary' END,
    'transport', CASE WHEN pg_catalog.current_setting('nexus_kafka.embedded_broker')::boolean
                      THEN 'embedded' ELSE 'kafka' END,
    'topic', pg_catalog.current_setting('nexus_kafka.topic'),
    'kafkaConfigured', pg_catalog.current_setting('nexus_kafka.embedded_broker')::boolean
                       OR pg_catalog.current_setting('nexus_kafka.bootstrap_servers') <> ''
                       OR pg_catalog.current_setting('nexus_kafka.config_file') <> '',
    'brokerReachable', (SELECT k.reachable FROM known k),
    'authenticated', (SELECT k.authenticated FROM known k),
    'topicFound', (SELECT k.topic_found FROM known k),
    'workers', (SELECT pg_catalog.jsonb_build_object('running', k.running, 'wanted', k.wanted) FROM known k),
    'lag', pg_catalog.sum(s.lag) FILTER (WHERE s.kind = 'pipeline'),
    'timestamp', pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'outbox', pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('state', s.state, 'reason', s.reason, 'lag', s.lag))
                FILTER (WHERE s.kind = 'outbox' AND s.connection IS NULL) -> 0,
    'pipelines', COALESCE(pg_catalog.jsonb_object_agg(s.name, pg_catalog.jsonb_build_object(
                  'state', s.state, 'reason', s.reason, 'lag', s.lag, 'deadLetters', s.dead_letters))
                FILTER (WHERE s.kind = 'pipeline'), '{}'))
  FROM @extschema@.nexus_status s CROSS JOIN @extschema@.nexus_database_state() h;
END;
COMMENT ON FUNCTION @extschema@.nexus_health() IS
  'One object for a health check: status (healthy, degraded, unhealthy), version, role, transport, topic, kafkaConfigured, brokerReachable, authenticated, topicFound, workers, lag, timestamp, and the state of the outbox and of each pipeline. Asks shared memory and tables only, never the broker.';


/* ---------- nothing for PUBLIC, nor for others by ALTER DEFAULT PRIVILEGES */

DO $revoke$
DECLARE
  granted record;
BEGIN
  FOR granted IN
    SELECT DISTINCT member.kind, member.name, COALESCE(quote_ident(r.rolname), 'PUBLIC') AS grantee
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    CROSS JOIN LATERAL (
      SELECT 'FUNCTION', p.oid::regprocedure::text, p.proowner, COALESCE(p.proacl, acldefault('f', p.proowner))
      FROM pg_proc p
      WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
      UNION ALL
      SELECT 'TABLE', c.oid::regclass::text, c.relowner, c.relacl
      FROM pg_class c
      WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid) AS member (kind, name, owner, acl)
    CROSS JOIN LATERAL aclexplode(member.acl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE e.extname = 'nexus_kafka' AND a.grantee <> member.owner
  LOOP
    EXECUTE format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.name, granted.grantee);
  END LOOP;
END
$revoke$;


/* ---------------------------- prospect_tracking, the pipeline that comes with it
 *
 * Table and rows are the user's: the table is no member of the extension, DROP
 * EXTENSION leaves it. A table that is there already is adopted if it fits; the
 * pipeline then runs with the rights of its owner, no more, and not before somebody
 * has agreed if that is one who was merely allowed to create tables here: all the
 * messages would be theirs. Under a restore the dump brings all this, and it is left to it.
 * (No NOTICE would be seen: CREATE EXTENSION shows WARNING and INFO only.) */

DO $install$
DECLARE
  target CONSTANT regclass := to_regclass('@extschema@.prospect_tracking');
  target_owner name := current_user;
  stranger boolean := false;
  misfit text;
BEGIN
  IF current_setting('row_security') = 'off' OR (
    SELECT count(*) = 4 FROM pg_settings  -- as in nexus_find_role()
    WHERE source = 'session' AND name IN ('xmloption', 'standard_conforming_strings', 'statement_timeout',
                                          'idle_in_transaction_session_timeout'))
  THEN
    RETURN;
  END IF;

  INSERT INTO @extschema@.nexus_identity (system_identifier, database_oid, extension_oid)
  SELECT c.system_identifier, d.oid, e.oid
  FROM pg_control_system() c, pg_database d, pg_extension e
  WHERE d.datname = current_database() AND e.extname = 'nexus_kafka';

  IF target IS NULL THEN
    CREATE TABLE @extschema@.prospect_tracking (
      message_id text PRIMARY KEY,
      fingerprint_id text,
      session_id text,
      messages jsonb,
      metadata jsonb,
      enqueued_at timestamptz,
      received_at timestamptz DEFAULT now(),
      topic text,
      partition integer,
      "offset" bigint
    );
    CREATE INDEX prospect_tracking_fingerprint ON @extschema@.prospect_tracking (fingerprint_id, received_at);
    COMMENT ON TABLE @extschema@.prospect_tracking IS
      'Chat sessions of prospects, one row a message of the topic; written by the nexus_kafka pipeline of the same name.';
    ALTER EXTENSION nexus_kafka DROP TABLE @extschema@.prospect_tracking;
  ELSE
    SELECT string_agg(format('column %I of type %s', w.name, w.type), ', ')
    INTO misfit
    FROM (VALUES ('message_id', 'text'), ('fingerprint_id', 'text'), ('session_id', 'text'),
                 ('messages', 'jsonb'), ('metadata', 'jsonb'), ('enqueued_at', 'timestamp with time zone'),
                 ('topic', 'text'), ('partition', 'integer'), ('offset', 'bigint')) AS w (name, type)
    WHERE NOT EXISTS (
      SELECT FROM pg_attribute a
      WHERE a.attrelid = target AND a.attname = w.name AND NOT a.attisdropped AND a.attgenerated = ''
        AND format_type(a.atttypid, NULL) IN (w.type, CASE w.type WHEN 'text' THEN 'character varying' END));

    IF misfit IS NULL AND NOT EXISTS (
      SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
      WHERE i.indrelid = target AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
        AND i.indnkeyatts = 1 AND a.attname = 'message_id')
    THEN
      misfit := 'a primary key on message_id';
    END IF;

    IF misfit IS NULL THEN
      SELECT 'a default for ' || string_agg(quote_ident(a.attname), ', ')
      INTO misfit
      FROM pg_attribute a
      WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
        AND a.attidentity = ''
        AND a.attname NOT IN ('message_id', 'session_id', 'messages', 'topic', 'partition', 'offset');
    END IF;

    IF misfit IS NOT NULL THEN
      RAISE WARNING 'table prospect_tracking is there already, but doesn''t fit: left alone, no pipeline made'
        USING DETAIL = format('Missing: %s.', misfit),
              HINT = 'Rename it or add what is missing, then DROP EXTENSION and CREATE EXTENSION again.';
      RETURN;
    END IF;

    SELECT pg_get_userbyid(c.relowner) INTO target_owner FROM pg_class c WHERE c.oid = target;
    SELECT target_owner <> current_user AND NOT pg_has_role(target_owner, n.nspowner, 'USAGE') INTO stranger
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target;
    IF stranger THEN
      RAISE WARNING 'table prospect_tracking is there already and fits, but belongs to %: adopted, and its pipeline paused', target_owner
        USING DETAIL = 'Its owner gets all messages of the topic, and has no rights of the schema''s owner.',
              HINT = 'If that is meant to be so: SELECT @extschema@.nexus_resume(''prospect_tracking'')';
    ELSE
      RAISE INFO 'table prospect_tracking is there already and fits: adopted, its pipeline runs as its owner %', target_owner;
    END IF;
    IF target_owner <> current_user THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION @extschema@.nexus_messages(), @extschema@.nexus_valid_prospect(jsonb) TO %I',
                     target_owner);
    END IF;
  END IF;

  /* The NOT EXISTS leaves out what is there with the same content; other content
   * under the same id runs into the primary key, and so to the dead letters. Its
   * OFFSET 0 keeps it an index look-up a message. An id beyond all that are there,
   * as time-ordered ids are, needs none. */
  INSERT INTO @extschema@.nexus_pipelines (name, topic, run_as, search_path, paused, paused_reason, statement)
  VALUES ('prospect_tracking', 'nexus-prospect-ingestion', target_owner, 'pg_catalog, pg_temp', stranger,
    CASE WHEN stranger THEN
      format('the table was there already and belongs to %I, who gets all messages: nexus_resume(pipeline) if that is meant to be so', target_owner)
    END, $statement$
INSERT INTO @extschema@.prospect_tracking
  (message_id, fingerprint_id, session_id, messages, metadata, enqueued_at, topic, partition, "offset")
SELECT m.message_id, m.value ->> 'fingerprint', m.value ->> 'sessionId', m.value -> 'messages', m.value -> 'metadata',
  (m.value -> 'metadata' ->> 'enqueuedAt')::timestamptz, m.topic, m.partition, m."offset"
FROM (
  SELECT COALESCE(n.key, n.value ->> 'messageId', concat_ws('/', n.topic, n.partition, n."offset")) AS message_id, n.*
  FROM @extschema@.nexus_messages() n
  WHERE @extschema@.nexus_valid_prospect(n.value)
) m
WHERE m.message_id > (SELECT max(p.message_id) FROM @extschema@.prospect_tracking p)
  OR NOT EXISTS (
    SELECT FROM @extschema@.prospect_tracking p
    WHERE p.message_id = m.message_id AND p.session_id = m.value ->> 'sessionId' AND p.messages = m.value -> 'messages'
    OFFSET 0)
$statement$);
END
$install$;
