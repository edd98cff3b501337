/*
 * partitions.c
 *		Which partitions the worker reads, from which offset, of which cluster.
 *
 * nexus_offsets decides. A partition that isn't in it yet is new, and read from
 * its earliest offset. The cluster's id stands beside the offsets: where the
 * broker says another, they mean nothing there, and the pipeline stops. Only an
 * embedded broker, which forgets everything at each start, is begun anew.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest/ingest.h"

#define EMBEDDED_PREFIX	"embedded-"

typedef struct Reading
{
	Ingest	   *ingest;
	const char *cluster_id;
	int			npartitions;
	List	   *offsets;		/* out */
} Reading;

static void
read_offsets(void *arg)
{
	Reading    *reading = arg;

	reading->offsets = catalog_offsets(reading->ingest->pipeline->name, reading->ingest->batch->context);
}

static void
add_partitions(void *arg)
{
	Reading    *reading = arg;
	const Pipeline *pipeline = reading->ingest->pipeline;

	if (reading->cluster_id[0])
		catalog_offsets_name_cluster(pipeline->name, reading->cluster_id);
	for (int p = 0; p < reading->npartitions; p++)
		catalog_offset_add(pipeline->name, pipeline->topic, p, reading->cluster_id);
}

static void
forget_offsets(void *arg)
{
	catalog_offsets_forget(((Ingest *) arg)->pipeline->name);
}

/* The worker ends where the tables can't be read; its parent starts it again. */
static void
run_or_leave(XactBody body, void *arg, MemoryContext context)
{
	ErrorData  *error;

	if (worker_transaction(body, arg, context, &error))
		return;
	job_set_error(MyJob, error->sqlerrcode, error->message);
	ReThrowError(error);
}

void
partitions_start_over(Ingest *ingest)
{
	run_or_leave(forget_offsets, ingest, ingest->batch->context);
	worker_restart();
}

static void
check_cluster(Ingest *ingest, List *offsets, const char *cluster_id)
{
	ListCell   *lc;

	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		if (offset->cluster_id == NULL || cluster_id[0] == '\0' || strcmp(offset->cluster_id, cluster_id) == 0)
			continue;
		if (strncmp(offset->cluster_id, EMBEDDED_PREFIX, strlen(EMBEDDED_PREFIX)) == 0)
			partitions_start_over(ingest);
		ingest_stop(ingest, "the offsets belong to Kafka cluster %s, but the broker is of cluster %s",
					offset->cluster_id, cluster_id);
	}
}

static void
check_partitions(Ingest *ingest, List *offsets, int npartitions)
{
	ListCell   *lc;

	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		if (offset->partition >= npartitions && strcmp(offset->topic, ingest->pipeline->topic) == 0)
			ingest_stop(ingest, "topic \"%s\" had a partition %d and now has %d partitions: it was recreated",
						offset->topic, offset->partition, npartitions);
	}
}

/* Asked for each message, and messages come in runs of a partition. */
IngestPartition *
partition_find(Ingest *ingest, const char *topic, int32 partition)
{
	static int	last = 0;

	for (int i = 0; i < ingest->npartitions; i++)
	{
		IngestPartition *p = &ingest->partitions[(last + i) % ingest->npartitions];

		if (p->partition == partition && (p->topic == topic || strcmp(p->topic, topic) == 0))
		{
			last = p - ingest->partitions;
			return p;
		}
	}
	return NULL;
}

/*
 * librdkafka hands over none such. If it did, a message would be taken in twice
 * or an offset go backwards.
 */
void
partitions_check_messages(Ingest *ingest, int first)
{
	Batch	   *batch = ingest->batch;

	for (int i = first; i < batch->n;)
	{
		const KafkaMessage *message = &batch->messages[i];
		IngestPartition *p = partition_find(ingest, message->topic, message->partition);

		if (p && message->offset >= Max(p->next, p->fetched))
		{
			p->fetched = message->offset + 1;
			i++;
		}
		else
			batch_drop(batch, i);
	}
}

int
partitions_count(const Ingest *ingest, List *offsets)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, offsets)
		if (strcmp(((PartitionOffset *) lfirst(lc))->topic, ingest->pipeline->topic) == 0)
			n++;
	return n;
}

