/*
 * asking.c
 *		May a backend ask a worker for something, until when does it wait, and whom does it ask?
 */
#include "nexus_kafka.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "worker/worker.h"

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
