/*
 * request.c
 *		A backend asks a worker for something, and waits for it: may it, until when, and whom
 *		does it ask? Requests that carry something, and what they bring back: calls.c.
 *
 * A backend takes a ticket, wakes the worker, and sleeps until the worker has answered that
 * ticket or a later one. Nothing is left behind by one that is cancelled or killed: the
 * worker answers numbers, not backends.
 */
#include "nexus_kafka.h"

#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"

#include "catalog/tables.h"
#include "worker/worker.h"

#define RECHECK_MS	500			/* for a job that ends or stops meanwhile */

/* ---- may it ---- */

bool
worker_database_is_halted(void)
{
	bool		ours;

	SPI_connect();
	ours = catalog_identity_is_ours();
	SPI_finish();
	return !ours;
}

MonoTime
worker_deadline(Interval *timeout)
{
	int64		ms = timeout->time / 1000 +
		(timeout->day + (int64) timeout->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000;

	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return mono_now() + Min(ms, INT64CONST(86400000) * 365) * 1000;
}

void
worker_check_possible(const char *function)
{
	if (nexus_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() needs nexus_kafka's workers, and they don't run", function),
				 errdetail("nexus_kafka is not in shared_preload_libraries."),
				 errhint("Add nexus_kafka to shared_preload_libraries and restart the server.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can't be used on a standby", function),
				 errhint("Call it on the primary, where nexus_kafka's workers run.")));
}

/* ---- whom ---- */

#define LOOK_MS		10

/* The look of a supervisor at the tables and the file that began after it was asked for. */
typedef struct Look
{
	Job		   *supervisor;		/* NULL: none was asked */
	uint32		generation;
	uint64		ticket;
} Look;

/* Each supervisor that comes is asked once. */
static bool
has_looked(Look *look)
{
	Job		   *supervisor = job_lookup(JOB_SUPERVISOR, MyDatabaseId, "", 0);
	JobState	state;

	if (supervisor == NULL)
		return database_is_template(MyDatabaseId);	/* none will come */
	if (supervisor != look->supervisor || supervisor->generation != look->generation)
	{
		*look = (Look) {supervisor, supervisor->generation, pg_atomic_add_fetch_u64(&supervisor->asked, 1)};
		job_wake(supervisor);
		return false;
	}
	state = job_get_state(supervisor);
	return pg_atomic_read_u64(&supervisor->answered) >= look->ticket &&
		(state == JOB_RUNNING || state == JOB_NO_WORKER);
}

/*
 * Just after CREATE EXTENSION, or the server's start, a job is on its way. What isn't there
 * when the supervisor has looked doesn't come, or not soon. The broker is the launcher's.
 */
Job *
worker_await_job(JobKind kind, const char *name, int part, MonoTime deadline)
{
	Oid			database = kind == JOB_BROKER ? InvalidOid : MyDatabaseId;
	Job		   *job = job_lookup(kind, database, name, part);
	Look		look = {NULL};

	while (job == NULL && mono_now() < deadline)
	{
		bool		last = kind != JOB_BROKER && has_looked(&look);

		job = job_lookup(kind, database, name, part);
		if (job || last)
			break;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(LOOK_MS * 1000L);
	}
	return job;
}

/* ---- the request, and its answer ---- */

RequestOutcome
request_and_wait(Job *job, MonoTime deadline)
{
	uint32		generation = job->generation;
	uint64		ticket = pg_atomic_add_fetch_u64(&job->asked, 1);
	bool		answered = false;
	bool		gone = false;

	job_wake(job);
	if (job->pid == 0)
		wake_supervisor();		/* one that runs on demand is started for it */
	ConditionVariablePrepareToSleep(&job->answered_cv);
	for (;;)
	{
		long		left;

		answered = pg_atomic_read_u64(&job->answered) >= ticket;
		gone = !job->in_use || job->generation != generation;
		if (answered || gone || job_is_hopeless(job))
			break;
		left = mono_ms_until(deadline);
		if (left <= 0)
			break;
		ConditionVariableTimedSleep(&job->answered_cv, Min(left, RECHECK_MS), PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	if (answered)
		return REQUEST_ANSWERED;
	return gone ? REQUEST_JOB_GONE : REQUEST_UNANSWERED;
}

void
job_answer(Job *job, uint64 ticket)
{
	pg_atomic_write_u64(&job->answered, ticket);
	ConditionVariableBroadcast(&job->answered_cv);
}
