-- What CREATE EXTENSION makes: its objects, their comments, their rights; in the schema
-- public and in another one.

-- The member objects of the extension, by kind. Row types and TOAST are left out.
CREATE VIEW surface AS
SELECT d.classid, d.objid,
  CASE d.classid
    WHEN 'pg_class'::regclass THEN
      (SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' ELSE 'relation of kind ' || c.relkind::text END
       FROM pg_class c WHERE c.oid = d.objid)
    WHEN 'pg_proc'::regclass THEN 'function'
    ELSE d.classid::regclass::text
  END AS kind,
  pg_describe_object(d.classid, d.objid, 0) AS described,
  COALESCE((SELECT c.relacl FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid),
           (SELECT COALESCE(p.proacl, acldefault('f', p.proowner)) FROM pg_proc p
            WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid)) AS acl
FROM pg_depend d
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
WHERE e.extname = 'nexus_kafka' AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass;

SELECT kind, described FROM surface ORDER BY kind COLLATE "C", described COLLATE "C";

-- The signatures, as \df shows them, and the columns of the tables and views.
\pset format unaligned
SELECT p.proname, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
FROM surface s JOIN pg_proc p ON p.oid = s.objid
WHERE s.kind = 'function'
ORDER BY p.proname COLLATE "C", pg_get_function_arguments(p.oid) COLLATE "C";

SELECT s.described,
  string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM surface s JOIN pg_attribute a ON a.attrelid = s.objid
WHERE s.kind IN ('table', 'view') AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY s.described
ORDER BY s.described COLLATE "C";
\pset format aligned

-- Each has a comment: no rows.
SELECT described FROM surface
WHERE kind IN ('table', 'view', 'function') AND obj_description(objid, classid::regclass::name) IS NULL;

-- Nothing is granted to PUBLIC: no rows.
SELECT s.described, a.privilege_type
FROM surface s CROSS JOIN LATERAL aclexplode(s.acl) a
WHERE a.grantee = 0;

-- So a role without grants can do nothing.
CREATE ROLE regress_nexus_nobody;
SET ROLE regress_nexus_nobody;
SELECT nexus_produce('{"messages":[{"role":"user","content":"x"}],"sessionId":"s"}');
SELECT nexus_produce('a-topic', 'x'::text);
SELECT nexus_consume();
SELECT * FROM nexus_status;
SELECT * FROM nexus_outbox;
RESET ROLE;
DROP ROLE regress_nexus_nobody;

-- What is dumped with the extension; the outbox is not.
SELECT c.oid::regclass AS dumped
FROM pg_extension e CROSS JOIN LATERAL unnest(e.extconfig) AS c (oid)
WHERE e.extname = 'nexus_kafka'
ORDER BY c.oid::regclass::text COLLATE "C";

-- The table is the user's: no member of the extension, and it stays when that goes.
SELECT count(*) AS member FROM surface WHERE described LIKE '%prospect_tracking%';
DROP EXTENSION nexus_kafka;
SELECT count(*) AS left_behind FROM surface;
SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull
FROM pg_attribute a
WHERE a.attrelid = 'prospect_tracking'::regclass AND a.attnum > 0
ORDER BY a.attnum;

-- In a schema that needs quoting, and isn't in the search_path.
CREATE SCHEMA "Kafka stuff";
CREATE EXTENSION nexus_kafka SCHEMA "Kafka stuff";
SELECT count(*) FILTER (WHERE p.pronamespace = '"Kafka stuff"'::regnamespace) AS there,
  count(*) FILTER (WHERE p.pronamespace <> '"Kafka stuff"'::regnamespace) AS elsewhere
FROM surface s JOIN pg_proc p ON p.oid = s.objid AND s.kind = 'function';
SELECT described FROM surface
WHERE kind IN ('table', 'view', 'function') AND obj_description(objid, classid::regclass::name) IS NULL;
SELECT s.described FROM surface s CROSS JOIN LATERAL aclexplode(s.acl) a WHERE a.grantee = 0;
SELECT to_regclass('"Kafka stuff".prospect_tracking') IS NOT NULL AS has_table;
SELECT name, topic, paused FROM "Kafka stuff".nexus_pipelines;
SELECT "Kafka stuff".nexus_produce(
  '{"messages":[{"role":"user","content":"Hola"}],"fingerprint":"surface","sessionId":"s"}') ->> 'status' AS status;
SELECT "Kafka stuff".nexus_flush('30 s');
SELECT "Kafka stuff".nexus_consume(timeout => '30 s') ->> 'status' AS status;
SELECT fingerprint_id, session_id, messages FROM "Kafka stuff".prospect_tracking WHERE fingerprint_id = 'surface';

-- Back to where it was, for the tests that follow.
DROP EXTENSION nexus_kafka;
DROP VIEW surface;
DROP TABLE public.prospect_tracking, "Kafka stuff".prospect_tracking;
DROP SCHEMA "Kafka stuff";
CREATE EXTENSION nexus_kafka;
