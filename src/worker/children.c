/*
 * children.c
 *		A parent (the launcher, a supervisor) starts the workers of its jobs, and
 *		starts them again when they end: at once where the worker asked for it,
 *		else with a back-off that doubles while it keeps ending early.
 *
 * What the parent remembers is its own; a parent that is started again finds
 * running workers by the jobs' pids.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "worker/worker.h"

#define FIRST_DELAY_MS		1000
#define LONGEST_DELAY_MS	60000
#define NO_SLOT_DELAY_MS	10000
#define EARLY_END_MS		10000	/* a worker that ends sooner, untold, makes the delay grow */

typedef struct Child
{
	uint32		generation;		/* of the job; another one: another child */
	BackgroundWorkerHandle *handle; /* NULL: not started by this parent */
	MonoTime	started;
	MonoTime	start_at;
	int			delay_ms;
} Child;

static Child *children = NULL;

static Child *
child_of(Job *job)
{
	Child	   *child;

	if (children == NULL)
		children = MemoryContextAllocZero(TopMemoryContext, nexus_max_jobs * sizeof(Child));
	child = &children[job_index(job)];
	if (child->generation != job->generation)
	{
		if (child->handle)
			pfree(child->handle);
		memset(child, 0, sizeof(Child));
		child->generation = job->generation;
	}
	return child;
}

bool
worker_register(const Job *job, const char *extra, size_t size, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	if (OidIsValid(job->database))
		worker.bgw_flags |= BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(job_index(job));
	strlcpy(worker.bgw_library_name, NEXUS_EXTENSION, sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "nexus_%s_main", job_kind_name(job->kind));
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "nexus_kafka %s", job_kind_name(job->kind));
	if (job->name[0])
		snprintf(worker.bgw_name, sizeof(worker.bgw_name), "nexus_kafka %s %s", job_kind_name(job->kind), job->name);
	else
		strlcpy(worker.bgw_name, worker.bgw_type, sizeof(worker.bgw_name));
	make_printable(worker.bgw_name);	/* the postmaster logs it */
	if (extra)
		memcpy(worker.bgw_extra, extra, size);
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

static void
start(Job *job, Child *child, MonoTime now)
{
	if (worker_register(job, NULL, 0, &child->handle))
	{
		child->started = now;
		job_condition_clear(job, CONDITION_NO_SLOT);
		return;
	}
	child->handle = NULL;
	child->start_at = mono_after_ms(now, NO_SLOT_DELAY_MS);
	job_condition_set(job, CONDITION_NO_SLOT,
					  "no free background worker slot: raise max_worker_processes (now %d) and restart the server",
					  max_worker_processes);
}

static void
note_end(Job *job, Child *child, MonoTime now)
{
	pfree(child->handle);
	child->handle = NULL;
	if (job->restart_at_once)
		child->delay_ms = 0;
	else if (job->told_to_end)
		child->delay_ms = FIRST_DELAY_MS;
	else if (child->delay_ms > 0 && now < mono_after_ms(child->started, EARLY_END_MS))
		child->delay_ms = Min(child->delay_ms * 2, LONGEST_DELAY_MS);
	else
		child->delay_ms = FIRST_DELAY_MS;
	child->start_at = mono_after_ms(now, child->delay_ms);
	if (child->delay_ms > FIRST_DELAY_MS)
		job_condition_set(job, CONDITION_KEEPS_ENDING,
						  "the worker keeps ending, see last_error and the server's log; next start in %d s",
						  child->delay_ms / 1000);
	else
		job_condition_clear(job, CONDITION_KEEPS_ENDING);
}

/* One that has run for a while doesn't keep ending. Returns as tend(). */
static long
note_running(Job *job, const Child *child, MonoTime now)
{
	MonoTime	well_at = mono_after_ms(child->started, EARLY_END_MS);

	if (!job_condition_is_set(job, CONDITION_KEEPS_ENDING))
		return -1;
	if (now < well_at)
		return mono_ms_between(now, well_at);
	job_condition_clear(job, CONDITION_KEEPS_ENDING);
	return -1;
}

/* Milliseconds until the job needs its parent again, -1: it will be told. */
static long
tend(Job *job, Child *child, const Parent *parent, bool ready)
{
	MonoTime	now = mono_now();
	pid_t		pid;

	if (child->handle)
	{
		if (GetBackgroundWorkerPid(child->handle, &pid) != BGWH_STOPPED)
			return note_running(job, child, now);
		note_end(job, child, now);
	}
	if (job->pid != 0)
		return 1000;			/* another parent started it, and nobody will tell this one */
	if (!ready)
		return -1;				/* a worker's end makes it so, and that is told */
	if (now < child->start_at)
		return mono_ms_between(now, child->start_at);
	if (parent->may_start && !parent->may_start(job))
	{
		LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
		job_free(job);
		LWLockRelease(nexus_shared->lock);
		return -1;
	}
	start(job, child, now);
	return child->handle ? -1 : NO_SLOT_DELAY_MS;
}

long
children_tend(const Parent *parent)
{
	long		next = -1;

	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		bool		mine;
		bool		ready;
		long		due;

		/*
		 * Its parent frees a job, or the worker itself when it retires. Should that
		 * be now, a worker may be started for nothing, and finds nothing to attach to.
		 */
		LWLockAcquire(nexus_shared->lock, LW_SHARED);
		mine = job->in_use && parent->is_mine(job) && !job_is_held(job);
		ready = mine && (parent->is_ready == NULL || parent->is_ready(job));
		LWLockRelease(nexus_shared->lock);
		if (!mine)
			continue;
		due = tend(job, child_of(job), parent, ready);
		if (due >= 0 && (next < 0 || due < next))
			next = due;
	}
	return next;
}
