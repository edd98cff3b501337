/*
 * admin_thread.c
 *		Questions to the cluster that librdkafka only answers to a thread that
 *		waits: topics and their partitions, the cluster's id, offsets by time, and
 *		what a consumer group has committed.
 *
 * A worker's main thread must not wait, so a thread waits for it. It starts with the
 * first request, takes one at a time, calls librdkafka and nothing else, and tells
 * the main thread through the client's pipe.
 *
 * A broker answers the requests of a connection in their order, and a consumer that
 * has read all has a fetch waiting there, for half a second. What somebody waits for
 * (KafkaRequest.at_once) is therefore asked by a second handle with connections of its
 * own, in a second thread, which opens it for the first such request and closes it
 * when a while has passed without another: a pipeline for which nobody waits pays
 * neither for the threads nor for the connections.
 */
#include "kafka/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEEP_OPEN_S			60		/* the second handle, after its last request */
#define ONE_BROKER_MS		2000	/* for each one's answer, when all are asked */

typedef enum RequestState
{
	REQUEST_IDLE,
	REQUEST_ASKED,
	REQUEST_ANSWERED
} RequestState;

struct AdminThread
{
	KafkaClient *client;
	const rd_kafka_conf_t *conf;	/* the client's, of the thread's own handle; NULL: it uses the client's handle */
	pthread_t	thread;
	pthread_mutex_t mutex;		/* guards state and quit */
	pthread_cond_t changed;
	RequestState state;
	bool		quit;

	rd_kafka_t *rk;				/* the thread's; NULL: its own one isn't open */

	/* the asker's while not ASKED, the thread's while ASKED */
	char	  **topics;
	size_t		ntopics;
	bool		all_topics;
	rd_kafka_topic_partition_list_t *positions; /* NULL: none */
	char	   *group;
	bool		describe;
	bool		every_broker;
	char	  **brokers;		/* host:port, with every_broker */
	int			nbrokers;
	KafkaNewTopic create;		/* name NULL: none */
	int			timeout_ms;
	KafkaResponse answer;
};

/* text NULL: what the code says. */
static bool
fail(AdminThread *e, rd_kafka_resp_err_t code, const char *text)
{
	char		silent[64];

	if (code == RD_KAFKA_RESP_ERR__TRANSPORT)
		text = "no usable connection to a broker";
	else if (code == RD_KAFKA_RESP_ERR__TIMED_OUT)
	{
		snprintf(silent, sizeof(silent), "a broker is connected but did not answer within %d ms", e->timeout_ms);
		text = silent;
	}
	kafka_failure_set(&e->answer.failure, code, text);
	return false;
}

