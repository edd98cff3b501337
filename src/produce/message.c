/*
 * message.c
 *		A message from the arguments of nexus_produce or nexus_produce_now.
 *
 * What the broker could never take is refused here, where somebody can act on it.
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "compat.h"
#include "produce/produce.h"

/* ---- validation ---- */

static void
check_topic(const char *topic)
{
	if (!kafka_topic_is_valid(topic, strlen(topic)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a name of a Kafka topic", topic),
				 errdetail("A name has 1 to 249 letters, digits, dots, underscores and hyphens.")));
}

pg_noreturn static void
refuse_topic(const char *topic, const char *connection)
{
	const char *role = GetUserNameFromId(GetUserId(), false);
	const char *of = connection[0] ? psprintf(" of connection \"%s\"", connection) : "";

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to produce to topic \"%s\"%s", topic, of),
			 errdetail("nexus_topic_rights has no row of the topic for role \"%s\" or one that it belongs to.", role),
			 errhint("INSERT INTO %s.nexus_topic_rights (role, topic, connection) VALUES (%s, %s, %s)",
					 quote_identifier(get_namespace_name(catalog_schema())),
					 quote_literal_cstr(quote_identifier(role)), quote_literal_cstr(topic),
					 quote_literal_cstr(connection))));
}

/* EXECUTE is not enough: the caller's role must be allowed the topic. */
static void
check_right(const char *topic, const char *connection)
{
	bool		allowed;

	if (superuser())
		return;
	SPI_connect();
	allowed = catalog_may_produce(GetUserId(), topic, connection);
	SPI_finish();
	if (!allowed)
		refuse_topic(topic, connection);
}

/* They are made what the relay can send; raises if that can't be. */
static void
check_headers(Message *message)
{
	Fault		fault;

	if (!headers_flatten(message->headers, message->id, &message->flat, &fault))
		ereport(ERROR,
				(errcode(fault.sqlstate),
				 errmsg("%s", fault.text)));
}

static Size
size_of(const struct varlena *bytes)
{
	return bytes ? VARSIZE_ANY_EXHDR(bytes) : 0;
}

static void
check_size(Message *message)
{
	Size		size;

	check_headers(message);
	size = size_of(message->key) + size_of(message->value) + message->flat.size;
	if (size > nexus_max_message_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the message has %zu bytes, more than nexus_kafka.max_message_bytes (%d)",
						size, nexus_max_message_bytes),
				 errhint("If the topic takes larger messages (max.message.bytes), raise nexus_kafka.max_message_bytes.")));
}

/* The published form of text: UTF-8. */
static bytea *
utf8_bytes(const char *text, int len)
{
	char	   *converted = pg_server_to_any(text, len, PG_UTF8);
	int			size = converted == text ? len : strlen(converted);
	bytea	   *bytes = palloc(size + VARHDRSZ);

	SET_VARSIZE(bytes, size + VARHDRSZ);
	memcpy(VARDATA(bytes), converted, size);
	return bytes;
}

/* ---- answers ---- */

static void
push_pair(JsonbParseState **state, const char *name, const char *value)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, name);
	v.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &v);
	v.val.string.val = unconstify(char *, value);
	v.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_VALUE, &v);
}

/* place NULL: none is known yet. */
Datum
message_answer(const Message *message, const char *text, Jsonb *place)
{
	JsonbParseState *state = NULL;
	JsonbValue	v;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "status", "accepted");
	push_pair(&state, "messageId", message->id);
	push_pair(&state, "topic", message->topic);
	push_pair(&state, "message", text);
	if (place)
	{
		v.type = jbvString;
		v.val.string.val = "kafka";
		v.val.string.len = strlen("kafka");
		pushJsonbValue(&state, WJB_KEY, &v);
		v.type = jbvBinary;
		v.val.binary.data = &place->root;
		v.val.binary.len = VARSIZE(place) - VARHDRSZ;
		pushJsonbValue(&state, WJB_VALUE, &v);
	}
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* ---- a prospect's session ---- */

static Jsonb *
content_type_header(void)
{
	static Jsonb *header = NULL;

	if (header == NULL)
	{
		MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
		JsonbParseState *state = NULL;

		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_pair(&state, "content-type", "application/json");
		header = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
		MemoryContextSwitchTo(before);
	}
	return header;
}

void
message_of_prospect(FunctionCallInfo fcinfo, Message *message)
{
	Jsonb	   *payload;
	StringInfoData json;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a prospect message must be a JSON object")));
	payload = PG_GETARG_JSONB_P(0);
	check_topic(nexus_topic);
	contract_check_payload(payload);
	make_message_id(message->id);
	initStringInfo(&json);
	contract_enrich(payload, message->id, &json);
	message->connection = "";
	message->topic = nexus_topic;
	message->partition = -1;
	message->key = utf8_bytes(message->id, MESSAGE_ID_LENGTH);
	message->value = utf8_bytes(json.data, json.len);
	message->headers = content_type_header();
	check_size(message);
}

/* ---- anything: topic, value, key, headers, partition, and the connection ---- */

/* One id a message: a reader removes what comes twice by it. */
static void
choose_message_id(Jsonb *headers, char id[MESSAGE_ID_LENGTH + 1])
{
	make_message_id(id);
	if (headers && JB_ROOT_IS_OBJECT(headers) &&
		getKeyJsonValueFromContainer(&headers->root, MESSAGE_ID_HEADER, strlen(MESSAGE_ID_HEADER), NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("header \"%s\" is set by nexus_produce itself", MESSAGE_ID_HEADER),
				 errhint("Leave it out, and take the id from the answer's messageId.")));
}

static void
fill_message(FunctionCallInfo fcinfo, bytea *key, bytea *value, int connection, Message *message)
{
	message->connection = connection_argument(fcinfo, connection);
	message->headers = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	message->partition = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT32(4);
	message->key = key;
	message->value = value;
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("topic must not be null")));
	message->topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check_topic(message->topic);
	check_right(message->topic, message->connection);
	if (!PG_ARGISNULL(4) && message->partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition must not be negative"),
				 errhint("Leave it out to have it chosen by the key.")));
	choose_message_id(message->headers, message->id);
	check_size(message);
}

static bytea *
text_argument(FunctionCallInfo fcinfo, int n)
{
	text	   *t;

	if (PG_ARGISNULL(n))
		return NULL;
	t = PG_GETARG_TEXT_PP(n);
	return utf8_bytes(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

void
message_of_text(FunctionCallInfo fcinfo, int connection, Message *message)
{
	fill_message(fcinfo, text_argument(fcinfo, 2), text_argument(fcinfo, 1), connection, message);
}

void
message_of_jsonb(FunctionCallInfo fcinfo, int connection, Message *message)
{
	bytea	   *value = NULL;

	if (!PG_ARGISNULL(1))
	{
		Jsonb	   *jsonb = PG_GETARG_JSONB_P(1);
		char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

		value = utf8_bytes(text, strlen(text));
	}
	fill_message(fcinfo, text_argument(fcinfo, 2), value, connection, message);
}

void
message_of_bytea(FunctionCallInfo fcinfo, int connection, Message *message)
{
	fill_message(fcinfo, PG_ARGISNULL(2) ? NULL : PG_GETARG_BYTEA_PP(2),
				 PG_ARGISNULL(1) ? NULL : PG_GETARG_BYTEA_PP(1), connection, message);
}
