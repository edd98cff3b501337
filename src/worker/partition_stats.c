/*
 * partition_stats.c
 *		What the workers of pipelines know of their partitions, for nexus_partitions.
 */
#include "nexus_kafka.h"

#include "worker/worker.h"

void
partition_stats_init(void)
{
	for (int i = 0; i < NEXUS_MAX_PARTITIONS; i++)
	{
		nexus_shared->partitions[i].job = -1;
		pg_atomic_init_u64(&nexus_shared->partitions[i].end_offset, PG_UINT64_MAX);
	}
}

/* NULL if there is no room: then the end isn't shown, and nothing else is amiss. */
PartitionStat *
partition_stat(Job *job, const char *topic, int32 partition)
{
	PartitionStat *free_one = NULL;
	PartitionStat *found = NULL;
	int			index = job_index(job);

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < NEXUS_MAX_PARTITIONS && !found; i++)
	{
		PartitionStat *stat = &nexus_shared->partitions[i];

		if (stat->job < 0)
			free_one = free_one ? free_one : stat;
		else if (stat->job == index && stat->partition == partition && strcmp(stat->topic, topic) == 0)
			found = stat;
	}
	if (!found && free_one)
	{
		found = free_one;
		found->job = index;
		found->generation = job->generation;
		strlcpy(found->topic, topic, sizeof(found->topic));
		found->partition = partition;
		pg_atomic_write_u64(&found->end_offset, PG_UINT64_MAX);
	}
	LWLockRelease(nexus_shared->lock);
	return found;
}

/* The caller holds nexus_shared->lock exclusively. */
void
partition_stats_release(Job *job)
{
	int			index = job_index(job);

	for (int i = 0; i < NEXUS_MAX_PARTITIONS; i++)
		if (nexus_shared->partitions[i].job == index)
			nexus_shared->partitions[i].job = -1;
}

/* The job of one of them; NULL: it is free. The caller holds the lock. */
Job *
partition_stat_job(const PartitionStat *stat)
{
	return stat->job >= 0 && job_at(stat->job)->in_use ? job_at(stat->job) : NULL;
}
