/*
 * replay_worker.c
 *		The worker of nexus_replay(): dead letters through today's statement.
 *
 * The batch comes from nexus_dead_letters instead of from Kafka, and is taken in as
 * any other (apply.c). The transaction that takes a letter in removes it; one that
 * fails again stays, with its new error. Nothing else is at stake, so an ambiguous
 * error needs no evidence. The worker lives for one call.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "ingest/ingest.h"

#define LOCK_TIMEOUT	"10s"	/* the caller itself may hold the lock, and waits for us */
#define MOST_TRIES		5
#define TRY_AGAIN_MS	100		/* then twice as long each time */

PGDLLEXPORT void nexus_replay_main(Datum arg);

typedef struct Replay
{
	Ingest		ingest;
	ReplayRequest *request;
	DeadLetterRange range;
	MemoryContext letters;		/* of the batch at hand */
	int64	   *ids;			/* of its messages */
} Replay;

static void
load(void *arg)
{
	Replay	   *replay = arg;

	if (!catalog_locate())
		return;
	replay->ingest.pipeline = catalog_pipeline(MyJob->name, replay->ingest.context);
	if (replay->ingest.pipeline)
		definition_check(replay->ingest.pipeline);
	replay->range.upto = catalog_dead_letter_last_id();
}

static void
read_letters(void *arg)
{
	Replay	   *replay = arg;
	Batch	   *batch = replay->ingest.batch;
	List	   *letters = catalog_dead_letters(&replay->range, batch->max, replay->ingest.pipeline->batch_bytes,
											   replay->letters);
	ListCell   *lc;

	foreach(lc, letters)
	{
		const DeadLetter *letter = lfirst(lc);
		KafkaMessage *message = &batch->messages[batch->n];

		memset(message, 0, sizeof(*message));
		message->topic = letter->topic;
		message->partition = letter->partition;
		message->offset = letter->offset;
		message->timestamp_ms = letter->has_timestamp ? message_unix_ms(letter->timestamp) : -1;
		message->key = letter->key ? VARDATA(letter->key) : NULL;
		message->key_len = letter->key ? VARSIZE(letter->key) - VARHDRSZ : 0;
		message->value = letter->value ? VARDATA(letter->value) : NULL;
		message->value_len = letter->value ? VARSIZE(letter->value) - VARHDRSZ : 0;
		batch->stored_headers[batch->n] = letter->headers;
		replay->ids[batch->n++] = letter->id;
	}
}

/* ---- the ledger ---- */

static bool
settle(Attempt *attempt)
{
	Replay	   *replay = (Replay *) attempt->ingest;
	int			n = attempt->hi - attempt->lo;
	int64	   *passing = palloc(n * sizeof(int64));
	int			npassing = 0;

	if (catalog_dead_letters_lock(replay->ids + attempt->lo, n) != n)
		return false;
	for (int i = attempt->lo; i < attempt->hi; i++)
	{
		const ErrorData *error = attempt->ingest->batch->dead[i];

		if (error)
			catalog_dead_letter_renew(replay->ids[i], error);
		else
			passing[npassing++] = replay->ids[i];
	}
	catalog_dead_letters_remove(passing, npassing);
	return true;
}

static void
applied(const Attempt *attempt)
{
	Replay	   *replay = (Replay *) attempt->ingest;
	int			live = batch_count_live(attempt->ingest->batch, attempt->lo, attempt->hi);

	replay->request->replayed += live;
	replay->request->failed += attempt->hi - attempt->lo - live;
	replay->range.after = replay->ids[attempt->hi - 1];
}

static const Ledger replay_ledger = {settle, applied};

/* ---- the worker ---- */

static void
report(Replay *replay, const ErrorData *error)
{
	replay->request->sqlstate = error->sqlerrcode;
	strlcpy(replay->request->error, error->message, sizeof(replay->request->error));
}

/* The wait for a lock was the try: the caller itself may hold it. */
static bool
may_pass(const ErrorData *error)
{
	return triage(error->sqlerrcode) == ERROR_OF_ENVIRONMENT && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE;
}

static void
await_next_try(int delay_ms)
{
	MonoTime	until = mono_in_ms(delay_ms);

	while (mono_now() < until)
		(void) worker_wait(-1, mono_ms_until(until));
}

/* False: it can't go on, and the request says why. */
static bool
take_in(Replay *replay)
{
	ErrorData  *error = NULL;

	for (int try = 1;; try++)
	{
		switch (apply_batch(&replay->ingest, &error))
		{
			case APPLY_DONE:
			case APPLY_MOVED:	/* somebody else removed some: read again what is left */
				return true;
			default:
				break;
		}
		if (try == MOST_TRIES || !may_pass(error))
		{
			report(replay, error);
			return false;
		}
		await_next_try(TRY_AGAIN_MS << (try - 1));
	}
}

static void
replay_all(Replay *replay)
{
	ErrorData  *error;

	for (;;)
	{
		batch_release(replay->ingest.batch);
		MemoryContextReset(replay->letters);
		if (!worker_transaction(read_letters, replay, replay->ingest.context, &error))
		{
			report(replay, error);
			return;
		}
		if (replay->ingest.batch->n == 0 || !take_in(replay))
			return;
		worker_service();
	}
}

static ReplayRequest *
attach_request(void)
{
	dsm_handle	handle;
	dsm_segment *segment;

	memcpy(&handle, MyBgworkerEntry->bgw_extra, sizeof(handle));
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "nexus_kafka replay");
	segment = dsm_attach(handle);
	if (segment == NULL)
		proc_exit(0);			/* the caller is gone */
	dsm_pin_mapping(segment);
	return dsm_segment_address(segment);
}

void
nexus_replay_main(Datum arg)
{
	Replay	   *replay;
	ErrorData  *error;

	worker_begin(arg, JOB_REPLAY);
	worker_retire_at_end();
	replay = MemoryContextAllocZero(TopMemoryContext, sizeof(Replay));
	replay->request = attach_request();
	worker_connect();
	messages_scan_install_hook();
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION);

	replay->ingest.context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka replay", ALLOCSET_DEFAULT_SIZES);
	replay->letters = AllocSetContextCreate(TopMemoryContext, "nexus_kafka letters", ALLOCSET_DEFAULT_SIZES);
	replay->ingest.ledger = &replay_ledger;
	replay->range = (DeadLetterRange) {MyJob->name, 0, 0, replay->request->ids, replay->request->nids};
	if (!worker_transaction(load, replay, replay->ingest.context, &error))
		report(replay, error);
	else if (replay->ingest.pipeline)
	{
		int			max = replay->ingest.pipeline->batch_messages;

		replay->ingest.batch = batch_create(replay->ingest.context, max);
		replay->ingest.batch->stored_headers = MemoryContextAllocZero(replay->ingest.context, max * sizeof(Jsonb *));
		replay->ids = MemoryContextAllocZero(replay->ingest.context, max * sizeof(int64));
		replay_all(replay);
	}
	replay->request->finished = true;
	proc_exit(0);
}
