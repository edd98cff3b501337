/*
 * consumer.c
 *		Reading assigned partitions.
 *
 * assign(), no group membership: which worker reads what is decided in the
 * database, and so is the offset. The group.id serves the mirror only.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUES_BYTES		(4 * 1024 * 1024)	/* of messages fetched ahead, of all partitions */
#define LEAST_QUEUE_BYTES	(64 * 1024)
#define MOST_FETCHED_BYTES	(1024 * 1024)

/* A fetch adds to a queue that isn't full, so what is held is twice as much at most. */
KafkaMemory
kafka_consumer_memory(int npartitions)
{
	KafkaMemory memory;
	int			bytes = QUEUES_BYTES / (npartitions > 1 ? npartitions : 1);

	if (bytes < LEAST_QUEUE_BYTES)
		bytes = LEAST_QUEUE_BYTES;
	snprintf(memory.queue_kbytes, sizeof(memory.queue_kbytes), "%d", bytes / 1024);
	if (bytes > MOST_FETCHED_BYTES)
		bytes = MOST_FETCHED_BYTES;
	snprintf(memory.fetch_bytes, sizeof(memory.fetch_bytes), "%d", bytes);
	return memory;
}

static rd_kafka_topic_partition_list_t *
make_list(const KafkaPosition *positions, size_t n)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int) n);

	for (size_t i = 0; i < n; i++)
	{
		rd_kafka_topic_partition_t *p =
			rd_kafka_topic_partition_list_add(list, positions[i].topic, positions[i].partition);

		p->offset = positions[i].offset == KAFKA_OFFSET_EARLIEST ? RD_KAFKA_OFFSET_BEGINNING : positions[i].offset;
	}
	return list;
}

bool
kafka_consumer_assign(KafkaClient *client, const KafkaPosition *positions, size_t n, KafkaFailure *failure)
{
	rd_kafka_topic_partition_list_t *list = make_list(positions, n);
	rd_kafka_resp_err_t code = rd_kafka_assign(client->rk, list);

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_topic_partition_list_destroy(list);
		kafka_failure_set(failure, code, NULL);
		return false;
	}
	kafka_queues_close(client);
	if (client->assigned)
		rd_kafka_topic_partition_list_destroy(client->assigned);
	client->assigned = list;
	client->topic_gone = false;
	return true;
}

