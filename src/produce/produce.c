/*
 * produce.c
 *		nexus_produce: a message into the outbox, in the caller's transaction.
 *
 * What the broker could never take is refused here, where somebody can act on
 * it. The caller needs no rights on the outbox: the row is written with those
 * of its owner.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "produce/produce.h"

PG_FUNCTION_INFO_V1(nexus_produce_prospect);
PG_FUNCTION_INFO_V1(nexus_produce_text);
PG_FUNCTION_INFO_V1(nexus_produce_jsonb);
PG_FUNCTION_INFO_V1(nexus_produce_bytea);

#define LONGEST_TOPIC	249

/* ---- validation ---- */

static void
check_topic(const char *topic)
{
	if (topic[0] == '\0' || strlen(topic) > LONGEST_TOPIC ||
		strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(topic) ||
		strcmp(topic, ".") == 0 || strcmp(topic, "..") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a name of a Kafka topic", topic),
				 errdetail("A name has 1 to 249 letters, digits, dots, underscores and hyphens.")));
}

static void
check_header_value(const char *name, const JsonbValue *v)
{
	if (v->type != jbvString && v->type != jbvNull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the value of header \"%s\" must be a string, null, or an array of them", name)));
}

/* The size of the headers; raises if they aren't what the relay can send. */
static Size
check_headers(Jsonb *headers)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	char	   *name = NULL;
	bool		in_array = false;
	Size		size = 0;

	if (headers == NULL)
		return 0;
	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be a JSON object of names and values")));
	it = JsonbIteratorInit(&headers->root);
	(void) JsonbIteratorNext(&it, &v, false);
	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = pnstrdup(v.val.string.val, v.val.string.len);
			size += v.val.string.len;
		}
		else if (token == WJB_BEGIN_OBJECT || (token == WJB_BEGIN_ARRAY && in_array))
			check_header_value(name, &v);
		else if (token == WJB_BEGIN_ARRAY || token == WJB_END_ARRAY)
			in_array = token == WJB_BEGIN_ARRAY;
		else if (token == WJB_VALUE || token == WJB_ELEM)
		{
			check_header_value(name, &v);
			size += v.type == jbvString ? v.val.string.len : 0;
		}
	}
	return size;
}

static Size
size_of(const struct varlena *bytes)
{
	return bytes ? VARSIZE_ANY_EXHDR(bytes) : 0;
}

static void
check_size(Size size)
{
	if (size > nexus_max_message_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the message has %zu bytes, more than nexus_kafka.max_message_bytes (%d)",
						size, nexus_max_message_bytes),
				 errhint("If the topic takes larger messages (max.message.bytes), raise nexus_kafka.max_message_bytes.")));
}

static void
warn_once_if_not_preloaded(void)
{
	static bool warned = false;

	if (nexus_shared || warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("the message waits in nexus_outbox, and nothing publishes it"),
			 errdetail("nexus_kafka is not in shared_preload_libraries, so its workers don't run."),
			 errhint("Add nexus_kafka to shared_preload_libraries and restart the server.")));
}

/* ---- writing ---- */

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

static void
write_outbox(FunctionCallInfo fcinfo, const char *topic, int32 partition, bytea *key, bytea *value,
			 Jsonb *headers, const char *message_id)
{
	CatalogRights rights;

	check_size(size_of(key) + size_of(value) + check_headers(headers) +
			   strlen(MESSAGE_ID_HEADER) + MESSAGE_ID_LENGTH);
	PreventCommandIfReadOnly("nexus_produce()");
	warn_once_if_not_preloaded();

	/*
	 * The transaction must have its id before the row gets its own: by that the
	 * relay knows who may yet fill a gap (gaps.c).
	 */
	(void) GetTopTransactionId();

	SPI_connect();
	catalog_use_schema(get_func_namespace(fcinfo->flinfo->fn_oid));
	rights = catalog_assume_owner();
	catalog_outbox_add(cstring_to_text(topic), partition, key, value, headers, message_id);
	catalog_resume_caller(rights);
	SPI_finish();
	wake_relay_at_commit();
}

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

static Datum
answer(const char *message_id, const char *topic)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "status", "accepted");
	push_pair(&state, "messageId", message_id);
	push_pair(&state, "topic", topic);
	push_pair(&state, "message", "published when the transaction commits");
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}

/* ---- nexus_produce(payload) ---- */

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

Datum
nexus_produce_prospect(PG_FUNCTION_ARGS)
{
	Jsonb	   *payload;
	char		message_id[MESSAGE_ID_LENGTH + 1];
	StringInfoData json;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a prospect message must be a JSON object")));
	payload = PG_GETARG_JSONB_P(0);
	check_topic(nexus_topic);
	contract_check_payload(payload);
	make_message_id(message_id);
	initStringInfo(&json);
	contract_enrich(payload, message_id, &json);
	write_outbox(fcinfo, nexus_topic, -1, utf8_bytes(message_id, MESSAGE_ID_LENGTH),
				 utf8_bytes(json.data, json.len), content_type_header(), message_id);
	return answer(message_id, nexus_topic);
}

/* ---- nexus_produce(topic, value, key, headers, partition) ---- */

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

static Datum
produce(FunctionCallInfo fcinfo, bytea *key, bytea *value)
{
	Jsonb	   *headers = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	int32		partition = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT32(4);
	char		message_id[MESSAGE_ID_LENGTH + 1];
	char	   *topic;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("topic must not be null")));
	topic = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check_topic(topic);
	if (!PG_ARGISNULL(4) && partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition must not be negative"),
				 errhint("Leave it out to have it chosen by the key.")));
	choose_message_id(headers, message_id);
	write_outbox(fcinfo, topic, partition, key, value, headers, message_id);
	return answer(message_id, topic);
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

Datum
nexus_produce_text(PG_FUNCTION_ARGS)
{
	return produce(fcinfo, text_argument(fcinfo, 2), text_argument(fcinfo, 1));
}

Datum
nexus_produce_jsonb(PG_FUNCTION_ARGS)
{
	bytea	   *value = NULL;

	if (!PG_ARGISNULL(1))
	{
		Jsonb	   *jsonb = PG_GETARG_JSONB_P(1);
		char	   *text = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));

		value = utf8_bytes(text, strlen(text));
	}
	return produce(fcinfo, text_argument(fcinfo, 2), value);
}

Datum
nexus_produce_bytea(PG_FUNCTION_ARGS)
{
	return produce(fcinfo,
				   PG_ARGISNULL(2) ? NULL : PG_GETARG_BYTEA_PP(2),
				   PG_ARGISNULL(1) ? NULL : PG_GETARG_BYTEA_PP(1));
}
