/*
 * hold.c
 *		Keeping workers out of a database, or away from a pipeline, until a
 *		transaction ends.
 *
 * Both end the workers and wait until they have left. What lets none start again
 * before the transaction has ended, however it ends, is
 *
 *	for a database	a hold, in shared memory: commands.c has one for the commands that
 *					need the database empty, which may run in another database
 *	for a pipeline	the lock on its row in nexus_pipelines, which nexus_pause(),
 *					nexus_seek(), nexus_alter_pipeline() and nexus_drop_pipeline() have:
 *					a worker whose pipeline's row is locked doesn't begin (supervisor.c,
 *					ingest.c). So there may be any number of them, in a prepared
 *					transaction too.
 */
#include "nexus_kafka.h"

#include <signal.h>

#include "miscadmin.h"
#include "pgstat.h"

#include "worker/worker.h"

#define LONGEST_WAIT_MS		5000	/* then the command finds out by itself who is still there */

/* The holds of this transaction. */
static int	held[NEXUS_MAX_HOLDS];
static int	nheld = 0;

/* The caller holds the lock. */
bool
job_is_held(const Job *job)
{
	for (int i = 0; i < NEXUS_MAX_HOLDS; i++)
		if (nexus_shared->holds[i] == job->database && OidIsValid(job->database))
			return true;
	return false;
}

/* pipeline NULL: all of the database. */
static bool
has_worker_of(const Job *job, Oid database, const char *pipeline)
{
	return job->pid != 0 && job->database == database &&
		(pipeline == NULL || (job->kind == JOB_INGEST && strcmp(job->name, pipeline) == 0));
}

/* The caller holds the lock. */
static void
end_workers(Oid database, const char *pipeline)
{
	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		if (!has_worker_of(job, database, pipeline))
			continue;
		job->restart_at_once = true;
		kill(job->pid, SIGTERM);
	}
}

static bool
has_workers(Oid database, const char *pipeline)
{
	bool		any = false;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (Job *job = job_next(NULL); job && !any; job = job_next(job))
		any = has_worker_of(job, database, pipeline);
	LWLockRelease(nexus_shared->lock);
	return any;
}

static bool
wait_until_left(Oid database, const char *pipeline)
{
	MonoTime	deadline = mono_in_ms(LONGEST_WAIT_MS);
	bool		left;

	ConditionVariablePrepareToSleep(&nexus_shared->worker_left);
	while (!(left = !has_workers(database, pipeline)) && mono_now() < deadline)
		ConditionVariableTimedSleep(&nexus_shared->worker_left, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	return left;
}

/* ---- a database ---- */

void
holds_end(void)
{
	while (nheld > 0)
	{
		Oid		   *hold = &nexus_shared->holds[held[--nheld]];
		Oid			database = *hold;

		LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
		*hold = InvalidOid;
		LWLockRelease(nexus_shared->lock);
		wake_launcher(database);
	}
}

static bool
is_held_by_me(Oid database)
{
	for (int i = 0; i < nheld; i++)
		if (nexus_shared->holds[held[i]] == database)
			return true;
	return false;
}

/* False: there is no room. */
static bool
take_hold(Oid database)
{
	bool		taken = false;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < NEXUS_MAX_HOLDS && !taken; i++)
	{
		if (OidIsValid(nexus_shared->holds[i]))
			continue;
		nexus_shared->holds[i] = database;
		held[nheld++] = i;
		end_workers(database, NULL);
		taken = true;
	}
	LWLockRelease(nexus_shared->lock);
	return taken;
}

void
hold_database(Oid database)
{
	if (is_held_by_me(database) || !transaction_end_register())
		return;
	if (!take_hold(database))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many transactions keep the workers of nexus_kafka out of a database"),
				 errhint("Try again when some of them have ended.")));
	(void) wait_until_left(database, NULL);
}

/* ---- a pipeline ---- */

bool
hold_pipeline(const char *pipeline)
{
	if (!transaction_end_register())
		return true;
	wake_supervisor_at_end();
	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	end_workers(MyDatabaseId, pipeline);
	LWLockRelease(nexus_shared->lock);
	return wait_until_left(MyDatabaseId, pipeline);
}
