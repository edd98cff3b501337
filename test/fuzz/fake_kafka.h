/*
 * fake_kafka.h
 *		See fake_kafka.c.
 */
#ifndef FUZZ_FAKE_KAFKA_H
#define FUZZ_FAKE_KAFKA_H

#include "kafka/kafka.h"

/* A message's handle; NULL: it has no headers. */
typedef struct FakeHeaders
{
	KafkaHeader *headers;
	size_t		n;
} FakeHeaders;

#endif							/* FUZZ_FAKE_KAFKA_H */
