/*
 * wake.c
 *		Waking a worker when the transaction that gave it work commits.
 *
 * One transaction callback, registered once a process, at the first use.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "worker/worker.h"

#define LONGEST_RESUME_MS	2000
#define RESUME_STEP_MS		5

static bool relay_wanted = false;	/* the default connection's */
static List *relays_wanted = NIL;	/* names of other connections, in the transaction's memory */
static bool supervisor_wanted = false;
static Oid	launcher_wanted = InvalidOid;
static List *pipelines_to_resume = NIL;	/* names, in the transaction's memory */

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
wake_relays(void)
{
	wake_job(JOB_RELAY);
}

static bool
is_wanted(const Job *relay)
{
	return relay->name[0] ? names_include(relays_wanted, relay->name) : relay_wanted;
}

/* Without the lock, likewise. One that hasn't run yet is the supervisor's to start. */
static void
wake_wanted_relays(void)
{
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		if (!job->in_use || job->kind != JOB_RELAY || job->database != MyDatabaseId || !is_wanted(job))
			continue;
		job_wake(job);
		if (job->pid == 0 && job->name[0])
			wake_supervisor();
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

void
wake_supervisor(void)
{
	wake_job(JOB_SUPERVISOR);
}

static bool
is_to_resume(const Job *job)
{
	return job->in_use && job->kind == JOB_INGEST && job->database == MyDatabaseId &&
		names_include(pipelines_to_resume, job->name);
}

/* Has each of the jobs a worker, or a reason why not? */
static bool
are_resumed(void)
{
	int			found = 0;
	bool		all = true;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < nexus_max_jobs && all; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];
		JobState	state;

		if (!is_to_resume(job))
			continue;
		found += job->part == 0;
		state = job_get_state(job);
		all = state != JOB_PAUSED && state != JOB_STOPPED && state != JOB_STARTING;
	}
	LWLockRelease(nexus_shared->lock);
	return all && found == list_length(pipelines_to_resume);
}

/*
 * Runs after the commit, where interrupts are held off and nothing may raise: so
 * it looks for a cancel by itself, and its wait is short.
 */
static void
resume_pipelines(void)
{
	bool		supervised = false;

	holds_end();				/* if it was paused before in this transaction */
	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		supervised = supervised ||
			(job->in_use && job->kind == JOB_SUPERVISOR && job->database == MyDatabaseId && job->pid != 0);
		if (!is_to_resume(job))
			continue;
		pg_atomic_fetch_add_u64(&job->resumes, 1);
		job_wake(job);
	}
	LWLockRelease(nexus_shared->lock);
	wake_job(JOB_SUPERVISOR);

	for (int ms = 0; supervised && ms < LONGEST_RESUME_MS && !are_resumed(); ms += RESUME_STEP_MS)
	{
		if (QueryCancelPending || ProcDiePending)
			break;
		pg_usleep(RESUME_STEP_MS * 1000L);
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
	{
		if (relay_wanted || relays_wanted != NIL)
			wake_wanted_relays();
		if (supervisor_wanted)
			wake_job(JOB_SUPERVISOR);
		if (OidIsValid(launcher_wanted))
			wake_launcher(launcher_wanted);
		if (pipelines_to_resume != NIL)
			resume_pipelines();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		relay_wanted = supervisor_wanted = false;
		relays_wanted = NIL;
		launcher_wanted = InvalidOid;
		pipelines_to_resume = NIL;
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
wake_relay_at_commit(const char *connection)
{
	MemoryContext before;

	if (!register_once() || names_include(relays_wanted, connection))
		return;
	if (connection[0] == '\0')
	{
		relay_wanted = true;
		return;
	}
	before = MemoryContextSwitchTo(TopTransactionContext);
	relays_wanted = lappend(relays_wanted, pstrdup(connection));
	MemoryContextSwitchTo(before);
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

void
resume_at_commit(const char *pipeline)
{
	MemoryContext before;

	if (!register_once())
		return;
	before = MemoryContextSwitchTo(TopTransactionContext);
	pipelines_to_resume = lappend(pipelines_to_resume, pstrdup(pipeline));
	MemoryContextSwitchTo(before);
}
