/*
 * partitions.c
 *		Which partitions the worker reads, and from where.
 *
 * nexus_offsets decides. Of a pipeline's workers the first one adds the partitions
 * with which it begins (start.c says where), and whichever sees them first those that
 * come later; each reads those that are its by their number. The cluster's id stands
 * beside the offsets: where the broker says another, they mean nothing there, and the
 * pipeline stops. Only an embedded broker, which forgets everything at each start, is
 * begun anew.
 *
 * A topic that was deleted and made again has the old one's name and other
 * messages. So reading begins with the last message that was taken in, which is
 * compared with the hash that was kept of it (verify.c).
 *
 * A worker assigns partitions once: what changes them makes it start anew.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest/ingest.h"

#define EMBEDDED_PREFIX	"embedded-"

/* The worker ends where the tables can't be read; its parent starts it again. */
void
ingest_run_or_leave(XactBody body, void *arg, MemoryContext context)
{
	ErrorData  *error;

	if (worker_transaction(body, arg, context, &error))
		return;
	job_set_error(MyJob, error->sqlerrcode, error->message);
	ReThrowError(error);
}

typedef struct Reading
{
	Ingest	   *ingest;
	const KafkaResponse *answer;
	const char *cluster_id;
	StaleVerdict verdict;		/* on the answer */
	List	   *offsets;		/* out */
} Reading;

/* Is the offset one of a partition that a topic that is there doesn't have? */
static bool
is_beyond(const PartitionOffset *offset, const KafkaResponse *answer)
{
	const KafkaTopic *topic = topics_find(answer, offset->topic);

	return topic && offset->partition >= topic->npartitions;
}

/* Where nexus_seek() has been, a person knows of the topic that was made anew with fewer partitions. */
static void
forget_partitions_gone(Reading *reading)
{
	ListCell   *lc;

	foreach(lc, reading->offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		if (offset->cluster_id != NULL || !is_beyond(offset, reading->answer))
			continue;
		catalog_offset_forget(reading->ingest->pipeline->name, offset);
		reading->offsets = foreach_delete_current(reading->offsets, lc);
	}
}

static void
read_offsets(void *arg)
{
	Reading    *reading = arg;
	MemoryContext context = reading->ingest->batch->context;

	reading->offsets = catalog_offsets(reading->ingest->pipeline->name, context);
}

static void
accept_offsets(void *arg)
{
	Reading    *reading = arg;

	if (reading->verdict == STALE_LACKS)
		forget_partitions_gone(reading);
	if (reading->cluster_id[0])
		catalog_offsets_name_cluster(reading->ingest->pipeline->name, reading->cluster_id);
}

static void
embedded_cluster(char *cluster_id, size_t size)
{
	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	strlcpy(cluster_id, nexus_shared->embedded_cluster, size);
	LWLockRelease(nexus_shared->lock);
}

static void
forget_offsets(void *arg)
{
	catalog_offsets_forget(((Ingest *) arg)->pipeline->name);
}

void
partitions_start_over(Ingest *ingest)
{
	ingest_run_or_leave(forget_offsets, ingest, ingest->batch->context);
	worker_restart();
}

typedef struct Reset
{
	const char *pipeline;
	const IngestPartition *partition;
} Reset;

static void
reset_offset(void *arg)
{
	Reset	   *reset = arg;

	catalog_offsets_set(reset->pipeline, reset->partition->topic, reset->partition->partition, OFFSET_EARLIEST, 0);
}

/* Of an embedded broker, which keeps a few megabytes: the other partitions are what they were, or another broker's. */
void
partition_start_over(Ingest *ingest, const IngestPartition *partition)
{
	Reset		reset = {ingest->pipeline->name, partition};
	char		cluster_id[sizeof(ingest->link.cluster_id)];

	embedded_cluster(cluster_id, sizeof(cluster_id));
	if (strcmp(cluster_id, ingest->link.cluster_id) != 0)
		partitions_start_over(ingest);
	ingest_run_or_leave(reset_offset, &reset, ingest->batch->context);
	worker_restart();
}

/* ---- does what the broker says fit to what is in the table? ---- */

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
		ingest_stop(ingest, "the offsets belong to Kafka cluster %s, but the broker is of cluster %s: nexus_seek() says where to go on",
					offset->cluster_id, cluster_id);
	}
}

