/*
 * test_client.c
 *		Opening, settings, errors, questions and closing in bounded time.
 */
#include <arpa/inet.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kafka/internal.h"
#include "tap.h"
#include "wait.h"

#define LIST_OFFSETS	2			/* in Kafka's protocol */

static void
await_answer(KafkaClient *client, KafkaResponse *answer)
{
	while (!kafka_response(client, answer))
		wait_for(client);
}

static void
test_settings(void)
{
	KafkaFailure failure = {0};
	KafkaSetting unknown[] = {{"no.such.property", "1"}};
	KafkaSetting bad[] = {{"socket.timeout.ms", "soon"}};

	ok(kafka_client_open(KAFKA_PRODUCER, unknown, 1, &failure) == NULL, "an unknown property is refused");
	ok(strstr(failure.text, "no.such.property") != NULL, "by its name");
	ok(kafka_client_open(KAFKA_PRODUCER, bad, 1, &failure) == NULL, "a bad value is refused");
	ok(kafka_client_open(KAFKA_CONSUMER, NULL, 0, &failure) == NULL, "a consumer needs a group.id");
	ok(strstr(failure.text, "group.id") != NULL, "and says so");
}

static void
test_fates(void)
{
	is_int(kafka_fate(0), KAFKA_FATE_DELIVERED, "no error: delivered");
	is_int(kafka_fate(RD_KAFKA_RESP_ERR__MSG_TIMED_OUT), KAFKA_FATE_RETRY, "a time-out: again");
	is_int(kafka_fate(RD_KAFKA_RESP_ERR__PURGE_INFLIGHT), KAFKA_FATE_RETRY, "purged: again");
	is_int(kafka_fate(RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), KAFKA_FATE_NO_TOPIC, "no such topic");
	is_int(kafka_fate(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE), KAFKA_FATE_BATCH_REFUSED, "too large: this one, or its batch");
	is_int(kafka_fate(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED), KAFKA_FATE_REFUSED, "no right: refused");
	is_int(kafka_fate(-12345), KAFKA_FATE_RETRY, "an error of the future: nothing is lost by it");
}

static void
test_words_of_others(void)
{
	KafkaFailure failure;

	kafka_failure_set(&failure, RD_KAFKA_RESP_ERR__RESOLVE, "k\xfc" "che, caf\xc3\xa9, \x7f~");
	is_string(failure.text, "k?che, caf??, ?~", "what isn't ASCII is a question mark, whatever its encoding");
}

static void
explains(int code, const char *reason, KafkaTrouble trouble, const char *words)
{
	KafkaFailure failure;

	kafka_failure_explain(&failure, code, reason);
	if (!ok(strstr(failure.text, words) != NULL, words))
		printf("# got: %s\n", failure.text);
	is_int(kafka_trouble(&failure), trouble, failure.name);
}

static void
test_complaints(void)
{
	explains(RD_KAFKA_RESP_ERR__SSL, "sasl_ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: long words",
			 KAFKA_TROUBLE_TLS, "sasl_ssl://b:1/bootstrap: the broker's certificate is not accepted: it has expired");
	explains(RD_KAFKA_RESP_ERR__TRANSPORT, "ssl://b:1/1: Receive failed: error:0A000415:SSL routines::sslv3 alert certificate expired: SSL alert number 45",
			 KAFKA_TROUBLE_AUTHENTICATION, "ssl://b:1/1: the broker refuses our certificate (ssl.certificate.location): it has expired");
	explains(RD_KAFKA_RESP_ERR__AUTHENTICATION, "b: SASL authentication error: Authentication failed: Invalid username or password",
			 KAFKA_TROUBLE_AUTHENTICATION, "Invalid username or password");
	explains(RD_KAFKA_RESP_ERR__AUTHENTICATION, "b: SASL authentication error: due to invalid credentials with SASL mechanism SCRAM-SHA-512",
			 KAFKA_TROUBLE_AUTHENTICATION, rd_kafka_version() < 0x020601ff ? "or librdkafka is too old" : "invalid credentials");
	explains(RD_KAFKA_RESP_ERR__TRANSPORT, "b: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
			 KAFKA_TROUBLE_UNREACHABLE, "Connection refused");
	explains(RD_KAFKA_RESP_ERR__RESOLVE, "no name, and no colon", KAFKA_TROUBLE_UNREACHABLE, "no name, and no colon");
}

