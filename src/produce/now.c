/*
 * now.c
 *		nexus_produce_now: a message past the outbox and the transaction, with the
 *		broker's answer.
 *
 * The backend calls the relay (worker/calls.c), whose one producer serves all. The
 * relay takes a call only while a broker is there, so one that could not be taken
 * has certainly not been sent.
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "produce/produce.h"

PG_FUNCTION_INFO_V1(nexus_produce_now_prospect);
PG_FUNCTION_INFO_V1(nexus_produce_now_text);
PG_FUNCTION_INFO_V1(nexus_produce_now_jsonb);
PG_FUNCTION_INFO_V1(nexus_produce_now_bytea);

/* ---- a request: this, then topic, key, value and headers, each as long as it says ---- */

typedef struct NowRequest
{
	int32		partition;
	int32		topic_size;		/* with its zero byte */
	int32		key_size;		/* as varlena, 0: none */
	int32		value_size;
	int32		headers_size;	/* flat, in UTF-8 */
	int32		nheaders;
} NowRequest;

static int32
varlena_size(const void *data)
{
	return data ? VARSIZE_ANY(data) : 0;
}

static char *
append(char *to, const void *data, int32 size)
{
	if (size > 0)
		memcpy(to, data, size);
	return to + MAXALIGN(size);
}

static NowRequest
request_of(const Message *message)
{
	return (NowRequest)
	{
		message->partition, strlen(message->topic) + 1, varlena_size(message->key),
		varlena_size(message->value), message->flat.flat.len, message->flat.n
	};
}

static Size
request_size(const NowRequest *r)
{
	return MAXALIGN(sizeof(NowRequest)) + MAXALIGN(r->topic_size) + MAXALIGN(r->key_size) +
		MAXALIGN(r->value_size) + MAXALIGN(r->headers_size);
}

/* As a record, which points into the request. */
static Record
record_of_request(char *request)
{
	NowRequest *r = (NowRequest *) request;
	Record		record = {.partition = r->partition, .nheaders = r->nheaders};
	char	   *at = request + MAXALIGN(sizeof(NowRequest));

	record.topic = at;
	at += MAXALIGN(r->topic_size);
	record.key = r->key_size ? (struct varlena *) at : NULL;
	at += MAXALIGN(r->key_size);
	record.value = r->value_size ? (struct varlena *) at : NULL;
	at += MAXALIGN(r->value_size);
	record.headers = at;
	record.size = request_size(r);
	return record;
}

/* ---- the relay ---- */

/* False: it has to wait. *answered: that it can't be sent. */
static bool
admit_and_send(Relay *relay, char *request, int64 ticket, CallAnswer *answer, bool *answered)
{
	Record		record = record_of_request(request);
	Sent	   *sent = window_admit_call(&relay->window, &record, ticket, &record.partition);
	KafkaSendResult result;
	bool		stale;			/* by_key, and that partition is gone */

	if (sent == NULL)
	{
		relay->calls.waits = true;
		return false;
	}
	result = send_record(relay->link.client, &record, sent, &answer->failure);
	if (result == KAFKA_SEND_QUEUED)
	{
		relay->calls.in_flight++;
		return true;
	}
	stale = result == KAFKA_SEND_FAILED && record.partition >= 0 && sent->by_key &&
		kafka_failure_is_no_partition(answer->failure.code);
	if (stale)
		window_note_no_partition(&relay->window, sent);
	window_out(&relay->window, sent);
	in_flight_forget(sent);
	if (stale)
		return admit_and_send(relay, request, ticket, answer, answered);
	if (result == KAFKA_SEND_FULL && relay->sender.in_flight + relay->calls.in_flight > 0)
		return false;
	if (result == KAFKA_SEND_FULL)
		kafka_failure_set(&answer->failure, -1, "the message is larger than librdkafka's queue");
	*answered = true;
	return true;
}

/* False: it has to wait. */
static bool
send_call(Relay *relay, Call *call)
{
	dsm_segment *segment;
	char	   *request = call_map(call, &segment);
	CallAnswer	answer = {0};
	MemoryContext before = MemoryContextSwitchTo(relay->sender.record_context);
	bool		answered = request == NULL;
	bool		taken = true;

	if (request)
		taken = admit_and_send(relay, request, call_ticket(call), &answer, &answered);
	else
		kafka_failure_set(&answer.failure, -1, "the caller is gone");
	call_unmap(segment);
	MemoryContextSwitchTo(before);
	MemoryContextReset(relay->sender.record_context);
	if (answered)
		call_answer(call, &answer);
	return taken;
}

/* Those that have to wait are looked at again when anything was answered. */
void
now_take_calls(Relay *relay)
{
	uint64		calls = pg_atomic_read_u64(&MyJob->calls);
	Call	   *call;
	int			i = 0;
	bool		left = false;

	if (calls == relay->calls.seen || !relay->link.reachable ||
		(relay->coalescing.gathering && relay->reader.n == 0))
		return;
	relay->calls.waits = false;
	while ((call = call_take_next(&i)) != NULL)
	{
		/* of questions there is one at a time, and the others' wait is no concern of messages */
		if (!(call->kind == CALL_PRODUCE ? send_call(relay, call) : topics_take_call(relay, call)))
		{
			call_put_back(call);
			left = left || call->kind != CALL_PRODUCE || !relay->calls.waits;
		}
	}
	if (!left)
		relay->calls.seen = calls;
}

void
now_look_again(Relay *relay)
{
	relay->calls.seen = 0;
}

/* Something was answered: the lane that a call waits for may be free. */
void
now_look_if_waiting(Relay *relay)
{
	if (relay->calls.waits)
		now_look_again(relay);
}

