/*
 * record.c
 *		A row of the outbox, or a call's message, as a record for librdkafka.
 *
 * Whoever may write the outbox may write anything into it. So this is the one place where
 * a row becomes a record, and everything is checked here: what can't be sent has a fault,
 * by which it becomes a dead letter, and nothing raises an error. The sizes are looked at
 * before anything large is read.
 *
 * Headers are converted to UTF-8 while there is a transaction, in which PostgreSQL has its
 * conversions, and are then kept flat: for each the lengths, the name, a zero byte, the value.
 */
#include "nexus_kafka.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

#include "produce/produce.h"

#define HEADER_BYTES	64		/* what a header takes besides its name and its value, here and in librdkafka */

/* Headers as jsonb take up to so many times the room that they have in a message. */
#define MOST_STORED(bytes)	((Size) (bytes) * 4 + 1024)

typedef struct HeaderLengths
{
	int32		name;
	int32		value;			/* -1: none */
} HeaderLengths;

static bool
is_at_fault(Fault *fault, int sqlstate, const char *text)
{
	fault->sqlstate = sqlstate;
	strlcpy(fault->text, text, sizeof(fault->text));
	return false;
}

/* ---- UTF-8, without an error raised ---- */

static bool
is_ascii(const char *text, int len)
{
	for (int i = 0; i < len; i++)
		if (IS_HIGHBIT_SET(text[i]))
			return false;
	return true;
}

static bool
convert(const char *text, int len, const char **utf8, int *utf8_len)
{
	int			encoding = GetDatabaseEncoding();
	Oid			conversion = FindDefaultConversionProc(encoding, PG_UTF8);
	Size		room = (Size) len * MAX_CONVERSION_GROWTH + 1;
	char	   *to;

	if (!OidIsValid(conversion) || room > MaxAllocSize)
		return false;
	to = palloc(room);
	*utf8 = to;
	if (pg_do_encoding_conversion_buf(conversion, encoding, PG_UTF8, (unsigned char *) unconstify(char *, text), len,
									  (unsigned char *) to, room, true) < len)
		return false;
	*utf8_len = strlen(to);
	return true;
}

static bool
to_utf8(const char *text, int len, const char **utf8, int *utf8_len, Fault *fault)
{
	*utf8 = text;
	*utf8_len = len;
	if (GetDatabaseEncoding() == PG_UTF8 || is_ascii(text, len))
		return true;
	if (GetDatabaseEncoding() == PG_SQL_ASCII
		? pg_verify_mbstr(PG_UTF8, text, len, true) : convert(text, len, utf8, utf8_len))
		return true;
	return is_at_fault(fault, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
					   "a header or the message id has bytes that are not valid in UTF-8");
}

/* ---- headers ---- */

static bool
add_header(Headers *headers, const char *name, int name_len, const JsonbValue *v, Fault *fault)
{
	HeaderLengths lengths = {name_len, -1};
	const char *value = NULL;

	if (v->type == jbvString && !to_utf8(v->val.string.val, v->val.string.len, &value, &lengths.value, fault))
		return false;
	headers->size += name_len + Max(lengths.value, 0) + HEADER_BYTES;
	if (headers->size > nexus_max_message_bytes)
		return is_at_fault(fault, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						   "the headers are larger than nexus_kafka.max_message_bytes");
	headers->n++;
	appendBinaryStringInfo(&headers->flat, (char *) &lengths, sizeof(lengths));
	appendBinaryStringInfo(&headers->flat, name, name_len);
	appendStringInfoChar(&headers->flat, '\0');
	if (value)
		appendBinaryStringInfo(&headers->flat, value, lengths.value);
	return true;
}

static bool
bad_value(const char *name, int name_len, Fault *fault)
{
	char		text[sizeof(fault->text)];

	snprintf(text, sizeof(text), "the value of header \"%.*s\" must be a string, null, or an array of them",
			 pg_mbcliplen(name, name_len, 100), name);
	return is_at_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE, text);
}

