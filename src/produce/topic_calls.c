/*
 * topic_calls.c
 *		nexus_create_topic and nexus_topics, as the relay serves them.
 *
 * The relay asks the cluster, one question at a time, on behalf of the caller. The
 * request is a JSON object, and so is the reply, in its place.
 */
#include "nexus_kafka.h"

#include "lib/stringinfo.h"
#include "utils/json.h"

#include "produce/produce.h"

#define TIMEOUT_MS	25000

/* The call that is being asked for; 0: none. */
static int64 asked_for = 0;

/* False: another question is under way. */
bool
topics_take_call(Relay *relay, Call *call)
{
	KafkaRequest question = {.describe = call->kind == CALL_TOPICS, .timeout_ms = TIMEOUT_MS};
	KafkaNewTopic topic;
	MemoryContext before;
	dsm_segment *segment;
	char	   *request;

	if (asked_for != 0 || kafka_requesting(relay->link.client))
		return false;
	before = MemoryContextSwitchTo(relay->sender.record_context);
	request = call_map(call, &segment);
	if (request && call->kind == CALL_CREATE_TOPIC)
	{
		topic = new_topic_of_request(request);
		question.create = &topic;
	}
	call_unmap(segment);
	if (request && kafka_request(relay->link.client, &question))
		asked_for = call_ticket(call);
	MemoryContextSwitchTo(before);
	MemoryContextReset(relay->sender.record_context);
	return asked_for != 0;
}

static void
append_offset(StringInfo json, const char *name, int64 offset)
{
	if (offset >= 0)
		appendStringInfo(json, ",\"%s\":" INT64_FORMAT, name, offset);
}

static void
describe(StringInfo json, const KafkaResponse *answer)
{
	const char *comma = "";

	appendStringInfoChar(json, '[');
	for (size_t t = 0; t < answer->ntopics; t++)
		for (int p = 0; p < answer->topics[t].npartitions; p++)
		{
			const KafkaPartition *partition = &answer->topics[t].partitions[p];

			appendStringInfo(json, "%s{\"topic\":", comma);
			escape_json(json, answer->topics[t].name);
			appendStringInfo(json, ",\"partition\":%d,\"replicas\":%d,\"in_sync\":%d", partition->id,
							 partition->replicas, partition->in_sync);
			if (partition->leader >= 0)
				appendStringInfo(json, ",\"leader\":%d", partition->leader);
			append_offset(json, "first_offset", partition->first);
			append_offset(json, "end_offset", partition->end);
			appendStringInfoChar(json, '}');
			comma = ",";
		}
	appendStringInfoChar(json, ']');
}

static void
write_reply(Call *call, CallAnswer *answer, const StringInfoData *json)
{
	dsm_segment *segment;
	char	   *to = call_map(call, &segment);

	if (to && json->len <= call->size)
	{
		memcpy(to, json->data, json->len);
		answer->reply_size = json->len;
	}
	else
		kafka_failure_set(&answer->failure, -1, "the cluster has too many partitions for an answer of this size");
	call_unmap(segment);
}

/* True if the answer was to a call's question. */
bool
topics_answer(Relay *relay, const KafkaResponse *answer)
{
	Call	   *call = asked_for != 0 ? call_of_ticket(asked_for) : NULL;
	CallAnswer	reply = {.failure = answer->failure};
	MemoryContext before;
	StringInfoData json;

	if (asked_for == 0)
		return false;
	asked_for = 0;
	now_look_again(relay);		/* others may wait */
	if (call && call->kind == CALL_TOPICS && answer->failure.code == 0)
	{
		before = MemoryContextSwitchTo(relay->sender.record_context);
		initStringInfo(&json);
		describe(&json, answer);
		write_reply(call, &reply, &json);
		MemoryContextSwitchTo(before);
		MemoryContextReset(relay->sender.record_context);
	}
	if (call && call->kind == CALL_CREATE_TOPIC)
		window_want_partitions(&relay->window);	/* rows for it may wait */
	if (call)
		call_answer(call, &reply);
	return true;
}
