/*
 * replay_function.c
 *		nexus_replay(): asks for dead letters to be tried again, and waits.
 *
 * A worker of its own does it, since the statement may only run in one, under its
 * pipeline's role; the pipeline need not run. Request and result are in a dynamic
 * shared memory segment. A caller that is cancelled ends the worker: what was
 * committed stays so.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/dsm.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "admin/pipeline.h"
#include "ingest/ingest.h"

PG_FUNCTION_INFO_V1(nexus_replay);

static dsm_segment *
make_request(ArrayType *ids)
{
	Datum	   *elements = NULL;
	bool	   *nulls;
	int			n = -1;
	dsm_segment *segment;
	ReplayRequest *request;

	if (ids)
		deconstruct_array(ids, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &n);
	segment = dsm_create(offsetof(ReplayRequest, ids) + Max(n, 0) * sizeof(int64), 0);
	request = dsm_segment_address(segment);
	memset(request, 0, offsetof(ReplayRequest, ids));
	request->nids = n;
	for (int i = 0; i < n; i++)
		request->ids[i] = nulls[i] ? -1 : DatumGetInt64(elements[i]);
	return segment;
}

static Job *
make_job(const char *pipeline)
{
	Job		   *job;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	job = job_find(JOB_REPLAY, MyDatabaseId, pipeline, MyProcPid);
	if (job == NULL)
		job = job_create(JOB_REPLAY, MyDatabaseId, pipeline, MyProcPid);
	LWLockRelease(nexus_shared->lock);
	if (job == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for one more worker"),
				 errhint("Raise nexus_kafka.max_jobs (now %d) and restart the server.", nexus_max_jobs)));
	return job;
}

/* A worker takes its job along; one that never came can't. */
static void
free_unattended(const char *pipeline)
{
	Job		   *job;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	job = job_find(JOB_REPLAY, MyDatabaseId, pipeline, MyProcPid);
	if (job && job->pid == 0)
		job_free(job);
	LWLockRelease(nexus_shared->lock);
}

static void
run_worker(const char *pipeline, dsm_handle request)
{
	BackgroundWorkerHandle *worker;
	Job		   *job = make_job(pipeline);
	bool		started = worker_register(job, (const char *) &request, sizeof(request), &worker);

	PG_TRY();
	{
		if (!started)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no free background worker slot"),
					 errhint("Raise max_worker_processes (now %d) and restart the server.", max_worker_processes)));
		if (WaitForBackgroundWorkerShutdown(worker) == BGWH_POSTMASTER_DIED)
			ereport(FATAL, (errcode(ERRCODE_ADMIN_SHUTDOWN), errmsg("the postmaster is gone")));
	}
	PG_CATCH();
	{
		if (started)
			TerminateBackgroundWorker(worker);
		free_unattended(pipeline);
		PG_RE_THROW();
	}
	PG_END_TRY();
	free_unattended(pipeline);
}

Datum
nexus_replay(PG_FUNCTION_ARGS)
{
	char	   *pipeline;
	dsm_segment *segment;
	ReplayRequest *request;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pipeline must not be null")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	pipeline = text_to_cstring(PG_GETARG_TEXT_PP(0));
	(void) pipeline_find(pipeline);
	worker_check_possible("nexus_replay");

	segment = make_request(PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1));
	request = dsm_segment_address(segment);
	run_worker(pipeline, dsm_segment_handle(segment));
	if (!request->finished)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("the replay was ended"),
				 errdetail(INT64_FORMAT " messages were taken in before.", request->replayed)));
	if (request->sqlstate != 0)
		ereport(ERROR,
				(errcode(request->sqlstate),
				 errmsg("the replay could not go on: %s", request->error),
				 errdetail(INT64_FORMAT " messages were taken in before.", request->replayed)));
	values[0] = Int64GetDatum(request->replayed);
	values[1] = Int64GetDatum(request->failed);
	dsm_detach(segment);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
