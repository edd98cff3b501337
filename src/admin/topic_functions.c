/*
 * topic_functions.c
 *		nexus_create_topic() and nexus_topics(): asked of the relay, or of the embedded
 *		broker.
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

PG_FUNCTION_INFO_V1(nexus_create_topic);
PG_FUNCTION_INFO_V1(nexus_topics_json);

#define REPLY_SIZE	(4 * 1024 * 1024)	/* room for the description of some 25,000 partitions */

typedef struct KnownError
{
	const char *name;
	int			sqlstate;
} KnownError;

static const KnownError known_errors[] = {
	{"TOPIC_ALREADY_EXISTS", ERRCODE_DUPLICATE_OBJECT},
	{"TOPIC_AUTHORIZATION_FAILED", ERRCODE_INSUFFICIENT_PRIVILEGE},
	{"CLUSTER_AUTHORIZATION_FAILED", ERRCODE_INSUFFICIENT_PRIVILEGE},
	{"INVALID_PARTITIONS", ERRCODE_INVALID_PARAMETER_VALUE},
	{"INVALID_REPLICATION_FACTOR", ERRCODE_INVALID_PARAMETER_VALUE},
	{"INVALID_CONFIG", ERRCODE_INVALID_PARAMETER_VALUE},
	{"TOPIC_EXCEPTION", ERRCODE_INVALID_PARAMETER_VALUE},
	{"_INVALID_ARG", ERRCODE_INVALID_PARAMETER_VALUE},
	{"POLICY_VIOLATION", ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION},
};

/* What was not answered may have an effect still, if it has any. */
static int
sqlstate_unanswered(CallKind kind)
{
	return kind == CALL_CREATE_TOPIC ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN : ERRCODE_CONNECTION_FAILURE;
}

static int
sqlstate_of(const char *name, CallKind kind)
{
	if (strcmp(name, "_TIMED_OUT") == 0 || strcmp(name, "_TRANSPORT") == 0)
		return sqlstate_unanswered(kind);
	for (int i = 0; i < lengthof(known_errors); i++)
		if (strcmp(known_errors[i].name, name) == 0)
			return known_errors[i].sqlstate;
	return ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
}

/* Raises if it isn't answered, or with an error. */
static void
call(const char *function, CallKind kind, const char *connection, const char *request, Size size, Interval *timeout)
{
	bool		embedded = nexus_embedded_broker && kind == CALL_CREATE_TOPIC;
	MonoTime	deadline = worker_deadline(timeout);
	Oid			database = embedded ? InvalidOid : MyDatabaseId;
	CallAnswer	answer;
	CallOutcome outcome = CALL_NOT_TAKEN;
	Job		   *worker;
	char	   *to;

	worker_check_possible(function);
	worker = worker_await_job(JOB_RELAY, connection, 0, deadline);
	if (worker == NULL && connection[0])
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("there is no connection \"%s\"", connection),
				 errhint("A connection is a section of nexus_kafka.config_file.")));
	if (embedded)
	{
		connection = "";
		worker = worker_await_job(JOB_BROKER, connection, 0, deadline);
	}
	if (worker && (to = call_begin(kind, database, connection, size, deadline)) != NULL)
	{
		strlcpy(to, request, size);
		outcome = call_and_wait(worker, deadline, &answer);
	}
	if (outcome == CALL_NOT_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("%s() got no answer in time", function),
				 errdetail("It was not asked for: look at nexus_status.")));
	if (outcome == CALL_UNKNOWN)
		ereport(ERROR,
				(errcode(sqlstate_unanswered(kind)),
				 errmsg("%s() got no answer in time", function),
				 kind == CALL_CREATE_TOPIC ? errdetail("It was asked for, and may be done still.") : 0));
	if (answer.failure.code != 0)
		ereport(ERROR,
				(errcode(sqlstate_of(answer.failure.name, kind)),
				 errmsg("%s", answer.failure.text),
				 errdetail("Kafka's error is %s.", answer.failure.name)));
}

/* ---- nexus_create_topic ---- */

static void
check_config(Jsonb *config)
{
	JsonbIterator *it = JsonbIteratorInit(&config->root);
	JsonbValue	v;

	if (!JB_ROOT_IS_OBJECT(config))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("config must be a JSON object of names and strings"),
				 errhint("For example {\"retention.ms\": \"604800000\"}.")));
	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(v.val.string.val, v.val.string.len);

		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("config: the value of \"%s\" must be a string", name)));
	}
}

Datum
nexus_create_topic(PG_FUNCTION_ARGS)
{
	char	   *request;
	char	   *topic;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("topic, partitions and timeout must not be null")));
	topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!kafka_topic_is_valid(topic, strlen(topic)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a name of a Kafka topic", topic)));
	if (PG_GETARG_INT32(1) < 1 || (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partitions and replication_factor must be at least 1")));

	if (!PG_ARGISNULL(3))
		check_config(PG_GETARG_JSONB_P(3));
	request = new_topic_request(topic, PG_GETARG_INT32(1), PG_ARGISNULL(2) ? -1 : PG_GETARG_INT32(2),
								PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	call("nexus_create_topic", CALL_CREATE_TOPIC, connection_argument(fcinfo, 5), request, strlen(request) + 1,
		 PG_GETARG_INTERVAL_P(4));
	PG_RETURN_VOID();
}

/* ---- nexus_topics ---- */

Datum
nexus_topics_json(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	call("nexus_topics", CALL_TOPICS, connection_argument(fcinfo, 1), "", REPLY_SIZE, PG_GETARG_INTERVAL_P(0));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(call_reply()));
}
