/*
 * errors.c
 *		What an error of Kafka means for a message.
 */
#include "kafka/internal.h"

#include <stdio.h>

/*
 * The broker's words, the resolver's and file names may be in any encoding, and go into the
 * log, tables and answers of databases with others. ASCII is text in each of them.
 */
static void
make_ascii(char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text > '~')
			*text = '?';
}

void
kafka_failure_set(KafkaFailure *failure, int code, const char *text)
{
	failure->code = code;
	snprintf(failure->name, sizeof(failure->name), "%s", rd_kafka_err2name(code));
	snprintf(failure->text, sizeof(failure->text), "%s", text ? text : rd_kafka_err2str(code));
	make_ascii(failure->text);
}

/*
 * Only what no repetition can help is refused; of all else the message stays in
 * the outbox, and nothing is lost.
 */
KafkaFate
kafka_fate(int code)
{
	switch (code)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return KAFKA_FATE_DELIVERED;

		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
			return KAFKA_FATE_NO_TOPIC;

		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
			return KAFKA_FATE_REFUSED;

		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
			return KAFKA_FATE_BATCH_REFUSED;

		default:
			return KAFKA_FATE_RETRY;
	}
}

bool
kafka_failure_is_timeout(const KafkaFailure *failure)
{
	return failure->code == RD_KAFKA_RESP_ERR__TIMED_OUT;
}

bool
kafka_failure_is_authorization(const KafkaFailure *failure)
{
	switch (failure->code)
	{
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return true;
		default:
			return false;
	}
}

bool
kafka_failure_is_of_system(const KafkaFailure *failure)
{
	return failure->code == RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
}

bool
kafka_failure_is_no_partition(int code)
{
	return code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}
