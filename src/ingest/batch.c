/*
 * batch.c
 *		The messages that were fetched and are not yet taken in.
 *
 * They stay where librdkafka put them; the batch holds references until all of
 * it is taken in, so a retry needs no second fetch.
 */
#include "nexus_kafka.h"

#include "utils/memutils.h"

#include "ingest/ingest.h"

#define MOST_BYTES_WAITING	(8 * 1024 * 1024)
#define FEW_MESSAGES		10			/* may wait even if they are large: evidence (apply.c) */

Batch *
batch_create(MemoryContext parent, int max)
{
	Batch	   *batch = MemoryContextAllocZero(parent, sizeof(Batch));

	batch->context = AllocSetContextCreate(parent, "nexus_kafka batch", ALLOCSET_DEFAULT_SIZES);
	batch->messages = MemoryContextAllocZero(parent, max * sizeof(KafkaMessage));
	batch->dead = MemoryContextAllocZero(parent, max * sizeof(ErrorData *));
	batch->max = max;
	return batch;
}

/*
 * Adds what there is to the batch, as far as it has room: what fails for long must
 * not pile up. Returns the first one's index.
 */
int
batch_fetch(Batch *batch, KafkaClient *client)
{
	int			first = batch->n;
	size_t		bytes = 0;

	for (int i = 0; i < batch->n; i++)
		bytes += batch->messages[i].key_len + batch->messages[i].value_len;
	if (bytes > MOST_BYTES_WAITING && batch->n - batch->next > FEW_MESSAGES)
		return first;
	batch->n += (int) kafka_consumer_fetch(client, batch->messages + first, batch->max - first);
	if (batch->n > first)
		batch->witness = 0;
	return first;
}

/* Removes the i-th message, which is not to be taken in. */
void
batch_drop(Batch *batch, int i)
{
	kafka_message_release(&batch->messages[i]);
	memmove(&batch->messages[i], &batch->messages[i + 1], (batch->n - i - 1) * sizeof(KafkaMessage));
	memmove(&batch->dead[i], &batch->dead[i + 1], (batch->n - i - 1) * sizeof(ErrorData *));
	batch->n--;
}

void
batch_release(Batch *batch)
{
	for (int i = 0; i < batch->n; i++)
	{
		kafka_message_release(&batch->messages[i]);
		batch->dead[i] = NULL;
	}
	batch->n = batch->next = batch->witness = 0;
	batch->undecodable = -1;
	MemoryContextReset(batch->context);
}

/*
 * Takes back what was judged of the messages that are not taken in yet, with all
 * errors: at the next try another statement may stand there, and a batch that
 * fails for a day must not keep a day's errors.
 */
void
batch_forget_errors(Batch *batch)
{
	for (int i = batch->next; i < batch->n; i++)
		batch->dead[i] = NULL;
	MemoryContextReset(batch->context);
}

int
batch_slice(const Batch *batch, int max_messages, int max_bytes)
{
	size_t		bytes = 0;
	int			end = Min(batch->n, batch->next + max_messages);
	int			i;

	for (i = batch->next; i < end; i++)
	{
		bytes += batch->messages[i].key_len + batch->messages[i].value_len;
		if (bytes > max_bytes && i > batch->next)
			break;
	}
	return i;
}

int
batch_count_live(const Batch *batch, int lo, int hi)
{
	int			n = 0;

	for (int i = lo; i < hi; i++)
		if (batch->dead[i] == NULL)
			n++;
	return n;
}

/* hi if there is none. */
int
batch_first_live(const Batch *batch, int lo, int hi)
{
	int			i = lo;

	while (i < hi && batch->dead[i])
		i++;
	return i;
}
