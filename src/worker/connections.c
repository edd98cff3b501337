/*
 * connections.c
 *		Which connections have a name: the sections of nexus_kafka.config_file.
 *
 * The supervisor asks, to have a relay for each. What is in the sections is left to
 * the workers (link.c); here it is only looked at for mistakes, so that those of a
 * connection that nobody uses yet are told too.
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "worker/worker.h"

static List *connections = NIL;

static void
look_for_mistake(NamedConnection *connection)
{
	KafkaProperties properties;
	KafkaFailure failure;

	if (nexus_embedded_broker)
		return;					/* where it leads to doesn't matter */
	if (kafka_properties_read(nexus_config_file, connection->name, &properties, &failure))
		kafka_properties_free(&properties);
	else
		strlcpy(connection->mistake, failure.text, sizeof(connection->mistake));
}

static void
read_names(void)
{
	MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
	KafkaProperties properties = {0};
	KafkaFailure failure;

	if (!nexus_config_file[0] || kafka_properties_read(nexus_config_file, NULL, &properties, &failure))
	{
		list_free_deep(connections);
		connections = NIL;
		for (size_t i = 0; i < properties.nsections; i++)
		{
			NamedConnection *connection = palloc0(sizeof(NamedConnection));

			strlcpy(connection->name, properties.sections[i], NAMEDATALEN);
			look_for_mistake(connection);
			connections = lappend(connections, connection);
		}
		kafka_properties_free(&properties);
	}
	MemoryContextSwitchTo(before);
}

List *
connections_named(void)
{
	static int	reloads = -1;

	if (reloads != worker_reloads)
		read_names();
	reloads = worker_reloads;
	return connections;
}

void
connection_check_name(const char *name)
{
	if (!kafka_section_name_is_valid(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a name of a connection", name),
				 errdetail("A name has 1 to %d letters, digits, underscores and hyphens.", KAFKA_LONGEST_SECTION_NAME),
				 errhint("A connection is a section of nexus_kafka.config_file; without a name it is the default one.")));
}

const char *
connection_argument(FunctionCallInfo fcinfo, int n)
{
	char	   *name;

	if (PG_ARGISNULL(n))
		return "";
	name = text_to_cstring(PG_GETARG_TEXT_PP(n));
	connection_check_name(name);
	return name;
}
