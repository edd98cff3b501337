/*
 * shmem.c
 *		The table of jobs in shared memory: slots, counters, requests.
 *
 * Locks: nexus_shared->lock guards who is what (slots, holds, the broker's
 * address); a job's mutex its state's text; counters are atomics. Nobody waits
 * while holding either.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

NexusShared *nexus_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(NexusShared, jobs), mul_size(nexus_max_jobs, sizeof(Job)));
}

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(add_size(shared_size(), calls_size()));
	RequestNamedLWLockTranche("nexus_kafka", 1);
}

static void
start_shared_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	nexus_shared = ShmemInitStruct("nexus_kafka", shared_size(), &found);
	if (!found)
	{
		memset(nexus_shared, 0, shared_size());
		nexus_shared->lock = &(GetNamedLWLockTranche("nexus_kafka"))->lock;
		ConditionVariableInit(&nexus_shared->worker_left);
		for (int i = 0; i < NEXUS_MAX_PARTITIONS; i++)
		{
			nexus_shared->partitions[i].job = -1;
			pg_atomic_init_u64(&nexus_shared->partitions[i].end_offset, PG_UINT64_MAX);
		}
		for (int i = 0; i < nexus_max_jobs; i++)
		{
			Job		   *job = &nexus_shared->jobs[i];

			SpinLockInit(&job->mutex);
			ConditionVariableInit(&job->answered_cv);
			pg_atomic_init_u64(&job->messages, 0);
			pg_atomic_init_u64(&job->rows, 0);
			pg_atomic_init_u64(&job->batches, 0);
			pg_atomic_init_u64(&job->dead_letters, 0);
			pg_atomic_init_u64(&job->retries, 0);
			pg_atomic_init_u64(&job->lag, JOB_LAG_UNKNOWN);
			pg_atomic_init_u64(&job->last_message_at, 0);
			pg_atomic_init_u64(&job->last_commit, 0);
			pg_atomic_init_u32(&job->long_transaction, 0);
			pg_atomic_init_u32(&job->link, LINK_UNKNOWN);
			pg_atomic_init_u32(&job->topic, TOPIC_UNKNOWN);
			pg_atomic_init_u64(&job->asked, 0);
			pg_atomic_init_u64(&job->answered, 0);
			pg_atomic_init_u64(&job->refused, 0);
			pg_atomic_init_u64(&job->reported, 0);
			pg_atomic_init_u64(&job->calls, 0);
			pg_atomic_init_u64(&job->calls_wanted, 0);
			pg_atomic_init_u64(&job->wakes, 0);
		}
	}
	calls_start();
	LWLockRelease(AddinShmemInitLock);
}

void
shmem_install_hooks(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}

const char *
job_kind_name(JobKind kind)
{
	static const char *const names[] = {"supervisor", "relay", "ingest", "replay", "broker"};

	return names[kind];
}

const char *
job_state_name(JobState state)
{
	static const char *const names[] = {
		"starting", "running", "unreachable", "waiting", "failing", "stopped", "paused", "on_demand",
		"not_configured", "no_worker"
	};

	return names[state];
}

const char *
link_state_name(LinkState state)
{
	static const char *const names[] = {"unknown", "up", "unreachable", "tls_failed", "not_authenticated"};

	return names[state];
}

/* ---- slots ---- */

static void
set_latch(Latch *latch)
{
	if (latch)
		SetLatch(latch);
}

Job *
job_find(JobKind kind, Oid database, const char *name, int part)
{
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		if (job->in_use && job->kind == kind && job->database == database && job->part == part &&
			strcmp(job->name, name) == 0)
			return job;
	}
	return NULL;
}

Job *
job_lookup(JobKind kind, Oid database, const char *name, int part)
{
	Job		   *job;

	if (nexus_shared == NULL)
		return NULL;
	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	job = job_find(kind, database, name, part);
	LWLockRelease(nexus_shared->lock);
	return job;
}