/* Of those that the answer lacks, is there one where nexus_seek() has been? */
static bool
any_told_beyond(List *offsets, const KafkaResponse *answer)
{
	ListCell   *lc;

	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		if (offset->cluster_id == NULL && is_beyond(offset, answer))
			return true;
	}
	return false;
}

/*
 * False: it is to be seen yet whether partitions that aren't there have gone. Those that
 * are can be read meanwhile if they can be compared, which those where a person said where
 * to go on can't be.
 */
static bool
accept_partitions(Reading *reading)
{
	Ingest	   *ingest = reading->ingest;

	stale_note_known(ingest, reading->offsets, reading->answer);
	reading->verdict = stale_judge(ingest, reading->answer);
	if (reading->verdict == STALE_UNKNOWN ||
		(reading->verdict == STALE_MAY_BE && any_told_beyond(reading->offsets, reading->answer)))
		return false;
	ingest_run_or_leave(accept_offsets, reading, ingest->batch->context);
	if (reading->verdict == STALE_LACKS)
	{
		stale_note_known(ingest, reading->offsets, reading->answer);
		stale_stop_if_made_anew(ingest, reading->answer);
	}
	return true;
}

static bool
is_known(List *offsets, const char *topic, int32 partition)
{
	ListCell   *lc;

	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		if (offset->partition == partition && strcmp(offset->topic, topic) == 0)
			return true;
	}
	return false;
}

/* The pipeline's partitions that have no offset yet. */
static List *
new_partitions(const Ingest *ingest, List *offsets, const KafkaResponse *answer)
{
	List	   *fresh = NIL;

	for (size_t i = 0; i < answer->ntopics; i++)
	{
		const KafkaTopic *topic = &answer->topics[i];

		if (!topics_include(ingest->pipeline, topic->name))
			continue;
		for (int p = 0; p < topic->npartitions; p++)
		{
			PartitionOffset *offset;

			if (is_known(offsets, topic->name, p))
				continue;
			offset = palloc0(sizeof(PartitionOffset));
			offset->topic = pstrdup(topic->name);
			offset->partition = p;
			offset->offset = OFFSET_EARLIEST;
			fresh = lappend(fresh, offset);
		}
	}
	return fresh;
}

/* ---- the worker's own ---- */

static bool
is_mine(const Ingest *ingest, const PartitionOffset *offset)
{
	uint32		hash = hash_bytes((const unsigned char *) offset->topic, strlen(offset->topic));

	return (hash + (uint32) offset->partition) % (uint32) ingest->pipeline->workers == (uint32) MyJob->part;
}

/* Can it be told whether a partition is the one that was read, before anything of it is taken in? */
static bool
is_comparable(const PartitionOffset *offset)
{
	return offset->last_offset >= 0 && offset->last_offset < offset->offset;
}

/*
 * Those of the worker; answer NULL: all, else those that are there. in_doubt: the topic may be
 * another one, so none of which no message is known yet.
 */
static List *
my_offsets(const Ingest *ingest, List *offsets, const KafkaResponse *answer, bool in_doubt)
{
	List	   *mine = NIL;
	ListCell   *lc;

	foreach(lc, offsets)
	{
		PartitionOffset *offset = lfirst(lc);

		if (topics_include(ingest->pipeline, offset->topic) && is_mine(ingest, offset) &&
			(answer == NULL || (topics_find(answer, offset->topic) && !is_beyond(offset, answer))) &&
			(!in_doubt || is_comparable(offset)))
			mine = lappend(mine, offset);
	}
	return mine;
}

int
partitions_count(const Ingest *ingest, List *offsets)
{
	return list_length(my_offsets(ingest, offsets, NULL, false));
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

/* Where it is read from; what was fetched of it doesn't count any more. */
static KafkaPosition
begin_reading(IngestPartition *p)
{
	int64		first = p->verifying ? p->last_offset : p->next;

	p->fetched = 0;
	return (KafkaPosition) {p->topic, p->partition, first < 0 ? KAFKA_OFFSET_EARLIEST : first};
}

void
partitions_assign(Ingest *ingest)
{
	KafkaPosition *positions = palloc(Max(ingest->npartitions, 1) * sizeof(KafkaPosition));
	KafkaFailure failure;

	for (int i = 0; i < ingest->npartitions; i++)
		positions[i] = begin_reading(&ingest->partitions[i]);
	if (!kafka_consumer_assign(ingest->link.client, positions, ingest->npartitions, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not assign the partitions of \"%s\": %s", ingest->pipeline->topic, failure.text)));
	ingest->assigned = true;
	pfree(positions);
}

