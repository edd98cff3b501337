-- The contract of nexus_produce(jsonb): what it takes, what it refuses and how, what it
-- answers, and what it publishes. All in one transaction, so the outbox shows the
-- message as it would be published (the relay adds the header nexus-message-id).
BEGIN;
SELECT plan(45);

CREATE FUNCTION payload(changes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
  SELECT '{"messages":[{"role":"user","content":"Hola"},{"role":"assistant","content":"Buenas"}],
           "fingerprint":"fp-1","sessionId":"s-1",
           "metadata":{"url":"https://example.com/a","timestamp":"2024-05-01T10:00:00.000Z","userAgent":"curl"}}'::jsonb
         || changes
$$;

-- The message as published: the last row of the outbox.
CREATE VIEW published AS
SELECT topic, partition, convert_from(key, 'UTF8') AS key, convert_from(value, 'UTF8')::jsonb AS value,
  convert_from(value, 'UTF8') AS text, headers, message_id
FROM nexus_outbox ORDER BY id DESC LIMIT 1;

-- What is refused writes nothing; 22023 for all.
CREATE FUNCTION refused(body text, message text, what text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT throws_ok(format('SELECT nexus_produce(%L::jsonb)', body), '22023', message, what)
$$;

SELECT refused('{"sessionId":"s"}', 'messages must be a non-empty array', 'messages missing');
SELECT refused('{"sessionId":"s","messages":null}', 'messages must be a non-empty array', 'messages null');
SELECT refused('{"sessionId":"s","messages":"Hola"}', 'messages must be a non-empty array', 'messages a string');
SELECT refused('{"sessionId":"s","messages":{"role":"user","content":"x"}}', 'messages must be a non-empty array', 'messages an object');
SELECT refused('{"sessionId":"s","messages":[]}', 'messages must be a non-empty array', 'messages empty');
SELECT refused((payload() - 'sessionId')::text, 'sessionId is required', 'sessionId missing');
SELECT refused(payload('{"sessionId":null}')::text, 'sessionId is required', 'sessionId null');
SELECT refused(payload('{"sessionId":""}')::text, 'sessionId is required', 'sessionId empty');
SELECT refused(payload('{"sessionId":7}')::text, 'sessionId is required', 'sessionId a number');

-- An element of messages is refused by its index.
CREATE FUNCTION refused_element(second_element text, what text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT throws_matching(
    format('SELECT nexus_produce(%L::jsonb)',
           payload(jsonb_build_object('messages', jsonb_build_array('{"role":"user","content":"x"}'::jsonb, second_element::jsonb)))),
    'messages\[1\]', what)
$$;

SELECT refused_element('"Hola"', 'an element of messages that is a string, by its index');
SELECT refused_element('null', 'an element of messages that is null, by its index');
SELECT refused_element('{"content":"x"}', 'an element of messages without a role, by its index');
SELECT refused_element('{"role":"user"}', 'an element of messages without content, by its index');
SELECT throws_ok($$SELECT nexus_produce(payload('{"messages":[7]}'))$$, '22023', NULL, 'an element of messages that is a number: SQLSTATE');

SELECT throws_ok($$SELECT nexus_produce('[]'::jsonb)$$, '22023', NULL, 'a payload that is an array');
SELECT throws_ok($$SELECT nexus_produce('"x"'::jsonb)$$, '22023', NULL, 'a payload that is a string');

SELECT is_empty('SELECT * FROM nexus_outbox', 'what was refused wrote nothing');

SELECT throws_ok(
  format('SELECT nexus_produce(payload(%L))', jsonb_build_object('padding', repeat('x', 1100000))),
  '54000', NULL, 'larger than nexus_kafka.max_message_bytes');

-- The answer.
CREATE TEMPORARY TABLE answer AS SELECT nexus_produce(payload('{"campaign":{"id":7}}')) AS a;

SELECT is(a ->> 'status', 'accepted', 'the answer''s status') FROM answer;
SELECT is(a ->> 'topic', 'nexus-prospect-ingestion', 'the answer''s topic') FROM answer;
SELECT isnt(a ->> 'message', NULL, 'the answer has a message') FROM answer;
SELECT matches(a ->> 'messageId', '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
  'the answer''s messageId is a UUIDv7') FROM answer;
SELECT set_eq('SELECT jsonb_object_keys(a) FROM answer', ARRAY['status', 'messageId', 'topic', 'message'], 'the answer''s fields');

-- What is published.
SELECT is(topic, 'nexus-prospect-ingestion', 'published to the topic') FROM published;
SELECT is(partition, NULL, 'the partition is left to the key') FROM published;
SELECT is(key, a ->> 'messageId', 'the key is the messageId') FROM published, answer;
SELECT is(value ->> 'messageId', a ->> 'messageId', 'the value has it too') FROM published, answer;
SELECT is(message_id, a ->> 'messageId', 'the id, for the header nexus-message-id') FROM published, answer;
SELECT is(headers, '{"content-type": "application/json"}', 'the other header') FROM published;
SELECT is(value - 'messageId' - 'metadata', payload('{"campaign":{"id":7}}') - 'metadata',
  'all other fields pass unchanged') FROM published;
SELECT is(value -> 'metadata' -> 'url', '"https://example.com/a"', 'metadata.url passes') FROM published;
SELECT is(value -> 'metadata' -> 'userAgent', '"curl"', 'metadata.userAgent passes') FROM published;
SELECT is(value -> 'metadata' -> 'timestamp', '"2024-05-01T10:00:00.000Z"', 'metadata.timestamp passes') FROM published;
SELECT is(value -> 'metadata' ->> 'producerVersion',
  (SELECT extversion FROM pg_extension WHERE extname = 'nexus_kafka'),
  'metadata.producerVersion is the extension''s version') FROM published;
SELECT matches(value -> 'metadata' ->> 'enqueuedAt', '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$',
  'metadata.enqueuedAt: ISO 8601, UTC, milliseconds') FROM published;
SELECT cmp_ok((value -> 'metadata' ->> 'enqueuedAt')::timestamptz, '>=', date_trunc('milliseconds', now()),
  'metadata.enqueuedAt is the time of the call') FROM published;

-- Without metadata, and without what it has.
SELECT lives_ok($$SELECT nexus_produce(payload() - 'metadata')$$, 'metadata missing');
SELECT is(value -> 'metadata' ->> 'url', 'unknown', 'metadata.url is "unknown" where missing') FROM published;
SELECT is(value -> 'metadata' ->> 'userAgent', 'unknown', 'metadata.userAgent is "unknown" where missing') FROM published;

SELECT lives_ok($$SELECT nexus_produce(payload('{"metadata":{"url":null,"userAgent":null}}'))$$, 'null in metadata');
SELECT is(value -> 'metadata' ->> 'url', 'unknown', 'metadata.url is "unknown" where null') FROM published;
SELECT is((SELECT count(*) FROM regexp_matches(text, '"(url|userAgent)":', 'g')), 2::bigint,
  'and each name stands once') FROM published;

-- fingerprint is wished for, not required.
SET LOCAL client_min_messages = error;
SELECT lives_ok($$SELECT nexus_produce(payload() - 'fingerprint')$$, 'fingerprint missing is accepted');
RESET client_min_messages;

-- Another topic; and ids in order of time.
SET LOCAL nexus_kafka.topic = 'another-topic';
SELECT is(nexus_produce(payload()) ->> 'topic', 'another-topic', 'nexus_kafka.topic is the topic');
SELECT is(
  ARRAY(SELECT message_id FROM nexus_outbox ORDER BY id),
  ARRAY(SELECT message_id FROM nexus_outbox ORDER BY message_id COLLATE "C"),
  'message ids are in order of time');

SELECT * FROM finish();
ROLLBACK;
