/*
 * topic.c
 *		A topic: what its name may be, and what the broker tells of it.
 */
#include "kafka/internal.h"

#include <string.h>

#define LONGEST_NAME	249

static bool
is_in_names(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool
kafka_topic_is_valid(const char *name, size_t len)
{
	if (len == 0 || len > LONGEST_NAME || (len == 1 && name[0] == '.') || (len == 2 && memcmp(name, "..", 2) == 0))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!is_in_names(name[i]))
			return false;
	return true;
}

bool
kafka_topic_fill(KafkaTopic *topic, const struct rd_kafka_metadata_topic *metadata)
{
	*topic = (KafkaTopic) {strdup(metadata->topic), metadata->partition_cnt, -1, NULL};
	for (int i = 0; i < metadata->partition_cnt && topic->leaderless < 0; i++)
		if (metadata->partitions[i].leader < 0)
			topic->leaderless = metadata->partitions[i].id;
	return topic->name != NULL;
}