/* An array is a repeated name. */
static bool
add_headers(Headers *headers, Jsonb *jsonb, Fault *fault)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	const char *name = "";
	int			name_len = 0;
	const char *utf8 = "";
	int			utf8_len = 0;
	bool		in_array = false;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		return is_at_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE,
						   "headers must be a JSON object of names and values");
	it = JsonbIteratorInit(&jsonb->root);
	(void) JsonbIteratorNext(&it, &v, false);
	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = v.val.string.val;
			name_len = v.val.string.len;
			if (!to_utf8(name, name_len, &utf8, &utf8_len, fault))
				return false;
		}
		else if (token == WJB_BEGIN_OBJECT || (token == WJB_BEGIN_ARRAY && in_array))
			return bad_value(name, name_len, fault);
		else if (token == WJB_BEGIN_ARRAY || token == WJB_END_ARRAY)
			in_array = token == WJB_BEGIN_ARRAY;
		else if (token == WJB_VALUE || token == WJB_ELEM)
		{
			if (v.type != jbvString && v.type != jbvNull)
				return bad_value(name, name_len, fault);
			if (!add_header(headers, utf8, utf8_len, &v, fault))
				return false;
		}
	}
	return true;
}

bool
headers_flatten(Jsonb *jsonb, const char *message_id, Headers *headers, Fault *fault)
{
	JsonbValue	id = {.type = jbvString};

	headers->n = 0;
	headers->size = 0;
	initStringInfo(&headers->flat);
	id.val.string.val = unconstify(char *, message_id);
	id.val.string.len = strlen(message_id);
	if (!add_header(headers, MESSAGE_ID_HEADER, strlen(MESSAGE_ID_HEADER), &id, fault))
		return false;
	headers->size -= HEADER_BYTES;	/* each message has this one */
	return jsonb == NULL || add_headers(headers, jsonb, fault);
}

/* ---- a row ---- */

bool
record_row_is_possible(const OutboxRow *row, Fault *fault)
{
	if (row->topic == NULL || !kafka_topic_is_valid(row->topic, strlen(row->topic)))
		return is_at_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE, "topic is not a name of a Kafka topic");
	if (row->message_id == NULL)
		return is_at_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE, "message_id is missing, or too long");
	if (row->partition < -1)
		return is_at_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE, "partition must not be negative");
	if (row->size > MOST_STORED(nexus_max_message_bytes))
		return is_at_fault(fault, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						   "the message is larger than nexus_kafka.max_message_bytes");
	return true;
}

/* In as much memory as they need: thousands of rows are read at a time. */
static const char *
trimmed(Headers *headers)
{
	char	   *data = memcpy(palloc(headers->flat.len), headers->flat.data, headers->flat.len);

	pfree(headers->flat.data);
	return data;
}

static Size
size_of(const struct varlena *bytes)
{
	return bytes ? VARSIZE_ANY_EXHDR(bytes) : 0;
}

bool
record_of_row(OutboxRow *row, Record *record, Fault *fault)
{
	Headers		headers;

	catalog_outbox_load(row);
	if (!headers_flatten(row->headers, row->message_id, &headers, fault))
		return false;
	*record = (Record) {
		.topic = row->topic, .partition = row->partition, .key = row->key, .value = row->value,
		.headers = trimmed(&headers), .nheaders = headers.n,
		.size = size_of(row->key) + size_of(row->value) + headers.size
	};
	if (record->size > nexus_max_message_bytes)
		return is_at_fault(fault, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						   "the message is larger than nexus_kafka.max_message_bytes");
	return true;
}

/* ---- to librdkafka ---- */

KafkaSendResult
send_record(KafkaClient *client, const Record *record, void *opaque, KafkaFailure *failure)
{
	KafkaHeader *headers = palloc(record->nheaders * sizeof(KafkaHeader));
	const char *at = record->headers;
	KafkaRecord out = {.id = (intptr_t) opaque, .topic = record->topic, .partition = record->partition};
	KafkaSendResult result;

	for (int i = 0; i < record->nheaders; i++)
	{
		HeaderLengths lengths;

		memcpy(&lengths, at, sizeof(lengths));
		at += sizeof(lengths);
		headers[i].name = at;
		at += lengths.name + 1;
		headers[i].value = lengths.value >= 0 ? at : NULL;
		headers[i].value_len = Max(lengths.value, 0);
		at += headers[i].value_len;
	}
	if (record->key)
	{
		out.key = VARDATA_ANY(record->key);
		out.key_len = VARSIZE_ANY_EXHDR(record->key);
	}
	if (record->value)
	{
		out.value = VARDATA_ANY(record->value);
		out.value_len = VARSIZE_ANY_EXHDR(record->value);
	}
	out.headers = headers;
	out.nheaders = record->nheaders;
	result = kafka_producer_send(client, &out, failure);
	pfree(headers);
	return result;
}
