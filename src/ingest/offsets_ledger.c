/*
 * offsets_ledger.c
 *		Where a topic's batch is written down: the offsets move, and what can't be
 *		taken in goes to the dead letters, in the transaction that writes the rows.
 */
#include "nexus_kafka.h"

#include "utils/timestamp.h"

#include "ingest/ingest.h"

/* The range's moves, one a partition: up to its last message there. */
static int
collect_moves(Ingest *ingest, int lo, int hi, OffsetMove *moves)
{
	const Batch *batch = ingest->batch;
	bool	   *done = palloc0(ingest->npartitions * sizeof(bool));
	int			n = 0;

	for (int i = hi - 1; i >= lo && n < ingest->npartitions; i--)
	{
		const KafkaMessage *last = &batch->messages[i];
		IngestPartition *p = partition_find(ingest, last->topic, last->partition);

		if (done[p - ingest->partitions])
			continue;
		done[p - ingest->partitions] = true;
		p->settled_hash = message_hash(last);
		moves[n++] = (OffsetMove) {p->topic, p->partition, p->next, last->offset + 1, last->offset, p->settled_hash, &p->place};
	}
	return n;
}

static void
dead_letter(const Ingest *ingest, int i)
{
	const KafkaMessage *message = &ingest->batch->messages[i];
	DeadLetter	letter;

	letter.pipeline = ingest->pipeline->name;
	letter.topic = message->topic;
	letter.partition = message->partition;
	letter.offset = message->offset;
	letter.has_timestamp = message_timestamp(message, &letter.timestamp);
	letter.key = message_bytes(message->key, message->key_len);
	letter.value = message_bytes(message->value, message->value_len);
	letter.headers = batch_headers(ingest->batch, i);
	letter.error = ingest->batch->dead[i];
	catalog_dead_letter_add(&letter);
}

static bool
settle(Attempt *attempt)
{
	Ingest	   *ingest = attempt->ingest;
	OffsetMove *moves = palloc(ingest->npartitions * sizeof(OffsetMove));
	int			nmoves = collect_moves(ingest, attempt->lo, attempt->hi, moves);
	bool		any = false;

	if (!catalog_offsets_move(ingest->pipeline->name, moves, nmoves))
		return false;
	for (int i = attempt->lo; i < attempt->hi; i++)
	{
		if (ingest->batch->dead[i] == NULL)
			continue;
		dead_letter(ingest, i);
		any = true;
	}
	if (any && ingest->pipeline->max_dead_letters > 0)
		attempt->full = catalog_pause_if_full(ingest->pipeline->name);
	return true;
}

static void
applied(const Attempt *attempt)
{
	Ingest	   *ingest = attempt->ingest;
	Batch	   *batch = ingest->batch;
	int			live = batch_count_live(batch, attempt->lo, attempt->hi);
	const KafkaMessage *last = &batch->messages[attempt->hi - 1];
	TimestampTz timestamp;

	for (int i = attempt->lo; i < attempt->hi; i++)
	{
		IngestPartition *p = partition_find(ingest, batch->messages[i].topic, batch->messages[i].partition);

		p->next = batch->messages[i].offset + 1;
		p->last_offset = batch->messages[i].offset;
		p->last_hash = p->settled_hash; /* of the last one, by the end of the loop */
		if (batch->dead[i])
			job_set_error(MyJob, batch->dead[i]->sqlerrcode, batch->dead[i]->message);
	}
	pg_atomic_fetch_add_u64(&MyJob->messages, attempt->hi - attempt->lo);
	pg_atomic_fetch_add_u64(&MyJob->rows, attempt->rows);
	pg_atomic_fetch_add_u64(&MyJob->batches, 1);
	pg_atomic_fetch_add_u64(&MyJob->dead_letters, attempt->hi - attempt->lo - live);
	if (message_timestamp(last, &timestamp))
		pg_atomic_write_u64(&MyJob->last_message_at, (uint64) timestamp);
}

const Ledger offsets_ledger = {settle, applied, .asks_for_evidence = true, .may_stop = true};