static bool
out_of_memory(AdminThread *e)
{
	return fail(e, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
}

/* ---- metadata ---- */

/* Of several brokers' answers the one with the most partitions counts: they only ever grow. */
static bool
add_topic(AdminThread *e, const struct rd_kafka_metadata_topic *topic)
{
	KafkaTopic *topics;

	for (size_t i = 0; i < e->answer.ntopics; i++)
	{
		KafkaTopic *known = &e->answer.topics[i];

		if (strcmp(known->name, topic->topic) != 0)
			continue;
		if (known->npartitions >= topic->partition_cnt)
			return true;
		free(known->name);
		return kafka_topic_fill(known, topic) || out_of_memory(e);
	}
	topics = realloc(e->answer.topics, (e->answer.ntopics + 1) * sizeof(KafkaTopic));
	if (topics == NULL)
		return out_of_memory(e);
	e->answer.topics = topics;
	return kafka_topic_fill(&topics[e->answer.ntopics++], topic) || out_of_memory(e);
}

static void
note_brokers(AdminThread *e, const struct rd_kafka_metadata *metadata)
{
	char		address[300];

	if (!e->every_broker || e->brokers || (e->brokers = calloc(metadata->broker_cnt, sizeof(char *))) == NULL)
		return;
	for (int i = 0; i < metadata->broker_cnt; i++)
	{
		const struct rd_kafka_metadata_broker *broker = &metadata->brokers[i];

		snprintf(address, sizeof(address), strchr(broker->host, ':') ? "[%s]:%d" : "%s:%d", broker->host, broker->port);
		if ((e->brokers[e->nbrokers] = strdup(address)) != NULL)
			e->nbrokers++;
	}
	e->answer.brokers = metadata->broker_cnt;
}

static void
forget_brokers(AdminThread *e)
{
	for (int i = 0; i < e->nbrokers; i++)
		free(e->brokers[i]);
	free(e->brokers);
	e->brokers = NULL;
	e->nbrokers = 0;
}

/* topic NULL: all, or (none wanted) a sign of life. */
static bool
ask_metadata(AdminThread *e, const char *topic)
{
	rd_kafka_t *rk = e->rk;
	rd_kafka_topic_t *rkt = topic ? rd_kafka_topic_new(rk, topic, NULL) : NULL;
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code;
	bool		ok = true;

	if (topic && rkt == NULL)
		return fail(e, rd_kafka_last_error(), NULL);
	code = rd_kafka_metadata(rk, topic == NULL && e->all_topics, rkt, &metadata, e->timeout_ms);
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		return fail(e, code, NULL);

	note_brokers(e, metadata);
	for (int i = 0; ok && i < metadata->topic_cnt; i++)
	{
		const struct rd_kafka_metadata_topic *t = &metadata->topics[i];

		if (topic == NULL && !e->all_topics)
			break;
		if (t->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			ok = add_topic(e, t);
		else if (topic && t->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		{
			char		text[320];

			snprintf(text, sizeof(text), "topic \"%s\": %s", topic, rd_kafka_err2str(t->err));
			ok = fail(e, t->err, text);
		}
	}
	rd_kafka_metadata_destroy(metadata);
	return ok;
}

static bool
ask_all_metadata(AdminThread *e)
{
	for (size_t i = 0; i < e->ntopics; i++)
		if (!ask_metadata(e, e->topics[i]))
			return false;
	return e->ntopics > 0 || ask_metadata(e, NULL);
}

static rd_kafka_t *
open_handle(AdminThread *e, const char *broker)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(e->conf);
	char		why[sizeof(e->answer.failure.text)];

	if (broker && !kafka_config_set(conf, "bootstrap.servers", broker, why, sizeof(why)))
	{
		rd_kafka_conf_destroy(conf);
		fail(e, RD_KAFKA_RESP_ERR__INVALID_ARG, why);
		return NULL;
	}
	return kafka_handle_new(KAFKA_CONSUMER, conf, &e->answer.failure);
}

static bool
is_quitting(AdminThread *e)
{
	bool		quit;

	pthread_mutex_lock(&e->mutex);
	quit = e->quit;
	pthread_mutex_unlock(&e->mutex);
	return quit;
}

/* Asks for the offsets of such times, KAFKA_OFFSET_END among them. */
static bool
ask_offsets(AdminThread *e, rd_kafka_topic_partition_list_t *times)
{
	rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(e->rk, times, e->timeout_ms);

	for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && i < times->cnt; i++)
		code = times->elems[i].err;
	return code == RD_KAFKA_RESP_ERR_NO_ERROR || fail(e, code, NULL);
}

/* ---- of every broker ---- */

static bool
prepare_ranges(AdminThread *e)
{
	if (e->positions == NULL)
		return true;
	e->answer.ranges = calloc(e->positions->cnt, sizeof(KafkaRange));
	if (e->answer.ranges == NULL)
		return out_of_memory(e);
	for (int i = 0; i < e->positions->cnt; i++)
	{
		const rd_kafka_topic_partition_t *p = &e->positions->elems[i];

		e->answer.ranges[i] = (KafkaRange) {strdup(p->topic), p->partition, KAFKA_OFFSET_UNKNOWN, KAFKA_OFFSET_UNKNOWN};
		if (e->answer.ranges[i].topic == NULL)
			return out_of_memory(e);
		e->answer.nranges++;
	}
	return true;
}

static bool
ask_range_ends(AdminThread *e, rd_kafka_topic_partition_list_t *list, int64_t time)
{
	for (int i = 0; i < list->cnt; i++)
		list->elems[i].offset = time;
	return ask_offsets(e, list);
}

/*
 * By the leaders that this broker names. Brokers that disagree on who leads a partition have
 * each one's leader asked; what one of them has is there.
 */
static bool
ask_ranges(AdminThread *e)
{
	rd_kafka_topic_partition_list_t *firsts;
	rd_kafka_topic_partition_list_t *ends;
	bool		ok;

	if (e->positions == NULL)
		return true;
	firsts = rd_kafka_topic_partition_list_copy(e->positions);
	ends = rd_kafka_topic_partition_list_copy(e->positions);
	ok = ask_range_ends(e, firsts, RD_KAFKA_OFFSET_BEGINNING) && ask_range_ends(e, ends, RD_KAFKA_OFFSET_END);
	for (int i = 0; ok && i < e->positions->cnt; i++)
	{
		KafkaRange *range = &e->answer.ranges[i];

		if (range->first < 0 || firsts->elems[i].offset < range->first)
			range->first = firsts->elems[i].offset;
		if (ends->elems[i].offset > range->end)
			range->end = ends->elems[i].offset;
	}
	rd_kafka_topic_partition_list_destroy(firsts);
	rd_kafka_topic_partition_list_destroy(ends);
	return ok;
}

/*
 * A broker that has lost touch with the others may still answer, by what it knew when it
 * lost it. librdkafka asks whichever it likes; a handle that has only just been connected
 * to one broker asks that one.
 */
static void
ask_every_broker(AdminThread *e)
{
	rd_kafka_t *usual = e->rk;
	int			timeout_ms = e->timeout_ms;

	if (e->timeout_ms > ONE_BROKER_MS)
		e->timeout_ms = ONE_BROKER_MS;
	for (int i = 0; i < e->nbrokers && !is_quitting(e); i++)
	{
		e->rk = open_handle(e, e->brokers[i]);
		if (e->rk == NULL)
			continue;
		if (ask_all_metadata(e) && ask_ranges(e))
			e->answer.brokers_heard++;
		rd_kafka_destroy(e->rk);
	}
	e->rk = usual;
	e->timeout_ms = timeout_ms;
	e->answer.failure.code = 0;	/* of one of them: it wasn't heard */
}

static bool
ask_topics(AdminThread *e)
{
	char	   *cluster_id;

	if (!ask_all_metadata(e))
		return false;
	if (e->every_broker && !prepare_ranges(e))
		return false;
	if (e->every_broker && e->conf)
		ask_every_broker(e);

	cluster_id = rd_kafka_clusterid(e->rk, e->timeout_ms);
	if (cluster_id)
	{
		snprintf(e->answer.cluster_id, sizeof(e->answer.cluster_id), "%s", cluster_id);
		rd_kafka_mem_free(e->rk, cluster_id);
	}
	return true;
}

/* ---- positions ---- */

/*
 * The ends first: where no message is at or after the time, what comes after this
 * request is.
 */
static bool
ask_positions(AdminThread *e)
{
	rd_kafka_topic_partition_list_t *ends = rd_kafka_topic_partition_list_copy(e->positions);
	rd_kafka_topic_partition_list_t *times = e->positions;
	bool		any_time = false;
	bool		ok;

	for (int i = 0; i < ends->cnt; i++)
	{
		any_time = any_time || times->elems[i].offset >= 0;
		ends->elems[i].offset = RD_KAFKA_OFFSET_END;
	}
	ok = ask_offsets(e, ends) && (!any_time || ask_offsets(e, times));
	for (int i = 0; ok && i < times->cnt; i++)
		if (times->elems[i].offset < 0)
			times->elems[i].offset = ends->elems[i].offset;
	rd_kafka_topic_partition_list_destroy(ends);
	return ok;
}

/* ---- a consumer group ---- */

static bool
await_group(AdminThread *e, rd_kafka_queue_t *queue, rd_kafka_event_t **event)
{
	*event = rd_kafka_queue_poll(queue, e->timeout_ms);
	if (*event == NULL)
		return fail(e, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL);
	if (rd_kafka_event_error(*event) == RD_KAFKA_RESP_ERR_NO_ERROR)
		return true;
	fail(e, rd_kafka_event_error(*event), rd_kafka_event_error_string(*event));
	rd_kafka_event_destroy(*event);
	return false;
}

static bool
ask_members(AdminThread *e, rd_kafka_queue_t *queue, bool *dead)
{
	const char *groups[] = {e->group};
	rd_kafka_event_t *event;
	const rd_kafka_ConsumerGroupDescription_t **descriptions;
	const rd_kafka_error_t *error;
	size_t		n;
	bool		ok;

	rd_kafka_DescribeConsumerGroups(e->rk, groups, 1, NULL, queue);
	if (!await_group(e, queue, &event))
		return false;
	descriptions = rd_kafka_DescribeConsumerGroups_result_groups(rd_kafka_event_DescribeConsumerGroups_result(event), &n);
	error = n == 1 ? rd_kafka_ConsumerGroupDescription_error(descriptions[0]) : NULL;
	ok = error == NULL || fail(e, rd_kafka_error_code(error), rd_kafka_error_string(error));
	*dead = true;
	if (ok && n == 1)
	{
		e->answer.group_members = (int) rd_kafka_ConsumerGroupDescription_member_count(descriptions[0]);
		*dead = rd_kafka_ConsumerGroupDescription_state(descriptions[0]) == RD_KAFKA_CONSUMER_GROUP_STATE_DEAD;
	}
	rd_kafka_event_destroy(event);
	return ok;
}

static bool
ask_committed(AdminThread *e, rd_kafka_queue_t *queue)
{
	rd_kafka_ListConsumerGroupOffsets_t *request = rd_kafka_ListConsumerGroupOffsets_new(e->group, e->positions);
	rd_kafka_event_t *event;
	const rd_kafka_group_result_t **groups;
	const rd_kafka_error_t *error;
	size_t		n;
	bool		ok;

	rd_kafka_ListConsumerGroupOffsets(e->rk, &request, 1, NULL, queue);
	rd_kafka_ListConsumerGroupOffsets_destroy(request);
	if (!await_group(e, queue, &event))
		return false;
	groups = rd_kafka_ListConsumerGroupOffsets_result_groups(rd_kafka_event_ListConsumerGroupOffsets_result(event), &n);
	error = n == 1 ? rd_kafka_group_result_error(groups[0]) : NULL;
	ok = error == NULL || fail(e, rd_kafka_error_code(error), rd_kafka_error_string(error));
	for (int i = 0; ok && i < e->positions->cnt; i++)
	{
		rd_kafka_topic_partition_t *p = &e->positions->elems[i];
		const rd_kafka_topic_partition_t *committed = n == 0 ? NULL :
			rd_kafka_topic_partition_list_find((rd_kafka_topic_partition_list_t *) rd_kafka_group_result_partitions(groups[0]),
											   p->topic, p->partition);

		if (committed && committed->err != RD_KAFKA_RESP_ERR_NO_ERROR)
			ok = fail(e, committed->err, NULL);
		p->offset = committed && committed->offset >= 0 ? committed->offset : KAFKA_OFFSET_UNKNOWN;
	}
	rd_kafka_event_destroy(event);
	return ok;
}

/* Its members, of a group that refuses to have its offsets altered; *failed: the error if it is another one. */
static void
note_alteration(AdminThread *e, rd_kafka_resp_err_t code, rd_kafka_resp_err_t *failed)
{
	if (code == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID)
		e->answer.group_members = KAFKA_MEMBERS_UNCOUNTED;
	else if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		*failed = code;
}

/*
 * Whether a group that calls itself dead, and yet has offsets, has members: it then is of
 * the protocol of KIP-848, which librdkafka's request doesn't know. While such a group has
 * members it refuses to have its offsets altered from outside; they are set to what they are.
 */
static bool
ask_by_altering(AdminThread *e, rd_kafka_queue_t *queue)
{
	rd_kafka_topic_partition_list_t *same = rd_kafka_topic_partition_list_new(e->positions->cnt);
	rd_kafka_AlterConsumerGroupOffsets_t *request;
	rd_kafka_event_t *event;
	const rd_kafka_group_result_t **groups;
	const rd_kafka_topic_partition_list_t *altered;
	rd_kafka_resp_err_t failed = RD_KAFKA_RESP_ERR_NO_ERROR;
	size_t		n;

	for (int i = 0; i < e->positions->cnt; i++)
	{
		const rd_kafka_topic_partition_t *p = &e->positions->elems[i];

		if (p->offset >= 0)
			rd_kafka_topic_partition_list_add(same, p->topic, p->partition)->offset = p->offset;
	}
	if (same->cnt == 0)
	{
		rd_kafka_topic_partition_list_destroy(same);
		return true;
	}
	request = rd_kafka_AlterConsumerGroupOffsets_new(e->group, same);
	rd_kafka_AlterConsumerGroupOffsets(e->rk, &request, 1, NULL, queue);
	rd_kafka_AlterConsumerGroupOffsets_destroy(request);
	rd_kafka_topic_partition_list_destroy(same);
	if (!await_group(e, queue, &event))
		return false;
	groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(rd_kafka_event_AlterConsumerGroupOffsets_result(event), &n);
	if (n == 1)
	{
		altered = rd_kafka_group_result_partitions(groups[0]);
		note_alteration(e, rd_kafka_error_code(rd_kafka_group_result_error(groups[0])), &failed);
		for (int i = 0; altered && i < altered->cnt; i++)
			note_alteration(e, altered->elems[i].err, &failed);
	}
	rd_kafka_event_destroy(event);
	return failed == RD_KAFKA_RESP_ERR_NO_ERROR || fail(e, failed, NULL);
}

static bool
ask_group(AdminThread *e)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(e->rk);
	bool		dead;
	bool		ok = ask_members(e, queue, &dead) && ask_committed(e, queue) && (!dead || ask_by_altering(e, queue));

	rd_kafka_queue_destroy(queue);
	return ok;
}

