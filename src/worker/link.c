/*
 * link.c
 *		A worker's connection to Kafka: opened by the settings, watched, closed at exit.
 *
 * Whether the broker is there can't be asked of librdkafka, which reconnects by
 * itself and tells of nothing but trouble. So when it tells that all brokers
 * are down, and at the start, the worker asks the cluster a question; answered
 * or not is what nexus_status shows. While all is well nothing is asked.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

#define CLOSE_TIMEOUT_MS	500
#define FIRST_PROBE_MS		250
#define LONGEST_PROBE_MS	2000

static KafkaLink *open_link = NULL;

bool
link_is_embedded(void)
{
	return nexus_embedded_broker;
}

void
current_bootstrap(char *bootstrap, size_t size)
{
	if (!nexus_embedded_broker)
	{
		strlcpy(bootstrap, nexus_bootstrap_servers, size);
		return;
	}
	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	strlcpy(bootstrap, nexus_shared->embedded_bootstrap, size);
	LWLockRelease(nexus_shared->lock);
}

/* librdkafka's own lines are for those who look for a fault. */
static void
log_line(int level, const char *text)
{
	ereport(DEBUG1, (errmsg_internal("librdkafka: %s", text), errhidestmt(true)));
}

static void
close_link(int code, Datum arg)
{
	if (open_link && open_link->client && !kafka_client_close(open_link->client, CLOSE_TIMEOUT_MS))
		worker_leave_hard();
	open_link = NULL;
}

bool
link_open(KafkaLink *link, KafkaKind kind, const KafkaSetting *settings, int nsettings)
{
	KafkaFailure failure;
	KafkaSetting all[16];

	current_bootstrap(link->bootstrap, sizeof(link->bootstrap));
	if (link->bootstrap[0] == '\0')
	{
		job_set_state(MyJob, JOB_NOT_CONFIGURED, "%s",
					  nexus_embedded_broker ? "the embedded broker is not up yet"
					  : "nexus_kafka.bootstrap_servers is not set");
		return false;
	}

	all[0] = (KafkaSetting) {"bootstrap.servers", link->bootstrap};
	Assert(nsettings < lengthof(all));
	memcpy(all + 1, settings, nsettings * sizeof(KafkaSetting));
	if (open_link == NULL)
		before_shmem_exit(close_link, 0);
	open_link = link;
	kafka_log_hook = log_line;
	link->client = kafka_client_open(kind, all, nsettings + 1, &failure);
	if (link->client == NULL)
	{
		job_set_state(MyJob, JOB_NOT_CONFIGURED, "%s", failure.text);
		return false;
	}
	link->reachable = false;
	link->next_probe = GetCurrentTimestamp();
	link->probe_delay_ms = FIRST_PROBE_MS;
	job_set_state(MyJob, JOB_STARTING, NULL);
	return true;
}

bool
link_serve(KafkaLink *link)
{
	KafkaFailure failure;
	char		bootstrap[sizeof(link->bootstrap)];
	bool		lost;

	kafka_client_serve(link->client);

	if (kafka_client_is_fatal(link->client, &failure))
	{
		job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, failure.text);
		ereport(LOG, (errmsg("nexus_kafka %s opens its connection anew: %s",
							 job_kind_name(MyJob->kind), failure.text)));
		proc_exit(0);			/* not at once: it may be the same again */
	}
	lost = kafka_client_lost(link->client);
	if (lost)
	{
		link->next_probe = GetCurrentTimestamp();
		link->reachable = false;
	}
	current_bootstrap(bootstrap, sizeof(bootstrap));
	if (strcmp(bootstrap, link->bootstrap) != 0)
		worker_restart();
	return lost;
}

bool
link_probe_due(KafkaLink *link)
{
	return !link->reachable && !kafka_asking(link->client) && GetCurrentTimestamp() >= link->next_probe;
}

/* Until the next question is due, -1: none is wanted, or an answer will come. */
long
link_probe_timeout(KafkaLink *link)
{
	if (link->reachable || kafka_asking(link->client))
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), link->next_probe);
}

void
link_alive(KafkaLink *link)
{
	JobState	state;

	if (!link->reachable)
		kafka_client_forget_failure(link->client);
	link->reachable = true;
	link->probe_delay_ms = FIRST_PROBE_MS;
	state = job_get_state(MyJob);
	if (state == JOB_UNREACHABLE || state == JOB_STARTING || state == JOB_NOT_CONFIGURED)
		job_set_state(MyJob, JOB_RUNNING, NULL);
}

/* failure: of a question; librdkafka's last complaint says more, if it had one. */
void
link_trouble(KafkaLink *link, const KafkaFailure *failure)
{
	const KafkaFailure *last = kafka_client_last_failure(link->client);
	const char *text = last ? last->text : failure->text;
	JobState	state = job_get_state(MyJob);

	link->reachable = false;
	link->next_probe = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), link->probe_delay_ms);
	link->probe_delay_ms = Min(link->probe_delay_ms * 2, LONGEST_PROBE_MS);
	if (state == JOB_STARTING || state == JOB_RUNNING || state == JOB_NOT_CONFIGURED || state == JOB_UNREACHABLE)
		job_set_state(MyJob, JOB_UNREACHABLE, "no answer from %s: %s", link->bootstrap, text);
	job_set_error(MyJob, ERRCODE_CONNECTION_FAILURE, text);
}
