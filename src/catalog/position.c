/*
 * position.c
 *		How a place in a topic is written: earliest, latest, an offset, or a time.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"

#define GROUP_PREFIX	"group:"

static void
hint_at_forms(void *arg)
{
	errhint("A position is earliest, latest, an offset, or a timestamp.");
}

/* latest is the time of the call: what comes after it is read. */
Position
position_parse(const char *text, TimestampTz called_at)
{
	ErrorContextCallback callback = {.previous = error_context_stack,.callback = hint_at_forms};
	Position	position = {0};

	if (strcmp(text, "earliest") == 0)
		position.offset = OFFSET_EARLIEST;
	else if (strcmp(text, "latest") == 0)
		position = (Position) {OFFSET_BY_TIME, called_at};
	else
	{
		error_context_stack = &callback;
		if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text))
			position.offset = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text)));
		else
			position = (Position) {OFFSET_BY_TIME,
				DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
														ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)))};
		error_context_stack = callback.previous;
		if (position.offset == OFFSET_BY_TIME && TIMESTAMP_NOT_FINITE(position.time))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is no time of a message", text),
					 errhint("Use earliest or latest.")));
	}
	return position;
}

const char *
start_group(const char *start)
{
	return strncmp(start, GROUP_PREFIX, strlen(GROUP_PREFIX)) == 0 ? start + strlen(GROUP_PREFIX) : NULL;
}

/* ---- offsets as a JSON object: {"0": 42} or {"topic": {"0": 42}} ---- */

static JsonbValue *
member(JsonbContainer *object, const char *name)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name), NULL);
}

static bool
is_object(const JsonbValue *v)
{
	return v && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data);
}

static Position
position_of_value(const JsonbValue *v, TimestampTz called_at)
{
	if (v->type == jbvString)
		return position_parse(pnstrdup(v->val.string.val, v->val.string.len), called_at);
	if (v->type == jbvNumeric)
		return position_parse(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))),
							  called_at);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("start has a position that is neither a number nor a string")));
}

static bool
is_partition(const JsonbValue *key)
{
	char	   *name = pnstrdup(key->val.string.val, key->val.string.len);

	return name[0] != '\0' && strlen(name) <= 9 && strspn(name, "0123456789") == strlen(name);
}

/* Of one topic, or of several (depth 0). */
static void
check_offsets(JsonbContainer *object, int depth)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbValue	v;
	JsonbIteratorToken token = JsonbIteratorNext(&it, &v, true);

	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY)
	{
		bool		partition = is_partition(&v);
		char	   *name = pnstrdup(v.val.string.val, v.val.string.len);

		(void) JsonbIteratorNext(&it, &v, true);
		if (depth == 0 && is_object(&v))
			check_offsets(v.val.binary.data, 1);
		else if (partition)
			(void) position_of_value(&v, 0);
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("start: \"%s\" is not a partition", name),
					 errhint("Offsets are written {\"0\": 42, \"1\": 17}, or by topic {\"orders\": {\"0\": 42}}.")));
	}
}

static Jsonb *
offsets_object(const char *start)
{
	if (start[0] != '{')
		return NULL;
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(start)));
}

static char *
time_in_utc(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		text[MAXDATELEN + 1];

	if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	tm.tm_isdst = 0;			/* or no zone is written */
	EncodeDateTime(&tm, fsec, true, 0, NULL, USE_ISO_DATES, text);
	return pstrdup(text);
}

/* latest stays so: it is the time at which the pipeline was made */
static char *
normalized_position(const char *text)
{
	Position	position = position_parse(text, 0);

	if (position.offset != OFFSET_BY_TIME || strcmp(text, "latest") == 0)
		return pstrdup(text);
	return time_in_utc(position.time);
}

static char *
normalized_offsets(Jsonb *object)
{
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbIteratorToken token;
	JsonbParseState *state = NULL;
	JsonbValue *result = NULL;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_VALUE && v.type == jbvString)
		{
			v.val.string.val = normalized_position(pnstrdup(v.val.string.val, v.val.string.len));
			v.val.string.len = strlen(v.val.string.val);
		}
		result = pushJsonbValue(&state, token, token < WJB_BEGIN_ARRAY ? &v : NULL);
	}
	object = JsonbValueToJsonb(result);
	return JsonbToCString(NULL, &object->root, VARSIZE(object));
}

char *
start_normalize(const char *start)
{
	Jsonb	   *object = offsets_object(start);
	const char *group = start_group(start);

	if (object)
	{
		check_offsets(&object->root, 0);
		return normalized_offsets(object);
	}
	if (group == NULL)
		return normalized_position(start);
	if (group[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start: the group has no name"),
				 errhint("Write group:NAME, with the name of a consumer group.")));
	return pstrdup(start);
}

/* Where the partition begins; one that is not among the offsets: at its earliest. */
Position
start_position(const char *start, const char *topic, int32 partition, TimestampTz called_at)
{
	Jsonb	   *object = offsets_object(start);
	JsonbContainer *offsets;
	JsonbValue *v;
	char		number[16];

	if (object == NULL)
		return position_parse(start, called_at);
	v = member(&object->root, topic);
	offsets = is_object(v) ? v->val.binary.data : &object->root;
	snprintf(number, sizeof(number), "%d", partition);
	v = member(offsets, number);
	return v && !is_object(v) ? position_of_value(v, called_at) : (Position) {OFFSET_EARLIEST, 0};
}
