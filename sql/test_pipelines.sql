-- What nexus_create_pipeline and its kin take and refuse. No pipeline here has a topic
-- that is there, so it is the same whether workers run or not.

CREATE TABLE regress_nexus_target (value jsonb, note text);

-- One call, and what came of it: SQLSTATE, message, hint.
CREATE FUNCTION outcome(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  hint text;
BEGIN
  EXECUTE call;
  RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(E'\n', SQLSTATE || ' ' || SQLERRM, 'hint: ' || nullif(hint, ''));
END $$;

-- As a pipeline that is altered, the rest being as it was.
SELECT nexus_create_pipeline('p', 'a', 'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages()');
CREATE FUNCTION option_outcome(options text) RETURNS text LANGUAGE SQL
RETURN outcome(format('SELECT nexus_alter_pipeline(%L, options => %L)', 'p', options));

-- The defaults.
SELECT topic, run_as = current_user AS run_as_creator, search_path, start, workers, batch_messages, batch_bytes, on_error,
  max_dead_letters, group_id, on_demand, paused, paused_reason, created_at <= clock_timestamp() AS created
FROM nexus_pipelines WHERE name = 'p';
SELECT nexus_pause('p');

-- Options: what each takes, and its bounds.
SELECT options, option_outcome(options) FROM unnest(ARRAY[
  '{"workers": 1}', '{"workers": 32}', '{"workers": "7"}',
  '{"batch_messages": 1}', '{"batch_messages": 10000}',
  '{"batch_bytes": 1024}', '{"batch_bytes": 67108864}',
  '{"on_error": "stop"}', '{"on_error": "dead_letter"}',
  '{"max_dead_letters": 1}', '{"max_dead_letters": 2147483647}', '{"max_dead_letters": null}',
  '{"group_id": "g"}', '{"group_id": null}',
  '{"on_demand": true}', '{"on_demand": "off"}', '{"on_demand": false}',
  '{}']) options;

-- And what it refuses.
SELECT options, option_outcome(options) FROM unnest(ARRAY[
  '{"workers": 0}', '{"workers": 33}', '{"workers": -1}', '{"workers": 1.5}', '{"workers": ""}', '{"workers": "two"}',
  '{"workers": null}', '{"workers": true}', '{"workers": [1]}', '{"workers": {"n": 1}}',
  '{"workers": 99999999999999999999999}',
  '{"batch_messages": 0}', '{"batch_messages": 10001}', '{"batch_messages": null}',
  '{"batch_bytes": 1023}', '{"batch_bytes": 67108865}', '{"batch_bytes": null}',
  '{"on_error": "ignore"}', '{"on_error": ""}', '{"on_error": null}', '{"on_error": 1}',
  '{"max_dead_letters": 0}', '{"max_dead_letters": 2147483648}', '{"max_dead_letters": "many"}',
  '{"group_id": ""}', '{"on_demand": "maybe"}', '{"on_demand": null}', '{"on_demand": 7}',
  '{"start": null}', '{"start": ["earliest"]}',
  '{"worker": 2}', '{"Workers": 2}', '{"": 2}', '{"workers": 2, "topic": "b"}',
  '[]', '"workers"', '1', 'null']) options;
SELECT option_outcome(jsonb_build_object('group_id', repeat('g', n))::text) FROM unnest(ARRAY[249, 250]) n;
SELECT nexus_alter_pipeline('p', options => '{"group_id": null}');

-- Where to start.
SELECT start, option_outcome(jsonb_build_object('start', start)::text) FROM unnest(ARRAY[
  'earliest', 'latest', '2026-11-24 08:00:00+00', 'now', 'group:g', '42', '0',
  'Earliest', '', 'soon', 'group:', '-1', '99999999999999999999', 'infinity', '2026-13-01', '{"0": 1']) start;
SELECT start, option_outcome(format('{"start": %s}', start)) FROM unnest(ARRAY[
  '{"0": 42, "1": "latest", "2": "2026-11-24 08:00:00+00"}', '{"a": {"0": 42}, "b": {"0": "earliest"}}', '{}', '17',
  '{"a": 42}', '{"-1": 0}', '{"0": -1}', '{"0": 1.5}', '{"0": null}', '{"0": true}', '{"0": [1]}', '{"0": "soon"}',
  '{"a": {"b": {"0": 1}}}', '{"a": {"b": 1}}', '-1', '1.5', 'true']) start;

-- A time is kept as it was meant here, whatever the worker's time zone and date style.
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
CREATE VIEW kept AS SELECT start FROM nexus_pipelines WHERE name = 'p';
SELECT nexus_alter_pipeline('p', options => '{"start": "24.11.2026 08:00:00.25"}');
TABLE kept;
SELECT nexus_alter_pipeline('p', options => '{"start": {"a": {"0": "24.11.2026 08:00", "1": "latest", "2": "7", "3": 8}}}');
TABLE kept;
SELECT nexus_alter_pipeline('p', options => '{"start": "today"}');
SELECT start::timestamptz = 'today' AS today FROM kept;
RESET timezone;
RESET datestyle;
DROP VIEW kept;
SELECT nexus_alter_pipeline('p', options => '{"start": "earliest"}');

-- Topics.
SELECT topic, outcome(format('SELECT nexus_alter_pipeline(%L, topic => %L)', 'p', topic)) FROM unnest(ARRAY[
  'a', 'A-Z_0.9', 'a,b', 'a,a', '^a', '^(a|b)[0-9]+$', '^', '...',
  '', ' ', 'a b', 'a/b', 'ü', '.', '..', 'a,', ',a', 'a,,b', 'a, b', 'a,..', '^(', '^[b-a]', '^a{2,1}', '^*', 'a,^b']) topic;
SELECT outcome(format('SELECT nexus_alter_pipeline(%L, topic => %L)', 'p', topic)) = 'ok'
FROM unnest(ARRAY[repeat('a', 249), repeat('a', 250), repeat('a', 249) || ',' || repeat('b', 249)]) topic;

-- Names.
SELECT outcome(format('SELECT nexus_create_pipeline(%L, %L, %L)', name, 'a', 'SELECT * FROM nexus_messages()'))
FROM unnest(ARRAY['', 'p', repeat('n', 64), repeat('ü', 32), repeat('ü', 31), 'with "quotes" and ''those''']) name;
SELECT name FROM nexus_pipelines ORDER BY name COLLATE "C";
SELECT nexus_drop_pipeline(name) FROM nexus_pipelines WHERE name IN (repeat('ü', 31), 'with "quotes" and ''those''');
SELECT outcome(call) FROM unnest(ARRAY[
  $$SELECT nexus_alter_pipeline('nobody')$$, $$SELECT nexus_drop_pipeline('nobody')$$, $$SELECT nexus_pause('nobody')$$,
  $$SELECT nexus_resume('nobody')$$, $$SELECT nexus_seek('nobody', 'earliest')$$, $$SELECT nexus_replay('nobody')$$,
  $$SELECT nexus_consume('nobody')$$]) call;

-- NULL: refused where something is needed, nothing changed where it may be left out.
SELECT call, outcome(call) FROM unnest(ARRAY[
  $$SELECT nexus_create_pipeline(NULL, 'a', 'SELECT * FROM nexus_messages()')$$,
  $$SELECT nexus_create_pipeline('n', NULL, 'SELECT * FROM nexus_messages()')$$,
  $$SELECT nexus_create_pipeline('n', 'a', NULL)$$,
  $$SELECT nexus_create_pipeline('n', 'a', 'SELECT * FROM nexus_messages()', NULL)$$,
  $$SELECT nexus_alter_pipeline(NULL)$$,
  $$SELECT nexus_alter_pipeline('n', NULL, NULL, NULL)$$,
  $$SELECT nexus_seek(NULL, 'earliest')$$,
  $$SELECT nexus_seek('n', NULL)$$,
  $$SELECT nexus_replay(NULL)$$]) call;
SELECT topic, statement, start, workers FROM nexus_pipelines WHERE name = 'n';
SELECT nexus_drop_pipeline(NULL), nexus_pause(NULL), nexus_resume(NULL);
SELECT name, paused FROM nexus_pipelines ORDER BY name COLLATE "C";
SELECT nexus_drop_pipeline('n');

-- A statement with a mistake is refused on the spot, and shows where.
SELECT nexus_create_pipeline('s', 'a', 'INSERT INTO regress_nexus_target SELECT valeu FROM nexus_messages()');
SELECT nexus_create_pipeline('s', 'a', 'INSERT INTO regress_nexus_target SELEKT value FROM nexus_messages()');
SELECT nexus_create_pipeline('s', 'a', 'INSERT INTO regress_nexus_targets SELECT value FROM nexus_messages()');
SELECT nexus_alter_pipeline('p', statement => 'INSERT INTO regress_nexus_target SELECT "offset", key FROM nexus_messages()');
SELECT nexus_create_pipeline('s', 'a', 'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages() WHERE key = $1');
SELECT nexus_create_pipeline('s', 'a', 'SELECT CASE key WHEN ''k'' THEN 1 / 0 END FROM nexus_messages()');

-- One that reads no messages would move the offsets and lose them.
SELECT nexus_create_pipeline('s', 'a', 'INSERT INTO regress_nexus_target VALUES (''{}'')');
SELECT statement, split_part(outcome(format('SELECT nexus_create_pipeline(%L, %L, %L)', 's', 'a', statement)), E'\n', 1)
FROM unnest(ARRAY[
  'SELECT 1', 'SELECT now()', 'SELECT nexus_produce(''t'', ''x''::text)', 'SELECT nexus_valid_prospect(''{}'')',
  '', '   ', '-- nothing', ';',
  'SELECT * FROM nexus_messages(); SELECT 1', 'SELECT 1; SELECT * FROM nexus_messages()',
  'BEGIN', 'COMMIT', 'VACUUM', 'SET work_mem = ''1MB''', 'LISTEN x', 'TRUNCATE regress_nexus_target',
  'CREATE TABLE t AS SELECT * FROM nexus_messages()', 'SELECT * INTO t FROM nexus_messages()',
  'COPY regress_nexus_target FROM ''/dev/null''', 'COPY (SELECT * FROM nexus_messages()) TO ''/dev/null''',
  'EXPLAIN SELECT * FROM nexus_messages()', 'PREPARE x AS SELECT * FROM nexus_messages()',
  'DECLARE c CURSOR FOR SELECT * FROM nexus_messages()']) statement;

-- Where the messages may be read from. The inside of a function can't be seen: it may.
CREATE VIEW regress_nexus_view AS SELECT value FROM nexus_messages();
CREATE FUNCTION regress_nexus_function() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO regress_nexus_target SELECT value FROM nexus_messages();
END $$;
CREATE PROCEDURE regress_nexus_procedure(INOUT n int DEFAULT 0) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO regress_nexus_target SELECT value FROM nexus_messages();
END $$;
SELECT statement, outcome(format('SELECT nexus_alter_pipeline(%L, statement => %L)', 'p', statement)) FROM unnest(ARRAY[
  'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages();',
  'SELECT count(*) FROM nexus_raw_messages()',
  'SELECT nexus_messages()',
  'WITH m AS MATERIALIZED (SELECT * FROM nexus_messages()) INSERT INTO regress_nexus_target SELECT value FROM m',
  'DELETE FROM regress_nexus_target t WHERE EXISTS (SELECT FROM nexus_messages() m WHERE m.value = t.value)',
  'UPDATE regress_nexus_target t SET note = m.key FROM nexus_messages() m WHERE m.value = t.value',
  'MERGE INTO regress_nexus_target t USING nexus_messages() m ON m.value = t.value WHEN MATCHED THEN DELETE',
  'INSERT INTO regress_nexus_target SELECT value FROM regress_nexus_view',
  'SELECT regress_nexus_function()',
  'CALL regress_nexus_procedure()',
  'DO $do$ BEGIN PERFORM count(*) FROM nexus_messages(); END $do$',
  'VALUES ((SELECT count(*) FROM nexus_messages()))']) statement;

-- Changed only if all of it may be: the mistake in the options leaves the topic as it was.
SELECT outcome($$SELECT nexus_alter_pipeline('p', 'other', 'SELECT * FROM nexus_messages()', '{"workers": 0}')$$);
SELECT outcome($$SELECT nexus_alter_pipeline('p', 'c', 'SELECT key FROM nexus_messages()', '{"workers": 2}')$$);
SELECT topic, statement, workers, batch_messages FROM nexus_pipelines WHERE name = 'p';

-- A new statement takes the search_path along, nothing else does.
SET search_path = pg_catalog, public;
SELECT nexus_alter_pipeline('p', options => '{"workers": 1}');
SELECT search_path FROM nexus_pipelines WHERE name = 'p';
SELECT nexus_alter_pipeline('p', statement => 'SELECT value FROM nexus_messages()');
SELECT search_path FROM nexus_pipelines WHERE name = 'p';
RESET search_path;

-- nexus_seek: only what is paused, and only a position.
SELECT nexus_create_pipeline('q', 'a', 'SELECT * FROM nexus_messages()');
SELECT outcome(call) FROM unnest(ARRAY[
  $$SELECT nexus_seek('q', 'earliest')$$, $$SELECT nexus_seek('q', 'earliest', 'a', 0)$$]) call;
SELECT nexus_drop_pipeline('q');
SELECT call, outcome(call) FROM unnest(ARRAY[
  $$SELECT nexus_seek('p', 'soon')$$, $$SELECT nexus_seek('p', '')$$, $$SELECT nexus_seek('p', '-1')$$,
  $$SELECT nexus_seek('p', 'infinity')$$, $$SELECT nexus_seek('p', 'group:g')$$, $$SELECT nexus_seek('p', '{"0": 1}')$$,
  $$SELECT nexus_seek('p', '99999999999999999999')$$,
  $$SELECT nexus_seek('p', '1', partition => 0)$$, $$SELECT nexus_seek('p', '1', 'a', -1)$$,
  $$SELECT nexus_seek('p', '1')$$, $$SELECT nexus_seek('p', '1', 'a')$$,
  $$SELECT nexus_seek('p', '1', 'regress-nexus-none')$$, $$SELECT nexus_seek('p', '1', 'regress-nexus-none', 0)$$]) call;
SELECT nexus_alter_pipeline('p', '^regress-nexus');
SELECT nexus_seek('p', '7', 'regress-nexus-none', 3);
SELECT nexus_seek('p', 'earliest', 'regress-nexus-none');
SELECT nexus_seek('p', '2026-11-24 08:00:00+00', 'regress-nexus-none', 3);
SELECT topic, partition, "offset", start_time = '2026-11-24 08:00:00+00' AS start_time
FROM nexus_offsets WHERE pipeline = 'p' AND topic = 'regress-nexus-none';

-- Rights: one's own pipelines may be changed by one's own role, and by who has its rights.
CREATE ROLE regress_nexus_owner;
CREATE ROLE regress_nexus_member IN ROLE regress_nexus_owner;
CREATE ROLE regress_nexus_other;
CREATE ROLE regress_nexus_weak;
GRANT SELECT, INSERT ON regress_nexus_target TO regress_nexus_owner;
GRANT EXECUTE ON FUNCTION nexus_create_pipeline, nexus_alter_pipeline, nexus_drop_pipeline
TO regress_nexus_owner, regress_nexus_other, regress_nexus_weak;
GRANT EXECUTE ON FUNCTION nexus_messages TO regress_nexus_owner, regress_nexus_other;
SET ROLE regress_nexus_owner;
SELECT nexus_create_pipeline('owned', 'a', 'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages()');
SELECT outcome($$SELECT nexus_alter_pipeline('p', 'b')$$);
SELECT outcome($$SELECT nexus_drop_pipeline('p')$$);
SET ROLE regress_nexus_other;
SELECT outcome($$SELECT nexus_alter_pipeline('owned')$$);
SELECT outcome($$SELECT nexus_drop_pipeline('owned')$$);
SELECT nexus_create_pipeline('others', 'a', 'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages()');
SELECT outcome($$SELECT nexus_pause('others')$$);
SELECT outcome($$SELECT nexus_seek('others', 'earliest')$$);
SELECT outcome($$SELECT nexus_replay('others')$$);
SELECT nexus_drop_pipeline('others');
SET ROLE regress_nexus_weak;
SELECT outcome($$SELECT nexus_create_pipeline('w', 'a', 'SELECT * FROM nexus_messages()')$$);
SELECT outcome($$SELECT nexus_create_pipeline('w', 'a', 'SELECT * FROM nexus_raw_messages()')$$);
SELECT outcome($$SELECT nexus_create_pipeline('w', 'a', 'SELECT * FROM regress_nexus_view')$$);
SET ROLE regress_nexus_member;
SELECT nexus_alter_pipeline('owned', 'b');
RESET ROLE;
SELECT nexus_alter_pipeline('owned', options => '{"workers": 2}');
SELECT topic, workers, run_as FROM nexus_pipelines WHERE name = 'owned';

-- As whom it runs: a role whose rights one has, and that may take messages in.
SET ROLE regress_nexus_member;
SELECT nexus_create_pipeline('r', 'a', 'SELECT * FROM nexus_messages()', '{"run_as": "regress_nexus_owner"}');
SELECT outcome($$SELECT nexus_alter_pipeline('r', options => '{"run_as": "regress_nexus_other"}')$$);
SELECT outcome($$SELECT nexus_alter_pipeline('r', options => '{"run_as": "regress_nexus_none"}')$$);
SELECT outcome($$SELECT nexus_alter_pipeline('r', options => '{"run_as": null}')$$);
SELECT nexus_alter_pipeline('r', options => '{"run_as": "regress_nexus_member"}');
RESET ROLE;
SELECT run_as FROM nexus_pipelines WHERE name = 'r';
SELECT outcome($$SELECT nexus_alter_pipeline('r', options => '{"run_as": "regress_nexus_weak"}')$$);
ALTER ROLE regress_nexus_member RENAME TO regress_nexus_renamed;
SELECT outcome($$SELECT nexus_alter_pipeline('r', options => '{"run_as": "regress_nexus_renamed"}')$$);
SELECT run_as FROM nexus_pipelines WHERE name = 'r';
ALTER ROLE regress_nexus_renamed RENAME TO regress_nexus_member;
SELECT nexus_drop_pipeline('r');

-- The statement is checked with the rights of the pipeline's role, not with those of who changes it.
REVOKE EXECUTE ON FUNCTION nexus_messages FROM regress_nexus_owner;
SELECT outcome($$SELECT nexus_alter_pipeline('owned', statement => 'INSERT INTO regress_nexus_target SELECT value FROM nexus_messages()')$$);

-- A pipeline whose role is gone can be dropped still, and be changed but for its statement.
CREATE ROLE regress_nexus_gone SUPERUSER;
SET ROLE regress_nexus_gone;
SELECT nexus_create_pipeline('gone', 'a', 'SELECT * FROM nexus_messages()');
RESET ROLE;
DROP ROLE regress_nexus_gone;
SELECT outcome($$SELECT nexus_alter_pipeline('gone', 'b', options => '{"workers": 2}')$$);
SELECT outcome($$SELECT nexus_alter_pipeline('gone', statement => 'SELECT key FROM nexus_messages()')$$);
SET ROLE regress_nexus_owner;
SELECT outcome($$SELECT nexus_drop_pipeline('gone')$$);
RESET ROLE;
SELECT outcome($$SELECT nexus_drop_pipeline('gone')$$);

-- The messages are a worker's only.
SELECT * FROM nexus_messages();
SELECT * FROM nexus_raw_messages();

SELECT nexus_drop_pipeline('owned');
SELECT nexus_drop_pipeline('p');
SELECT count(*) FROM nexus_offsets WHERE pipeline = 'p';
DROP FUNCTION outcome(text) CASCADE;
DROP VIEW regress_nexus_view;
DROP ROUTINE regress_nexus_function, regress_nexus_procedure;
DROP TABLE regress_nexus_target;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public
FROM regress_nexus_owner, regress_nexus_other, regress_nexus_weak;
DROP ROLE regress_nexus_owner, regress_nexus_member, regress_nexus_other, regress_nexus_weak;
