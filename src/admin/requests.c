/*
 * requests.c
 *		nexus_flush() and nexus_consume().
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "admin/pipeline.h"
#include "catalog/tables.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(nexus_flush);
PG_FUNCTION_INFO_V1(nexus_consume);

/* One that has gone while it was asked may have a successor. */
static RequestOutcome
ask(JobKind kind, const char *name, int part, MonoTime deadline, Job **job, uint64 *refused)
{
	RequestOutcome outcome = REQUEST_JOB_GONE;

	while (outcome == REQUEST_JOB_GONE && (*job = worker_await_job(kind, name, part, deadline)) != NULL)
	{
		*refused = pg_atomic_read_u64(&(*job)->refused);
		outcome = request_and_wait(*job, deadline);
		*refused = pg_atomic_read_u64(&(*job)->refused) - *refused;
	}
	return outcome;
}

static bool
flush(const char *connection, MonoTime deadline)
{
	Job		   *relay;
	uint64		refused;

	if (ask(JOB_RELAY, connection, 0, deadline, &relay, &refused) != REQUEST_ANSWERED)
		return false;
	if (refused > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("the broker refused " UINT64_FORMAT " messages", refused),
				 errhint("Look at nexus_dead_letters.")));
	return refused == 0;
}

/* Whatever the transaction's snapshot sees. */
static List *
connections_with_rows(List *known)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	names = catalog_outbox_connections(known, context);
	PopActiveSnapshot();
	SPI_finish();
	return names;
}

static bool
has_rows(const char *connection)
{
	bool		result;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	result = catalog_outbox_first_id(connection) != 0;
	PopActiveSnapshot();
	SPI_finish();
	return result;
}

/*
 * A relay that runs knows at once if anything waits; where none does, the table tells: a row
 * that isn't acknowledged is there. To look there always would be to walk over all that was
 * published while somebody holds a snapshot.
 */
static bool
flush_connection(const char *connection, MonoTime deadline)
{
	Job		   *relay = job_lookup(JOB_RELAY, MyDatabaseId, connection, 0);
	JobState	state = relay ? job_get_state(relay) : JOB_STARTING;

	if (state != JOB_RUNNING && state != JOB_WAITING && !has_rows(connection))
		return true;
	return flush(connection, deadline);
}

Datum
nexus_flush(PG_FUNCTION_ARGS)
{
	MonoTime	deadline = worker_deadline(PG_GETARG_INTERVAL_P(0));
	List	   *known;
	bool		all;
	ListCell   *lc;

	worker_check_possible("nexus_flush");
	if (worker_database_is_halted())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nexus_flush() can't be used here: %s", HALTED_REASON)));
	known = relays_at_work(CurrentMemoryContext);
	all = flush_connection("", deadline);
	foreach(lc, list_concat_copy(known, connections_with_rows(known)))
		all = flush_connection(lfirst(lc), deadline) && all;
	PG_RETURN_BOOL(all);
}

/* ---- nexus_consume ---- */

static Datum
answer(const char *json)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

static Datum
answer_error(Job *job)
{
	char		reason[JOB_REASON_SIZE];
	StringInfoData json;
	JobState	state = job_get_reason(job, reason, NULL);

	initStringInfo(&json);
	if (reason[0] == '\0' && state == JOB_PAUSED)
		strlcpy(reason, "see nexus_status", sizeof(reason));
	escape_json(&json, psprintf("%s%s%s", state == JOB_RUNNING ? "not done in time" : job_state_name(state),
								reason[0] ? ": " : "", reason));
	return answer(psprintf("{\"status\":\"error\",\"error\":%s}", json.data));
}

/* All of the pipeline's workers; NULL, or the job that isn't done. */
static Job *
consume_all(const Pipeline *pipeline, MonoTime deadline, bool *missing)
{
	for (int part = 0; part < pipeline->workers; part++)
	{
		Job		   *job;
		uint64		refused;
		RequestOutcome outcome;

		if (pipeline->on_demand && job_demand(pipeline->name, part) == NULL)
		{
			*missing = true;
			return NULL;
		}
		outcome = ask(JOB_INGEST, pipeline->name, part, deadline, &job, &refused);
		*missing = job == NULL;
		if (outcome != REQUEST_ANSWERED)
			return job;
	}
	return NULL;
}

static bool
may_publish(JobState relay)
{
	return relay == JOB_RUNNING || relay == JOB_STARTING || relay == JOB_ON_DEMAND;
}

Datum
nexus_consume(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MonoTime	deadline = worker_deadline(PG_GETARG_INTERVAL_P(1));
	MonoTime	half_time;
	Pipeline   *pipeline;
	const char *connection;
	Job		   *relay;
	Job		   *undone;
	uint64		refused;
	bool		missing = false;
	uint64		n;

	pipeline = pipeline_find(name);
	worker_check_possible("nexus_consume");
	if (worker_database_is_halted())
		return answer("{\"status\":\"error\",\"error\":\"paused: " HALTED_REASON "\"}");
	if (pipeline->paused)
		return answer("{\"status\":\"error\",\"error\":\"paused: see nexus_status\"}");

	/* what was committed here before the call goes to the topic first */
	half_time = mono_now() + (deadline - mono_now()) / 2;
	connection = pipeline->connection ? pipeline->connection : "";
	relay = worker_await_job(JOB_RELAY, connection, 0, half_time);
	if (relay && may_publish(job_get_state(relay)))
		(void) ask(JOB_RELAY, connection, 0, half_time, &relay, &refused);

	undone = consume_all(pipeline, deadline, &missing);
	if (missing && pipeline->on_demand)
		return answer("{\"status\":\"error\",\"error\":\"no_worker: no room for its workers: raise nexus_kafka.max_jobs\"}");
	if (missing)
		return answer("{\"status\":\"error\",\"error\":\"the pipeline does not run: see nexus_status\"}");
	if (undone)
		return answer_error(undone);
	n = job_count_unreported(name);
	if (n == 0)
		return answer("{\"status\":\"idle\"}");
	return answer(psprintf("{\"status\":\"success\",\"processedCount\":" UINT64_FORMAT "}", n));
}
