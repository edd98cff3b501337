/*
 * pipeline_topics.c
 *		The topics of a pipeline: one, a list, or a regular expression.
 */
#include "nexus_kafka.h"

#include "catalog/pg_collation.h"
#include "regex/regex.h"
#include "utils/builtins.h"

#include "ingest/ingest.h"

static bool
is_pattern(const Pipeline *pipeline)
{
	return pipeline->topic[0] == '^';
}

/* Kafka's own (__consumer_offsets …) only where the pattern asks for them. */
static bool
matches(const Pipeline *pipeline, const char *topic)
{
	if (strncmp(topic, "__", 2) == 0 && strncmp(pipeline->topic, "^__", 3) != 0)
		return false;
	return RE_compile_and_execute(cstring_to_text(pipeline->topic), unconstify(char *, topic), strlen(topic),
								  REG_ADVANCED, C_COLLATION_OID, 0, NULL);
}

/* Palloc'd names; NIL for a regular expression. */
static List *
topics_listed(const Pipeline *pipeline)
{
	List	   *names = NIL;
	char	   *copy;
	char	   *name;
	char	   *rest;

	if (is_pattern(pipeline))
		return NIL;
	copy = pstrdup(pipeline->topic);
	for (name = strtok_r(copy, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
		if (!names_include(names, name))
			names = lappend(names, name);
	return names;
}

void
topics_fill_question(const Pipeline *pipeline, KafkaRequest *request)
{
	List	   *names = topics_listed(pipeline);
	const char **topics = palloc(Max(list_length(names), 1) * sizeof(char *));
	ListCell   *lc;

	foreach(lc, names)
		topics[request->ntopics++] = lfirst(lc);
	request->topics = topics;
	request->all_topics = is_pattern(pipeline);
}

bool
topics_include(const Pipeline *pipeline, const char *topic)
{
	return is_pattern(pipeline) ? matches(pipeline, topic) : names_include(topics_listed(pipeline), topic);
}

const KafkaTopic *
topics_find(const KafkaResponse *answer, const char *name)
{
	for (size_t i = 0; i < answer->ntopics; i++)
		if (strcmp(answer->topics[i].name, name) == 0)
			return &answer->topics[i];
	return NULL;
}

bool
topics_any(const Pipeline *pipeline, const KafkaResponse *answer)
{
	for (size_t i = 0; i < answer->ntopics; i++)
		if (topics_include(pipeline, answer->topics[i].name))
			return true;
	return false;
}

/* What is listed and isn't there, for people; NULL: nothing. */
char *
topics_missing(const Pipeline *pipeline, const KafkaResponse *answer)
{
	List	   *names = topics_listed(pipeline);
	ListCell   *lc;

	foreach(lc, names)
	{
		bool		there = false;

		for (size_t i = 0; i < answer->ntopics && !there; i++)
			there = strcmp(answer->topics[i].name, lfirst(lc)) == 0;
		if (!there)
			return psprintf("topic \"%s\" does not exist on the broker", (char *) lfirst(lc));
	}
	return topics_any(pipeline, answer) ? NULL : psprintf("no topic matches \"%s\"", pipeline->topic);
}

char *
topics_leaderless(const Pipeline *pipeline, const KafkaResponse *answer)
{
	for (size_t i = 0; i < answer->ntopics; i++)
	{
		const KafkaTopic *topic = &answer->topics[i];

		if (topic->leaderless >= 0 && topics_include(pipeline, topic->name))
			return psprintf("topic \"%s\", partition %d has no leader: the broker that has it is away, see nexus_topics()",
							topic->name, topic->leaderless);
	}
	return NULL;
}
