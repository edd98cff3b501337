/*
 * client.c
 *		A librdkafka handle: opening, serving, closing in bounded time.
 *
 * Three queues feed one pipe, on which the worker's event loop waits: the main
 * queue (errors and delivery reports, by callbacks that only take notes), the
 * log queue, and a consumer's message queue. They are kept apart so that a
 * worker that can't take messages now still empties the other two.
 *
 * rd_kafka_destroy() waits for threads that may sit in a name look-up for half
 * a minute. It therefore runs in a thread of its own, for which the main
 * thread waits so long and no longer.
 */
#include "kafka/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define FETCH_BUFFER_BYTES	(256 * 1024)

void		(*kafka_log_hook) (int level, const char *text) = NULL;

static void
record_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
	KafkaClient *client = opaque;
	char		text[sizeof(client->last_failure.text)];

	client->complained = true;
	if (code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION || kafka_fate(code) == KAFKA_FATE_NO_TOPIC)
		client->topic_gone = true;
	if (code == RD_KAFKA_RESP_ERR__FATAL)
	{
		client->fatal = true;
		code = rd_kafka_fatal_error(rk, text, sizeof(text));
		kafka_failure_set(&client->last_failure, code, text);
		return;
	}
	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		client->lost = true;
		if (client->last_failure.code != 0)
			return;				/* what came before says more */
	}
	kafka_failure_explain(&client->last_failure, code, reason);
}

