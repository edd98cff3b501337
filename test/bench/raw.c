/*
 * raw.c
 *	  What librdkafka does by itself: the yardstick for the relay and the ingest
 *	  worker, and the fast way to fill a topic.
 *
 * raw produce BROKERS TOPIC FILE [property=value ...]
 *	  Produces the messages of FILE, one a line: partition, key and value, separated
 *	  by tabs, with the headers that nexus_produce makes.
 * raw consume BROKERS TOPIC PARTITIONS MESSAGES [property=value ...]
 *	  Reads so many messages from the beginning of the topic.
 *
 * Both print the seconds from the first message, which also makes the connection
 * and isn't counted, to the last.
 */
#include <err.h>
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BATCH 1000

typedef struct Line
{
	int			partition;
	const char *key;
	size_t		key_length;
	const char *value;
	size_t		value_length;
} Line;

static long failed;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[512];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
		errx(1, "%s", error);
}

static void
set_all(rd_kafka_conf_t *conf, char **properties)
{
	for (; *properties != NULL; properties++)
	{
		char	   *value = strchr(*properties, '=');

		if (value == NULL)
			errx(1, "not property=value: %s", *properties);
		*value = '\0';
		set(conf, *properties, value + 1);
	}
}

static rd_kafka_t *
client(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		error[512];
	rd_kafka_t *rk;

	set(conf, "log_level", "3");	/* errors only */
	rk = rd_kafka_new(type, conf, error, sizeof error);
	if (rk == NULL)
		errx(1, "%s", error);
	return rk;
}

/* ---------------------------------------------------------------- produce */

static char *
map_file(const char *path, size_t *length)
{
	struct stat st;
	int			fd = open(path, O_RDONLY);
	char	   *text;

	if (fd < 0 || fstat(fd, &st) < 0)
		err(1, "%s", path);
	text = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (text == MAP_FAILED)
		err(1, "%s", path);
	*length = st.st_size;
	return text;
}

/* Parses the line at *text and moves *text behind it; false at the end. */
static bool
next_line(const char **text, const char *end, Line *line)
{
	const char *newline = memchr(*text, '\n', end - *text);

	if (newline == NULL)
		return false;
	line->partition = atoi(*text);
	line->key = (const char *) memchr(*text, '\t', newline - *text) + 1;
	line->value = (const char *) memchr(line->key, '\t', newline - line->key) + 1;
	line->key_length = line->value - line->key - 1;
	line->value_length = newline - line->value;
	*text = newline + 1;
	return true;
}

static void
count_failure(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
	if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
		failed++;
}

static void
produce_line(rd_kafka_t *rk, const char *topic, const Line *line)
{
	rd_kafka_resp_err_t error;

	while ((error = rd_kafka_producev(rk,
									  RD_KAFKA_V_TOPIC(topic),
									  RD_KAFKA_V_PARTITION(line->partition),
									  RD_KAFKA_V_KEY(line->key, line->key_length),
									  RD_KAFKA_V_VALUE((void *) line->value, line->value_length),
									  RD_KAFKA_V_HEADER("nexus-message-id", line->key, line->key_length),
									  RD_KAFKA_V_HEADER("content-type", "application/json", -1),
									  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
									  RD_KAFKA_V_END)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
		rd_kafka_poll(rk, 10);
	if (error)
		errx(1, "produce: %s", rd_kafka_err2str(error));
	rd_kafka_poll(rk, 0);
}

static void
flush(rd_kafka_t *rk)
{
	rd_kafka_resp_err_t error = rd_kafka_flush(rk, 60000);

	if (error || failed > 0)
		errx(1, "flush: %s, %ld messages failed", rd_kafka_err2str(error), failed);
}

static double
produce(const char *brokers, const char *topic, const char *path, char **properties)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	size_t		length;
	const char *text = map_file(path, &length);
	const char *end = text + length;
	double		start;
	Line		line;

	set(conf, "bootstrap.servers", brokers);
	set(conf, "enable.idempotence", "true");
	set_all(conf, properties);
	rd_kafka_conf_set_dr_msg_cb(conf, count_failure);
	rk = client(RD_KAFKA_PRODUCER, conf);

	if (!next_line(&text, end, &line))
		errx(1, "%s is empty", path);
	produce_line(rk, topic, &line);
	flush(rk);

	start = now();
	while (next_line(&text, end, &line))
		produce_line(rk, topic, &line);
	flush(rk);
	start = now() - start;

	rd_kafka_destroy(rk);
	return start;
}

/* ---------------------------------------------------------------- consume */

static void
assign_from_beginning(rd_kafka_t *rk, const char *topic, int partitions)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	rd_kafka_resp_err_t error;

	for (int p = 0; p < partitions; p++)
		rd_kafka_topic_partition_list_add(list, topic, p)->offset = RD_KAFKA_OFFSET_BEGINNING;
	error = rd_kafka_assign(rk, list);
	if (error)
		errx(1, "assign: %s", rd_kafka_err2str(error));
	rd_kafka_topic_partition_list_destroy(list);
}

/* Takes what is there, up to a batch; returns the number of messages. */
static long
consume_batch(rd_kafka_queue_t *queue)
{
	rd_kafka_message_t *messages[BATCH];
	ssize_t		n = rd_kafka_consume_batch_queue(queue, 100, messages, BATCH);

	if (n < 0)
		errx(1, "consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
	for (ssize_t i = 0; i < n; i++)
	{
		if (messages[i]->err)
			errx(1, "consume: %s", rd_kafka_message_errstr(messages[i]));
		rd_kafka_message_destroy(messages[i]);
	}
	return n;
}

static double
consume(const char *brokers, const char *topic, int partitions, long wanted, char **properties)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	double		start = 0;

	set(conf, "bootstrap.servers", brokers);
	set(conf, "group.id", "raw");
	set(conf, "enable.auto.commit", "false");
	set_all(conf, properties);
	rk = client(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(rk);
	queue = rd_kafka_queue_get_consumer(rk);
	assign_from_beginning(rk, topic, partitions);

	for (long seen = 0; seen < wanted;)
	{
		seen += consume_batch(queue);
		if (start == 0 && seen > 0)
			start = now();
	}
	start = now() - start;

	rd_kafka_queue_destroy(queue);
	rd_kafka_destroy(rk);
	return start;
}

int
main(int argc, char **argv)
{
	if (argc >= 5 && strcmp(argv[1], "produce") == 0)
		printf("%f\n", produce(argv[2], argv[3], argv[4], argv + 5));
	else if (argc >= 6 && strcmp(argv[1], "consume") == 0)
		printf("%f\n", consume(argv[2], argv[3], atoi(argv[4]), atol(argv[5]), argv + 6));
	else
		errx(1, "usage: raw produce BROKERS TOPIC FILE | raw consume BROKERS TOPIC PARTITIONS MESSAGES"
			 " [property=value ...]");
	return 0;
}