/* While nothing is in hand; the others' reading goes on. */
void
partition_assign_again(Ingest *ingest, IngestPartition *partition)
{
	KafkaPosition position = begin_reading(partition);
	KafkaFailure failure;

	if (!kafka_consumer_assign_again(ingest->link.client, &position, 1, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("could not assign partition %d of \"%s\" again: %s", partition->partition,
						partition->topic, failure.text)));
}

/* Those of which it isn't known where they begin, or whether their leader is up to date. */
void
partitions_assign_unsettled(Ingest *ingest)
{
	for (int i = 0; i < ingest->npartitions; i++)
		if (ingest->partitions[i].begin_unknown || ingest->partitions[i].in_doubt)
			partition_assign_again(ingest, &ingest->partitions[i]);
}

static void
take_up(Ingest *ingest, List *mine)
{
	ListCell   *lc;

	ingest->partitions = MemoryContextAllocZero(ingest->context, Max(list_length(mine), 1) * sizeof(IngestPartition));
	foreach(lc, mine)
	{
		const PartitionOffset *offset = lfirst(lc);
		IngestPartition *p = &ingest->partitions[ingest->npartitions++];

		p->topic = MemoryContextStrdup(ingest->context, offset->topic);
		p->partition = offset->partition;
		p->next = offset->offset;
		p->mirrored = -1;
		p->begin_unknown = p->next < 0;
		p->from_ms = p->next == OFFSET_BY_TIME ? message_unix_ms(offset->start_time) : -1;
		p->last_offset = offset->last_offset;
		p->last_hash = offset->last_hash;
		p->place = InvalidBlockNumber;
		p->verifying = is_comparable(offset);
		p->stat = partition_stat(MyJob, p->topic, p->partition);
	}
	partitions_assign(ingest);
	ingest->must_revalidate = false;
}

/* ---- what the broker said ---- */

static void
learn_cluster(const KafkaResponse *answer, char *cluster_id, size_t size)
{
	if (link_is_embedded())
		embedded_cluster(cluster_id, size);
	else
		strlcpy(cluster_id, answer->cluster_id, size);
}

/* Of the topics of the pipeline that are there, with their partitions. */
static uint64
topics_hash(const Ingest *ingest, const KafkaResponse *answer)
{
	uint64		hash = 1;		/* none is none of another */

	for (size_t i = 0; i < answer->ntopics; i++)
	{
		const KafkaTopic *t = &answer->topics[i];

		if (topics_include(ingest->pipeline, t->name))
			hash += hash_bytes_extended((const unsigned char *) t->name, strlen(t->name), t->npartitions);
	}
	return hash;
}

bool
partitions_learn(Ingest *ingest, const KafkaResponse *answer)
{
	char		cluster_id[sizeof(answer->cluster_id)];
	Reading		reading = {ingest, answer, cluster_id};
	uint64		hash = topics_hash(ingest, answer);
	List	   *fresh;
	List	   *mine;

	batch_release(ingest->batch);
	learn_cluster(answer, cluster_id, sizeof(cluster_id));
	if (ingest->assigned)
	{
		if (hash == ingest->topics_hash && strcmp(cluster_id, ingest->link.cluster_id) == 0 && !ingest->must_revalidate)
			return true;
		worker_restart();
	}

	ingest_run_or_leave(read_offsets, &reading, ingest->batch->context);
	check_cluster(ingest, reading.offsets, cluster_id);
	if (!accept_partitions(&reading))
		return false;
	fresh = new_partitions(ingest, reading.offsets, answer);
	if (fresh != NIL || (!ingest->pipeline->started && MyJob->part == 0))
	{
		if (MyJob->part != 0 && !ingest->pipeline->started)
			return false;		/* the first worker begins */
		if (!start_partitions(ingest, fresh, cluster_id))
			return false;		/* it has to ask first */
		ingest_run_or_leave(read_offsets, &reading, ingest->batch->context);
	}
	mine = my_offsets(ingest, reading.offsets, answer, reading.verdict == STALE_MAY_BE);
	if (start_must_ask(ingest, mine))
		return false;

	/* from here on: what is assigned is what the table says */
	if (Max(list_length(mine), 1) != Max(ingest->room_for, 1))
	{
		if (ingest->room_for == partitions_count(ingest, reading.offsets))
			ingest->room_for = list_length(mine);	/* a topic is missing: more room than needed */
		else
			worker_restart();	/* a client's memory can't be shared out anew */
	}
	strlcpy(ingest->link.cluster_id, cluster_id, sizeof(ingest->link.cluster_id));
	ingest->topics_hash = hash;
	take_up(ingest, mine);
	return true;
}

