/*
 * status.c
 *		What the views nexus_status and nexus_partitions are made of.
 */
#include "nexus_kafka.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"
#include "compat.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(nexus_jobs);
PG_FUNCTION_INFO_V1(nexus_job_partitions);
PG_FUNCTION_INFO_V1(nexus_database_state);

#define JOB_COLUMNS			20
#define PARTITION_COLUMNS	5

static Datum
text_or_null(const char *text, bool *isnull)
{
	*isnull = text[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(text);
}

static Datum
count_or_null(pg_atomic_uint64 *counter, uint64 none, bool *isnull)
{
	uint64		value = pg_atomic_read_u64(counter);

	*isnull = value == none;
	return Int64GetDatum((int64) value);
}

static void
fill_job(Job *job, Datum *values, bool *nulls)
{
	char		reason[JOB_REASON_SIZE];
	TimestampTz since;
	JobError	error;
	TimestampTz counted_since;

	memset(nulls, 0, JOB_COLUMNS * sizeof(bool));
	values[3] = (Datum) job_get_reason(job, reason, &since);
	values[5] = TimestampTzGetDatum(since);
	job_get_error(job, &error, &counted_since);
	values[17] = TimestampTzGetDatum(counted_since);

	values[0] = CStringGetTextDatum(job_kind_name(job->kind));
	values[1] = text_or_null(job->name, &nulls[1]);
	values[2] = Int32GetDatum(job->part);
	values[3] = CStringGetTextDatum(job_state_name((JobState) values[3]));
	values[4] = text_or_null(reason, &nulls[4]);
	nulls[6] = job->pid == 0;
	values[6] = Int32GetDatum(job->pid);
	values[7] = Int64GetDatum(pg_atomic_read_u64(&job->messages));
	values[8] = Int64GetDatum(pg_atomic_read_u64(&job->rows));
	values[9] = Int64GetDatum(pg_atomic_read_u64(&job->batches));
	values[10] = Int64GetDatum(pg_atomic_read_u64(&job->dead_letters));
	values[11] = Int64GetDatum(pg_atomic_read_u64(&job->retries));
	values[12] = count_or_null(&job->lag, JOB_LAG_UNKNOWN, &nulls[12]);
	values[13] = count_or_null(&job->last_message_at, 0, &nulls[13]);
	values[14] = text_or_null(error.text, &nulls[14]);
	nulls[15] = nulls[16] = nulls[14];
	values[15] = CStringGetTextDatum(unpack_sql_state(error.sqlstate));
	values[16] = TimestampTzGetDatum(error.at);
	values[18] = (Datum) pg_atomic_read_u32(&job->link);
	nulls[18] = job->pid == 0 || values[18] == LINK_UNKNOWN;
	values[18] = CStringGetTextDatum(link_state_name((LinkState) values[18]));
	values[19] = (Datum) pg_atomic_read_u32(&job->topic);
	nulls[19] = job->pid == 0 || values[19] == TOPIC_UNKNOWN;
	values[19] = BoolGetDatum(values[19] == TOPIC_FOUND);
}

Datum
nexus_jobs(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (nexus_shared == NULL)
		return (Datum) 0;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		Datum		values[JOB_COLUMNS];
		bool		nulls[JOB_COLUMNS];

		if (job->database != MyDatabaseId)
			continue;
		fill_job(job, values, nulls);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	LWLockRelease(nexus_shared->lock);
	return (Datum) 0;
}

Datum
nexus_job_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (nexus_shared == NULL)
		return (Datum) 0;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < NEXUS_MAX_PARTITIONS; i++)
	{
		PartitionStat *stat = &nexus_shared->partitions[i];
		Job		   *job = partition_stat_job(stat);
		Datum		values[PARTITION_COLUMNS];
		bool		nulls[PARTITION_COLUMNS] = {0};

		if (job == NULL || job->database != MyDatabaseId)
			continue;
		values[0] = CStringGetTextDatum(job->name);
		values[1] = CStringGetTextDatum(stat->topic);
		values[2] = Int32GetDatum(stat->partition);
		values[3] = count_or_null(&stat->end_offset, PG_UINT64_MAX, &nulls[3]);
		nulls[4] = job->pid == 0;
		values[4] = Int32GetDatum(job->pid);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	LWLockRelease(nexus_shared->lock);
	return (Datum) 0;
}

/* ---- what keeps the database as a whole from running ---- */

/* There is no supervisor, and none can come. */
static bool
has_no_room(void)
{
	bool		result;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	result = job_find(JOB_SUPERVISOR, MyDatabaseId, "", 0) == NULL && jobs_free() == 0;
	LWLockRelease(nexus_shared->lock);
	return result;
}

/* NULL: nothing does. */
static const char *
what_halts(const char **reason)
{
	const char *state = NULL;

	if (nexus_shared == NULL)
	{
		state = "disabled";
		*reason = "nexus_kafka is not in shared_preload_libraries";
	}
	else if (RecoveryInProgress())
	{
		state = "standby";
		*reason = "this server is a standby; it goes on when it is promoted";
	}
	else if (worker_database_is_halted())
	{
		state = "paused";
		*reason = HALTED_REASON;
	}
	else if (database_is_template(MyDatabaseId))
	{
		state = "paused";
		*reason = "this is a template database: it would be in use, and could not be copied";
	}
	else if (has_no_room())
	{
		state = "no_worker";
		*reason = psprintf("no room for one more database: raise nexus_kafka.max_jobs (now %d) and restart the server",
						   nexus_max_jobs);
	}
	return state;
}

Datum
nexus_database_state(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2] = {0};
	bool		nulls[2] = {true, true};
	const char *reason;
	const char *state = what_halts(&reason);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (state)
	{
		values[0] = CStringGetTextDatum(state);
		values[1] = CStringGetTextDatum(reason);
		nulls[0] = nulls[1] = false;
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
