/*
 * request.c
 *		Asking a worker for something and waiting for it.
 *
 * A backend takes a ticket, wakes the worker, and sleeps until the worker has
 * answered that ticket or a later one. Nothing is left behind by one that is
 * cancelled or killed: the worker answers numbers, not backends.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "pgstat.h"

#include "admin/request.h"

#define RECHECK_MS	500			/* for a job that ends or stops meanwhile */

bool
request_database_is_halted(void)
{
	bool		ours;

	SPI_connect();
	ours = catalog_identity_is_ours();
	SPI_finish();
	return !ours;
}

bool
request_and_wait(Job *job, MonoTime deadline)
{
	uint32		generation = job->generation;
	uint64		ticket = pg_atomic_add_fetch_u64(&job->asked, 1);
	bool		answered = false;

	job_wake(job);
	if (job->pid == 0)
		wake_supervisor();		/* one that runs on demand is started for it */
	ConditionVariablePrepareToSleep(&job->answered_cv);
	for (;;)
	{
		long		left;

		answered = pg_atomic_read_u64(&job->answered) >= ticket;
		if (answered || !job->in_use || job->generation != generation || job_is_hopeless(job))
			break;
		left = mono_ms_until(deadline);
		if (left <= 0)
			break;
		ConditionVariableTimedSleep(&job->answered_cv, Min(left, RECHECK_MS), PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return answered;
}
