/*
 * exchange.c
 *		One transaction of the relay on the outbox: what is settled is deleted, what
 *		is new is read, and what was left.
 *
 * Rows are read upwards by id; gaps.c has those that were passed, window.c what was left
 * because it could not be sent yet. So a row may be met more than once: the window knows
 * which are under way, and all others are as new.
 *
 * Before a row is handed over, the commit that made it visible is safe (synchronous.c): one
 * with synchronous_commit = off could be lost in a crash, one that no standby has in a
 * failover, and its message must not have been published then. Nothing waits for the
 * network in here.
 */
#include "nexus_kafka.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "produce/produce.h"

#define READ_ROWS			5000	/* a transaction */
#define READ_BYTES			(4 * 1024 * 1024)
#define GAPS_AT_ONCE		1000
#define PAUSE_MS			10
#define NO_PROGRESS_MS		100		/* where what was left could be read, and nothing of it sent */
#define READ_LEFT_MS		50		/* a transaction; what is new is read in the same one */
#define LOOK_BACK_MS		1000	/* at first, then twice as long, where it is of no use */
#define LONGEST_LOOK_BACK_MS	60000
#define PASS_ROWS			1000	/* a transaction, of topics that have no route */

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
	int			refused;		/* that went to the dead letters: others come by reading */
} Exchange;

/* What is being read. */
typedef struct Reading
{
	Relay	   *relay;
	Lane	   *left;			/* of this lane what was left; NULL: anything */
	int64		stopped_at;		/* this row wasn't taken */
	int64		last_seen;
} Reading;

void
relay_exchange_init(Relay *relay)
{
	Reader	   *reader = &relay->reader;

	reader->context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka outgoing", ALLOCSET_DEFAULT_SIZES);
	reader->outgoing = MemoryContextAlloc(TopMemoryContext, READ_ROWS * sizeof(Outgoing));
	reader->look_back_ms = LOOK_BACK_MS;
	reader->last_id = catalog_outbox_id_before_all(MyJob->name);
	gaps_init(AllocSetContextCreate(TopMemoryContext, "nexus_kafka gaps", ALLOCSET_DEFAULT_SIZES));
	window_init(&relay->window);
}

/* ---- a row ---- */

/*
 * xmin is as it stands in the row: that of a frozen one is of any age, and may look like
 * one of the future. Only between the oldest that has a status and the next one it can be
 * looked up; if another transaction has the number by now, that one's commit is waited for.
 */
static void
note_commit(Relay *relay, TransactionId xmin)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	if (!TransactionIdIsNormal(xmin) || xmin == relay->reader.last_xmin)
		return;
	relay->reader.last_xmin = xmin;
	LWLockAcquire(XactTruncationLock, LW_SHARED);
	if (!TransactionIdPrecedes(xmin, NexusOldestClogXid) && TransactionIdPrecedes(xmin, ReadNextTransactionId()))
		lsn = TransactionIdGetCommitLSN(xmin);
	LWLockRelease(XactTruncationLock);
	relay->reader.flush_to = Max(relay->reader.flush_to, lsn);
}

static bool
take_admitted(Relay *relay, OutboxRow *row, Lane *lane, int32 partition)
{
	Reader	   *reader = &relay->reader;
	Outgoing   *out = &reader->outgoing[reader->n];
	MemoryContext before = MemoryContextSwitchTo(reader->context);
	Fault		fault;

	if (record_of_row(row, &out->record, &fault))
	{
		out->record.partition = partition;
		out->record.topic = lane->route->topic; /* which stays while anything of it is in flight */
		out->sent = window_admit(&relay->window, lane, (OutboxKey) {row->id, row->identity}, out->record.size,
								 row->partition < 0);
		reader->n++;
		reader->bytes += out->record.size;
		note_commit(relay, row->xmin);
		flush_count(relay, row->id);
	}
	else
		relay_refuse(relay, NULL, row, unpack_sql_state(fault.sqlstate), fault.text);
	MemoryContextSwitchTo(before);
	return true;
}

static bool
take_row(OutboxRow *row, void *arg)
{
	Reading    *reading = arg;
	Relay	   *relay = reading->relay;
	Reader	   *reader = &relay->reader;
	Lane	   *lane = NULL;
	int32		partition = row->partition;
	Fault		fault;

	reading->stopped_at = row->id;
	if (reader->n == READ_ROWS || (reader->n > 0 && reader->bytes > READ_BYTES))
		return false;
	reading->last_seen = row->id;
	if (in_flight_has((OutboxKey) {row->id, row->identity}))
		return true;
	if (!record_row_is_possible(row, &fault))
	{
		relay_refuse(relay, NULL, row, unpack_sql_state(fault.sqlstate), fault.text);
		return true;
	}
	if (row->stored_key)
		row->key = DatumGetByteaPP(row->stored_key);
	switch (window_judge(&relay->window, row, row->key, reading->left, &lane, &partition))
	{
		case WINDOW_ADMITTED:
			return take_admitted(relay, row, lane, partition);
		case WINDOW_FULL:
			return false;
		case WINDOW_WAIT:
			reading->last_seen = row->id - 1;
			reader->paused_until = mono_in_ms(PAUSE_MS);
			return false;
		default:
			return true;
	}
}

