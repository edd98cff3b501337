/*
 * jobs.c
 *		The table of jobs: which there are, their counters and last error, and how they are
 *		woken and answered. What is amiss with one: condition.c.
 *
 * Which job a slot is, is guarded by nexus_shared->lock; everything else by a job's mutex, or
 * atomic. Nobody outside of this file goes through the slots: job_next() does.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

void
jobs_init(void)
{
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

const char *
job_kind_name(JobKind kind)
{
	static const char *const names[] = {"supervisor", "relay", "ingest", "replay", "broker"};

	return names[kind];
}

/* ---- which there are ---- */

Job *
job_next(const Job *after)
{
	for (int i = after ? after - nexus_shared->jobs + 1 : 0; i < nexus_max_jobs; i++)
		if (nexus_shared->jobs[i].in_use)
			return &nexus_shared->jobs[i];
	return NULL;
}

int
job_index(const Job *job)
{
	return job - nexus_shared->jobs;
}

Job *
job_at(int index)
{
	return &nexus_shared->jobs[index];
}

static void
set_latch(Latch *latch)
{
	if (latch)
		SetLatch(latch);
}

Job *
job_find(JobKind kind, Oid database, const char *name, int part)
{
	for (Job *job = job_next(NULL); job; job = job_next(job))
		if (job->kind == kind && job->database == database && job->part == part && strcmp(job->name, name) == 0)
			return job;
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
	for (const Job *job = job_next(NULL); job; job = job_next(job))
		if (job->kind == JOB_RELAY && job->database == MyDatabaseId && job->name[0] && job->wanted)
			names = lappend(names, pstrdup(job->name));
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
		memset(&job->error, 0, sizeof(job->error));
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
	for (Job *job = job_next(NULL); job; job = job_next(job))
		if (job->kind == JOB_SUPERVISOR)
			job_wake(job);
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
	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		uint64		messages;
		uint64		reported;

		if (job->kind != JOB_INGEST || job->database != MyDatabaseId || strcmp(job->name, pipeline) != 0)
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
	JobError	error = {.sqlstate = sqlstate,.at = GetCurrentTimestamp()};

	copy_clipped(error.text, message, sizeof(error.text));
	SpinLockAcquire(&job->mutex);
	job->error = error;
	SpinLockRelease(&job->mutex);
}

void
job_get_error(Job *job, JobError *error, TimestampTz *counted_since)
{
	SpinLockAcquire(&job->mutex);
	*error = job->error;
	*counted_since = job->counted_since;
	SpinLockRelease(&job->mutex);
	make_valid(error->text);
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
