/*
 * definition.c
 *		Can a pipeline run as it is written?
 *
 * Asked when one is made or changed, and whenever one is read that is to run: the
 * table's owner may write rows directly, and drop its constraints. Nothing that stands
 * there ends a worker: the supervisor starts none, and shows what is wrong.
 */
#include "nexus_kafka.h"

#include "catalog/pg_collation.h"
#include "regex/regex.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"
#include "worker/worker.h"

pg_noreturn static void
refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", what)));
}

static void
check_name(const Pipeline *p)
{
	if (p->name[0] == '\0' || p->name_is_cut)
		refuse(psprintf("a pipeline's name has 1 to %d bytes", NAMEDATALEN - 1));
	for (const unsigned char *c = (const unsigned char *) p->name; *c; c++)
		if (*c < ' ' || *c == 0x7f)
			refuse("a pipeline's name has no control characters");
}

static void
check_topic(const char *topic)
{
	const char *name = topic;

	if (topic[0] == '^')
	{
		/* raises 2201B if it isn't one */
		(void) RE_compile_and_execute(cstring_to_text(topic), "", 0, REG_ADVANCED, C_COLLATION_OID, 0, NULL);
		return;
	}
	for (;;)
	{
		size_t		len = strcspn(name, ",");

		if (!kafka_topic_is_valid(name, len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is not a topic", topic),
					 errhint("A topic has 1 to 249 letters, digits, dots, underscores and hyphens; several have commas between them; a regular expression begins with ^.")));
		if (name[len] == '\0')
			return;
		name += len + 1;
	}
}

static void
check_range(const char *option, int value, int min, int max)
{
	if (value < min || value > max)
		refuse(psprintf("option %s takes %d to %d, not %d", option, min, max, value));
}

static void
check_group(const char *group)
{
	if (group && (group[0] == '\0' || strlen(group) > PIPELINE_LONGEST_GROUP))
		refuse(psprintf("a consumer group's name has 1 to %d bytes", PIPELINE_LONGEST_GROUP));
}

void
definition_check(const Pipeline *p)
{
	check_name(p);
	if (!p->topic || !p->statement || !p->run_as || !p->search_path || !p->start)
		refuse("a column of the pipeline is null that must not be");
	check_topic(p->topic);
	check_range("workers", p->workers, 1, PIPELINE_MOST_WORKERS);
	check_range("batch_messages", p->batch_messages, 1, PIPELINE_MOST_BATCH_MESSAGES);
	check_range("batch_bytes", p->batch_bytes, PIPELINE_LEAST_BATCH_BYTES, PIPELINE_MOST_BATCH_BYTES);
	check_range("max_dead_letters", p->max_dead_letters, 0, PG_INT32_MAX);
	check_group(p->group_id);
	check_group(start_group(p->start));
	(void) start_normalize(p->start);
	if (TIMESTAMP_NOT_FINITE(p->created_at))
		refuse("created_at of the pipeline is not a time");
	if (p->connection)
		connection_check_name(p->connection);
}

/* Whatever is written there, it is that pipeline's mistake: want of memory and a cancel are nobody's. */
static bool
is_mistake(int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	return category != ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) &&
		category != ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION);
}

/* The checks look at nothing else, and hold nothing: an error can be caught without a subtransaction. */
char *
definition_mistake(const Pipeline *p)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		definition_check(p);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (!is_mistake(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
	}
	PG_END_TRY();
	return error ? error->message : catalog_role_mistake(p);
}
