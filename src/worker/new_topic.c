/*
 * new_topic.c
 *		A topic that is to be made, as a call's request has it: a JSON object with
 *		topic, partitions, replicationFactor and config.
 *
 * The backend has seen to the topic's name, and that config has names and strings.
 */
#include "nexus_kafka.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "worker/worker.h"

char *
new_topic_request(const char *topic, int partitions, int replication_factor, Jsonb *config)
{
	StringInfoData request;

	initStringInfo(&request);
	appendStringInfo(&request, "{\"topic\":\"%s\",\"partitions\":%d,\"replicationFactor\":%d", topic, partitions,
					 replication_factor);
	if (config)
		appendStringInfo(&request, ",\"config\":%s", JsonbToCString(NULL, &config->root, VARSIZE(config)));
	appendStringInfoChar(&request, '}');
	return request.data;
}

static JsonbValue *
field(Jsonb *object, const char *name)
{
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);
}

static int
number(Jsonb *object, const char *name, int none)
{
	JsonbValue *v = field(object, name);

	return v && v->type == jbvNumeric ? numeric_int4_opt_error(v->val.numeric, NULL) : none;
}

static KafkaSetting *
settings_of(Jsonb *request, size_t *n)
{
	JsonbValue *config = field(request, "config");
	KafkaSetting *settings;
	JsonbIterator *it;
	JsonbValue	v;

	*n = 0;
	if (config == NULL || config->type != jbvBinary)
		return NULL;
	settings = palloc((JsonContainerSize(config->val.binary.data) + 1) * sizeof(KafkaSetting));
	it = JsonbIteratorInit(config->val.binary.data);
	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		settings[*n].name = pnstrdup(v.val.string.val, v.val.string.len);
		(void) JsonbIteratorNext(&it, &v, true);
		settings[(*n)++].value = pnstrdup(v.val.string.val, v.val.string.len);
	}
	return settings;
}

KafkaNewTopic
new_topic_of_request(const char *request)
{
	Jsonb	   *object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(request)));
	JsonbValue *name = field(object, "topic");
	KafkaNewTopic topic = {
		.name = pnstrdup(name->val.string.val, name->val.string.len),
		.partitions = number(object, "partitions", 1),
		.replication_factor = number(object, "replicationFactor", -1)
	};

	topic.settings = settings_of(object, &topic.nsettings);
	return topic;
}