static void
test_questions(void)
{
	KafkaFailure failure = {0};
	KafkaEmbedded *broker = kafka_embedded_start(&failure);
	KafkaSetting settings[] = {{"bootstrap.servers", kafka_embedded_bootstrap(broker)}};
	KafkaClient *client = kafka_client_open(KAFKA_PRODUCER, settings, 1, &failure);
	KafkaPosition positions[] = {{"three", 0, KAFKA_OFFSET_END}, {"three", 2, 0}};
	const char *topics[] = {"three"};
	KafkaRequest question = {
		.topics = topics, .ntopics = 1, .positions = positions, .npositions = 2, .timeout_ms = 5000
	};
	KafkaResponse answer;

	ok(kafka_embedded_create_topic(broker, "three", 3, &failure), "a topic is created");
	ok(kafka_request(client, &question), "a question is taken");
	ok(!kafka_request(client, &question), "one at a time");
	await_answer(client, &answer);
	is_int(answer.failure.code, 0, "it is answered");
	is_int(answer.ntopics, 1, "with the topic that is there");
	is_int(answer.topics[0].npartitions, 3, "and its partitions");
	ok(answer.cluster_id[0] != '\0', "with the cluster's id");
	is_int(answer.npositions, 2, "with the positions asked for");
	is_int(answer.positions[0].offset, 0, "the end of an empty partition: 0");
	is_int(answer.positions[1].offset, 0, "no message from that time on: the end");
	kafka_response_free(&answer);
	ok(!kafka_response(client, &answer), "once");

	question = (KafkaRequest) {.all_topics = true, .timeout_ms = 5000};
	kafka_request(client, &question);
	await_answer(client, &answer);
	ok(answer.ntopics == 1 && strcmp(answer.topics[0].name, "three") == 0, "all topics");
	kafka_response_free(&answer);
	ok(kafka_client_close(client, 5000), "the client closes");
	ok(kafka_embedded_stop(broker, 5000), "the broker stops");
}

static void
await_answer_at_once(KafkaClient *client, KafkaResponse *answer)
{
	while (!kafka_response_at_once(client, answer))
		wait_for(client);
}

static int
count_threads(void)
{
	FILE	   *list = popen("ls /proc/$PPID/task | wc -l", "r");
	int			n = 0;

	if (fscanf(list, "%d", &n) != 1)
		n = -1;
	pclose(list);
	return n;
}

/* The embedded broker answers a fetch without messages when its time is up, 8 s here. */
static void
test_questions_at_once(void)
{
	KafkaFailure failure = {0};
	KafkaEmbedded *broker = kafka_embedded_start(&failure);
	KafkaSetting settings[] = {
		{"bootstrap.servers", kafka_embedded_bootstrap(broker)}, {"group.id", "g"},
		{"fetch.wait.max.ms", "8000"}, {"socket.timeout.ms", "60000"}
	};
	KafkaClient *client = kafka_client_open(KAFKA_CONSUMER, settings, 4, &failure);
	KafkaPosition positions[] = {{"t", 0, 0}};
	KafkaPosition end[] = {{"t", 0, KAFKA_OFFSET_END}};
	const char *topics[] = {"t"};
	KafkaRequest question = {
		.topics = topics, .ntopics = 1, .positions = end, .npositions = 1, .timeout_ms = 1000
	};
	KafkaResponse answer;
	const KafkaEvent *event;
	int			threads;

	kafka_embedded_create_topic(broker, "t", 1, &failure);
	ok(kafka_consumer_assign(client, positions, 1, &failure), "a partition is assigned");
	for (;;)
	{
		(void) kafka_consumer_fetch(client, NULL, 1);
		event = kafka_consumer_next_event(client);
		if (event && event->kind == KAFKA_EVENT_END)
			break;
		wait_for(client);
	}
	threads = count_threads();

	/* both are asked while a fetch is waiting */
	ok(kafka_request(client, &question), "a question is asked");
	question.timeout_ms = 30000;
	ok(kafka_request_at_once(client, &question), "and one at once, beside it");
	ok(!kafka_request_at_once(client, &question), "one of these at a time");
	await_answer_at_once(client, &answer);
	is_int(answer.failure.code, 0, "that one is answered");
	ok(answer.ntopics == 1 && answer.npositions == 1 && answer.positions[0].offset == 0, "with what was asked");
	ok(answer.cluster_id[0] != '\0', "and the cluster's id");
	kafka_response_free(&answer);
	await_answer(client, &answer);
	ok(answer.failure.code != 0, "the other waits behind the fetch, and longer than it may");
	kafka_response_free(&answer);

	question = (KafkaRequest) {.topics = topics, .ntopics = 1, .every_broker = true, .timeout_ms = 30000};
	ok(kafka_request_at_once(client, &question), "every broker is asked");
	await_answer_at_once(client, &answer);
	is_int(answer.failure.code, 0, "it is answered");
	ok(answer.brokers == 1 && answer.brokers_heard == 1, "by the one there is");
	ok(answer.ntopics == 1 && answer.topics[0].npartitions == 1, "which knows the topic");
	kafka_response_free(&answer);
	ok(count_threads() > threads, "what asks has threads of its own");
	ok(kafka_client_close(client, 5000), "the client closes with them");
	ok(kafka_embedded_stop(broker, 5000), "the broker stops");
}

