/*
 * Topics of a broker, from tests: milliseconds, where Kafka's own command line tool
 * starts a JVM.
 *
 *   admin BOOTSTRAP create TOPIC PARTITIONS [config=value ...]
 *   admin BOOTSTRAP delete TOPIC
 *   admin BOOTSTRAP grow TOPIC PARTITIONS
 *   admin BOOTSTRAP trim TOPIC PARTITION OFFSET    (records before the offset go)
 *   admin BOOTSTRAP stamp TOPIC PARTITION MS ...   (a message with each such timestamp)
 */
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 30000
#define BROKER_DEFAULT -1		/* of default.replication.factor */

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static rd_kafka_t *
connect_to(const char *bootstrap)
{
	char		err[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	/* idempotent: what is sent again keeps its order */
	if (rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, err, sizeof(err)) != RD_KAFKA_CONF_OK ||
		rd_kafka_conf_set(conf, "enable.idempotence", "true", err, sizeof(err)) != RD_KAFKA_CONF_OK)
		die(bootstrap, err);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
	if (rk == NULL)
		die(bootstrap, err);
	return rk;
}

/* What each kind of answer says of its one topic; NULL: it is done. */
static const char *
topic_error(const rd_kafka_topic_result_t **results, size_t count)
{
	return count == 1 && rd_kafka_topic_result_error(results[0]) == RD_KAFKA_RESP_ERR_NO_ERROR
		? NULL : rd_kafka_topic_result_error_string(results[0]);
}

static const char *
records_error(const rd_kafka_topic_partition_list_t *offsets)
{
	return offsets->elems[0].err == RD_KAFKA_RESP_ERR_NO_ERROR
		? NULL : rd_kafka_err2str(offsets->elems[0].err);
}

static const char *
answer_error(rd_kafka_event_t *answer)
{
	size_t		count;

	if (answer == NULL)
		return "no answer";
	if (rd_kafka_event_error(answer) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return rd_kafka_event_error_string(answer);

	switch (rd_kafka_event_type(answer))
	{
		case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
			return topic_error(rd_kafka_CreateTopics_result_topics(
								   rd_kafka_event_CreateTopics_result(answer), &count), count);
		case RD_KAFKA_EVENT_DELETETOPICS_RESULT:
			return topic_error(rd_kafka_DeleteTopics_result_topics(
								   rd_kafka_event_DeleteTopics_result(answer), &count), count);
		case RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT:
			return topic_error(rd_kafka_CreatePartitions_result_topics(
								   rd_kafka_event_CreatePartitions_result(answer), &count), count);
		case RD_KAFKA_EVENT_DELETERECORDS_RESULT:
			return records_error(rd_kafka_DeleteRecords_result_offsets(
									 rd_kafka_event_DeleteRecords_result(answer)));
		default:
			return "unexpected kind of answer";
	}
}

static void
create_topic(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic, int partitions, char **configs)
{
	char		err[512];
	rd_kafka_NewTopic_t *new = rd_kafka_NewTopic_new(topic, partitions, BROKER_DEFAULT, err, sizeof(err));

	if (new == NULL)
		die(topic, err);
	for (; *configs; configs++)
	{
		char	   *equals = strchr(*configs, '=');

		if (equals == NULL)
			die(*configs, "not of the form config=value");
		*equals = '\0';
		if (rd_kafka_NewTopic_set_config(new, *configs, equals + 1) != RD_KAFKA_RESP_ERR_NO_ERROR)
			die(topic, *configs);
	}
	rd_kafka_CreateTopics(rk, &new, 1, NULL, queue);
}

static void
grow_topic(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic, int partitions)
{
	char		err[512];
	rd_kafka_NewPartitions_t *new = rd_kafka_NewPartitions_new(topic, partitions, err, sizeof(err));

	if (new == NULL)
		die(topic, err);
	rd_kafka_CreatePartitions(rk, &new, 1, NULL, queue);
}

static void
trim_topic(rd_kafka_t *rk, rd_kafka_queue_t *queue, const char *topic, int partition, long long offset)
{
	rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
	rd_kafka_DeleteRecords_t *records;

	rd_kafka_topic_partition_list_add(before, topic, partition)->offset = offset;
	records = rd_kafka_DeleteRecords_new(before);
	rd_kafka_DeleteRecords(rk, &records, 1, NULL, queue);
}

static void
stamp_topic(rd_kafka_t *rk, const char *topic, int partition, char **times)
{
	for (; *times; times++)
	{
		rd_kafka_resp_err_t error = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
													  RD_KAFKA_V_TIMESTAMP(atoll(*times)),
													  RD_KAFKA_V_VALUE(*times, strlen(*times)), RD_KAFKA_V_END);

		if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
			die(topic, rd_kafka_err2str(error));
	}
	if (rd_kafka_flush(rk, TIMEOUT_MS) != RD_KAFKA_RESP_ERR_NO_ERROR)
		die(topic, "no answer");
}

int
main(int argc, char **argv)
{
	const char *command = argc > 3 ? argv[2] : "";
	const char *topic = argc > 3 ? argv[3] : "";
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	const char *error;

	if (argc < 4)
		die(argv[0], "BOOTSTRAP create|delete|grow|trim|stamp TOPIC ...");
	rk = connect_to(argv[1]);
	queue = rd_kafka_queue_new(rk);

	if (strcmp(command, "create") == 0 && argc >= 5)
		create_topic(rk, queue, topic, atoi(argv[4]), argv + 5);
	else if (strcmp(command, "delete") == 0)
	{
		rd_kafka_DeleteTopic_t *old = rd_kafka_DeleteTopic_new(topic);

		rd_kafka_DeleteTopics(rk, &old, 1, NULL, queue);
	}
	else if (strcmp(command, "grow") == 0 && argc == 5)
		grow_topic(rk, queue, topic, atoi(argv[4]));
	else if (strcmp(command, "trim") == 0 && argc == 6)
		trim_topic(rk, queue, topic, atoi(argv[4]), atoll(argv[5]));
	else if (strcmp(command, "stamp") == 0 && argc >= 6)
	{
		stamp_topic(rk, topic, atoi(argv[4]), argv + 5);
		return 0;
	}
	else
		die(command, "no such command, or not its arguments");

	error = answer_error(rd_kafka_queue_poll(queue, TIMEOUT_MS));
	if (error != NULL)
		die(topic, error);

	/* The process ends here: what it allocated goes with it. */
	return 0;
}