static bool
take_new_row(OutboxRow *row, void *arg)
{
	Reader	   *reader = &((Reading *) arg)->relay->reader;

	if (!take_row(row, arg))
		return false;
	if (row->id > reader->last_id + 1)
		gaps_note(reader->last_id + 1, row->id - 1, GetActiveSnapshot());
	reader->last_id = row->id;
	return true;
}

/* ---- gaps, and what was left ---- */

static bool
look_up_gap(Relay *relay, Gap *gap)
{
	Reading		reading = {.relay = relay, .last_seen = gap->looked_up_to};
	int64	   *firsts = palloc(gap->nranges * sizeof(int64));
	int64	   *lasts = palloc(gap->nranges * sizeof(int64));
	int			n = 0;
	bool		all;

	for (int i = 0; i < gap->nranges; i++)
	{
		if (gap->ranges[i].last <= gap->looked_up_to)
			continue;
		firsts[n] = Max(gap->ranges[i].first, gap->looked_up_to + 1);
		lasts[n++] = gap->ranges[i].last;
	}
	all = catalog_outbox_read_ranges(MyJob->name, firsts, lasts, n, READ_ROWS + 1, take_row, &reading);
	gap_looked_up_to(gap, reading.last_seen);
	pfree(firsts);
	pfree(lasts);
	return all;
}

/* False if that isn't all; what is new doesn't wait for it. */
static bool
read_gaps(Relay *relay)
{
	Gap		   *gap;

	for (int i = 0; i < GAPS_AT_ONCE && (gap = gaps_next_to_look_up()) != NULL; i++)
	{
		if (!look_up_gap(relay, gap))
			return false;
		gap_looked_up(gap);
	}
	return gaps_next_to_look_up() == NULL;
}

static bool
is_full(const Reader *reader)
{
	return reader->n == READ_ROWS || reader->bytes > READ_BYTES;
}

static void
read_left_of(Relay *relay, Lane *lane)
{
	Reading		reading = {.relay = relay, .left = lane};
	int			limit = Min(READ_ROWS, Max(lane->most, 10)) + 1;
	int64		last;
	int64		first = window_begin_left(lane, &last);
	int			n = relay->reader.n;
	bool		all;

	reading.last_seen = first - 1;
	all = catalog_outbox_read_topic(MyJob->name, lane->route->topic, first, last, limit, take_row, &reading);
	if (!all)
		window_end_left(lane, reading.last_seen + 1, last);
	if (all && relay->reader.n == n)
		window_delay_left(lane, NO_PROGRESS_MS);
}

/* There may be many, each among the rows of all others: those that have no turn now, come first next time. */
static void
read_left(Relay *relay)
{
	MonoTime	now = mono_now();
	MonoTime	until = mono_after_ms(now, READ_LEFT_MS);
	Lane	   *last = NULL;
	Lane	   *lane;

	while (!is_full(&relay->reader) && (last == NULL || mono_now() < until) &&
		   (lane = window_next_left(now, last)) != NULL)
	{
		read_left_of(relay, lane);
		last = lane;
	}
	if (last)
		window_begin_after(last);
}

/* Those that get a route are read by that, in order; the others are noted anew. */
static void
read_without_route(Relay *relay)
{
	Window	   *window = &relay->window;
	IdRange		range;
	Reading		reading = {.relay = relay};

	if (!window_begin_pass(window))
		return;
	range = window->pass;
	reading.last_seen = range.first - 1;
	if (catalog_outbox_read_ranges(MyJob->name, &range.first, &range.last, 1, PASS_ROWS, take_row, &reading))
		reading.last_seen = range.last;
	window_passed(window, reading.last_seen);
}

/* ---- ids that went back ---- */

static Oid
outbox_filenode(void)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(catalog_member(CATALOG_OUTBOX)));
	Oid			filenode = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		filenode = ((Form_pg_class) GETSTRUCT(tuple))->relfilenode;
		ReleaseSysCache(tuple);
	}
	return filenode;
}

