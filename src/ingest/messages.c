/*
 * messages.c
 *		nexus_messages() and nexus_raw_messages(): the batch as rows.
 *
 * A value that can't be decoded raises, and leaves its index in the batch, so that
 * the worker need not search for it. Outside of a pipeline's statement they raise:
 * on another node of a distributed database, say, an empty answer would lose
 * messages. How the worker's plans read the rows without a call: scan.c.
 */
#include "nexus_kafka.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest/ingest.h"

PG_FUNCTION_INFO_V1(nexus_messages);
PG_FUNCTION_INFO_V1(nexus_raw_messages);

Batch	   *current_batch = NULL;

#define FEW_HEADERS		8

/* Microseconds from the one to the other. */
#define UNIX_TO_POSTGRES_EPOCH	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Room for the decoding of a usual message, so that it costs no malloc(). */
#define ROW_CONTEXT_SIZE	(64 * 1024)

/* False if the message has no timestamp, or none that PostgreSQL can hold. */
bool
message_timestamp(const KafkaMessage *message, TimestampTz *timestamp)
{
	if (message->timestamp_ms < 0 || message->timestamp_ms > END_TIMESTAMP / 1000)
		return false;
	*timestamp = message->timestamp_ms * INT64CONST(1000) - UNIX_TO_POSTGRES_EPOCH;
	return true;
}

/* Whole ms, rounded down; not before 1970, nor so late that it doesn't fit. */
int64
message_unix_ms(TimestampTz time)
{
	return Max(Min(time, PG_INT64_MAX - UNIX_TO_POSTGRES_EPOCH) + UNIX_TO_POSTGRES_EPOCH, 0) / 1000;
}

struct varlena *
message_bytes(const void *data, size_t len)
{
	bytea	   *bytes;

	if (data == NULL)
		return NULL;
	bytes = palloc(len + VARHDRSZ);
	SET_VARSIZE(bytes, len + VARHDRSZ);
	memcpy(VARDATA(bytes), data, len);
	return bytes;
}

/* A palloc'd string in the server's encoding; raises if it isn't valid UTF-8 or has a zero byte. */
static char *
decode_text(const void *data, size_t len)
{
	char	   *copy = palloc(len + 1);

	memcpy(copy, data, len);
	copy[len] = '\0';
	return pg_any_to_server(copy, len, PG_UTF8);
}

static Datum
decode_key(const KafkaMessage *message)
{
	/* no copy in between where nothing is to be converted */
	if (GetDatabaseEncoding() == PG_UTF8)
	{
		(void) pg_verify_mbstr(PG_UTF8, message->key, message->key_len, false);
		return PointerGetDatum(cstring_to_text_with_len(message->key, message->key_len));
	}
	return CStringGetTextDatum(decode_text(message->key, message->key_len));
}

static Datum
decode_value(const KafkaMessage *message)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(decode_text(message->value, message->value_len)));
}

/* Raises if nexus_messages() would. */
void
message_try_decode(const KafkaMessage *message)
{
	if (message->key)
		decode_key(message);
	if (message->value)
		decode_value(message);
}

/* ---- headers ---- */

static bool
is_ascii(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] == '\0' || IS_HIGHBIT_SET(data[i]))
			return false;
	return true;
}

/* Valid UTF-8 in the server's encoding; false if it isn't, has a zero byte or can't be converted. */
static bool
convert_header(JsonbValue *v, const char *data, size_t len)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion;
	char	   *text;

	if (memchr(data, '\0', len) || pg_encoding_verifymbstr(PG_UTF8, data, len) != len)
		return false;
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
	{
		v->val.string.val = unconstify(char *, data);	/* only read from */
		v->val.string.len = len;
		return true;
	}
	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(conversion) || len > INT_MAX / MAX_CONVERSION_GROWTH - 1)
		return false;
	text = palloc_extended(len * MAX_CONVERSION_GROWTH + 1, MCXT_ALLOC_HUGE);
	if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding, (unsigned char *) unconstify(char *, data), len,
									  (unsigned char *) text, len * MAX_CONVERSION_GROWTH + 1, true) != len)
		return false;
	v->val.string.val = text;
	v->val.string.len = strlen(text);
	return true;
}

