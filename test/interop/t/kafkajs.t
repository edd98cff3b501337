# KafkaJS 2.2.4 at the other end, as the system had it that this one replaces: its
# producer route's messages become rows, its consumer reads what nexus_produce sends.
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../../lib";

use Encode qw(encode_utf8);
use JSON::PP;
use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::KafkaJS;
use Test::More;

my $topic = 'nexus-prospect-ingestion';
my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($topic);
$kafka->create_topic('anything', 2);

my $node = NexusKafka::Cluster->make('kafkajs', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');

my $old_messages = old_producer_to_rows();
nexus_produce_to_old_consumer($old_messages);
any_message_to_kafkajs();

no_crash_ok($node);
done_testing();

# Answers how many messages it left in the topic.
sub old_producer_to_rows
{
	my @sent = kafkajs_produce($kafka, $topic,
		{ sessionId => 's-1', fingerprint => 'fp-1', messages => [ { role => 'user', content => 'Hola' } ],
			metadata => { url => 'https://example.com/', timestamp => '2025-01-02T03:04:05.678Z', userAgent => 'test' } },
		{ sessionId => 's-2', messages => [ { role => 'assistant', content => "¿Qué tal? 🙂 \"\\\n" } ], extra => 1 },
		{ sessionId => 's-3', fingerprint => 'fp-1', messages => [ map { { role => 'user', content => "$_" } } 1 .. 50 ] });
	my $sent = encode_utf8('[' . join(',', map { qq({"key":"$_->{key}","value":$_->{value}}) } @sent) . ']');

	unlike($sent, qr/messageId/, 'the old route puts no id into the value');
	$node->wait_rows('postgres', 'prospect_tracking', 3);
	is($node->safe_psql('postgres', <<"END"), 3, 'what KafkaJS sent is in the table, each as it was sent');
SELECT count(*)
FROM jsonb_to_recordset(\$sent\$$sent\$sent\$) AS s (key text, value jsonb)
JOIN prospect_tracking p ON p.message_id = s.key
WHERE p.session_id = s.value ->> 'sessionId'
  AND p.fingerprint_id IS NOT DISTINCT FROM s.value ->> 'fingerprint'
  AND p.messages = s.value -> 'messages'
  AND p.metadata = s.value -> 'metadata'
  AND p.enqueued_at = (s.value -> 'metadata' ->> 'enqueuedAt')::timestamptz
END
	is($node->safe_psql('postgres', 'SELECT session_id, topic, partition, "offset" FROM prospect_tracking ORDER BY 4'),
		join("\n", map { "s-$_|$topic|0|" . ($_ - 1) } 1 .. 3), 'and says where it came from');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');
	return scalar @sent;
}

sub nexus_produce_to_old_consumer
{
	my ($already_there) = @_;
	my ($id, $written) = split /\n/, $node->safe_psql('postgres', <<'END');
BEGIN;
SELECT nexus_produce('{"messages":[{"role":"user","content":"\u00bfCu\u00e1nto cuesta? \ud83d\ude42"}], "fingerprint":"fp-2",
                       "sessionId":"s-4", "extra":[null,1.50]}') ->> 'messageId' AS id \gset
SELECT :'id';
SELECT encode(value, 'hex') FROM nexus_outbox WHERE message_id = :'id';
COMMIT;
END
	my $read = (kafkajs_consume($kafka, $topic, $already_there + 1))[-1];
	my $value = decode_json($read->{value});
	my $metadata = delete $value->{metadata};

	is($read->{key}, $id, 'KafkaJS reads the key that nexus_produce answered');
	is_deeply($read->{headers}, { 'nexus-message-id' => $id, 'content-type' => 'application/json' }, 'the headers');
	is(unpack('H*', $read->{value}), $written, 'the value, as it was in the outbox');
	is_deeply($value, { messages => [ { role => 'user', content => '¿Cuánto cuesta? 🙂' } ], fingerprint => 'fp-2',
			sessionId => 's-4', extra => [ undef, 1.5 ], messageId => $id }, 'and that is the session');
	like(delete $metadata->{enqueuedAt}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'enriched with the time');
	is_deeply($metadata, { producerVersion => extension_version(), url => 'unknown', userAgent => 'unknown' },
		'and with what the old route added');
	return;
}

sub extension_version
{
	return $node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'nexus_kafka'");
}

sub any_message_to_kafkajs
{
	$node->safe_psql('postgres', <<'END');
SELECT nexus_produce('anything', 'text', 'a', '{"one":"1","many":["2","","3"],"empty":""}', 1);
SELECT nexus_produce('anything', '{"b": [1, 2]}'::jsonb, U&'\00f1', NULL, 1);
SELECT nexus_produce('anything', '\x00ff0a09'::bytea, '\xfe00'::bytea, NULL, 1);
SELECT nexus_produce('anything', NULL::text, 'tombstone', NULL, 1);
SELECT nexus_produce('anything', '', '', NULL, 1);
SELECT nexus_produce('anything', 'no key', NULL, '{"\u00f1":"\u00f1"}', 1);
END
	my @read = kafkajs_consume($kafka, 'anything', 6);
	my @ids = map { delete $_->{headers}{'nexus-message-id'} } @read;

	is(scalar(grep { defined && /^[0-9a-f-]{36}$/ } @ids), 6, 'each message has an id in its headers');
	is_deeply(\@read, [
			message(0, 'a', 'text', { one => '1', many => [ '2', '', '3' ], empty => '' }),
			message(1, encode_utf8('ñ'), '{"b": [1, 2]}'),
			message(2, "\xfe\0", "\0\xff\n\t"),
			message(3, 'tombstone', undef),
			message(4, '', ''),
			message(5, undef, 'no key', { 'ñ' => encode_utf8('ñ') }) ],
		'texts, jsonb, bytes, a tombstone, empty ones and headers arrive as they were given');
	return;
}

sub message
{
	my ($offset, $key, $value, $headers) = @_;

	return { partition => 1, offset => $offset, key => $key, value => $value, headers => $headers // {} };
}
