/*
 * process.c
 *		A worker's life: attaching to its job, serving interrupts, waiting, leaving.
 *
 * A worker holds its job from worker_begin() until the very end of the process:
 * its exit callback is registered before the database connection's, so it runs
 * after that one, and whoever sees the job without a worker knows that the
 * worker has left the database too.
 */
#include "nexus_kafka.h"

#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"

#include "compat.h"
#include "worker/worker.h"

#define STATISTICS_MS	1000

Job		   *MyJob = NULL;

int			worker_reloads = 0;

void		(*worker_drain) (void) = NULL;

static bool leave_hard = false;
static bool retiring = false;
static volatile sig_atomic_t told_to_end = false;

static bool
attach(Job *job, JobKind kind)
{
	bool		mine;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	mine = job->in_use && job->kind == kind && job->pid == 0 && !job_is_held(job);
	if (mine)
	{
		job->pid = MyProcPid;
		job->latch = MyLatch;
		job->attached = job->definition;
		pg_atomic_write_u32(&job->long_transaction, 0);
		pg_atomic_write_u32(&job->link, LINK_UNKNOWN);
		pg_atomic_write_u32(&job->topic, TOPIC_UNKNOWN);
		pg_atomic_write_u64(&job->calls_wanted, 0);
		partition_stats_release(job);	/* of partitions that may be another's now */
		job->restart_at_once = false;
	}
	LWLockRelease(nexus_shared->lock);
	if (mine)
		job_conditions_forget(job, false);
	return mine;
}

static void
detach(int code, Datum arg)
{
	job_condition_set(MyJob, CONDITION_STARTING, NULL);
	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	MyJob->pid = 0;
	MyJob->latch = NULL;
	MyJob->told_to_end = told_to_end;
	if (retiring)
		job_free(MyJob);
	LWLockRelease(nexus_shared->lock);
	ConditionVariableBroadcast(&nexus_shared->worker_left);
}

/*
 * librdkafka's threads that couldn't be ended must not meet OpenSSL's atexit
 * handler. Registered first, so all of PostgreSQL's own cleaning up is done.
 */
static void
leave_hard_if_needed(int code, Datum arg)
{
	if (leave_hard)
		_exit(code == 0 ? 0 : 1);
}

void
worker_leave_hard(void)
{
	leave_hard = true;
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	told_to_end = true;
	die(postgres_signal_arg);
}

void
worker_begin(Datum main_arg, JobKind kind)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	ConfigReloadPending = true; /* a SIGHUP since the fork was ignored */
	on_proc_exit(leave_hard_if_needed, 0);

	MyJob = job_at(DatumGetInt32(main_arg));
	if (!attach(MyJob, kind))
		proc_exit(0);
	on_shmem_exit(detach, 0);
	BackgroundWorkerUnblockSignals();
}

/*
 * What ALTER DATABASE or ALTER ROLE has set holds for a worker as for a client, but for
 * what would make it another role, and for what our own queries depend on.
 */
static void
override_settings(void)
{
	SetConfigOption("role", "none", PGC_USERSET, PGC_S_SESSION);
	/* an error is a message's, or is tried again: it ends no worker */
	SetConfigOption("exit_on_error", "off", PGC_USERSET, PGC_S_SESSION);
	/* of a batch too: it ends the process */
	if (NEXUS_HAS_TRANSACTION_TIMEOUT)
		SetConfigOption("transaction_timeout", "0", PGC_USERSET, PGC_S_SESSION);
	/* the same short statements over and over: compiling each would cost more than running it */
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_SESSION);
	worker_secure_search_path();
}

void
worker_connect(void)
{
	BackgroundWorkerInitializeConnectionByOid(MyJob->database, InvalidOid, 0);
	override_settings();
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
}

void
worker_service(void)
{
	/* nothing is under way here: no need for FATAL's line in the log */
	if (ProcDiePending)
	{
		void		(*drain) (void) = worker_drain;

		worker_drain = NULL;
		ProcDiePending = false;
		if (drain)
			drain();

		/* the postmaster starts the launcher, which has no job, again after a 1 only */
		proc_exit(MyJob ? 0 : 1);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		worker_reloads++;
	}
}

void
worker_retire_at_end(void)
{
	retiring = true;
}

void
worker_retire(void)
{
	worker_retire_at_end();
	proc_exit(0);
}

void
worker_restart(void)
{
	MyJob->restart_at_once = true;
	proc_exit(0);
}

static WaitEventSet *
wait_set_for(int fd)
{
	static WaitEventSet *set = NULL;
	static int	set_fd = -1;

	if (set && set_fd == fd)
		return set;
	if (set)
		FreeWaitEventSet(set);
	set = nexus_create_wait_event_set(3);
	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (fd >= 0)
		AddWaitEventToSet(set, WL_SOCKET_READABLE, fd, NULL, NULL);
	set_fd = fd;
	return set;
}

/*
 * Before a sleep, what was done goes to the cumulative statistics, or autovacuum
 * would never know of it. PostgreSQL holds back what comes within a second of the
 * last report; the sleep is then made so short that it follows in time. Returns
 * the time to sleep.
 */
static long
report_statistics(long timeout_ms)
{
	static MonoTime held_back_since = 0;
	bool		force;

	if (!OidIsValid(MyDatabaseId) || timeout_ms == 0)
		return timeout_ms;
	force = held_back_since != 0 &&
		mono_now() >= mono_after_ms(held_back_since, STATISTICS_MS);
	if (pgstat_report_stat(force) <= 0)
	{
		held_back_since = 0;
		return timeout_ms;
	}
	if (held_back_since == 0)
		held_back_since = mono_now();
	return timeout_ms < 0 ? STATISTICS_MS : Min(timeout_ms, STATISTICS_MS);
}

bool
worker_wait(int fd, long timeout_ms)
{
	WaitEvent	event;
	bool		woken;

	timeout_ms = report_statistics(timeout_ms);
	woken = WaitEventSetWait(wait_set_for(fd), timeout_ms, &event, 1, PG_WAIT_EXTENSION) > 0 &&
		(event.events & WL_LATCH_SET) != 0;
	if (woken)
		ResetLatch(MyLatch);
	worker_service();
	return woken;
}
