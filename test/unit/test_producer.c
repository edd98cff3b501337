/*
 * test_producer.c
 *		Sending, and what becomes of a producer that can't go on.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "kafka/internal.h"
#include "tap.h"
#include "wait.h"

#define MANY	2000

static rd_kafka_mock_cluster_t *cluster;

static KafkaClient *
open_producer(void)
{
	KafkaFailure failure = {0};
	KafkaSetting settings[] = {{"bootstrap.servers", rd_kafka_mock_cluster_bootstraps(cluster)}};

	return kafka_client_open(KAFKA_PRODUCER, settings, 1, &failure);
}

static KafkaSendResult
send_one(KafkaClient *producer, int64_t id, KafkaFailure *failure)
{
	KafkaRecord record = {.id = id, .topic = "t", .partition = 0, .value = "value", .value_len = 5};

	return kafka_producer_send(producer, &record, failure);
}

/* Waits for so many reports; how many of them are acknowledgements. */
static size_t
await_deliveries(KafkaClient *producer, size_t n)
{
	const KafkaDelivery *deliveries;
	size_t		good = 0;

	while (kafka_producer_deliveries(producer, &deliveries) < n)
		wait_for(producer);
	for (size_t i = 0; i < n; i++)
		good += deliveries[i].code == 0;
	kafka_producer_forget_deliveries(producer);
	return good;
}

static void
test_push(KafkaClient *producer)
{
	KafkaFailure failure = {0};

	kafka_producer_push(producer);	/* nothing */
	send_one(producer, 1, &failure);
	is_int(await_deliveries(producer, 1), 1, "what isn't pushed is sent a little later");

	for (int i = 0; i < MANY; i++)
		send_one(producer, i, &failure);
	kafka_producer_push(producer);
	is_int(await_deliveries(producer, MANY), MANY, "what is pushed is sent");
}

/* As of a sequence number that the broker doesn't accept: nothing is sent any more. */
static void
test_fatal(KafkaClient *producer)
{
	KafkaFailure failure = {0};

	ok(!kafka_client_is_fatal(producer, &failure), "a producer can go on");
	rd_kafka_test_fatal_error(producer->rk, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "provoked");
	while (!kafka_client_is_fatal(producer, &failure))
		wait_for(producer);
	ok(strstr(failure.text, "provoked") != NULL, "until its sequence is broken, and says so");
	is_int(send_one(producer, 1, &failure), KAFKA_SEND_FAILED, "it takes nothing more");
	is_int(kafka_fate(failure.code), KAFKA_FATE_RETRY, "and what it was to send is to be sent again");
	kafka_producer_push(producer);
	ok(kafka_client_close(producer, 5000), "it closes");
}

int
main(void)
{
	KafkaFailure failure = {0};
	KafkaClient *host = kafka_client_open(KAFKA_PRODUCER, NULL, 0, &failure);
	KafkaClient *producer;

	cluster = rd_kafka_mock_cluster_new(host->rk, 1);
	rd_kafka_mock_topic_create(cluster, "t", 1, 1);
	producer = open_producer();
	test_push(producer);
	test_fatal(producer);
	rd_kafka_mock_cluster_destroy(cluster);
	ok(kafka_client_close(host, 5000), "and so does the broker");
	return done_testing();
}
