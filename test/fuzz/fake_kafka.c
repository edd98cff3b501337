/*
 * fake_kafka.c
 *		What the sources under test call of src/kafka: a message's headers are those
 *		that the target made. librdkafka makes them of what came over the network only.
 */
#include "fake_kafka.h"

bool
kafka_message_header(const KafkaMessage *message, size_t i, KafkaHeader *header)
{
	const FakeHeaders *headers = message->handle;

	if (headers == NULL || i >= headers->n)
		return false;
	*header = headers->headers[i];
	return true;
}

void
kafka_message_release(KafkaMessage *message)
{
	message->handle = NULL;
}

size_t
kafka_consumer_fetch(KafkaClient *client, KafkaMessage *messages, size_t max)
{
	return 0;
}