static void
start_over(Reader *reader)
{
	if (reader->last_id == catalog_outbox_id_before_all(MyJob->name))
		return;
	ereport(LOG, (errmsg("nexus_kafka relay reads the outbox from its start: its ids may have been given anew"),
				  errhidestmt(true)));
	reader->last_id = catalog_outbox_id_before_all(MyJob->name);
	reader->caught_up = false;
}

/* TRUNCATE makes another file, and may start the ids again; so does ALTER SEQUENCE. */
static void
look_back(Reader *reader)
{
	Oid			filenode = outbox_filenode();
	MonoTime	now = mono_now();

	if (filenode != reader->filenode && reader->filenode != InvalidOid)
		start_over(reader);
	reader->filenode = filenode;
	if (now < reader->next_look_back)
		return;
	if (catalog_outbox_last_given_id(MyJob->name) < reader->last_id &&
		reader->last_id > catalog_outbox_id_before_all(MyJob->name))
	{
		start_over(reader);
		reader->look_back_ms = Min(reader->look_back_ms * 2, LONGEST_LOOK_BACK_MS);
	}
	else
		reader->look_back_ms = LOOK_BACK_MS;
	reader->next_look_back = mono_after_ms(now, reader->look_back_ms);
}

/* ---- what was read ---- */

const Outgoing *
relay_next_outgoing(const Relay *relay)
{
	const Reader *reader = &relay->reader;

	return reader->next < reader->n ? &reader->outgoing[reader->next] : NULL;
}

void
relay_outgoing_done(Relay *relay)
{
	Reader	   *reader = &relay->reader;

	if (++reader->next < reader->n)
		return;
	reader->n = reader->next = 0;
	reader->bytes = 0;
	MemoryContextReset(reader->context);
}

void
relay_read_all(Relay *relay)
{
	relay->reader.caught_up = false;
}

void
relay_read_on(Relay *relay)
{
	relay->reader.paused_until = 0;
}

/* ---- the transaction ---- */

static void
read_rows(Relay *relay)
{
	Reader	   *reader = &relay->reader;
	Reading		reading = {.relay = relay};
	bool		all;

	reader->flush_to = Max(reader->flush_to, commits_seen());
	reader->last_xmin = InvalidTransactionId;
	look_back(reader);
	gaps_advance(GetActiveSnapshot());
	flush_begin(relay);
	read_left(relay);
	read_without_route(relay);
	all = read_gaps(relay);
	reader->caught_up = catalog_outbox_read_after(MyJob->name, reader->last_id, READ_ROWS + 1, take_new_row,
												  &reading) && all;
	gaps_forget_hopeless();
}

static void
delete_acknowledged(const Settled *settled)
{
	OutboxKey  *keys = palloc(settled->n * sizeof(OutboxKey));

	for (int i = 0; i < settled->n; i++)
		keys[i] = settled->acknowledged[i]->key;
	catalog_outbox_delete(keys, settled->n);
	pfree(keys);
}

static void
exchange_body(void *arg)
{
	Exchange   *exchange = arg;
	Relay	   *relay = exchange->relay;
	ListCell   *lc;

	exchange->phase = EXCHANGE_DELETES;
	if (relay->settled.n > 0)
		delete_acknowledged(&relay->settled);
	foreach(lc, relay->settled.refused)
	{
		const Refusal *refusal = lfirst(lc);

		catalog_outbox_dead_letter(refusal->key, refusal->error_name, refusal->text);
	}
	exchange->refused = list_length(relay->settled.refused);
	exchange->phase = EXCHANGE_READS;
	if (exchange->read)
		read_rows(relay);
	exchange->phase = EXCHANGE_DONE;
}

bool
relay_exchange(Relay *relay, bool read)
{
	Exchange	exchange = {.relay = relay,.read = read};
	ErrorData  *error;
	MemoryContext context = CurrentMemoryContext;

	if (worker_transaction(exchange_body, &exchange, context, &error))
	{
		relay_forget_settled(relay, exchange.refused);
		pg_atomic_fetch_add_u64(&MyJob->batches, 1);
		job_condition_clear(MyJob, CONDITION_TRANSACTION_FAILS);
		relay->reader.retry_at = 0;
		return true;
	}
	job_set_error(MyJob, error->sqlerrcode, error->message);
	job_condition_set(MyJob, CONDITION_TRANSACTION_FAILS, "%s (SQLSTATE %s)", error->message,
					  unpack_sql_state(error->sqlerrcode));
	if (exchange.phase == EXCHANGE_READS)
		ReThrowError(error);
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	relay->reader.retry_at = mono_in_ms(AGAIN_MS);
	FreeErrorData(error);
	return false;
}
