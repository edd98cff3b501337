/*
 * steer.c
 *		nexus_pause(), nexus_resume() and nexus_seek().
 *
 * A pipeline's row is locked from the first of these on until the transaction ends,
 * so what one finds paused, nobody resumes meanwhile.
 */
#include "nexus_kafka.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "admin/pipeline.h"
#include "ingest/ingest.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(nexus_pause);
PG_FUNCTION_INFO_V1(nexus_resume_pipeline);
PG_FUNCTION_INFO_V1(nexus_resume_database);
PG_FUNCTION_INFO_V1(nexus_seek);

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	Pipeline   *pipeline = pipeline_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (paused && !hold_pipeline(pipeline->name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the worker of pipeline \"%s\" did not stop in time", pipeline->name)));
	SPI_connect();
	(void) catalog_set_paused(pipeline->name, paused, NULL);
	SPI_finish();
	wake_supervisor_at_commit();
	if (!paused)
		resume_at_commit(pipeline->name);
}

Datum
nexus_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
nexus_resume_pipeline(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

Datum
nexus_resume_database(PG_FUNCTION_ARGS)
{
	SPI_connect();
	catalog_take_identity();
	SPI_finish();
	wake_supervisor_at_commit();
	wake_launcher_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}

/* ---- nexus_seek ---- */

static uint64
seek(const Pipeline *pipeline, const Position *position, const char *topic, int32 partition)
{
	PartitionOffset fresh = {unconstify(char *, topic), partition, position->offset, position->time};
	uint64		n;

	n = catalog_offsets_set(pipeline->name, topic, partition, position->offset, position->time);
	if (n == 0 && topic && partition >= 0 && topics_include(pipeline, topic))
	{
		catalog_offset_add(pipeline->name, &fresh);
		n = 1;
	}
	return n;
}

Datum
nexus_seek(PG_FUNCTION_ARGS)
{
	Pipeline   *pipeline;
	Position	position;
	char	   *topic = NULL;
	int32		partition = -1;
	uint64		n;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pipeline and position must not be null")));
	position = position_parse(text_to_cstring(PG_GETARG_TEXT_PP(1)), GetCurrentTimestamp());
	if (!PG_ARGISNULL(2))
		topic = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (!PG_ARGISNULL(3))
		partition = PG_GETARG_INT32(3);
	if (partition >= 0 && topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a partition is one of a topic: name the topic too")));
	if (!PG_ARGISNULL(3) && partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition must not be negative")));

	pipeline = pipeline_lock(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!pipeline->paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" is not paused", pipeline->name),
				 errhint("Call nexus_pause() before, and nexus_resume() after.")));
	/* one may be on its way up still, or down */
	(void) hold_pipeline(pipeline->name);
	SPI_connect();
	n = seek(pipeline, &position, topic, partition);
	SPI_finish();
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" knows no such partition yet", pipeline->name),
				 errdetail("Partitions become known when it first runs."),
				 errhint("Name one of its topics and a partition, or set the option start with nexus_alter_pipeline().")));
	PG_RETURN_INT64((int64) n);
}
