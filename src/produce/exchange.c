/*
 * exchange.c
 *		One transaction of the relay on the outbox: what is settled is deleted, what
 *		is new is read.
 *
 * Rows are read upwards by id; gaps.c has those that were passed. Before a row
 * is handed over, the commit that made it visible is on disk: a transaction
 * with synchronous_commit = off could be lost in a crash, and its message must
 * not have been published then. Nothing waits for the network in here.
 */
#include "nexus_kafka.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "produce/produce.h"

#define READ_ROWS			5000	/* a transaction */
#define READ_BYTES			(4 * 1024 * 1024)
#define MOST_RANGES			1000	/* of a gap, looked up by one query */

typedef enum ExchangePhase
{
	EXCHANGE_DELETES,
	EXCHANGE_READS,
	EXCHANGE_DONE
} ExchangePhase;

typedef struct Exchange
{
	Relay	   *relay;
	bool		read;
	ExchangePhase phase;
} Exchange;

typedef struct GapLookup
{
	Relay	   *relay;
	Gap		   *gap;
} GapLookup;

void
relay_exchange_init(Relay *relay)
{
	relay->outgoing_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka outgoing", ALLOCSET_DEFAULT_SIZES);
	relay->outgoing = MemoryContextAlloc(TopMemoryContext, READ_ROWS * sizeof(OutboxRow));
	gaps_init(AllocSetContextCreate(TopMemoryContext, "nexus_kafka gaps", ALLOCSET_DEFAULT_SIZES));
}

/* ---- reading ---- */

static void *
copy(const void *data, Size size)
{
	return data ? memcpy(palloc(size), data, size) : NULL;
}

static void
note_commit(Relay *relay, TransactionId xmin)
{
	XLogRecPtr	lsn;

	if (!TransactionIdIsNormal(xmin) || TransactionIdPrecedes(xmin, NexusOldestClogXid))
		return;					/* long on disk */
	lsn = TransactionIdGetCommitLSN(xmin);
	relay->flush_to = Max(relay->flush_to, lsn);
}

static bool
take_row(Relay *relay, const OutboxRow *row)
{
	MemoryContext before;
	OutboxRow  *mine;

	if (relay->noutgoing == READ_ROWS || (relay->noutgoing > 0 && relay->outgoing_bytes > READ_BYTES))
		return false;
	before = MemoryContextSwitchTo(relay->outgoing_context);
	mine = &relay->outgoing[relay->noutgoing++];
	*mine = *row;
	mine->topic = pstrdup(row->topic);
	mine->key = row->key ? copy(row->key, VARSIZE_ANY(row->key)) : NULL;
	mine->value = row->value ? copy(row->value, VARSIZE_ANY(row->value)) : NULL;
	mine->headers = row->headers ? copy(row->headers, VARSIZE(row->headers)) : NULL;
	mine->message_id = pstrdup(row->message_id);
	relay->outgoing_bytes += (mine->key ? VARSIZE_ANY(mine->key) : 0) + (mine->value ? VARSIZE_ANY(mine->value) : 0) +
		(mine->headers ? VARSIZE(mine->headers) : 0);
	MemoryContextSwitchTo(before);

	note_commit(relay, row->xmin);
	flush_count(relay, row->id);
	return true;
}

static bool
take_new_row(const OutboxRow *row, void *arg)
{
	Relay	   *relay = arg;

	if (!take_row(relay, row))
		return false;
	if (row->id > relay->last_id + 1)
		gaps_note(relay->last_id + 1, row->id - 1, GetActiveSnapshot());
	relay->last_id = row->id;
	return true;
}

static bool
take_gap_row(const OutboxRow *row, void *arg)
{
	GapLookup  *lookup = arg;

	if (!take_row(lookup->relay, row))
		return false;
	gap_found(lookup->gap, row->id);
	return true;
}

static bool
look_up_gap(Relay *relay, Gap *gap)
{
	GapLookup	lookup = {relay, gap};
	int64	   *firsts = palloc(MOST_RANGES * sizeof(int64));
	int64	   *lasts = palloc(MOST_RANGES * sizeof(int64));
	IdRange    *ranges = palloc(gap->nranges * sizeof(IdRange));
	int			nranges = gap->nranges;
	bool		all = true;

	/* the gap's own ranges change while rows are found */
	memcpy(ranges, gap->ranges, nranges * sizeof(IdRange));
	for (int done = 0; done < nranges && all; done += MOST_RANGES)
	{
		int			n = Min(nranges - done, MOST_RANGES);

		for (int i = 0; i < n; i++)
		{
			firsts[i] = ranges[done + i].first;
			lasts[i] = ranges[done + i].last;
		}
		all = catalog_outbox_read_ranges(MyJob->name, firsts, lasts, n, READ_ROWS + 1, take_gap_row, &lookup);
	}
	pfree(firsts);
	pfree(lasts);
	pfree(ranges);
	return all;
}

