/*
 * hold.c
 *		Keeping workers out of a database, or away from a pipeline, until a
 *		transaction ends.
 *
 * A hold ends the workers, waits until they have left, and lets none start until
 * the transaction has ended, however it ends. commands.c holds a database for
 * those commands that need it empty; nexus_pause(), nexus_seek(),
 * nexus_alter_pipeline() and nexus_drop_pipeline() hold a pipeline, so that it has
 * stopped when they return.
 */
#include "nexus_kafka.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"

#include "worker/worker.h"

#define LONGEST_WAIT_MS		5000	/* then the command finds out by itself who is still there */

/* The holds of this transaction. */
static int	held[NEXUS_MAX_HOLDS];
static int	nheld = 0;

static bool
concerns(const Hold *hold, const Job *job)
{
	return OidIsValid(hold->database) && job->database == hold->database &&
		(hold->pipeline[0] == '\0' || (job->kind == JOB_INGEST && strcmp(job->name, hold->pipeline) == 0));
}

bool
job_is_held(const Job *job)
{
	for (int i = 0; i < NEXUS_MAX_HOLDS; i++)
		if (concerns(&nexus_shared->holds[i], job))
			return true;
	return false;
}

/* The caller holds the lock. */
static void
end_workers(const Hold *hold)
{
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		if (!job->in_use || job->pid == 0 || !concerns(hold, job))
			continue;
		job->restart_at_once = true;
		kill(job->pid, SIGTERM);
	}
}

static bool
has_workers(const Hold *hold)
{
	bool		any = false;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < nexus_max_jobs && !any; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		any = job->in_use && job->pid != 0 && concerns(hold, job);
	}
	LWLockRelease(nexus_shared->lock);
	return any;
}

void
holds_end(void)
{
	while (nheld > 0)
	{
		Hold	   *hold = &nexus_shared->holds[held[--nheld]];
		Oid			database = hold->database;
		bool		whole = hold->pipeline[0] == '\0';

		LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
		hold->database = InvalidOid;
		nexus_shared->holds_ended++;
		LWLockRelease(nexus_shared->lock);
		if (whole)
			wake_launcher(database);
		else
			wake_supervisor();
	}
}

static void
end_holds(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		holds_end();
}

static bool
is_held_by_me(Oid database, const char *pipeline)
{
	for (int i = 0; i < nheld; i++)
		if (nexus_shared->holds[held[i]].database == database &&
			strcmp(nexus_shared->holds[held[i]].pipeline, pipeline) == 0)
			return true;
	return false;
}

/* NULL: there is no room. */
static Hold *
take_hold(Oid database, const char *pipeline)
{
	Hold	   *hold = NULL;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < NEXUS_MAX_HOLDS && hold == NULL; i++)
	{
		if (OidIsValid(nexus_shared->holds[i].database))
			continue;
		hold = &nexus_shared->holds[i];
		hold->database = database;
		strlcpy(hold->pipeline, pipeline, NAMEDATALEN);
		held[nheld++] = i;
		end_workers(hold);
	}
	LWLockRelease(nexus_shared->lock);
	return hold;
}

void
hold_until_transaction_end(Oid database, const char *pipeline)
{
	static bool registered = false;
	MonoTime	started = mono_now();
	const Hold *hold;

	if (nexus_shared == NULL || is_held_by_me(database, pipeline))
		return;
	if (!registered)
		RegisterXactCallback(end_holds, NULL);
	registered = true;
	hold = take_hold(database, pipeline);
	if (hold == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many transactions hold workers of nexus_kafka back"),
				 errhint("Pause fewer pipelines in one transaction.")));

	ConditionVariablePrepareToSleep(&nexus_shared->worker_left);
	while (has_workers(hold) &&
		   mono_now() < mono_after_ms(started, LONGEST_WAIT_MS))
		ConditionVariableTimedSleep(&nexus_shared->worker_left, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}