/* Never raises: what isn't text is shown as \x and hexadecimal digits. */
static void
set_header_string(JsonbValue *v, const char *data, size_t len)
{
	v->type = jbvString;
	if (is_ascii(data, len))
	{
		v->val.string.val = unconstify(char *, data);
		v->val.string.len = len;
		return;
	}
	if (convert_header(v, data, len))
		return;
	v->val.string.len = len * 2 + 2;
	v->val.string.val = palloc(v->val.string.len + 1);
	memcpy(v->val.string.val, "\\x", 2);
	hex_encode(data, len, v->val.string.val + 2);
}

static void
set_header_value(JsonbValue *v, const KafkaHeader *header)
{
	if (header->value)
		set_header_string(v, header->value, header->value_len);
	else
		v->type = jbvNull;
}

typedef struct NamedHeader
{
	JsonbValue	name;			/* as shown: what isn't text may look like another's text */
	KafkaHeader header;
	int			position;
} NamedHeader;

static int
compare_names(const JsonbValue *a, const JsonbValue *b)
{
	int			order = memcmp(a->val.string.val, b->val.string.val, Min(a->val.string.len, b->val.string.len));

	return order != 0 ? order : a->val.string.len - b->val.string.len;
}

/* By name, those of the same name as they came. */
static int
compare_headers(const void *a, const void *b)
{
	const NamedHeader *x = a;
	const NamedHeader *y = b;
	int			order = compare_names(&x->name, &y->name);

	return order != 0 ? order : x->position - y->position;
}

