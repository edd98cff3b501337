\echo
\set ECHO queries
\pset footer off
CREATE EXTENSION nexus_kafka;
SELECT nexus_consume();
\echo '-- Two sessions are published, a third one rolls back:'
SELECT nexus_produce('{"messages":[{"role":"user","content":"Hola"}],
                       "fingerprint":"test-123","sessionId":"session-456"}');
SELECT nexus_produce('{"messages":[{"role":"user","content":"¿Precio?"}],
                       "fingerprint":"test-123","sessionId":"session-457"}') ->> 'status' AS status;
BEGIN;
SELECT nexus_produce('{"messages":[{"role":"user","content":"never mind"}],
                       "fingerprint":"test-123","sessionId":"session-458"}') ->> 'status' AS status;
ROLLBACK;
SELECT nexus_consume();
SELECT session_id, messages, topic, partition, "offset", received_at - enqueued_at AS took
FROM prospect_tracking WHERE fingerprint_id = 'test-123';
\echo '-- Any topic into any table, by one SQL statement; what it refuses is kept, with its error:'
CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric);
SELECT nexus_create_pipeline('orders', topic => 'orders', statement => $$
  INSERT INTO orders (id, customer, total)
  SELECT DISTINCT ON (key) (value ->> 'id')::bigint, value ->> 'customer', (value ->> 'total')::numeric
  FROM nexus_messages()
  ORDER BY key, "offset" DESC
  ON CONFLICT (id) DO UPDATE SET total = excluded.total
$$);
SELECT nexus_produce('orders', '{"id": 7, "customer": "Ana", "total": 10}'::jsonb, key => '7') ->> 'status' AS status;
SELECT nexus_produce('orders', '{"id": 7, "customer": "Ana", "total": 12.50}'::jsonb, key => '7') ->> 'status' AS status;
SELECT nexus_produce('orders', '{"id": "seven"}'::jsonb, key => 'x') ->> 'status' AS status;
SELECT nexus_consume('orders');
SELECT * FROM orders;
SELECT topic, partition, "offset", convert_from(value, 'UTF8') AS value, sqlstate, message FROM nexus_dead_letters;
SELECT kind, name, state, messages, rows, dead_letters, lag FROM nexus_status;