void
now_answer(Relay *relay, Sent *sent, const KafkaDelivery *delivery)
{
	Window	   *window = &relay->window;
	Call	   *call = call_of_ticket(sent->key.id);
	CallAnswer	answer = {.partition = delivery->partition,.offset = delivery->offset};
	KafkaFate	fate = kafka_fate(delivery->code);
	bool		again = false;

	if (--relay->calls.in_flight == 0)
		coalesce_calls_answered(relay);
	if (fate == KAFKA_FATE_DELIVERED)
		window_note_delivered(window, sent);
	else if (fate == KAFKA_FATE_NO_TOPIC)
		window_note_missing(window, sent);
	else if (sent->by_key && kafka_failure_is_no_partition(delivery->code))
	{
		window_note_no_partition(window, sent);
		again = call != NULL;
	}
	else if (fate == KAFKA_FATE_BATCH_REFUSED && !window_was_alone(sent))
	{
		window_note_suspect(window, sent);
		again = call != NULL;
	}
	window_out(window, sent);
	in_flight_forget(sent);
	if (again)
		relay->calls.seen = 0;
	if (call == NULL)
		return;
	if (again)
	{
		call_put_back(call);
		return;
	}
	if (delivery->code != 0)
		kafka_failure_set(&answer.failure, delivery->code, NULL);
	call_answer(call, &answer);
}

/* Of a relay that ended with them in its hands. */
void
now_answer_left_over(void)
{
	CallAnswer	answer = {0};

	kafka_failure_set(&answer.failure, -1, "the relay was started anew meanwhile; the message may have been published");
	calls_answer_left_over(&answer);
}

/* ---- the backend ---- */

static int
sqlstate_of(const KafkaFailure *failure)
{
	if (kafka_failure_is_authorization(failure))
		return ERRCODE_INSUFFICIENT_PRIVILEGE;
	switch (kafka_fate(failure->code))
	{
		case KAFKA_FATE_NO_TOPIC:
			return ERRCODE_UNDEFINED_OBJECT;
		case KAFKA_FATE_REFUSED:
		case KAFKA_FATE_BATCH_REFUSED:
			return strstr(failure->name, "TOO_LARGE") ? ERRCODE_PROGRAM_LIMIT_EXCEEDED
				: ERRCODE_EXTERNAL_ROUTINE_EXCEPTION;
		default:
			return ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	}
}

static void
refuse_not_sent(const Message *message, Job *relay)
{
	char		reason[JOB_REASON_SIZE] = "";
	JobState	state = relay ? job_get_reason(relay, reason, NULL) : JOB_STARTING;

	if (relay == NULL && message->connection[0])
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("the message was not published: there is no connection \"%s\"", message->connection),
				 errdetail("It was not sent, and will not be."),
				 errhint("A connection is a section of nexus_kafka.config_file.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("the message was not published: the relay is %s%s%s",
					state == JOB_RUNNING ? "busy" : job_state_name(state), reason[0] ? ": " : "", reason),
			 errdetail("It was not sent, and will not be.")));
}

static Jsonb *
place_of(const CallAnswer *answer)
{
	char	   *text = psprintf("{\"partition\":%d,\"offset\":" INT64_FORMAT "}", answer->partition, answer->offset);

	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static Datum
publish_now(const Message *message, Interval *timeout)
{
	MonoTime	deadline;
	Job		   *relay;
	NowRequest	request = request_of(message);
	CallAnswer	answer;
	char	   *to;

	worker_check_possible("nexus_produce_now");
	deadline = worker_deadline(timeout);
	relay = worker_await_job(JOB_RELAY, message->connection, 0, deadline);
	if (relay == NULL ||
		(to = call_begin(CALL_PRODUCE, MyDatabaseId, message->connection, request_size(&request), deadline)) == NULL)
	{
		refuse_not_sent(message, relay);
		return 0;
	}
	memcpy(to, &request, sizeof(request));
	to = append(to + MAXALIGN(sizeof(request)), message->topic, request.topic_size);
	to = append(to, message->key, request.key_size);
	to = append(to, message->value, request.value_size);
	(void) append(to, message->flat.flat.data, request.headers_size);

	switch (call_and_wait(relay, deadline, &answer))
	{
		case CALL_NOT_TAKEN:
			refuse_not_sent(message, relay);
			break;
		case CALL_UNKNOWN:
			ereport(ERROR,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("the broker has not answered in time"),
					 errdetail("The message %s was sent and may still be published.", message->id)));
			break;
		case CALL_DONE:
			if (answer.failure.code != 0)
				ereport(ERROR,
						(errcode(sqlstate_of(&answer.failure)),
						 errmsg("the message was not accepted: %s", answer.failure.text),
						 errdetail("Kafka's error is %s.", answer.failure.name)));
			break;
	}
	return message_answer(message, "published", place_of(&answer));
}

static Interval *
timeout_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null")));
	return PG_GETARG_INTERVAL_P(n);
}

Datum
nexus_produce_now_prospect(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_prospect(fcinfo, &message);
	return publish_now(&message, timeout_argument(fcinfo, 1));
}

Datum
nexus_produce_now_text(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_text(fcinfo, 6, &message);
	return publish_now(&message, timeout_argument(fcinfo, 5));
}

Datum
nexus_produce_now_jsonb(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_jsonb(fcinfo, 6, &message);
	return publish_now(&message, timeout_argument(fcinfo, 5));
}

Datum
nexus_produce_now_bytea(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_bytea(fcinfo, 6, &message);
	return publish_now(&message, timeout_argument(fcinfo, 5));
}
