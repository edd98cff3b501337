/*
 * broker.c
 *		The worker that is the embedded broker.
 *
 * It publishes its address in shared memory; relay and ingest workers find it
 * there (link.c). Each start is another, empty cluster, with a name of its own,
 * by which pipelines see that their offsets are void.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

PGDLLEXPORT void nexus_broker_main(Datum arg);

static KafkaEmbedded *broker = NULL;

static void
publish(const char *bootstrap, const char *cluster)
{
	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	strlcpy(nexus_shared->embedded_bootstrap, bootstrap, sizeof(nexus_shared->embedded_bootstrap));
	strlcpy(nexus_shared->embedded_cluster, cluster, sizeof(nexus_shared->embedded_cluster));
	for (Job *job = job_next(NULL); job; job = job_next(job))
		job_wake(job);
	LWLockRelease(nexus_shared->lock);
}

static void
stop_broker(int code, Datum arg)
{
	publish("", "");
	if (broker && !kafka_embedded_stop(broker, 500))
		worker_leave_hard();
}

/* Topics that nexus_create_topic asks for. A mock cluster has no replicas and no settings. */
static void
serve_calls(MemoryContext context)
{
	Call	   *call;
	int			i = 0;

	while ((call = call_take_next(&i)) != NULL)
	{
		MemoryContext before = MemoryContextSwitchTo(context);
		CallAnswer	answer = {0};
		dsm_segment *segment;
		char	   *request = call_map(call, &segment);
		KafkaNewTopic topic;

		if (request && call->kind == CALL_CREATE_TOPIC)
		{
			topic = new_topic_of_request(request);
			(void) kafka_embedded_create_topic(broker, topic.name, topic.partitions, &answer.failure);
		}
		else
			kafka_failure_set(&answer.failure, -1, "the embedded broker doesn't know this call");
		call_unmap(segment);
		call_answer(call, &answer);
		MemoryContextSwitchTo(before);
		MemoryContextReset(context);
	}
}

void
nexus_broker_main(Datum arg)
{
	KafkaFailure failure;
	char		cluster[64];
	MemoryContext context;

	worker_begin(arg, JOB_BROKER);
	before_shmem_exit(stop_broker, 0);

	broker = kafka_embedded_start(&failure);
	if (broker == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not start the embedded broker: %s", failure.text)));
	/* its own default, 4 partitions, is for topics that nobody set up */
	if (!kafka_embedded_create_topic(broker, nexus_topic, 1, &failure))
		ereport(WARNING,
				(errmsg("could not create topic \"%s\" on the embedded broker: %s", nexus_topic, failure.text)));

	snprintf(cluster, sizeof(cluster), "embedded-" INT64_FORMAT, GetCurrentTimestamp());
	publish(kafka_embedded_bootstrap(broker), cluster);
	job_condition_set(MyJob, CONDITION_REMARK, "on %s, keeps its messages until the server stops",
					  kafka_embedded_bootstrap(broker));
	job_condition_clear(MyJob, CONDITION_STARTING);
	context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka call", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		serve_calls(context);
		worker_wait(-1, -1);
	}
}