/* Waits for an event of the kind, of the partition; counts messages on the way. */
static void
await_event(KafkaClient *client, KafkaEventKind kind, int32_t partition, int *messages)
{
	KafkaMessage message[1];
	const KafkaEvent *event;

	for (;;)
	{
		while (kafka_consumer_fetch(client, message, 1) > 0)
		{
			(*messages)++;
			kafka_message_release(&message[0]);
		}
		while ((event = kafka_consumer_next_event(client)) != NULL)
			if (event->kind == kind && event->partition == partition)
				return;
		wait_for(client);
	}
}

/* A broker doesn't know the partition yet, and so not where it begins. */
static void
test_assigned_again(void)
{
	KafkaFailure failure = {0};
	rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, NULL, failure.text, sizeof(failure.text));
	rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(rk, 1);
	const char *bootstrap = rd_kafka_mock_cluster_bootstraps(cluster);
	KafkaSetting settings[] = {{"bootstrap.servers", bootstrap}, {"group.id", "g"}, {"fetch.wait.max.ms", "20"}};
	KafkaPosition positions[] = {{"t", 0, 0}, {"t", 1, KAFKA_OFFSET_EARLIEST}};
	KafkaClient *client = kafka_client_open(KAFKA_CONSUMER, settings, 3, &failure);
	int			messages = 0;

	rd_kafka_mock_topic_create(cluster, "t", 2, 1);
	rd_kafka_brokers_add(rk, bootstrap);
	for (int32_t p = 0; p < 2; p++)
		rd_kafka_producev(rk, RD_KAFKA_V_TOPIC("t"), RD_KAFKA_V_PARTITION(p), RD_KAFKA_V_VALUE((void *) "x", 1), RD_KAFKA_V_END);
	rd_kafka_flush(rk, 30000);
	rd_kafka_mock_push_request_errors(cluster, LIST_OFFSETS, 1, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);

	ok(kafka_consumer_assign(client, positions, 2, &failure), "two partitions are assigned");
	await_event(client, KAFKA_EVENT_OFFSET_GONE, 1, &messages);
	rd_kafka_producev(rk, RD_KAFKA_V_TOPIC("t"), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_VALUE((void *) "x", 1), RD_KAFKA_V_END);
	while (messages < 2)
		await_event(client, KAFKA_EVENT_END, 0, &messages);
	is_int(messages, 2, "of one it isn't known where it begins, the other is read");
	ok(kafka_consumer_assign_again(client, &positions[1], 1, &failure), "that one is assigned again");
	await_event(client, KAFKA_EVENT_END, 1, &messages);
	is_int(messages, 3, "it is read, and nothing of the other is read again");
	ok(kafka_client_close(client, 5000), "the client closes");
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(rk);
}

/* Each handle opens the files that the properties name: that of a question, long after the client's. */
static void
test_key_files(void)
{
	KafkaFailure failure = {0};
	KafkaEmbedded *broker = kafka_embedded_start(&failure);
	char		key[] = "/tmp/nexus_kafka_key.XXXXXX";
	int			fd = mkstemp(key);
	KafkaSetting settings[] = {
		{"bootstrap.servers", kafka_embedded_bootstrap(broker)}, {"group.id", "g"}, {"ssl.key.location", key}
	};
	KafkaRequest question = {.timeout_ms = 30000};
	KafkaClient *client;
	KafkaResponse answer;

	fchmod(fd, 0644);
	ok(kafka_client_open(KAFKA_CONSUMER, settings, 3, &failure) == NULL, "a key that others may read is not used");
	ok(strstr(failure.text, "ssl.key.location names a file that may be read by others") != NULL, "and why");
	fchmod(fd, 0600);
	client = kafka_client_open(KAFKA_CONSUMER, settings, 3, &failure);
	ok(client != NULL, "one that is the owner's is");
	fchmod(fd, 0644);
	ok(kafka_request_at_once(client, &question), "a question, when others may read it");
	await_answer_at_once(client, &answer);
	ok(strstr(answer.failure.text, "ssl.key.location names a file that may be read by others") != NULL, "is refused");
	kafka_response_free(&answer);
	fchmod(fd, 0600);
	ok(kafka_request_at_once(client, &question), "and when they may not any more");
	await_answer_at_once(client, &answer);
	is_int(answer.failure.code, 0, "is answered");
	kafka_response_free(&answer);
	ok(kafka_client_close(client, 5000), "the client closes");
	ok(kafka_embedded_stop(broker, 5000), "the broker stops");
	close(fd);
	unlink(key);
}

