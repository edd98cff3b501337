/*
 * enquiry.c
 *		Questions to the cluster that librdkafka only answers to a thread that
 *		waits: a topic's partitions, the cluster's id, the ends of partitions.
 *
 * A worker's main thread must not wait, so one thread a client waits for it.
 * It starts with the first question, takes one at a time, calls librdkafka and
 * nothing else, and tells the main thread through the client's pipe.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum EnquiryState
{
	ENQUIRY_IDLE,
	ENQUIRY_ASKED,
	ENQUIRY_ANSWERED
} EnquiryState;

struct Enquirer
{
	KafkaClient *client;
	pthread_t	thread;
	pthread_mutex_t mutex;		/* guards state and quit */
	pthread_cond_t changed;
	EnquiryState state;
	bool		quit;

	/* the asker's while not ASKED, the thread's while ASKED */
	char	   *topic;
	rd_kafka_topic_partition_list_t *ends;
	int			timeout_ms;
	KafkaAnswer answer;
};

static bool
ask_failed(Enquirer *e, rd_kafka_resp_err_t code)
{
	char		text[64];

	switch (code)
	{
		case RD_KAFKA_RESP_ERR__TRANSPORT:
			kafka_failure_set(&e->answer.failure, code, "no usable connection to a broker");
			break;
		case RD_KAFKA_RESP_ERR__TIMED_OUT:
			snprintf(text, sizeof(text), "a broker is connected but did not answer within %d ms", e->timeout_ms);
			kafka_failure_set(&e->answer.failure, code, text);
			break;
		default:
			kafka_failure_set(&e->answer.failure, code, NULL);
	}
	return false;
}

static bool
ask_metadata(Enquirer *e)
{
	rd_kafka_t *rk = e->client->rk;
	rd_kafka_topic_t *rkt = e->topic ? rd_kafka_topic_new(rk, e->topic, NULL) : NULL;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code;
	char	   *cluster_id;

	if (e->topic && rkt == NULL)
		return ask_failed(e, rd_kafka_last_error());
	code = rd_kafka_metadata(rk, 0, rkt, &metadata, e->timeout_ms);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		if (metadata->topic_cnt == 1)
		{
			e->answer.npartitions = metadata->topics[0].partition_cnt;
			code = metadata->topics[0].err;
			if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
				code = RD_KAFKA_RESP_ERR_NO_ERROR;	/* the answer is: none */
		}
		rd_kafka_metadata_destroy(metadata);
	}
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return ask_failed(e, code);

	cluster_id = rd_kafka_clusterid(rk, e->timeout_ms);
	if (cluster_id)
	{
		snprintf(e->answer.cluster_id, sizeof(e->answer.cluster_id), "%s", cluster_id);
		rd_kafka_mem_free(rk, cluster_id);
	}
	return true;
}

static bool
ask_ends(Enquirer *e)
{
	rd_kafka_resp_err_t code;

	for (int i = 0; i < e->ends->cnt; i++)
		e->ends->elems[i].offset = RD_KAFKA_OFFSET_END;	/* "the time" that means the end */
	code = rd_kafka_offsets_for_times(e->client->rk, e->ends, e->timeout_ms);
	for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && i < e->ends->cnt; i++)
		code = e->ends->elems[i].err;
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return ask_failed(e, code);

	e->answer.ends = calloc(e->ends->cnt, sizeof(KafkaPosition));
	if (e->answer.ends == NULL)
	{
		kafka_failure_set(&e->answer.failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
		return false;
	}
	for (int i = 0; i < e->ends->cnt; i++)
	{
		e->answer.ends[i].topic = strdup(e->ends->elems[i].topic);
		e->answer.ends[i].partition = e->ends->elems[i].partition;
		e->answer.ends[i].offset = e->ends->elems[i].offset;
		e->answer.nends++;
	}
	return true;
}

static void *
enquirer_main(void *arg)
{
	Enquirer   *e = arg;

	pthread_mutex_lock(&e->mutex);
	for (;;)
	{
		while (e->state != ENQUIRY_ASKED && !e->quit)
			pthread_cond_wait(&e->changed, &e->mutex);
		if (e->quit)
			break;
		pthread_mutex_unlock(&e->mutex);

		memset(&e->answer, 0, sizeof(e->answer));
		if (ask_metadata(e) && e->ends)
			ask_ends(e);

		pthread_mutex_lock(&e->mutex);
		e->state = ENQUIRY_ANSWERED;
		kafka_client_wake(e->client);
	}
	pthread_mutex_unlock(&e->mutex);
	return NULL;
}

static Enquirer *
start_enquirer(KafkaClient *client)
{
	Enquirer   *e = calloc(1, sizeof(Enquirer));

	if (e == NULL)
		return NULL;
	e->client = client;
	pthread_mutex_init(&e->mutex, NULL);
	pthread_cond_init(&e->changed, NULL);
	if (!kafka_start_thread(&e->thread, enquirer_main, e))
	{
		free(e);
		return NULL;
	}
	return e;
}

static void
forget_question(Enquirer *e)
{
	free(e->topic);
	e->topic = NULL;
	if (e->ends)
		rd_kafka_topic_partition_list_destroy(e->ends);
	e->ends = NULL;
}

bool
kafka_ask(KafkaClient *client, const char *topic, const KafkaPosition *positions, size_t n, int timeout_ms)
{
	Enquirer   *e;

	if (client->enquirer == NULL)
		client->enquirer = start_enquirer(client);
	e = client->enquirer;
	if (e == NULL || kafka_asking(client))
		return false;

	forget_question(e);
	e->topic = topic ? strdup(topic) : NULL;
	if (n > 0)
	{
		e->ends = rd_kafka_topic_partition_list_new((int) n);
		for (size_t i = 0; i < n; i++)
			rd_kafka_topic_partition_list_add(e->ends, positions[i].topic, positions[i].partition);
	}
	e->timeout_ms = timeout_ms;

	pthread_mutex_lock(&e->mutex);
	e->state = ENQUIRY_ASKED;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->mutex);
	return true;
}

static EnquiryState
enquiry_state(Enquirer *e)
{
	EnquiryState state;

	pthread_mutex_lock(&e->mutex);
	state = e->state;
	pthread_mutex_unlock(&e->mutex);
	return state;
}

bool
kafka_asking(KafkaClient *client)
{
	return client->enquirer && enquiry_state(client->enquirer) != ENQUIRY_IDLE;
}

bool
kafka_answered(KafkaClient *client, KafkaAnswer *answer)
{
	Enquirer   *e = client->enquirer;

	if (e == NULL || enquiry_state(e) != ENQUIRY_ANSWERED)
		return false;
	*answer = e->answer;		/* with the ends, the caller's from now on */
	pthread_mutex_lock(&e->mutex);
	e->state = ENQUIRY_IDLE;
	pthread_mutex_unlock(&e->mutex);
	return true;
}

void
kafka_answer_free(KafkaAnswer *answer)
{
	for (size_t i = 0; i < answer->nends; i++)
		free(answer->ends[i].topic);
	free(answer->ends);
	answer->ends = NULL;
	answer->nends = 0;
}

/* Waits for a question under way: to be called where waiting is bounded. */
void
kafka_enquirer_end(Enquirer *e)
{
	pthread_mutex_lock(&e->mutex);
	e->quit = true;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->mutex);
	pthread_join(e->thread, NULL);
	if (e->state == ENQUIRY_ANSWERED)
		kafka_answer_free(&e->answer);
	forget_question(e);
	free(e);
}