/* headers[0 … n - 1] have one name. */
static void
push_header(JsonbParseState **state, NamedHeader *headers, int n)
{
	JsonbValue	v;

	pushJsonbValue(state, WJB_KEY, &headers[0].name);
	if (n == 1)
	{
		set_header_value(&v, &headers[0].header);
		pushJsonbValue(state, WJB_VALUE, &v);
		return;
	}
	pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < n; i++)
	{
		set_header_value(&v, &headers[i].header);
		pushJsonbValue(state, WJB_ELEM, &v);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

/* Returns few, which has room for FEW_HEADERS, or palloc'd memory. */
static NamedHeader *
collect_headers(const KafkaMessage *message, NamedHeader *few, int *n)
{
	int			max = FEW_HEADERS;
	NamedHeader *headers = few;
	KafkaHeader header;

	for (*n = 0; kafka_message_header(message, *n, &header); (*n)++)
	{
		if (*n == max && headers == few)
			headers = memcpy(palloc((max *= 2) * sizeof(NamedHeader)), few, FEW_HEADERS * sizeof(NamedHeader));
		else if (*n == max)
			headers = repalloc_huge(headers, (max *= 2) * sizeof(NamedHeader));
		headers[*n].header = header;
		headers[*n].position = *n;
		set_header_string(&headers[*n].name, header.name, strlen(header.name));
	}
	return headers;
}

/* An object; a repeated name has an array. NULL: there are none. */
static Jsonb *
message_headers(const KafkaMessage *message)
{
	int			n;
	int			same;
	NamedHeader few[FEW_HEADERS];
	NamedHeader *headers = collect_headers(message, few, &n);
	JsonbParseState *state = NULL;

	if (n == 0)
		return NULL;
	if (n > 1)
		qsort(headers, n, sizeof(NamedHeader), compare_headers);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i += same)
	{
		for (same = 1; i + same < n && compare_names(&headers[i].name, &headers[i + same].name) == 0; same++)
			;
		push_header(&state, headers + i, same);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

Jsonb *
batch_headers(const Batch *batch, int i)
{
	return batch->stored_headers ? batch->stored_headers[i] : message_headers(&batch->messages[i]);
}

/* ---- rows ---- */

static void
show_message(void *arg)
{
	const KafkaMessage *message = arg;

	errcontext("message at offset " INT64_FORMAT " of partition %d of topic \"%s\"",
			   message->offset, message->partition, message->topic);
}

/*
 * Turns messages into rows, one at a time: a row is valid until the next one. What
 * raises leaves the message's index in the batch.
 */
struct MessageDecoder
{
	MemoryContext parent;
	MemoryContext row;
	bool		raw;
	bool		headers;
	const char *topic_name;		/* of the last message; messages come in runs of a topic */
	text	   *topic;
};

Batch *
current_batch_for(bool raw)
{
	if (current_batch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() has no messages here", raw ? "nexus_raw_messages" : "nexus_messages"),
				 errdetail("It shows the messages of a batch, to the statement of a pipeline only, in the pipeline's worker."),
				 errhint("Use it in the statement of a pipeline (nexus_pipelines).")));
	return current_batch;
}

MessageDecoder *
message_decoder_create(bool raw, bool headers)
{
	MessageDecoder *decoder = palloc0(sizeof(MessageDecoder));

	decoder->parent = CurrentMemoryContext;
	decoder->row = AllocSetContextCreate(CurrentMemoryContext, "nexus_kafka message",
										 0, ROW_CONTEXT_SIZE, ALLOCSET_DEFAULT_MAXSIZE);
	decoder->raw = raw;
	decoder->headers = headers;
	return decoder;
}

static void
decode(MessageDecoder *decoder, const Batch *batch, int i, Datum *values, bool *nulls)
{
	const KafkaMessage *message = &batch->messages[i];
	Jsonb	   *headers = decoder->headers ? batch_headers(batch, i) : NULL;
	TimestampTz timestamp = 0;

	memset(nulls, 0, MESSAGE_COLUMNS * sizeof(bool));
	values[0] = PointerGetDatum(decoder->topic);
	values[1] = Int32GetDatum(message->partition);
	values[2] = Int64GetDatum(message->offset);
	nulls[3] = !message_timestamp(message, &timestamp);
	values[3] = TimestampTzGetDatum(timestamp);
	nulls[4] = message->key == NULL;
	if (!nulls[4])
		values[4] = decoder->raw ? PointerGetDatum(message_bytes(message->key, message->key_len)) : decode_key(message);
	nulls[5] = message->value == NULL;
	if (!nulls[5])
		values[5] = decoder->raw ? PointerGetDatum(message_bytes(message->value, message->value_len)) : decode_value(message);
	nulls[6] = headers == NULL;
	values[6] = PointerGetDatum(headers);
}

/* The next live message from *i on, and *i beyond it; false if there is none. */
bool
message_decode_next(MessageDecoder *decoder, Batch *batch, int *i, Datum *values, bool *nulls)
{
	const KafkaMessage *message;
	MemoryContext before;
	ErrorContextCallback callback;
	int			at = batch_first_live(batch, *i, batch->hi);

	MemoryContextReset(decoder->row);
	*i = at;
	if (at >= batch->hi)
		return false;
	message = &batch->messages[at];
	before = MemoryContextSwitchTo(decoder->parent);
	if (message->topic != decoder->topic_name)
	{
		decoder->topic_name = message->topic;
		decoder->topic = cstring_to_text(message->topic);
	}
	callback.callback = show_message;
	callback.arg = unconstify(KafkaMessage *, message);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	batch->undecodable = at;

	MemoryContextSwitchTo(decoder->row);
	decode(decoder, batch, at, values, nulls);

	batch->undecodable = -1;
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(before);
	*i = at + 1;
	return true;
}

static Datum
return_messages(FunctionCallInfo fcinfo, bool raw)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Batch	   *batch = current_batch_for(raw);
	MessageDecoder *decoder;
	Datum		values[MESSAGE_COLUMNS];
	bool		nulls[MESSAGE_COLUMNS];
	int			i = batch->lo;

	InitMaterializedSRF(fcinfo, 0);
	decoder = message_decoder_create(raw, true);
	while (message_decode_next(decoder, batch, &i, values, nulls))
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}

Datum
nexus_messages(PG_FUNCTION_ARGS)
{
	return return_messages(fcinfo, false);
}

Datum
nexus_raw_messages(PG_FUNCTION_ARGS)
{
	return return_messages(fcinfo, true);
}
