/*
 * wake.c
 *		Waking a worker, at once or when the transaction that gave it work commits.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "worker/worker.h"

/* What this transaction wants when it commits. */
static bool relay_wanted = false;	/* the default connection's */
static HTAB *relays_wanted = NULL;	/* those of other connections, by name */
static bool supervisor_wanted = false;
static List *launcher_wanted = NIL; /* databases to look into, in the transaction's memory */

/* However it ends. */
static bool supervisor_wanted_anyway = false;

/* Without the lock: this is in the path of every commit, and a wrong wake-up does no harm. */
static void
wake_job(JobKind kind)
{
	for (Job *job = job_next(NULL); job; job = job_next(job))
		if (job->kind == kind && job->database == MyDatabaseId)
			job_wake(job);
}

void
wake_relays(void)
{
	wake_job(JOB_RELAY);
}

void
wake_supervisor(void)
{
	wake_job(JOB_SUPERVISOR);
}

static bool
is_wanted(const Job *relay)
{
	return relay->name[0] ? name_set_has(relays_wanted, relay->name) : relay_wanted;
}

/* Without the lock, likewise. One that hasn't run yet is the supervisor's to start. */
static void
wake_wanted_relays(void)
{
	bool		any_to_start = false;

	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		if (job->kind != JOB_RELAY || job->database != MyDatabaseId || !is_wanted(job))
			continue;
		job_wake(job);
		any_to_start = any_to_start || (job->pid == 0 && job->name[0]);
	}
	if (any_to_start)
		wake_supervisor();
}

/* The caller holds the lock. */
static void
want_look_into(Oid database)
{
	for (int i = 0; i < nexus_shared->nwanted; i++)
		if (nexus_shared->wanted[i] == database)
			return;
	if (nexus_shared->nwanted < NEXUS_MAX_WANTED)
		nexus_shared->wanted[nexus_shared->nwanted++] = database;
	else
		nexus_shared->rescan = true;
}

void
wake_launcher(Oid database)
{
	Latch	   *latch;

	if (nexus_shared == NULL)
		return;
	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	want_look_into(database);
	latch = nexus_shared->launcher_latch;
	LWLockRelease(nexus_shared->lock);
	if (latch)
		SetLatch(latch);
}

void
wake_relay_at_commit(const char *connection)
{
	if (!transaction_end_register())
		return;
	if (connection[0])
		name_set_add(&relays_wanted, connection);
	else
		relay_wanted = true;
}

void
wake_supervisor_at_commit(void)
{
	supervisor_wanted = transaction_end_register();
}

void
wake_supervisor_at_end(void)
{
	supervisor_wanted_anyway = transaction_end_register();
}

void
wake_launcher_at_commit(Oid database)
{
	MemoryContext before;

	if (!transaction_end_register())
		return;
	before = MemoryContextSwitchTo(TopTransactionContext);
	launcher_wanted = list_append_unique_oid(launcher_wanted, database);
	MemoryContextSwitchTo(before);
}

static void
send_wakes(void)
{
	ListCell   *lc;

	if (relay_wanted || relays_wanted)
		wake_wanted_relays();
	if (supervisor_wanted)
		wake_supervisor();
	foreach(lc, launcher_wanted)
		wake_launcher(lfirst_oid(lc));
}

void
wakes_end(bool committed)
{
	if (committed)
		send_wakes();
	if (supervisor_wanted_anyway)
		wake_supervisor();
	relay_wanted = supervisor_wanted = supervisor_wanted_anyway = false;
	relays_wanted = NULL;
	launcher_wanted = NIL;
}
