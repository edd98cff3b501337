/*
 * embedded.c
 *		A broker inside this process: librdkafka's mock cluster.
 *
 * For trying the extension out and for tests. It listens on the loopback
 * interface only, knows no authentication, keeps 5 MiB or 100,000 batches a
 * partition, and forgets everything when the process ends.
 */
#include "kafka/internal.h"

#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdlib.h>

struct KafkaEmbedded
{
	KafkaClient *client;
	rd_kafka_mock_cluster_t *cluster;
};

KafkaEmbedded *
kafka_embedded_start(KafkaFailure *failure)
{
	KafkaEmbedded *broker = calloc(1, sizeof(KafkaEmbedded));
	sigset_t	all,
				before;

	if (broker == NULL)
	{
		kafka_failure_set(failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "out of memory");
		return NULL;
	}
	broker->client = kafka_client_open(KAFKA_PRODUCER, NULL, 0, failure);
	if (broker->client == NULL)
	{
		free(broker);
		return NULL;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	broker->cluster = rd_kafka_mock_cluster_new(broker->client->rk, 1);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (broker->cluster == NULL)
	{
		kafka_failure_set(failure, RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE, "the embedded broker could not be started");
		kafka_client_close(broker->client, -1);
		free(broker);
		return NULL;
	}
	return broker;
}

const char *
kafka_embedded_bootstrap(const KafkaEmbedded *broker)
{
	return rd_kafka_mock_cluster_bootstraps(broker->cluster);
}

bool
kafka_embedded_create_topic(KafkaEmbedded *broker, const char *topic, int partitions, KafkaFailure *failure)
{
	rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(broker->cluster, topic, partitions, 1);

	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return true;
	kafka_failure_set(failure, code, NULL);
	return false;
}

static void
finish_cluster(void *arg)
{
	rd_kafka_mock_cluster_destroy(arg);
}

bool
kafka_embedded_stop(KafkaEmbedded *broker, int timeout_ms)
{
	bool		stopped = kafka_run_bounded(finish_cluster, broker->cluster, timeout_ms) &&
		kafka_client_close(broker->client, timeout_ms);

	if (stopped)
		free(broker);
	return stopped;
}