/* ---- the thread ---- */

static bool
copy_positions(AdminThread *e)
{
	e->answer.positions = calloc(e->positions->cnt, sizeof(KafkaPosition));
	if (e->answer.positions == NULL)
		return out_of_memory(e);
	for (int i = 0; i < e->positions->cnt; i++)
	{
		const rd_kafka_topic_partition_t *p = &e->positions->elems[i];

		e->answer.positions[i] = (KafkaPosition) {strdup(p->topic), p->partition, p->offset};
		if (e->answer.positions[i].topic == NULL)
			return out_of_memory(e);
		e->answer.npositions++;
	}
	return true;
}

static void
serve_request(AdminThread *e)
{
	memset(&e->answer, 0, sizeof(e->answer));
	if (e->rk == NULL && (e->rk = open_handle(e, NULL)) == NULL)
		return;
	if (e->create.name)
		(void) kafka_create_topic(e->rk, &e->create, e->timeout_ms, &e->answer.failure);
	else if (e->describe)
		(void) kafka_describe_topics(e->rk, e->timeout_ms, &e->answer);
	else if (ask_topics(e) && e->positions && !e->every_broker && (e->group ? ask_group(e) : ask_positions(e)))
		copy_positions(e);
}

/* Its own handle is closed by the thread that opened it, and by no other. */
static void
close_handle(AdminThread *e)
{
	if (e->conf && e->rk)
	{
		rd_kafka_destroy(e->rk);
		e->rk = NULL;
	}
}

