/*
 * test_messages.c
 *		A message's way through the embedded broker, and what comes with it.
 */

#include "kafka/kafka.h"
#include "tap.h"
#include "wait.h"

static KafkaEmbedded *broker;
static KafkaClient *producer;
static KafkaClient *consumer;

static void
open_all(void)
{
	KafkaFailure failure = {0};
	KafkaSetting settings[2];

	broker = kafka_embedded_start(&failure);
	settings[0] = (KafkaSetting) {"bootstrap.servers", kafka_embedded_bootstrap(broker)};
	settings[1] = (KafkaSetting) {"group.id", "test"};
	kafka_embedded_create_topic(broker, "t", 2, &failure);
	producer = kafka_client_open(KAFKA_PRODUCER, settings, 1, &failure);
	consumer = kafka_client_open(KAFKA_CONSUMER, settings, 2, &failure);
}

static KafkaDelivery
deliver(const KafkaRecord *record)
{
	KafkaFailure failure;
	const KafkaDelivery *deliveries;
	KafkaDelivery delivery;

	if (kafka_producer_send(producer, record, &failure) != KAFKA_SEND_QUEUED)
		return (KafkaDelivery) {.id = record->id, .code = failure.code};
	while (kafka_producer_deliveries(producer, &deliveries) == 0)
		wait_for(producer);
	delivery = deliveries[0];
	kafka_producer_forget_deliveries(producer);
	return delivery;
}

static KafkaMessage
next_message(void)
{
	KafkaMessage message;

	while (kafka_consumer_fetch(consumer, &message, 1) == 0)
		wait_for(consumer);
	return message;
}

static void
test_round_trip(void)
{
	KafkaHeader headers[] = {{"a", "1", 1}, {"none", NULL, 0}, {"a", "2", 1}};
	KafkaRecord full = {42, "t", 0, "key", 3, "va\0lue", 6, headers, 3};
	KafkaRecord tombstone = {43, "t", 0, "key", 3, NULL, 0, NULL, 0};
	KafkaRecord empty = {44, "t", 0, NULL, 0, "", 0, NULL, 0};
	KafkaPosition from_start[] = {{"t", 0, KAFKA_OFFSET_EARLIEST}};
	KafkaDelivery delivery = deliver(&full);
	KafkaFailure failure;
	KafkaMessage m;
	KafkaHeader h;

	is_int(delivery.code, 0, "a record is acknowledged");
	is_int(delivery.id, 42, "with its id");
	is_int(deliver(&tombstone).code, 0, "a tombstone is acknowledged");
	is_int(deliver(&empty).code, 0, "an empty value is acknowledged");

	ok(kafka_consumer_assign(consumer, from_start, 1, &failure), "a partition is assigned");
	m = next_message();
	is_int(m.offset, 0, "the first message");
	ok(m.key_len == 3 && memcmp(m.key, "key", 3) == 0, "has the key");
	ok(m.value_len == 6 && memcmp(m.value, "va\0lue", 6) == 0, "has the value, with its zero byte");
	ok(m.timestamp_ms > 0, "has a timestamp");
	ok(kafka_message_header(&m, 0, &h) && strcmp(h.name, "a") == 0 && *(const char *) h.value == '1', "first header");
	ok(kafka_message_header(&m, 1, &h) && h.value == NULL, "a header without value");
	ok(kafka_message_header(&m, 2, &h) && *(const char *) h.value == '2', "a repeated header");
	ok(!kafka_message_header(&m, 3, &h), "and no more");
	kafka_message_release(&m);

	m = next_message();
	ok(m.value == NULL && m.key != NULL, "a tombstone has no value");
	kafka_message_release(&m);
	m = next_message();
	ok(m.value != NULL && m.value_len == 0, "an empty value is a value");
	ok(m.key == NULL, "no key is none");
	kafka_message_release(&m);
}

