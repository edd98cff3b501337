/*
 * verify.c
 *		Is the topic still the one whose offset was kept?
 *
 * Kafka gives a topic that was deleted and made again the same name and begins its
 * offsets anew; librdkafka 2.0 tells nothing of topics' ids. So the last message
 * that was taken in is read again, and its hash compared. What is gone from the
 * topic (by retention, by compaction) can't be compared, and is no sign of anything.
 */
#include "nexus_kafka.h"

#include "common/hashfn.h"

#include "ingest/ingest.h"

int64
message_hash(const KafkaMessage *message)
{
	uint64		hash = (uint64) message->timestamp_ms;

	if (message->key)
		hash = hash_bytes_extended(message->key, message->key_len, hash + 1);
	if (message->value)
		hash = hash_bytes_extended(message->value, message->value_len, hash + 2);
	return (int64) hash;
}

void
verify_message(Ingest *ingest, IngestPartition *p, const KafkaMessage *message)
{
	if (message->offset == p->last_offset && message_hash(message) != p->last_hash)
		ingest_stop(ingest, "topic \"%s\" was made anew: partition %d has another message at offset " INT64_FORMAT "; nexus_seek() says where to go on",
					p->topic, p->partition, p->last_offset);
	p->verifying = false;
}

void
verify_end(Ingest *ingest, IngestPartition *p, int64 end)
{
	if (end >= p->next)
	{
		p->verifying = false;	/* nothing there to compare with */
		stale_clear_partition(ingest, p);
	}
	else if (link_is_embedded())
		partitions_start_over(ingest);
	else
		stale_doubt_partition(ingest, p, end);
}

/* The message to compare with is gone: read on from the next one, if that is there. */
bool
verify_gone(Ingest *ingest, IngestPartition *p)
{
	if (!p->verifying)
		return false;
	p->verifying = false;
	partition_assign_again(ingest, p);
	return true;
}
