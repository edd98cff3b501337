/*
 * blocked.c
 *		A transaction of a worker that waits for a lock is shown.
 *
 * A worker that waits for a lock sits inside PostgreSQL and can tell nobody. So before each
 * transaction it sets a timer, whose handler, if the transaction still runs by then, leaves
 * a mark in the job and wakes the database's supervisor. The supervisor looks, each second
 * while there is such a mark, whether the worker waits for a lock, and for whose. It alone
 * sets and clears the condition: it is woken again when the transaction has ended.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/timeout.h"

#include "worker/worker.h"

#define LONG_AFTER_MS	1000
#define LOOK_AGAIN_MS	1000

/* ---- the worker ---- */

static Job *supervisor = NULL;

/* In a signal handler: sets and wakes, and nothing else. */
static void
note_long(void)
{
	Latch	   *latch = supervisor ? supervisor->latch : NULL;	/* which may be gone at the next reading */

	pg_atomic_write_u32(&MyJob->long_transaction, 1);
	if (latch)
		SetLatch(latch);
}

static TimeoutId
timer(void)
{
	static TimeoutId id = MAX_TIMEOUTS;

	if (id == MAX_TIMEOUTS)
		id = RegisterTimeout(USER_TIMEOUT, note_long);
	return id;
}

void
blocked_watch_begin(void)
{
	if (MyJob == NULL || (MyJob->kind != JOB_INGEST && MyJob->kind != JOB_RELAY))
		return;
	if (supervisor == NULL)
		supervisor = job_lookup(JOB_SUPERVISOR, MyDatabaseId, "", 0);
	enable_timeout_after(timer(), LONG_AFTER_MS);
}

void
blocked_watch_end(void)
{
	if (MyJob == NULL || (MyJob->kind != JOB_INGEST && MyJob->kind != JOB_RELAY))
		return;
	disable_timeout(timer(), false);
	if (pg_atomic_exchange_u32(&MyJob->long_transaction, 0) != 0)
		wake_supervisor();
}

/* ---- the supervisor ---- */

typedef struct Look
{
	int			pid;
	MemoryContext context;
	char	   *waits_for;		/* out; NULL: for no lock */
} Look;

/* What pg_locks says takes none of the locks in question, nor any on a table. */
static void
look(void *arg)
{
	static const char *query =
		"SELECT pg_catalog.format('waits for a lock on %s that %s', CASE"
		" WHEN l.relation IS NOT NULL THEN l.relation::pg_catalog.regclass::text"
		" WHEN l.locktype OPERATOR(pg_catalog.=) 'transactionid' THEN 'a row' ELSE 'an object (' || l.locktype || ')' END,"
		" CASE WHEN pg_catalog.cardinality(b.pids) OPERATOR(pg_catalog.=) 1 THEN 'process ' || b.pids[1] || ' has'"
		" ELSE 'processes ' || pg_catalog.array_to_string(b.pids, ', ') || ' have' END)"
		" FROM pg_catalog.pg_locks l, LATERAL (SELECT pg_catalog.array_agg(DISTINCT p) FROM"
		" pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) p) AS b (pids)"
		" WHERE l.pid OPERATOR(pg_catalog.=) $1 AND NOT l.granted AND b.pids IS NOT NULL";
	Look	   *l = arg;
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(l->pid)};

	if (SPI_execute_with_args(query, 1, types, values, NULL, true, 1) != SPI_OK_SELECT || SPI_processed == 0)
		return;
	l->waits_for = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (l->waits_for)
		l->waits_for = MemoryContextStrdup(l->context, l->waits_for);
}

static void
look_at(Job *job, MemoryContext context)
{
	Look		l = {job->pid, context};
	ErrorData  *error;

	if (l.pid == 0 || pg_atomic_read_u32(&job->long_transaction) == 0)
	{
		job_condition_clear(job, CONDITION_BLOCKED);
		return;
	}
	if (!worker_transaction(look, &l, context, &error))
		return;
	if (l.waits_for)
		job_condition_set(job, CONDITION_BLOCKED, "%s", l.waits_for);
	else
		job_condition_clear(job, CONDITION_BLOCKED);
}

/*
 * The table may change meanwhile: a job that has become another's is looked at as that. Only
 * a supervisor frees its database's jobs, and this is it.
 */
long
blocked_look(MemoryContext context)
{
	bool		any = false;

	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		if (job->database != MyDatabaseId || (job->kind != JOB_INGEST && job->kind != JOB_RELAY))
			continue;
		any = any || pg_atomic_read_u32(&job->long_transaction) != 0;
		look_at(job, context);
	}
	return any ? LOOK_AGAIN_MS : -1;
}