static const KafkaEvent *
next_event(void)
{
	const KafkaEvent *event;
	KafkaMessage message;

	for (;;)
	{
		if (kafka_consumer_fetch(consumer, &message, 1) > 0)
			kafka_message_release(&message);
		if ((event = kafka_consumer_next_event(consumer)) != NULL)
			return event;
		wait_for(consumer);
	}
}

static void
test_events(void)
{
	KafkaPosition both[] = {{"t", 0, 3}, {"t", 1, KAFKA_OFFSET_EARLIEST}};
	KafkaPosition beyond[] = {{"t", 0, 1000}};
	KafkaFailure failure;
	bool		end[2] = {false, false};

	kafka_consumer_assign(consumer, both, 2, &failure);
	while (!end[0] || !end[1])
	{
		const KafkaEvent *event = next_event();

		if (event->kind == KAFKA_EVENT_END)
			end[event->partition] = event->offset == (event->partition == 0 ? 3 : 0);
	}
	ok(true, "the end of each partition is told, an empty one's too");
	is_int(kafka_consumer_end_offset(consumer, "t", 0), 3, "and cached");

	kafka_consumer_assign(consumer, beyond, 1, &failure);
	is_int(next_event()->kind, KAFKA_EVENT_OFFSET_GONE, "an offset beyond the end is gone, not reset");
}

#define IN_STEP	40

/* Each hand-over of several partitions is in the order of time, each partition in that of its offsets. */
static void
test_in_step(void)
{
	KafkaPosition both[] = {{"step", 0, KAFKA_OFFSET_EARLIEST}, {"step", 1, KAFKA_OFFSET_EARLIEST}};
	KafkaFailure failure;
	KafkaMessage messages[IN_STEP];
	int64_t		next[2] = {0, 0};
	int			total = 0;
	bool		timely = true;
	bool		complete = true;

	kafka_embedded_create_topic(broker, "step", 2, &failure);
	kafka_consumer_assign(consumer, both, 2, &failure);
	for (int i = 0; i < IN_STEP; i++)
	{
		KafkaRecord record = {i, "step", i % 2, NULL, 0, "x", 1, NULL, 0};

		complete = complete && deliver(&record).code == 0;
		if (i == 1)				/* both partitions have their lanes from here on */
			for (; total < 2; total++)
			{
				KafkaMessage m = next_message();

				complete = complete && m.offset == next[m.partition]++;
				kafka_message_release(&m);
			}
	}
	while (total < IN_STEP)
	{
		size_t		n = kafka_consumer_fetch(consumer, messages, IN_STEP);

		for (size_t i = 0; i < n; i++, total++)
		{
			timely = timely && (i == 0 || messages[i - 1].timestamp_ms <= messages[i].timestamp_ms);
			complete = complete && messages[i].offset == next[messages[i].partition]++;
		}
		for (size_t i = 0; i < n; i++)
			kafka_message_release(&messages[i]);
		if (n == 0)
			wait_for(consumer);
	}
	ok(complete, "two partitions, each in its order, none left out");
	ok(timely, "the earlier message of the two first");
}

static void
test_refused(void)
{
	static char large[2000000];
	KafkaRecord record = {7, "t", 0, NULL, 0, large, sizeof(large), NULL, 0};
	KafkaFailure failure = {0};

	is_int(kafka_producer_send(producer, &record, &failure), KAFKA_SEND_FAILED, "too large a message is refused");
	is_int(kafka_fate(failure.code), KAFKA_FATE_BATCH_REFUSED, "for good: it was in no batch with others");

	record = (KafkaRecord) {8, "t", 99, NULL, 0, "x", 1, NULL, 0};
	is_int(kafka_fate(deliver(&record).code), KAFKA_FATE_REFUSED, "a partition that isn't there: for good");
}

int
main(void)
{
	open_all();
	test_round_trip();
	test_events();
	test_in_step();
	test_refused();
	ok(kafka_client_close(producer, 5000), "the producer closes");
	ok(kafka_client_close(consumer, 5000), "the consumer closes");
	ok(kafka_embedded_stop(broker, 5000), "the broker stops");
	return done_testing();
}