/*
 * librdkafka hands over none such. If it did, a message would be taken in twice, or
 * an offset go backwards; or, if one comes after a later one, be passed over: then
 * the worker reads again from what the table says.
 */
void
partitions_check_messages(Ingest *ingest, int first)
{
	Batch	   *batch = ingest->batch;

	for (int i = first; i < batch->n;)
	{
		const KafkaMessage *message = &batch->messages[i];
		IngestPartition *p = partition_find(ingest, message->topic, message->partition);

		if (p && p->verifying)
			verify_message(ingest, p, message);
		if (p && p->next == OFFSET_BY_TIME && message->timestamp_ms < p->from_ms)
			p->fetched = message->offset + 1;
		if (p && message->offset >= Max(p->next, p->fetched))
		{
			p->fetched = message->offset + 1;
			p->begin_unknown = false;
			stale_clear_partition(ingest, p);
			p->from_ms = -1;	/* all that follows it, also what has an earlier time */
			i++;
			continue;
		}
		if (p && message->offset >= p->next && p->next != OFFSET_BY_TIME)
			worker_restart();
		batch_drop(batch, i);
	}
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

/* To be safe before anybody is told, by this worker or the next one. */
void
ingest_note_commit(Ingest *ingest)
{
	if (XactLastCommitEnd == InvalidXLogRecPtr)
		return;
	ingest->last_commit = XactLastCommitEnd;
	pg_atomic_write_u64(&MyJob->last_commit, XactLastCommitEnd);
}

void
partition_skip_to(Ingest *ingest, IngestPartition *partition, int64 offset)
{
	Skip		skip = {ingest, {partition->topic, partition->partition, partition->next, offset, -1, 0, &partition->place}, false};

	if (offset <= partition->next)
		return;
	ingest_run_or_leave(skip_body, &skip, ingest->batch->context);
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

		if (end < 0 && p->fetched == 0)
			continue;
		end = Max(end, p->fetched); /* what librdkafka knows may be older */
		if (p->stat)
			pg_atomic_write_u64(&p->stat->end_offset, (uint64) end);
		lag += Max(end - Max(p->next, 0), 0);
	}
	pg_atomic_write_u64(&MyJob->lag, lag);
}

bool
partitions_at_end(Ingest *ingest)
{
	bool		at_end = ingest->assigned && batch_is_empty(ingest->batch);

	for (int i = 0; i < ingest->npartitions && at_end; i++)
	{
		const IngestPartition *p = &ingest->partitions[i];
		int64		end = kafka_consumer_end_offset(ingest->link.client, p->topic, p->partition);

		at_end = end >= 0 && p->next >= end;
	}
	return at_end;
}

void
partitions_note_for_commit(Ingest *ingest)
{
	for (int i = 0; i < ingest->npartitions; i++)
		ingest->partitions[i].noted = ingest->partitions[i].next;
	ingest->commit_offsets_now = Max(ingest->last_commit, 1);
}

bool
partitions_commit_offsets(Ingest *ingest, int timeout_ms)
{
	KafkaPosition *positions;
	int			n = 0;

	if (!commit_is_safe(ingest->commit_offsets_now))
		return false;			/* the broker must not know more than is left after a failover */
	ingest->commit_offsets_now = InvalidXLogRecPtr;
	positions = palloc(Max(ingest->npartitions, 1) * sizeof(KafkaPosition));
	for (int i = 0; i < ingest->npartitions; i++)
	{
		IngestPartition *p = &ingest->partitions[i];

		if (p->noted == p->mirrored || p->noted < 0)
			continue;
		positions[n++] = (KafkaPosition) {p->topic, p->partition, p->noted};
		p->mirrored = p->noted;
	}
	if (n > 0)
		kafka_commit_offsets(ingest->link.client, positions, n, timeout_ms);
	pfree(positions);
	return true;
}