/* Until there is a request, which is then true, or the end. The caller has the mutex. */
static bool
await_request(AdminThread *e)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += KEEP_OPEN_S;
	while (e->state != REQUEST_ASKED && !e->quit)
	{
		if (e->conf == NULL || e->rk == NULL)
			pthread_cond_wait(&e->changed, &e->mutex);
		else if (pthread_cond_timedwait(&e->changed, &e->mutex, &until) == ETIMEDOUT && e->state != REQUEST_ASKED)
		{
			pthread_mutex_unlock(&e->mutex);
			close_handle(e);
			pthread_mutex_lock(&e->mutex);
		}
	}
	return !e->quit;
}

static void *
admin_thread_main(void *arg)
{
	AdminThread   *e = arg;

	pthread_mutex_lock(&e->mutex);
	while (await_request(e))
	{
		pthread_mutex_unlock(&e->mutex);

		serve_request(e);
		forget_brokers(e);

		pthread_mutex_lock(&e->mutex);
		e->state = REQUEST_ANSWERED;
		kafka_client_wake(e->client);
	}
	pthread_mutex_unlock(&e->mutex);
	close_handle(e);
	return NULL;
}

/* conf: what the thread makes its own handle with; NULL: it uses the client's. */
static AdminThread *
start_admin_thread(KafkaClient *client, const rd_kafka_conf_t *conf)
{
	AdminThread   *e = calloc(1, sizeof(AdminThread));
	pthread_condattr_t monotonic;

	if (e == NULL)
		return NULL;
	e->client = client;
	e->conf = conf;
	e->rk = conf ? NULL : client->rk;
	pthread_mutex_init(&e->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&e->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (!kafka_start_thread(&e->thread, admin_thread_main, e))
	{
		free(e);
		return NULL;
	}
	return e;
}

static void
forget_request(AdminThread *e)
{
	for (size_t i = 0; i < e->ntopics; i++)
		free(e->topics[i]);
	free(e->topics);
	e->topics = NULL;
	e->ntopics = 0;
	if (e->positions)
		rd_kafka_topic_partition_list_destroy(e->positions);
	e->positions = NULL;
	free(e->group);
	e->group = NULL;
	for (size_t i = 0; i < e->create.nsettings; i++)
	{
		free((char *) e->create.settings[i].name);
		free((char *) e->create.settings[i].value);
	}
	free((KafkaSetting *) e->create.settings);
	free((char *) e->create.name);
	memset(&e->create, 0, sizeof(e->create));
}

static bool
note_new_topic(AdminThread *e, const KafkaNewTopic *topic)
{
	KafkaSetting *settings = calloc(topic->nsettings + 1, sizeof(KafkaSetting));

	if (settings == NULL)
		return false;
	e->create = *topic;
	e->create.name = strdup(topic->name);
	e->create.settings = settings;
	for (size_t i = 0; i < topic->nsettings; i++)
	{
		settings[i] = (KafkaSetting) {strdup(topic->settings[i].name), strdup(topic->settings[i].value)};
		if (settings[i].name == NULL || settings[i].value == NULL)
			return false;
	}
	return e->create.name != NULL;
}

static bool
note_request(AdminThread *e, const KafkaRequest *request)
{
	forget_request(e);
	e->all_topics = request->all_topics;
	e->timeout_ms = request->timeout_ms;
	if (request->ntopics > 0 && (e->topics = calloc(request->ntopics, sizeof(char *))) == NULL)
		return false;
	for (size_t i = 0; i < request->ntopics; i++)
		if ((e->topics[e->ntopics++] = strdup(request->topics[i])) == NULL)
			return false;
	if (request->npositions > 0)
		e->positions = rd_kafka_topic_partition_list_new((int) request->npositions);
	for (size_t i = 0; i < request->npositions; i++)
	{
		const KafkaPosition *p = &request->positions[i];

		rd_kafka_topic_partition_list_add(e->positions, p->topic, p->partition)->offset = p->offset;
	}
	if (request->group && (e->group = strdup(request->group)) == NULL)
		return false;
	e->describe = request->describe;
	e->every_broker = request->every_broker;
	return request->create == NULL || note_new_topic(e, request->create);
}

static RequestState
request_state(AdminThread *e)
{
	RequestState state;

	pthread_mutex_lock(&e->mutex);
	state = e->state;
	pthread_mutex_unlock(&e->mutex);
	return state;
}

static bool
is_asking(AdminThread *e)
{
	return e && request_state(e) != REQUEST_IDLE;
}

static bool
ask(AdminThread *e, const KafkaRequest *request)
{
	if (e == NULL || is_asking(e) || !note_request(e, request))
		return false;

	pthread_mutex_lock(&e->mutex);
	e->state = REQUEST_ASKED;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->mutex);
	return true;
}