List *
relays_at_work(MemoryContext context)
{
	MemoryContext before = MemoryContextSwitchTo(context);
	List	   *names = NIL;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		const Job  *job = &nexus_shared->jobs[i];

		if (job->in_use && job->kind == JOB_RELAY && job->database == MyDatabaseId && job->name[0] && job->wanted)
			names = lappend(names, pstrdup(job->name));
	}
	LWLockRelease(nexus_shared->lock);
	MemoryContextSwitchTo(before);
	return names;
}

static void
reset_counters(Job *job)
{
	pg_atomic_write_u64(&job->messages, 0);
	pg_atomic_write_u64(&job->rows, 0);
	pg_atomic_write_u64(&job->batches, 0);
	pg_atomic_write_u64(&job->dead_letters, 0);
	pg_atomic_write_u64(&job->retries, 0);
	pg_atomic_write_u64(&job->lag, JOB_LAG_UNKNOWN);
	pg_atomic_write_u64(&job->last_message_at, 0);
	pg_atomic_write_u64(&job->refused, 0);
	pg_atomic_write_u64(&job->reported, 0);
}

/*
 * So many slots are left free by a job of this kind, for those that matter more: each
 * database can be supervised and publish, however many pipelines there are; and each
 * pipeline can have one worker, however many others want.
 */
static int
slots_left_for_others(JobKind kind, const char *name, int part)
{
	switch (kind)
	{
		case JOB_SUPERVISOR:
		case JOB_BROKER:
			return 0;
		case JOB_RELAY:
			return name[0] ? nexus_max_jobs / 8 : 0;
		case JOB_REPLAY:
			return nexus_max_jobs / 8;
		case JOB_INGEST:
			return part == 0 ? nexus_max_jobs / 8 : nexus_max_jobs / 4;
	}
	return 0;
}

int
jobs_free(void)
{
	int			n = 0;

	for (int i = 0; i < nexus_max_jobs; i++)
		n += !nexus_shared->jobs[i].in_use;
	return n;
}

/* NULL if there is no room: job_free() tells when there is. asked and answered go on: somebody may be waiting still. */
Job *
job_create(JobKind kind, Oid database, const char *name, int part)
{
	if (jobs_free() <= slots_left_for_others(kind, name, part))
	{
		nexus_shared->starved = true;
		return NULL;
	}
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];
		TimestampTz now;

		if (job->in_use)
			continue;
		job->kind = kind;
		job->database = database;
		strlcpy(job->database_name, MyJob && MyJob->database == database ? MyJob->database_name : "", NAMEDATALEN);
		strlcpy(job->name, name, NAMEDATALEN);
		job->part = part;
		job->generation++;
		job->definition = 0;
		job->wanted = false;
		job->pid = 0;
		job->latch = NULL;
		job->restart_at_once = false;
		reset_counters(job);

		job_conditions_init(job);

		now = GetCurrentTimestamp();
		SpinLockAcquire(&job->mutex);
		job->counted_since = now;
		job->error[0] = '\0';
		job->error_at = 0;
		SpinLockRelease(&job->mutex);

		job->in_use = true;
		return job;
	}
	return NULL;
}

/* Whoever found no room looks again. */
static void
tell_starved(void)
{
	if (!nexus_shared->starved)
		return;
	nexus_shared->starved = false;
	set_latch(nexus_shared->launcher_latch);
	for (int i = 0; i < nexus_max_jobs; i++)
		if (nexus_shared->jobs[i].in_use && nexus_shared->jobs[i].kind == JOB_SUPERVISOR)
			job_wake(&nexus_shared->jobs[i]);
}

void
job_free(Job *job)
{
	partition_stats_release(job);
	job->in_use = false;
	job->latch = NULL;
	ConditionVariableBroadcast(&job->answered_cv);
	tell_starved();
}

static void
add_counter(pg_atomic_uint64 *to, pg_atomic_uint64 *from)
{
	pg_atomic_fetch_add_u64(to, pg_atomic_read_u64(from));
}

