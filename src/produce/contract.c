/*
 * contract.c
 *		The prospect message: what it must be, and what is added to it.
 *
 * The contract is that of the system which this extension replaces;
 * docs/prospects.md has it. What producers must keep to is checked by contract_check_payload();
 * what the pipeline takes is a little more, since older producers checked less.
 */
#include "nexus_kafka.h"

#include <time.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "produce/produce.h"

PG_FUNCTION_INFO_V1(nexus_valid_prospect);

#define refuse(...) \
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg(__VA_ARGS__)))

static JsonbValue *
field(JsonbContainer *object, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(object, name, strlen(name), NULL);

	return v && v->type == jbvNull ? NULL : v;
}

static bool
is_container(const JsonbValue *v, bool array)
{
	return v->type == jbvBinary &&
		(array ? JsonContainerIsArray(v->val.binary.data) : JsonContainerIsObject(v->val.binary.data));
}

/* What producer and pipeline agree on. Returns messages. */
static JsonbContainer *
check_common(Jsonb *payload)
{
	JsonbValue *v;
	JsonbContainer *messages;

	if (!JB_ROOT_IS_OBJECT(payload))
		refuse("a prospect message must be a JSON object");
	v = field(&payload->root, "messages");
	if (v == NULL || !is_container(v, true) || JsonContainerSize(v->val.binary.data) == 0)
		refuse("messages must be a non-empty array");
	messages = v->val.binary.data;
	v = field(&payload->root, "sessionId");
	if (v == NULL || v->type != jbvString || v->val.string.len == 0)
		refuse("sessionId is required");
	v = field(&payload->root, "metadata");
	if (v && !is_container(v, false))
		refuse("metadata must be an object");
	return messages;
}

void
contract_check_payload(Jsonb *payload)
{
	JsonbContainer *messages = check_common(payload);
	JsonbValue *v;

	for (uint32 i = 0; i < JsonContainerSize(messages); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(messages, i);

		if (!is_container(element, false) ||
			(v = field(element->val.binary.data, "role")) == NULL || v->type != jbvString ||
			field(element->val.binary.data, "content") == NULL)
			refuse("messages[%u] must be an object with role and content", i);
	}
	v = field(&payload->root, "fingerprint");
	if (v && v->type != jbvString)
		refuse("fingerprint must be a string");
	if (v == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("the message has no fingerprint"),
				 errdetail("It is accepted, but no prospect can be found by it.")));
}

/* What the statement of the pipeline prospect_tracking asks of each message. */
Datum
nexus_valid_prospect(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		refuse("a prospect message must have a value, and this is a tombstone");
	(void) check_common(PG_GETARG_JSONB_P(0));
	PG_RETURN_BOOL(true);
}

/* ---- enriching ---- */

static void
append_value(StringInfo json, JsonbValue *v)
{
	if (v->type == jbvBinary)
		(void) JsonbToCString(json, v->val.binary.data, v->val.binary.len);
	else
	{
		Jsonb	   *scalar = JsonbValueToJsonb(v);

		(void) JsonbToCString(json, &scalar->root, VARSIZE(scalar));
	}
}

static void
append_name(StringInfo json, const char *name, int len)
{
	if (json->data[json->len - 1] != '{')
		appendStringInfoString(json, ", ");
	escape_json(json, pnstrdup(name, len));
	appendStringInfoString(json, ": ");
}

static void
append_string(StringInfo json, const char *name, const char *value)
{
	append_name(json, name, strlen(name));
	escape_json(json, value);
}

static bool
is_one_of(const JsonbValue *name, const char *const *others)
{
	for (; *others; others++)
		if (name->val.string.len == strlen(*others) &&
			memcmp(name->val.string.val, *others, name->val.string.len) == 0)
			return true;
	return false;
}

/* All fields of the object but those named. */
static void
append_fields(StringInfo json, JsonbContainer *object, const char *const *but)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;

	(void) JsonbIteratorNext(&it, &name, true);
	while ((token = JsonbIteratorNext(&it, &name, true)) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&it, &value, true);
		if (is_one_of(&name, but))
			continue;
		append_name(json, name.val.string.val, name.val.string.len);
		append_value(json, &value);
	}
}

/* The time in ISO 8601, UTC, with milliseconds. */
static void
format_now(char *buffer, size_t size)
{
	struct timespec now;
	struct tm	utc;
	char		seconds[32];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(buffer, size, "%s.%03dZ", seconds, (int) (now.tv_nsec / 1000000));
}

/* Null counts as missing: a name must not stand twice in what is published. */
static void
append_metadata(StringInfo json, JsonbContainer *metadata)
{
	static const char *const defaulted[] = {"url", "userAgent"};
	const char *replaced[2 + lengthof(defaulted) + 1] = {"enqueuedAt", "producerVersion"};
	int			n = 2;
	char		now[64];

	append_name(json, "metadata", strlen("metadata"));
	appendStringInfoChar(json, '{');
	for (int i = 0; i < lengthof(defaulted); i++)
		if (!metadata || !field(metadata, defaulted[i]))
			replaced[n++] = defaulted[i];
	if (metadata)
		append_fields(json, metadata, replaced);
	for (int i = 2; i < n; i++)
		append_string(json, replaced[i], "unknown");
	format_now(now, sizeof(now));
	append_string(json, "enqueuedAt", now);
	append_string(json, "producerVersion", NEXUS_VERSION);
	appendStringInfoChar(json, '}');
}

void
contract_enrich(Jsonb *payload, const char *message_id, StringInfo json)
{
	static const char *const added[] = {"metadata", "messageId", NULL};
	JsonbValue *metadata = field(&payload->root, "metadata");

	appendStringInfoChar(json, '{');
	append_fields(json, &payload->root, added);
	append_metadata(json, metadata ? metadata->val.binary.data : NULL);
	append_string(json, "messageId", message_id);
	appendStringInfoChar(json, '}');
}
