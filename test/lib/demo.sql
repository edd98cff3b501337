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
SELECT kind, name, state, messages, rows, dead_letters, lag FROM nexus_status;
