/*
 * resume.c
 *		nexus_resume(): what it means stands in nexus_pipelines, and the supervisor acts
 *		on it. Here its caller waits, once it has committed, until that has been done.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "utils/hsearch.h"

#include "worker/worker.h"

#define LONGEST_WAIT_MS		2000
#define STEP_MS				5

static HTAB *pipelines = NULL;	/* of this transaction */

void
resume_at_commit(const char *pipeline)
{
	if (transaction_end_register())
		name_set_add(&pipelines, pipeline);
}

/* Has each of the workers started, or has it a reason why not? */
static bool
are_resumed(void)
{
	bool		all = true;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (Job *job = job_next(NULL); job && all; job = job_next(job))
		if (job->kind == JOB_INGEST && job->database == MyDatabaseId && name_set_has(pipelines, job->name))
			all = job_get_state(job) != JOB_STARTING && (job->pid == 0 || job->attached == job->definition);
	LWLockRelease(nexus_shared->lock);
	return all;
}

/*
 * Interrupts are held off here: so it looks for a cancel by itself, and its wait is
 * short. A supervisor that is on its way, or gone, isn't waited for.
 */
void
resumes_end(bool committed)
{
	Job		   *supervisor = committed && pipelines ? job_lookup(JOB_SUPERVISOR, MyDatabaseId, "", 0) : NULL;

	if (supervisor && supervisor->pid != 0)
	{
		uint64		ticket = pg_atomic_add_fetch_u64(&supervisor->asked, 1);

		job_wake(supervisor);
		for (int ms = 0; ms < LONGEST_WAIT_MS && !QueryCancelPending && !ProcDiePending; ms += STEP_MS)
		{
			if (pg_atomic_read_u64(&supervisor->answered) >= ticket && are_resumed())
				break;
			pg_usleep(STEP_MS * 1000L);
		}
	}
	pipelines = NULL;
}
