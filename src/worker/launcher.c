/*
 * launcher.c
 *		One a cluster: sees to it that each database with the extension has a
 *		supervisor, and that the embedded broker runs where it is wanted.
 *
 * Which database has the extension, only a process in it can tell. So at its
 * start the launcher sends a supervisor into each, a few at a time; one that
 * finds no extension leaves and takes its job along. Later the launcher hears
 * of CREATE EXTENSION and CREATE DATABASE (wake.c) and sends one there. A database
 * that there is no room for stays on its list until there is.
 */
#include "nexus_kafka.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "worker/worker.h"

#define MOST_LOOKING	3		/* supervisors that are still finding out, at a time */
#define LOOKING_LONG_MS	1000	/* they may wait for a lock, or for the end of a hold: another one goes */

PGDLLEXPORT void nexus_launcher_main(Datum arg);

static List *to_look_into = NIL;	/* OIDs, in TopMemoryContext */

/* datconnlimit -2: what an interrupted DROP DATABASE leaves. */
bool
database_may_have_workers(Form_pg_database database)
{
	return database->datallowconn && !database->datistemplate && database->datconnlimit != -2;
}

static void
look_into(Oid database)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

	to_look_into = list_append_unique_oid(to_look_into, database);
	MemoryContextSwitchTo(before);
}

static void
look_into_all(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database_may_have_workers(database))
			look_into(database->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

static void
take_requests(void)
{
	Oid			wanted[NEXUS_MAX_WANTED];
	int			nwanted;
	bool		rescan;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	nwanted = nexus_shared->nwanted;
	memcpy(wanted, nexus_shared->wanted, nwanted * sizeof(Oid));
	rescan = nexus_shared->rescan;
	nexus_shared->nwanted = 0;
	nexus_shared->rescan = false;
	LWLockRelease(nexus_shared->lock);

	for (int i = 0; i < nwanted; i++)
		look_into(wanted[i]);
	if (rescan)
		look_into_all();
}

static int
count_looking(void)
{
	int			n = 0;

	for (Job *job = job_next(NULL); job; job = job_next(job))
		if (job->kind == JOB_SUPERVISOR && job_get_state(job) == JOB_STARTING)
			n++;
	return n;
}

/* True if it has one, or now has. */
static bool
send_supervisor(Oid database)
{
	bool		sent;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	sent = job_find(JOB_SUPERVISOR, database, "", 0) || job_create(JOB_SUPERVISOR, database, "", 0);
	LWLockRelease(nexus_shared->lock);
	return sent;
}

/* True while there is no room; says so once, until all have got theirs. */
static bool
send_supervisors(void)
{
	static bool told = false;
	static MonoTime last = 0;
	bool		full = false;

	while (to_look_into != NIL && !full &&
		   (count_looking() < MOST_LOOKING || mono_now() >= mono_after_ms(last, LOOKING_LONG_MS)))
	{
		full = !send_supervisor(linitial_oid(to_look_into));
		last = mono_now();
		if (!full)
			to_look_into = list_delete_first(to_look_into);
	}
	if (full && !told)
		ereport(LOG, (errmsg("nexus_kafka has no room for one more database"),
					  errdetail("Those that have none wait until another one's is free."),
					  errhint("Raise nexus_kafka.max_jobs and restart the server.")));
	told = full || (told && to_look_into != NIL);
	return full;
}

static void
tend_broker(void)
{
	Job		   *job;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	job = job_find(JOB_BROKER, InvalidOid, "", 0);
	if (nexus_embedded_broker && job == NULL)
		job_create(JOB_BROKER, InvalidOid, "", 0);
	else if (!nexus_embedded_broker && job && job->pid == 0)
		job_free(job);
	else if (!nexus_embedded_broker && job)
		kill(job->pid, SIGTERM);
	LWLockRelease(nexus_shared->lock);
}

static bool
is_mine(const Job *job)
{
	return job->kind == JOB_SUPERVISOR || (job->kind == JOB_BROKER && nexus_embedded_broker);
}

/* False if no worker may be in it (any more); else the job learns its name. */
static bool
database_is_open(Job *job)
{
	HeapTuple	tuple;
	bool		exists = false;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(job->database));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		exists = database_may_have_workers(database);
		strlcpy(job->database_name, NameStr(database->datname), NAMEDATALEN);
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return exists;
}

/* A dropped database takes all of its jobs along. */
static bool
may_start(Job *job)
{
	if (job->kind != JOB_SUPERVISOR || database_is_open(job))
		return true;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (Job *other = job_next(NULL); other; other = job_next(other))
		if (other != job && other->database == job->database && other->pid == 0)
			job_free(other);
	LWLockRelease(nexus_shared->lock);
	return false;
}

static void
forget_latch(int code, Datum arg)
{
	nexus_shared->launcher_latch = NULL;
}

void
nexus_launcher_main(Datum arg)
{
	static const Parent parent = {is_mine, may_start};

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	ConfigReloadPending = true; /* as in worker_begin() */
	nexus_shared->launcher_latch = MyLatch;
	on_shmem_exit(forget_latch, 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	look_into_all();
	for (;;)
	{
		long		timeout;
		bool		full;

		worker_service();
		take_requests();
		full = send_supervisors();
		tend_broker();
		timeout = children_tend(&parent);
		if (to_look_into != NIL && !full)	/* else it is told */
			timeout = timeout < 0 ? 1000 : Min(timeout, 1000);
		worker_wait(-1, timeout);
	}
}
