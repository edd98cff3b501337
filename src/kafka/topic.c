/*
 * topic.c
 *		Names of topics.
 */
#include "kafka/kafka.h"

#include <string.h>

#define LONGEST_NAME	249

bool
kafka_topic_is_valid(const char *name, size_t len)
{
	static const char characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (len == 0 || len > LONGEST_NAME || (len == 1 && name[0] == '.') || (len == 2 && memcmp(name, "..", 2) == 0))
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] == '\0' || strchr(characters, name[i]) == NULL)
			return false;
	return true;
}
