/*
 * admin.c
 *		Topics: making one, and all of them with their partitions' replicas and
 *		offsets. Waits for the cluster: for the admin_thread's thread only.
 */
#include "kafka/internal.h"

#include <stdlib.h>
#include <string.h>

#define OFFSETS_TIMEOUT_MS	3000

static bool
fail(KafkaFailure *failure, rd_kafka_resp_err_t code, const char *text)
{
	kafka_failure_set(failure, code, text);
	return false;
}

/* ---- making a topic ---- */

static bool
await_creation(rd_kafka_queue_t *queue, int timeout_ms, KafkaFailure *failure)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms);
	const rd_kafka_topic_result_t **results;
	size_t		n = 0;
	bool		ok = true;

	if (event == NULL)
		return fail(failure, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL);
	if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
		ok = fail(failure, rd_kafka_event_error(event), rd_kafka_event_error_string(event));
	else
		results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
	for (size_t i = 0; ok && i < n; i++)
		if (rd_kafka_topic_result_error(results[i]) != RD_KAFKA_RESP_ERR_NO_ERROR)
			ok = fail(failure, rd_kafka_topic_result_error(results[i]), rd_kafka_topic_result_error_string(results[i]));
	rd_kafka_event_destroy(event);
	return ok;
}

bool
kafka_create_topic(rd_kafka_t *rk, const KafkaNewTopic *topic, int timeout_ms, KafkaFailure *failure)
{
	char		text[256];
	rd_kafka_NewTopic_t *new_topic = rd_kafka_NewTopic_new(topic->name, topic->partitions, topic->replication_factor,
														   text, sizeof(text));
	rd_kafka_queue_t *queue;
	bool		ok = true;

	if (new_topic == NULL)
		return fail(failure, RD_KAFKA_RESP_ERR__INVALID_ARG, text);
	for (size_t i = 0; ok && i < topic->nsettings; i++)
		if (rd_kafka_NewTopic_set_config(new_topic, topic->settings[i].name, topic->settings[i].value) !=
			RD_KAFKA_RESP_ERR_NO_ERROR)
			ok = fail(failure, RD_KAFKA_RESP_ERR_INVALID_CONFIG, NULL);
	if (ok)
	{
		queue = rd_kafka_queue_new(rk);
		rd_kafka_CreateTopics(rk, &new_topic, 1, NULL, queue);
		ok = await_creation(queue, timeout_ms, failure);
		rd_kafka_queue_destroy(queue);
	}
	rd_kafka_NewTopic_destroy(new_topic);
	return ok;
}

/* ---- all topics ---- */

static bool
copy_topic(const struct rd_kafka_metadata_topic *from, KafkaTopic *to)
{
	if (!kafka_topic_fill(to, from) || (to->partitions = calloc(from->partition_cnt + 1, sizeof(KafkaPartition))) == NULL)
		return false;
	for (int i = 0; i < from->partition_cnt; i++)
	{
		const struct rd_kafka_metadata_partition *p = &from->partitions[i];

		to->partitions[i] = (KafkaPartition) {
			p->id, p->leader, p->replica_cnt, p->isr_cnt, KAFKA_OFFSET_UNKNOWN, KAFKA_OFFSET_UNKNOWN
		};
	}
	return true;
}

/*
 * time: RD_KAFKA_OFFSET_BEGINNING or _END. False: librdkafka answers for none if a
 * leader is away. That is just when the rest is wanted, so it isn't waited for long.
 */
static bool
fill_offsets(rd_kafka_t *rk, KafkaResponse *answer, int64_t time, int timeout_ms)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
	bool		ok = true;

	for (size_t t = 0; t < answer->ntopics; t++)
		for (int p = 0; p < answer->topics[t].npartitions; p++)
			if (answer->topics[t].partitions[p].leader >= 0)
				rd_kafka_topic_partition_list_add(list, answer->topics[t].name,
												  answer->topics[t].partitions[p].id)->offset = time;
	if (list->cnt > 0)
		ok = rd_kafka_offsets_for_times(rk, list, timeout_ms) == RD_KAFKA_RESP_ERR_NO_ERROR;
	for (size_t t = 0; ok && t < answer->ntopics; t++)
		for (int p = 0; p < answer->topics[t].npartitions; p++)
		{
			KafkaPartition *partition = &answer->topics[t].partitions[p];
			int64_t    *offset = time == RD_KAFKA_OFFSET_END ? &partition->end : &partition->first;
			const rd_kafka_topic_partition_t *found =
				rd_kafka_topic_partition_list_find(list, answer->topics[t].name, partition->id);

			if (found && found->err == RD_KAFKA_RESP_ERR_NO_ERROR && found->offset >= 0)
				*offset = found->offset;
		}
	rd_kafka_topic_partition_list_destroy(list);
	return ok;
}

bool
kafka_describe_topics(rd_kafka_t *rk, int timeout_ms, KafkaResponse *answer)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code = rd_kafka_metadata(rk, 1, NULL, &metadata, timeout_ms);
	bool		ok;

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return fail(&answer->failure, code, NULL);
	answer->topics = calloc(metadata->topic_cnt + 1, sizeof(KafkaTopic));
	ok = answer->topics != NULL;
	for (int i = 0; ok && i < metadata->topic_cnt; i++)
		if (metadata->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR)
			ok = copy_topic(&metadata->topics[i], &answer->topics[answer->ntopics++]);
	rd_kafka_metadata_destroy(metadata);
	if (!ok)
		return fail(&answer->failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
	if (timeout_ms > OFFSETS_TIMEOUT_MS)
		timeout_ms = OFFSETS_TIMEOUT_MS;
	if (fill_offsets(rk, answer, RD_KAFKA_OFFSET_BEGINNING, timeout_ms))
		(void) fill_offsets(rk, answer, RD_KAFKA_OFFSET_END, timeout_ms);
	return true;
}
