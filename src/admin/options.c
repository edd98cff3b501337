/*
 * options.c
 *		The options of a pipeline: one table of what there is, what it takes, and
 *		where it goes.
 */
#include "nexus_kafka.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "admin/pipeline.h"
#include "worker/worker.h"

typedef enum OptionKind
{
	OPTION_INTEGER,
	OPTION_BOOLEAN,
	OPTION_TEXT,
	OPTION_CONNECTION,
	OPTION_ON_ERROR,
	OPTION_START
} OptionKind;

typedef struct Option
{
	const char *name;
	OptionKind	kind;
	size_t		offset;			/* in Pipeline */
	int			min;
	int			max;
	bool		nullable;		/* null: back to none */
	const char *takes;
} Option;

static const Option options[] = {
	{"start", OPTION_START, offsetof(Pipeline, start), 0, 0, false,
	"earliest, latest, a timestamp, group:NAME, or offsets as {\"0\": 42}"},
	{"workers", OPTION_INTEGER, offsetof(Pipeline, workers), 1, PIPELINE_MOST_WORKERS, false, "1 to 32"},
	{"batch_messages", OPTION_INTEGER, offsetof(Pipeline, batch_messages), 1, PIPELINE_MOST_BATCH_MESSAGES, false, "1 to 10000"},
	{"batch_bytes", OPTION_INTEGER, offsetof(Pipeline, batch_bytes), PIPELINE_LEAST_BATCH_BYTES, PIPELINE_MOST_BATCH_BYTES, false,
	"1024 to 67108864"},
	{"on_error", OPTION_ON_ERROR, offsetof(Pipeline, stop_on_error), 0, 0, false, "dead_letter or stop"},
	{"max_dead_letters", OPTION_INTEGER, offsetof(Pipeline, max_dead_letters), 1, PG_INT32_MAX, true,
	"a number from 1 on, or null"},
	{"group_id", OPTION_TEXT, offsetof(Pipeline, group_id), 1, PIPELINE_LONGEST_GROUP, true, "a name of at most 249 bytes, or null"},
	{"on_demand", OPTION_BOOLEAN, offsetof(Pipeline, on_demand), 0, 0, false, "true or false"},
	{"run_as", OPTION_TEXT, offsetof(Pipeline, run_as), 1, NAMEDATALEN - 1, false, "the name of a role"},
	{"connection", OPTION_CONNECTION, offsetof(Pipeline, connection), 0, 0, true,
	"a name of a section of nexus_kafka.config_file, or null"},
};

void
pipeline_set_defaults(Pipeline *pipeline)
{
	pipeline->start = "earliest";
	pipeline->workers = 1;
	pipeline->batch_messages = 1000;
	pipeline->batch_bytes = 4 * 1024 * 1024;
}

static const Option *
find_option(const char *name)
{
	StringInfoData names;

	for (int i = 0; i < lengthof(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];

	initStringInfo(&names);
	for (int i = 0; i < lengthof(options); i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", options[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown option \"%s\"", name),
			 errhint("The options of a pipeline are %s.", names.data)));
}

static void
refuse(const Option *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option %s takes %s", option->name, option->takes)));
}

/* Numbers and truth values may stand in quotes, as in a connection string. */
static char *
value_text(const Option *option, const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		case jbvBinary:
			if (option->kind == OPTION_START && JsonContainerIsObject(v->val.binary.data))
				return JsonbToCString(NULL, v->val.binary.data, v->val.binary.len);
			/* FALLTHROUGH */
		default:
			refuse(option);
			return NULL;
	}
}

static void
set_option(const Option *option, const JsonbValue *v, Pipeline *pipeline)
{
	void	   *target = (char *) pipeline + option->offset;
	char	   *text;
	char	   *end;
	long		number;

	if (v->type == jbvNull)
	{
		if (!option->nullable)
			refuse(option);
		if (option->kind == OPTION_INTEGER)
			*(int *) target = 0;
		else
			*(char **) target = NULL;
		return;
	}
	text = value_text(option, v);
	switch (option->kind)
	{
		case OPTION_INTEGER:
			errno = 0;
			number = strtol(text, &end, 10);
			if (text[0] == '\0' || *end != '\0' || errno != 0 || number < option->min || number > option->max)
				refuse(option);
			*(int *) target = (int) number;
			break;
		case OPTION_BOOLEAN:
			if (!parse_bool(text, (bool *) target))
				refuse(option);
			break;
		case OPTION_TEXT:
			if (strlen(text) < option->min || strlen(text) > option->max)
				refuse(option);
			*(char **) target = text;
			break;
		case OPTION_CONNECTION:
			connection_check_name(text);
			*(char **) target = text;
			break;
		case OPTION_ON_ERROR:
			if (strcmp(text, "stop") != 0 && strcmp(text, "dead_letter") != 0)
				refuse(option);
			*(bool *) target = strcmp(text, "stop") == 0;
			break;
		case OPTION_START:
			*(char **) target = start_normalize(text);
			break;
	}
}

void
pipeline_set_options(Pipeline *pipeline, Jsonb *given)
{
	JsonbIterator *it = JsonbIteratorInit(&given->root);
	JsonbValue	v;
	const Option *option;

	if (!JB_ROOT_IS_OBJECT(given))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object"),
				 errhint("For example {\"workers\": 2, \"start\": \"latest\"}.")));
	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		option = find_option(pnstrdup(v.val.string.val, v.val.string.len));
		(void) JsonbIteratorNext(&it, &v, true);
		set_option(option, &v, pipeline);
	}
}