static void
assign(Ingest *ingest, List *offsets)
{
	int			n = partitions_count(ingest, offsets);
	KafkaPosition *positions = palloc(n * sizeof(KafkaPosition));
	KafkaFailure failure;
	ListCell   *lc;
	int			i = 0;

	ingest->partitions = MemoryContextAllocZero(ingest->context, n * sizeof(IngestPartition));
	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);
		IngestPartition *p;

		if (strcmp(offset->topic, ingest->pipeline->topic) != 0)
			continue;			/* of a topic that the pipeline had before */
		p = &ingest->partitions[i];
		p->topic = MemoryContextStrdup(ingest->context, offset->topic);
		p->partition = offset->partition;
		p->next = p->mirrored = offset->offset;
		p->stat = partition_stat(MyJob, p->topic, p->partition);
		positions[i].topic = p->topic;
		positions[i].partition = p->partition;
		positions[i].offset = p->next == OFFSET_EARLIEST ? KAFKA_OFFSET_EARLIEST : p->next;
		i++;
	}
	ingest->npartitions = n;
	if (!kafka_consumer_assign(ingest->link.client, positions, n, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not assign the partitions of topic \"%s\": %s", ingest->pipeline->topic, failure.text)));
	ingest->assigned = true;
	pfree(positions);
}

void
partitions_learn(Ingest *ingest, const KafkaAnswer *answer)
{
	char		cluster_id[sizeof(answer->cluster_id)];
	Reading		reading = {ingest, cluster_id, answer->npartitions, NIL};

	batch_release(ingest->batch);
	strlcpy(cluster_id, answer->cluster_id, sizeof(cluster_id));
	if (link_is_embedded())
	{
		LWLockAcquire(nexus_shared->lock, LW_SHARED);
		strlcpy(cluster_id, nexus_shared->embedded_cluster, sizeof(cluster_id));
		LWLockRelease(nexus_shared->lock);
	}
	if (ingest->assigned && ingest->npartitions == answer->npartitions &&
		strcmp(cluster_id, ingest->link.cluster_id) == 0)
		return;

	run_or_leave(read_offsets, &reading, ingest->batch->context);
	check_cluster(ingest, reading.offsets, cluster_id);
	check_partitions(ingest, reading.offsets, answer->npartitions);
	run_or_leave(add_partitions, &reading, ingest->batch->context);
	run_or_leave(read_offsets, &reading, ingest->batch->context);
	strlcpy(ingest->link.cluster_id, cluster_id, sizeof(ingest->link.cluster_id));

	/* from here on: what is assigned is what the table says */
	if (Max(partitions_count(ingest, reading.offsets), 1) != Max(ingest->room_for, 1))
		worker_restart();		/* a client's memory can't be shared out anew */
	assign(ingest, reading.offsets);
}

/* ---- offsets that move without a message ---- */

typedef struct Skip
{
	Ingest	   *ingest;
	OffsetMove	move;
	bool		moved;
} Skip;

static void
skip_body(void *arg)
{
	Skip	   *skip = arg;

	skip->moved = catalog_offsets_move(skip->ingest->pipeline->name, &skip->move, 1);
}

/* To be flushed before anybody is told. */
void
ingest_note_commit(Ingest *ingest)
{
	if (XactLastCommitEnd != InvalidXLogRecPtr)
		ingest->last_commit = XactLastCommitEnd;
}

void
partition_skip_to(Ingest *ingest, IngestPartition *partition, int64 offset)
{
	Skip		skip = {ingest, {partition->topic, partition->partition, partition->next, offset}, false};

	if (offset <= partition->next)
		return;
	run_or_leave(skip_body, &skip, ingest->batch->context);
	if (!skip.moved)
		worker_restart();		/* somebody else moved it: read where it is now */
	partition->next = offset;
	ingest_note_commit(ingest);
}

/* ---- what others see ---- */

void
partitions_publish_lag(Ingest *ingest)
{
	uint64		lag = 0;

	for (int i = 0; i < ingest->npartitions; i++)
	{
		IngestPartition *p = &ingest->partitions[i];
		int64		end = kafka_consumer_end_offset(ingest->link.client, p->topic, p->partition);

		if (end < 0)
			continue;
		if (p->stat)
			pg_atomic_write_u64(&p->stat->end_offset, (uint64) end);
		lag += Max(end - Max(p->next, 0), 0);
	}
	pg_atomic_write_u64(&MyJob->lag, lag);
}

void
partitions_mirror(Ingest *ingest)
{
	KafkaPosition *positions = palloc(ingest->npartitions * sizeof(KafkaPosition));
	int			n = 0;

	for (int i = 0; i < ingest->npartitions; i++)
	{
		IngestPartition *p = &ingest->partitions[i];

		if (p->next == p->mirrored || p->next < 0)
			continue;
		positions[n++] = (KafkaPosition) {p->topic, p->partition, p->next};
		p->mirrored = p->next;
	}
	if (n > 0)
	{
		XLogFlush(ingest->last_commit); /* the broker must not know more than the disk */
		kafka_consumer_mirror(ingest->link.client, positions, n);
	}
	pfree(positions);
}