static bool
make_pipe(int fds[2])
{
	if (pipe(fds) != 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		if (fcntl(fds[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(fds[i], F_SETFD, FD_CLOEXEC) != 0)
		{
			close(fds[0]);
			close(fds[1]);
			return false;
		}
	}
	return true;
}

static void
free_client(KafkaClient *client)
{
	if (client->wakeup[0] >= 0)
	{
		close(client->wakeup[0]);
		close(client->wakeup[1]);
	}
	free(client->deliveries);
	free(client->fetched);
	free(client->events);
	if (client->at_once_conf)
		rd_kafka_conf_destroy(client->at_once_conf);
	free(client);
}

static KafkaClient *
open_failed(KafkaClient *client, KafkaFailure *failure, int code, const char *text)
{
	kafka_failure_set(failure, code, text);
	free_client(client);
	return NULL;
}

/* librdkafka blocks signals in its threads too; this covers those of its libraries. */
static rd_kafka_t *
new_handle(KafkaKind kind, rd_kafka_conf_t *conf, char *text, size_t size)
{
	sigset_t	all,
				before;
	rd_kafka_t *rk;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rk = rd_kafka_new(kind == KAFKA_PRODUCER ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf, text, size);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rk;
}

rd_kafka_t *
kafka_handle_new(KafkaKind kind, rd_kafka_conf_t *conf, KafkaFailure *failure)
{
	char		text[sizeof(failure->text)];
	int			code = RD_KAFKA_RESP_ERR__INVALID_ARG;
	rd_kafka_t *rk = NULL;

	if (kafka_files_are_kept(conf, text, sizeof(text)))
	{
		rk = new_handle(kind, conf, text, sizeof(text));
		code = rd_kafka_last_error();
	}
	if (rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		kafka_failure_set(failure, code, text);
	}
	return rk;
}

/*
 * The answer to a fetch, often a megabyte, lives until its last message was taken in.
 * Among the thousands of small structures of the messages it leaves holes in the heap:
 * 8 partitions with 2 million messages behind came to 32 MiB, and to 26 where answers
 * are mapped by themselves. Holds for the whole process, which is a worker's.
 */
static void
keep_fetches_out_of_the_heap(void)
{
#ifdef __GLIBC__
	(void) mallopt(M_MMAP_THRESHOLD, FETCH_BUFFER_BYTES);
#endif
}

/*
 * For the handle that only asks (admin_thread.c): a consumer of no group, which tells nothing.
 * The client's own says what there is to say of the connection.
 */
static rd_kafka_conf_t *
conf_for_questions(const rd_kafka_conf_t *conf, KafkaFailure *failure)
{
	const char *not_this = "group.id";
	rd_kafka_conf_t *copy = rd_kafka_conf_dup_filter(conf, 1, &not_this);

	if (rd_kafka_conf_set(copy, "log.queue", "false", failure->text, sizeof(failure->text)) != RD_KAFKA_CONF_OK)
	{
		failure->code = RD_KAFKA_RESP_ERR__INVALID_ARG;
		rd_kafka_conf_destroy(copy);
		return NULL;
	}
	rd_kafka_conf_set_log_cb(copy, NULL);
	return copy;
}

KafkaClient *
kafka_client_open(KafkaKind kind, const KafkaSetting *settings, size_t nsettings, KafkaFailure *failure)
{
	KafkaClient *client = calloc(1, sizeof(KafkaClient));
	rd_kafka_conf_t *conf;

	if (client == NULL)
	{
		kafka_failure_set(failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
		return NULL;
	}
	client->wakeup[0] = client->wakeup[1] = -1;
	if (!make_pipe(client->wakeup))
		return open_failed(client, failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, strerror(errno));

	if (kind == KAFKA_CONSUMER)
		keep_fetches_out_of_the_heap();
	conf = kafka_config_build(kind, settings, nsettings, &client->needs_nudge, failure);
	if (conf == NULL)
	{
		free_client(client);
		return NULL;
	}
	if (kind == KAFKA_CONSUMER && (client->at_once_conf = conf_for_questions(conf, failure)) == NULL)
	{
		rd_kafka_conf_destroy(conf);
		free_client(client);
		return NULL;
	}
	rd_kafka_conf_set_opaque(conf, client);
	rd_kafka_conf_set_error_cb(conf, record_error);
	if (kind == KAFKA_PRODUCER)
		rd_kafka_conf_set_dr_msg_cb(conf, kafka_producer_record_delivery);

	client->rk = kafka_handle_new(kind, conf, failure);
	if (client->rk == NULL)
	{
		free_client(client);
		return NULL;
	}

	client->main_queue = rd_kafka_queue_get_main(client->rk);
	client->log_queue = rd_kafka_queue_new(client->rk);
	rd_kafka_queue_io_event_enable(client->main_queue, client->wakeup[1], "m", 1);
	rd_kafka_queue_io_event_enable(client->log_queue, client->wakeup[1], "l", 1);
	if (rd_kafka_set_log_queue(client->rk, client->log_queue) != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka_failure_set(failure, RD_KAFKA_RESP_ERR__INVALID_ARG, "log.queue is not set");
		kafka_client_close(client, -1);
		return NULL;
	}
	if (kind == KAFKA_CONSUMER)
	{
		client->message_queue = rd_kafka_queue_get_consumer(client->rk);
		if (client->message_queue == NULL)
		{
			kafka_failure_set(failure, RD_KAFKA_RESP_ERR__UNKNOWN_GROUP, "group.id is not set");
			kafka_client_close(client, -1);
			return NULL;
		}
		rd_kafka_queue_io_event_enable(client->message_queue, client->wakeup[1], "c", 1);
	}
	return client;
}

static void
finish_client(void *arg)
{
	KafkaClient *client = arg;

	if (client->admin_thread)
		kafka_admin_thread_end(client->admin_thread);
	if (client->at_once)
		kafka_admin_thread_end(client->at_once);
	if (client->assigned)
		rd_kafka_topic_partition_list_destroy(client->assigned);
	kafka_queues_close(client);
	if (client->message_queue)
		rd_kafka_queue_destroy(client->message_queue);
	rd_kafka_queue_destroy(client->log_queue);
	rd_kafka_queue_destroy(client->main_queue);
	/* assign() alone joins no group, so there is none to leave, nor to wait for */
	rd_kafka_destroy_flags(client->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	free_client(client);
}

bool
kafka_client_close(KafkaClient *client, int timeout_ms)
{
	/* what wasn't sent must not be waited for; whoever sent it knows it isn't acknowledged */
	if (rd_kafka_type(client->rk) == RD_KAFKA_PRODUCER)
		(void) rd_kafka_purge(client->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
	return kafka_run_bounded(finish_client, client, timeout_ms);
}

/* ---- threads ---- */

bool
kafka_start_thread(pthread_t *thread, void *(*main) (void *), void *arg)
{
	sigset_t	all,
				before;
	int			rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc == 0;
}

typedef struct BoundedRun
{
	void		(*finish) (void *);
	void	   *arg;
	pthread_mutex_t mutex;
	pthread_cond_t done_cond;
	bool		done;
} BoundedRun;

static void *
bounded_main(void *arg)
{
	BoundedRun *run = arg;

	run->finish(run->arg);
	pthread_mutex_lock(&run->mutex);
	run->done = true;
	pthread_cond_signal(&run->done_cond);
	pthread_mutex_unlock(&run->mutex);
	return NULL;
}

bool
kafka_run_bounded(void (*finish) (void *), void *arg, int timeout_ms)
{
	BoundedRun *run = calloc(1, sizeof(BoundedRun));
	pthread_t	thread;
	struct timespec until;
	bool		done;

	if (timeout_ms < 0 || run == NULL)
	{
		free(run);
		finish(arg);
		return true;
	}
	run->finish = finish;
	run->arg = arg;
	pthread_mutex_init(&run->mutex, NULL);
	pthread_cond_init(&run->done_cond, NULL);
	if (!kafka_start_thread(&thread, bounded_main, run))
	{
		free(run);
		return false;
	}

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (timeout_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L)
	{
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&run->mutex);
	while (!run->done && pthread_cond_timedwait(&run->done_cond, &run->mutex, &until) == 0)
		;
	done = run->done;
	pthread_mutex_unlock(&run->mutex);

	if (!done)
	{
		pthread_detach(thread);
		return false;			/* run stays: the thread still has it */
	}
	pthread_join(thread, NULL);
	free(run);
	return true;
}

/* ---- serving ---- */

int
kafka_client_fd(const KafkaClient *client)
{
	return client->wakeup[0];
}

void
kafka_client_wake(KafkaClient *client)
{
	/* a full pipe is as good: it is readable */
	if (write(client->wakeup[1], "w", 1) < 0)
		return;
}

static void
serve_log(KafkaClient *client)
{
	rd_kafka_event_t *event;

	while ((event = rd_kafka_queue_poll(client->log_queue, 0)) != NULL)
	{
		const char *facility;
		const char *text;
		int			level;

		if (kafka_log_hook && rd_kafka_event_log(event, &facility, &text, &level) == 0)
			kafka_log_hook(level, text);
		rd_kafka_event_destroy(event);
	}
}

void
kafka_client_serve(KafkaClient *client)
{
	char		drain[256];

	while (read(client->wakeup[0], drain, sizeof(drain)) == sizeof(drain))
		;
	rd_kafka_poll(client->rk, 0);
	serve_log(client);
}

bool
kafka_client_lost(KafkaClient *client)
{
	bool		lost = client->lost;

	client->lost = false;
	return lost;
}

bool
kafka_client_had_error(KafkaClient *client)
{
	bool		complained = client->complained;

	client->complained = false;
	return complained;
}

const KafkaFailure *
kafka_client_last_failure(const KafkaClient *client)
{
	return client->last_failure.code != 0 ? &client->last_failure : NULL;
}

void
kafka_client_forget_failure(KafkaClient *client)
{
	client->last_failure.code = 0;
}

bool
kafka_client_is_fatal(KafkaClient *client, KafkaFailure *why)
{
	if (client->fatal)
		*why = client->last_failure;
	return client->fatal;
}
