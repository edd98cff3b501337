/*
 * shmem.c
 *		The extension's shared memory: how much, and its beginning.
 *
 * Locks: nexus_shared->lock guards who is what (the table of jobs, holds, the broker's
 * address); a job's mutex its conditions and its last error; counters are atomics. Nobody
 * waits while holding either.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "worker/worker.h"

NexusShared *nexus_shared = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(NexusShared, jobs), mul_size(nexus_max_jobs, sizeof(Job)));
}

static void
request_shared_memory(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(add_size(shared_size(), calls_size()));
	RequestNamedLWLockTranche("nexus_kafka", 1);
}

static void
start_shared_memory(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	nexus_shared = ShmemInitStruct("nexus_kafka", shared_size(), &found);
	if (!found)
	{
		memset(nexus_shared, 0, shared_size());
		nexus_shared->lock = &(GetNamedLWLockTranche("nexus_kafka"))->lock;
		ConditionVariableInit(&nexus_shared->worker_left);
		partition_stats_init();
		jobs_init();
	}
	calls_start();
	LWLockRelease(AddinShmemInitLock);
}

void
shmem_install_hooks(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
}