/*
 * Rows that should have been seen: the sequence was set back, say. Read all
 * from the start; what is in flight is not touched, as there is none.
 */
static void
start_over_if_rows_are_left(Relay *relay, bool found_none)
{
	if (!found_none || relay->in_flight > 0 || relay->noutgoing > 0 || relay->refused != NIL || gaps_exist() ||
		relay->last_id == catalog_outbox_id_before_all(MyJob->name) || mono_now() < relay->next_look ||
		catalog_outbox_last_id(MyJob->name) == 0)
		return;
	ereport(LOG, (errmsg("nexus_kafka relay reads the outbox from its start: there are rows that it had passed"),
				  errhidestmt(true)));
	relay->last_id = catalog_outbox_id_before_all(MyJob->name);
	relay->caught_up = false;
}

static void
read_rows(Relay *relay)
{
	Gap		   *gap;
	bool		all = true;

	gaps_advance(GetActiveSnapshot(), mono_now());
	flush_begin(relay);
	while (all && (gap = gaps_next_to_look_up()) != NULL)
	{
		all = look_up_gap(relay, gap);
		if (all)
			gap_looked_up(gap);
	}
	if (all)
		relay->caught_up = catalog_outbox_read_after(MyJob->name, relay->last_id, READ_ROWS + 1, take_new_row,
													 relay);
	else
		relay->caught_up = false;
	gaps_forget_hopeless();
	start_over_if_rows_are_left(relay, relay->caught_up && relay->noutgoing == 0);
}

/* ---- the transaction, and after it ---- */

static void
exchange_body(void *arg)
{
	Exchange   *exchange = arg;
	Relay	   *relay = exchange->relay;
	ListCell   *lc;

	exchange->phase = EXCHANGE_DELETES;
	if (relay->nsettled > 0)
		catalog_outbox_delete(relay->settled, relay->nsettled);
	foreach(lc, relay->refused)
	{
		const Refusal *refusal = lfirst(lc);

		catalog_outbox_bury(refusal->id, refusal->failure.name, refusal->failure.text);
	}
	exchange->phase = EXCHANGE_READS;
	if (exchange->read)
		read_rows(relay);
	exchange->phase = EXCHANGE_DONE;
}

static void
forget_settled(Relay *relay)
{
	ListCell   *lc;

	for (int i = 0; i < relay->nsettled; i++)
		flush_settle(relay, relay->settled[i]);
	foreach(lc, relay->refused)
		flush_settle(relay, ((Refusal *) lfirst(lc))->id);
	pg_atomic_fetch_add_u64(&MyJob->messages, relay->nsettled);
	pg_atomic_fetch_add_u64(&MyJob->rows, relay->nsettled);
	pg_atomic_fetch_add_u64(&MyJob->dead_letters, list_length(relay->refused));
	pg_atomic_fetch_add_u64(&MyJob->refused, list_length(relay->refused));
	relay->nsettled = 0;
	relay->refused = NIL;
	MemoryContextReset(relay->refused_context);
}

bool
relay_exchange(Relay *relay, bool read)
{
	Exchange	exchange = {.relay = relay,.read = read};
	ErrorData  *error;
	MemoryContext context = CurrentMemoryContext;

	if (worker_transaction(exchange_body, &exchange, context, &error))
	{
		forget_settled(relay);
		pg_atomic_fetch_add_u64(&MyJob->batches, 1);
		job_condition_clear(MyJob, CONDITION_TRANSACTION_FAILS);
		relay->retry_at = 0;
		return true;
	}
	job_set_error(MyJob, error->sqlerrcode, error->message);
	job_condition_set(MyJob, CONDITION_TRANSACTION_FAILS, "%s (SQLSTATE %s)", error->message,
					  unpack_sql_state(error->sqlerrcode));
	if (exchange.phase == EXCHANGE_READS)
		ReThrowError(error);
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	relay->retry_at = mono_in_ms(AGAIN_MS);
	FreeErrorData(error);
	return false;
}