/* What one worker of a pipeline has counted is the pipeline's still when it isn't needed any more. */
void
job_fold(Job *job, Job *into)
{
	uint64		lag = pg_atomic_read_u64(&job->lag);

	add_counter(&into->messages, &job->messages);
	add_counter(&into->rows, &job->rows);
	add_counter(&into->batches, &job->batches);
	add_counter(&into->dead_letters, &job->dead_letters);
	add_counter(&into->retries, &job->retries);
	add_counter(&into->reported, &job->reported);
	if (lag != JOB_LAG_UNKNOWN && pg_atomic_read_u64(&into->lag) != JOB_LAG_UNKNOWN)
		pg_atomic_fetch_add_u64(&into->lag, lag);
}

/* Asks for a worker of a pipeline that runs on demand; NULL: there is no room, or nobody to start it. */
Job *
job_demand(const char *pipeline, int part)
{
	Job		   *job;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	job = job_find(JOB_INGEST, MyDatabaseId, pipeline, part);
	if (job == NULL && job_find(JOB_SUPERVISOR, MyDatabaseId, "", 0))
		job = job_create(JOB_INGEST, MyDatabaseId, pipeline, part);
	if (job)
		pg_atomic_fetch_add_u64(&job->asked, 1);
	LWLockRelease(nexus_shared->lock);
	return job;
}

/*
 * The messages that the pipeline has taken in since the last such answer; several callers
 * share them out. With the lock, so that none is between two jobs (job_fold).
 */
uint64
job_count_unreported(const char *pipeline)
{
	uint64		n = 0;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];
		uint64		messages;
		uint64		reported;

		if (!job->in_use || job->kind != JOB_INGEST || job->database != MyDatabaseId ||
			strcmp(job->name, pipeline) != 0)
			continue;
		messages = pg_atomic_read_u64(&job->messages);
		reported = pg_atomic_exchange_u64(&job->reported, messages);
		n += messages > reported ? messages - reported : 0;
	}
	LWLockRelease(nexus_shared->lock);
	return n;
}

/* ---- errors, wakes, answers ---- */

void
job_set_error(Job *job, int sqlstate, const char *message)
{
	char		text[sizeof(job->error)];
	TimestampTz now = GetCurrentTimestamp();

	copy_clipped(text, message, sizeof(text));
	SpinLockAcquire(&job->mutex);
	job->error_sqlstate = sqlstate;
	strlcpy(job->error, text, sizeof(job->error));
	job->error_at = now;
	SpinLockRelease(&job->mutex);
}

void
job_wake(Job *job)
{
	if (job == NULL)
		return;
	pg_atomic_fetch_add_u64(&job->wakes, 1);
	set_latch(job->latch);
}

void
job_wake_for_call(Job *job)
{
	if (pg_atomic_add_fetch_u64(&job->calls, 1) >= pg_atomic_read_u64(&job->calls_wanted))
		set_latch(job->latch);
}

void
job_answer(Job *job, uint64 ticket)
{
	pg_atomic_write_u64(&job->answered, ticket);
	ConditionVariableBroadcast(&job->answered_cv);
}

/* ---- partitions ---- */

/* NULL if there is no room: then the end isn't shown, and nothing else is amiss. */
PartitionStat *
partition_stat(Job *job, const char *topic, int32 partition)
{
	PartitionStat *free_one = NULL;
	PartitionStat *found = NULL;
	int			index = job - nexus_shared->jobs;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < NEXUS_MAX_PARTITIONS && !found; i++)
	{
		PartitionStat *stat = &nexus_shared->partitions[i];

		if (stat->job < 0)
			free_one = free_one ? free_one : stat;
		else if (stat->job == index && stat->partition == partition && strcmp(stat->topic, topic) == 0)
			found = stat;
	}
	if (!found && free_one)
	{
		found = free_one;
		found->job = index;
		found->generation = job->generation;
		strlcpy(found->topic, topic, sizeof(found->topic));
		found->partition = partition;
		pg_atomic_write_u64(&found->end_offset, PG_UINT64_MAX);
	}
	LWLockRelease(nexus_shared->lock);
	return found;
}

/* The caller holds nexus_shared->lock exclusively. */
void
partition_stats_release(Job *job)
{
	int			index = job - nexus_shared->jobs;

	for (int i = 0; i < NEXUS_MAX_PARTITIONS; i++)
		if (nexus_shared->partitions[i].job == index)
			nexus_shared->partitions[i].job = -1;
}
