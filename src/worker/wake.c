/*
 * wake.c
 *		Waking a worker when the transaction that gave it work commits.
 *
 * One transaction callback, registered once a process, at the first use.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "worker/worker.h"

static bool relay_wanted = false;
static bool supervisor_wanted = false;
static Oid	launcher_wanted = InvalidOid;
static Job *job_to_resume = NULL;

/* Without the lock: this is in the path of every commit, and a wrong wake-up does no harm. */
static void
wake_job(JobKind kind)
{
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		if (job->in_use && job->kind == kind && job->database == MyDatabaseId)
			job_wake(job);
	}
}

void
wake_launcher(Oid database)
{
	Latch	   *latch;

	if (nexus_shared == NULL)
		return;
	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	if (nexus_shared->nwanted < NEXUS_MAX_WANTED)
		nexus_shared->wanted[nexus_shared->nwanted++] = database;
	else
		nexus_shared->rescan = true;
	latch = nexus_shared->launcher_latch;
	LWLockRelease(nexus_shared->lock);
	if (latch)
		SetLatch(latch);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
	{
		if (relay_wanted)
			wake_job(JOB_RELAY);
		if (supervisor_wanted)
			wake_job(JOB_SUPERVISOR);
		if (OidIsValid(launcher_wanted))
			wake_launcher(launcher_wanted);
		if (job_to_resume)
		{
			pg_atomic_fetch_add_u64(&job_to_resume->resumes, 1);
			job_wake(job_to_resume);
		}
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		relay_wanted = supervisor_wanted = false;
		launcher_wanted = InvalidOid;
		job_to_resume = NULL;
	}
}

static bool
register_once(void)
{
	static bool registered = false;

	if (nexus_shared == NULL)
		return false;
	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	return registered = true;
}

void
wake_relay_at_commit(void)
{
	relay_wanted = register_once();
}

void
wake_supervisor_at_commit(void)
{
	supervisor_wanted = register_once();
}

void
wake_launcher_at_commit(Oid database)
{
	if (register_once())
		launcher_wanted = database;
}

/* job may be NULL: then no worker is stopped that could be told. */
void
resume_at_commit(Job *job)
{
	if (register_once())
		job_to_resume = job;
}
