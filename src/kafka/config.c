/*
 * config.c
 *		The properties that a handle is made with.
 *
 * What the extension needs to be so is in a table, and why; what the caller
 * adds (bootstrap.servers, group.id …) comes after it.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <string.h>

typedef struct Property
{
	const char *name;
	const char *value;
} Property;

static const Property common_properties[] = {
	{"client.id", "nexus_kafka"},
	{"log.queue", "true"},		/* no log line from a foreign thread */
	{"log.connection.close", "false"},
	/* back within seconds once the broker is; the default is 10 s */
	{"reconnect.backoff.ms", "100"},
	{"reconnect.backoff.max.ms", "2000"},
	/* a broker that accepts and never answers is noticed */
	{"socket.timeout.ms", "10000"},
	{"socket.connection.setup.timeout.ms", "10000"},
	/* or never says a first word, which is to be known before a worker's request times out */
	{"api.version.request.timeout.ms", "3000"},
	{"socket.keepalive.enable", "true"},
	{"socket.nagle.disable", "true"},
};

static const Property producer_properties[] = {
	{"enable.idempotence", "true"},
	{"acks", "all"},
	/* a message waits for its broker as long as it takes: the outbox has it anyway */
	{"message.timeout.ms", "0"},
	/* soon known to be missing, and tried again: others don't wait behind it */
	{"topic.metadata.propagation.max.ms", "1000"},
	{"partitioner", "murmur2_random"},	/* the Java client's and KafkaJS's */
	{"linger.ms", "2"},			/* at most: see kafka_producer_push() */
	/* bounded memory: the default is 1 GiB; the relay knows how large its messages may be */
	{"queue.buffering.max.kbytes", "32768"},
	{"queue.buffering.max.messages", "50000"},
};

static const Property consumer_properties[] = {
	{"enable.auto.commit", "false"},
	{"enable.auto.offset.store", "false"},
	{"auto.offset.reset", "error"},
	{"isolation.level", "read_committed"},
	{"enable.partition.eof", "true"},
	{"allow.auto.create.topics", "false"},
	{"check.crcs", "true"},
	/* so long a commit waits for a coordinator (without the right to the group, say), and an assignment for it */
	{"session.timeout.ms", "6000"},
	/* bounded memory: the default is 64 MiB; see kafka_consumer_memory() too */
	{"fetch.max.bytes", "2097152"},
	{"fetch.error.backoff.ms", "200"},
	/* a topic that is deleted and made again at once is missed in between, before it is read on */
	{"topic.metadata.refresh.fast.interval.ms", "10"},
};

#define lengthof(a) (sizeof(a) / sizeof((a)[0]))

/*
 * What librdkafka was built without, if that is why it refuses a property or one of the
 * values that it knows; NULL: the value is bad, and the text may have it.
 */
static const char *
built_without(const char *text)
{
	const char *why = strrchr(text, ':');

	if (strncmp(text, "Unsupported value \"", 19) != 0 &&
		(strncmp(text, "Configuration property \"", 24) != 0 || strstr(text, "\" not supported in this build: ") == NULL))
		return NULL;
	return why ? why + 2 : NULL;
}

/* The only call of rd_kafka_conf_set(): its text may have the value, a secret, in it. */
bool
kafka_config_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *why, size_t size)
{
	char		text[512];
	rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, name, value, text, sizeof(text));

	if (result == RD_KAFKA_CONF_INVALID && built_without(text))
		snprintf(why, size, "this librdkafka (%s) is built without what %s needs: %s", rd_kafka_version_str(),
				 name, built_without(text));
	else if (result == RD_KAFKA_CONF_UNKNOWN)
		snprintf(why, size, "this librdkafka (%s) does not have %s", rd_kafka_version_str(), name);
	else if (result != RD_KAFKA_CONF_OK)
		snprintf(why, size, "librdkafka refuses the value of %s", name);
	explicit_bzero(text, sizeof(text));
	return result == RD_KAFKA_CONF_OK;
}

static bool
set_property(rd_kafka_conf_t *conf, const char *name, const char *value, KafkaFailure *failure)
{
	char		why[sizeof(failure->text)];

	if (kafka_config_set(conf, name, value, why, sizeof(why)))
		return true;
	kafka_failure_set(failure, RD_KAFKA_RESP_ERR__INVALID_ARG, why);
	return false;
}

static bool
set_properties(rd_kafka_conf_t *conf, const Property *properties, size_t n, KafkaFailure *failure)
{
	for (size_t i = 0; i < n; i++)
		if (!set_property(conf, properties[i].name, properties[i].value, failure))
			return false;
	return true;
}

rd_kafka_conf_t *
kafka_config_build(KafkaKind kind, const KafkaSetting *settings, size_t nsettings,
				   bool *needs_nudge, KafkaFailure *failure)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	KafkaFailure ignored;
	bool		ok;

	ok = set_properties(conf, common_properties, lengthof(common_properties), failure);
	if (kind == KAFKA_PRODUCER)
		ok = ok && set_properties(conf, producer_properties, lengthof(producer_properties), failure);
	else
		ok = ok && set_properties(conf, consumer_properties, lengthof(consumer_properties), failure);
	for (size_t i = 0; ok && i < nsettings; i++)
		ok = set_property(conf, settings[i].name, settings[i].value, failure);
	if (!ok)
	{
		rd_kafka_conf_destroy(conf);
		return NULL;
	}

	/* from 2.2 on a fetcher's pause can be set, and nobody need wake it */
	*needs_nudge = kind == KAFKA_CONSUMER && !set_property(conf, "fetch.queue.backoff.ms", "20", &ignored);
	return conf;
}