bool
kafka_consumer_assign_again(KafkaClient *client, const KafkaPosition *positions, size_t n, KafkaFailure *failure)
{
	rd_kafka_topic_partition_list_t *list = make_list(positions, n);
	rd_kafka_error_t *error = rd_kafka_incremental_unassign(client->rk, list);

	for (size_t i = 0; i < n; i++)
		kafka_lane_close(client, positions[i].topic, positions[i].partition);
	if (error == NULL)
		error = rd_kafka_incremental_assign(client->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (error == NULL)
		return true;
	kafka_failure_set(failure, rd_kafka_error_code(error), rd_kafka_error_string(error));
	rd_kafka_error_destroy(error);
	return false;
}

static void
fill_event(const rd_kafka_message_t *rkm, KafkaEvent *event)
{
	memset(event, 0, sizeof(*event));
	if (rkm->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
		event->kind = KAFKA_EVENT_END;
	else if (rkm->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || rkm->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
		event->kind = KAFKA_EVENT_OFFSET_GONE;
	else
		event->kind = KAFKA_EVENT_ERROR;
	if (rkm->rkt)
		snprintf(event->topic, sizeof(event->topic), "%s", rd_kafka_topic_name(rkm->rkt));
	event->partition = rkm->partition;
	event->offset = rkm->offset;
	kafka_failure_set(&event->failure, rkm->err, rd_kafka_message_errstr(rkm));
}

static void
fill_message(rd_kafka_message_t *rkm, KafkaMessage *message)
{
	rd_kafka_timestamp_type_t type;

	message->topic = rd_kafka_topic_name(rkm->rkt);
	message->partition = rkm->partition;
	message->offset = rkm->offset;
	message->timestamp_ms = rd_kafka_message_timestamp(rkm, &type);
	message->key = rkm->key;
	message->key_len = rkm->key_len;
	message->value = rkm->payload;
	message->value_len = rkm->len;
	message->handle = rkm;
}

/* Room for what one hand-over may bring: max messages, or max events beside those not looked at. */
static bool
reserve(KafkaClient *client, size_t max)
{
	rd_kafka_message_t **fetched;
	KafkaEvent *events;

	if (client->next_event == client->nevents)
		client->nevents = client->next_event = 0;
	if (client->maxfetched < max)
	{
		fetched = realloc(client->fetched, max * sizeof(rd_kafka_message_t *));
		if (fetched == NULL)
			return false;
		client->fetched = fetched;
		client->maxfetched = max;
	}
	if (client->maxevents < client->nevents + max)
	{
		events = realloc(client->events, (client->nevents + max) * sizeof(KafkaEvent));
		if (events == NULL)
			return false;
		client->events = events;
		client->maxevents = client->nevents + max;
	}
	return true;
}

bool
kafka_consumer_topic_gone(const KafkaClient *client)
{
	return client->topic_gone;
}

/*
 * When a topic that went away is there again, it may be another one, of which librdkafka
 * goes on reading at the old offset. That it went away is told by a callback that stands
 * among the messages (client.c): neither they nor what follows is handed over.
 */
size_t
kafka_consumer_fetch(KafkaClient *client, KafkaMessage *messages, size_t max)
{
	size_t		n = 0;
	ssize_t		got;
	bool		from_common;

	if (!reserve(client, max))
		return 0;
	got = rd_kafka_consume_batch_queue(client->message_queue, 0, client->fetched, max);
	from_common = got > 0;
	if (!from_common)
		got = (ssize_t) kafka_queues_take(client, client->fetched, max);
	for (ssize_t i = 0; i < got; i++)
	{
		rd_kafka_message_t *rkm = client->fetched[i];

		if (client->topic_gone)
			rd_kafka_message_destroy(rkm);
		else if (rkm->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			fill_message(rkm, &messages[n++]);
			if (from_common)
				kafka_queue_open(client, messages[n - 1].topic, rkm->partition);
		}
		else
		{
			fill_event(rkm, &client->events[client->nevents++]);
			rd_kafka_message_destroy(rkm);
		}
	}
	return n;
}

const KafkaEvent *
kafka_consumer_next_event(KafkaClient *client)
{
	return client->next_event < client->nevents ? &client->events[client->next_event++] : NULL;
}

void
kafka_message_release(KafkaMessage *message)
{
	if (message->handle)
		rd_kafka_message_destroy(message->handle);
	message->handle = NULL;
}

bool
kafka_message_header(const KafkaMessage *message, size_t i, KafkaHeader *header)
{
	rd_kafka_headers_t *headers;

	return rd_kafka_message_headers(message->handle, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR &&
		rd_kafka_header_get_all(headers, i, &header->name, &header->value, &header->value_len) ==
		RD_KAFKA_RESP_ERR_NO_ERROR;
}

int64_t
kafka_consumer_end_offset(KafkaClient *client, const char *topic, int32_t partition)
{
	int64_t		low,
				high;

	if (rd_kafka_get_watermark_offsets(client->rk, topic, partition, &low, &high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		high < 0)
		return KAFKA_OFFSET_UNKNOWN;
	return high;
}

void
kafka_consumer_nudge(KafkaClient *client)
{
	rd_kafka_topic_partition_list_t *copy;

	if (!client->needs_nudge || client->assigned == NULL || client->assigned->cnt == 0)
		return;

	/*
	 * With timeout 0 the request is only enqueued, and the broker thread wakes
	 * to send it; the answer is of no interest, so neither is "timed out".
	 */
	copy = rd_kafka_topic_partition_list_copy(client->assigned);
	for (int i = 0; i < copy->cnt; i++)
		copy->elems[i].offset = RD_KAFKA_OFFSET_END;
	(void) rd_kafka_offsets_for_times(client->rk, copy, 0);
	rd_kafka_topic_partition_list_destroy(copy);
}

void
kafka_commit_offsets(KafkaClient *client, const KafkaPosition *positions, size_t n, int timeout_ms)
{
	rd_kafka_topic_partition_list_t *list = make_list(positions, n);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client->rk);
	rd_kafka_event_t *done = NULL;

	/* nobody depends on it: a failure (no right to the group, say) only leaves the tools without a lag */
	if (timeout_ms == 0)
		(void) rd_kafka_commit(client->rk, list, 1);
	else if (rd_kafka_commit_queue(client->rk, list, queue, NULL, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR)
		done = rd_kafka_queue_poll(queue, timeout_ms);
	if (done)
		rd_kafka_event_destroy(done);
	rd_kafka_queue_destroy(queue);
	rd_kafka_topic_partition_list_destroy(list);
}
