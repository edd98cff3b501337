/*
 * producer.c
 *		Sending records and collecting their delivery reports.
 *
 * A report carries the record's id (the opaque), a code and its place; it is noted
 * while the client is served, and read by the relay afterwards.
 */
#include "kafka/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PUSH_MS	1

/* Called by librdkafka, in the main thread, while the client is served. */
void
kafka_producer_record_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	KafkaClient *client = opaque;

	(void) rk;
	if (client->ndeliveries == client->maxdeliveries)
	{
		size_t		max = client->maxdeliveries ? client->maxdeliveries * 2 : 1024;
		KafkaDelivery *bigger = realloc(client->deliveries, max * sizeof(KafkaDelivery));

		if (bigger == NULL)
		{
			/* a lost report would leave its row unsettled for ever: start anew instead */
			client->fatal = true;
			kafka_failure_set(&client->last_failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
			return;
		}
		client->deliveries = bigger;
		client->maxdeliveries = max;
	}
	client->deliveries[client->ndeliveries++] = (KafkaDelivery) {
		(int64_t) (intptr_t) message->_private, message->err, message->partition, message->offset
	};
}

int32_t
kafka_partition_of_key(const void *key, size_t len, int32_t npartitions)
{
	return rd_kafka_msg_partitioner_murmur2(NULL, key, len, npartitions, NULL, NULL);
}

size_t
kafka_producer_deliveries(KafkaClient *client, const KafkaDelivery **deliveries)
{
	*deliveries = client->deliveries;
	return client->ndeliveries;
}

void
kafka_producer_forget_deliveries(KafkaClient *client)
{
	client->ndeliveries = 0;
}

static rd_kafka_headers_t *
make_headers(const KafkaRecord *record)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(record->nheaders);

	for (size_t i = 0; i < record->nheaders; i++)
	{
		const KafkaHeader *h = &record->headers[i];

		if (rd_kafka_header_add(headers, h->name, -1, h->value, h->value ? (ssize_t) h->value_len : -1) != 0)
		{
			rd_kafka_headers_destroy(headers);
			return NULL;
		}
	}
	return headers;
}

KafkaSendResult
kafka_producer_send(KafkaClient *client, const KafkaRecord *record, KafkaFailure *failure)
{
	rd_kafka_headers_t *headers = make_headers(record);
	rd_kafka_resp_err_t code;

	if (headers == NULL)
	{
		kafka_failure_set(failure, RD_KAFKA_RESP_ERR__INVALID_ARG, "a header was not accepted");
		return KAFKA_SEND_FAILED;
	}
	code = rd_kafka_producev(client->rk,
							 RD_KAFKA_V_TOPIC(record->topic),
							 RD_KAFKA_V_PARTITION(record->partition < 0 ? RD_KAFKA_PARTITION_UA : record->partition),
							 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							 RD_KAFKA_V_KEY(record->key, record->key_len),
							 RD_KAFKA_V_VALUE((void *) record->value, record->value_len),
							 RD_KAFKA_V_HEADERS(headers),
							 RD_KAFKA_V_OPAQUE((void *) (intptr_t) record->id),
							 RD_KAFKA_V_END);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return KAFKA_SEND_QUEUED;	/* the headers are the record's now */

	rd_kafka_headers_destroy(headers);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		return KAFKA_SEND_FULL;
	kafka_failure_set(failure, code, NULL);
	return KAFKA_SEND_FAILED;
}

/*
 * Without linger.ms librdkafka's thread would wake with the first message and send
 * that alone. A flush has it send all at once, if it goes on until that thread woke.
 * That it times out says only that not all is acknowledged yet.
 */
void
kafka_producer_push(KafkaClient *client)
{
	(void) rd_kafka_flush(client->rk, PUSH_MS);
}