bool
kafka_request(KafkaClient *client, const KafkaRequest *request)
{
	if (client->admin_thread == NULL)
		client->admin_thread = start_admin_thread(client, NULL);
	return ask(client->admin_thread, request);
}

bool
kafka_request_at_once(KafkaClient *client, const KafkaRequest *request)
{
	if (client->at_once == NULL)
		client->at_once = start_admin_thread(client, client->at_once_conf);
	return ask(client->at_once, request);
}

bool
kafka_requesting(KafkaClient *client)
{
	return is_asking(client->admin_thread);
}

bool
kafka_requesting_at_once(KafkaClient *client)
{
	return is_asking(client->at_once);
}

static bool
take_answer(AdminThread *e, KafkaResponse *answer)
{
	if (e == NULL || request_state(e) != REQUEST_ANSWERED)
		return false;
	*answer = e->answer;		/* with its lists, the caller's from now on */
	pthread_mutex_lock(&e->mutex);
	e->state = REQUEST_IDLE;
	pthread_mutex_unlock(&e->mutex);
	return true;
}

bool
kafka_response(KafkaClient *client, KafkaResponse *answer)
{
	return take_answer(client->admin_thread, answer);
}

bool
kafka_response_at_once(KafkaClient *client, KafkaResponse *answer)
{
	return take_answer(client->at_once, answer);
}

void
kafka_response_free(KafkaResponse *answer)
{
	for (size_t i = 0; i < answer->ntopics; i++)
	{
		free(answer->topics[i].name);
		free(answer->topics[i].partitions);
	}
	free(answer->topics);
	for (size_t i = 0; i < answer->npositions; i++)
		free(answer->positions[i].topic);
	free(answer->positions);
	for (size_t i = 0; i < answer->nranges; i++)
		free(answer->ranges[i].topic);
	free(answer->ranges);
	memset(answer, 0, sizeof(*answer));
}

/* Waits for a request under way: to be called where waiting is bounded. */
void
kafka_admin_thread_end(AdminThread *e)
{
	pthread_mutex_lock(&e->mutex);
	e->quit = true;
	pthread_cond_signal(&e->changed);
	pthread_mutex_unlock(&e->mutex);
	pthread_join(e->thread, NULL);
	if (e->state == REQUEST_ANSWERED)
		kafka_response_free(&e->answer);
	forget_request(e);
	free(e);
}