/* A port that accepts (the kernel does) and never answers. */
static int
silent_port(char *bootstrap, size_t size)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(fd, (struct sockaddr *) &address, len) != 0 || listen(fd, 8) != 0 ||
		getsockname(fd, (struct sockaddr *) &address, &len) != 0)
		return -1;
	snprintf(bootstrap, size, "127.0.0.1:%d", ntohs(address.sin_port));
	return fd;
}

static void
test_silent_broker(void)
{
	char		bootstrap[64];
	int			fd = silent_port(bootstrap, sizeof(bootstrap));
	KafkaSetting settings[] = {{"bootstrap.servers", bootstrap}};
	KafkaFailure failure = {0};
	KafkaClient *client = kafka_client_open(KAFKA_PRODUCER, settings, 1, &failure);
	KafkaResponse answer;

	kafka_request(client, &(KafkaRequest) {.timeout_ms = 200});
	await_answer(client, &answer);
	ok(answer.failure.code != 0, "a silent broker: the question fails");
	ok(strstr(answer.failure.text, "no usable connection") != NULL, "and says what is known so far");
	while (!kafka_client_lost(client))
		wait_for(client);
	ok(strstr(kafka_client_last_failure(client)->text, bootstrap) != NULL, "soon the client says who");
	ok(strstr(kafka_client_last_failure(client)->text, "accepts connections but does not answer") != NULL, "and what is wrong");
	ok(kafka_client_close(client, 10000), "and the client closes");
	close(fd);
}

static void
test_nobody_there(void)
{
	KafkaSetting settings[] = {{"bootstrap.servers", "127.0.0.1:1"}};
	KafkaFailure failure = {0};
	KafkaClient *client = kafka_client_open(KAFKA_PRODUCER, settings, 1, &failure);

	while (!kafka_client_lost(client))
		wait_for(client);
	ok(strstr(kafka_client_last_failure(client)->text, "127.0.0.1:1") != NULL, "nobody there: the client says who");
	ok(!kafka_client_lost(client), "once");
	kafka_client_forget_failure(client);
	ok(kafka_client_last_failure(client) == NULL, "and forgets it when told");
	ok(kafka_client_close(client, 10000), "and closes");
}

static void *
never_ends(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void
finish_never(void *arg)
{
	never_ends(arg);
}

extern bool kafka_run_bounded(void (*finish) (void *), void *arg, int timeout_ms);

static void
test_bounded_close(void)
{
	ok(!kafka_run_bounded(finish_never, NULL, 50), "what doesn't end is not waited for");
}

/* All of librdkafka's threads must leave signals to the main thread. */
static void
test_signals(void)
{
	KafkaFailure failure = {0};
	KafkaEmbedded *broker = kafka_embedded_start(&failure);
	char		line[256];
	int			unblocked = 0;
	int			threads = 0;
	FILE	   *list = popen("cat /proc/$PPID/task/*/status | grep SigBlk", "r");

	while (fgets(line, sizeof(line), list))
	{
		threads++;
		/* SIGUSR1 and SIGTERM: bits 9 and 14 */
		if ((strtoull(strchr(line, ':') + 1, NULL, 16) & 0x4200) != 0x4200)
			unblocked++;
	}
	pclose(list);
	ok(threads > 2, "the broker has threads");
	ok(unblocked <= 1, "and none but the main one takes signals");
	kafka_embedded_stop(broker, 5000);
}

int
main(void)
{
	test_settings();
	test_fates();
	test_complaints();
	test_words_of_others();
	test_questions();
	test_questions_at_once();
	test_assigned_again();
	test_key_files();
	test_silent_broker();
	test_nobody_there();
	test_signals();
	test_bounded_close();
	return done_testing();
}
