/*
 * relay.c
 *		The worker that publishes the outbox.
 *
 * It reads rows upwards by id (gaps.c has those that it passed), hands them to
 * librdkafka, and deletes each after the broker's acknowledgement of that very
 * row: the id travels as the message's opaque. Deleting and reading share a
 * transaction; nothing waits for the network in it.
 *
 *	   read_after/gaps          send                delivery report
 * row -----------------> outgoing ----> in flight -----------------> settled --> deleted
 *		   ^                                 |                  `---> refused --> dead letter
 *		   `------- again, later <-----------'  (no topic yet, passing trouble)
 *
 * Before a row is handed over, the commit that made it visible is on disk: a
 * transaction with synchronous_commit = off could be lost in a crash, and its
 * message must not have been published then.
 *
 * What is in memory only is rebuilt from the table. A crash between the
 * acknowledgement and the deletion publishes a row once more, with the same
 * message id.
 */
#include "nexus_kafka.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"
#include "compat.h"
#include "produce/produce.h"
#include "worker/worker.h"

#define READ_ROWS			1000	/* a transaction */
#define READ_BYTES			(8 * 1024 * 1024)
#define MOST_IN_FLIGHT		20000
#define DELETE_ROWS			1000	/* settled rows that are worth a transaction of their own */
#define MOST_RANGES			1000	/* of a gap, looked up by one query */
#define COALESCE_MS			1		/* between readings while rows keep coming */
#define AGAIN_MS			1000
#define NO_TOPIC_MS			3000
#define ASK_TIMEOUT_MS		5000
#define LOOK_AGAIN_MS		60000
#define LOOK_AT_GAPS_MS		10000
#define LAST_WORDS_MS		500

PGDLLEXPORT void nexus_relay_main(Datum arg);

typedef struct Refusal
{
	int64		id;
	KafkaFailure failure;
} Refusal;

typedef enum ExchangePhase
{
	EXCHANGE_DELETES,
	EXCHANGE_READS,
	EXCHANGE_DONE
} ExchangePhase;

typedef struct Relay
{
	KafkaLink	link;

	/* read, not yet handed to librdkafka */
	MemoryContext outgoing_context;
	OutboxRow  *outgoing;
	int			noutgoing;
	int			next_outgoing;
	size_t		outgoing_bytes;
	XLogRecPtr	flush_to;		/* their commits are on disk from here on */

	int64		last_id;		/* all ids up to it were read or are in a gap */
	bool		caught_up;		/* nothing was left to read */
	int			in_flight;

	/* acknowledged, not yet deleted; refused, not yet in the dead letters */
	int64	   *settled;
	int			nsettled;
	int			maxsettled;
	List	   *refused;
	MemoryContext refused_context;

	bool		read_wanted;
	TimestampTz next_look;
	TimestampTz coalesce_until;	/* rows came a moment ago: let some more gather */
	ExchangePhase phase;
	Gap		   *gap;			/* being looked up */
	TimestampTz retry_at;		/* the exchange failed: not before */

	/* nexus_flush */
	uint64		ticket;			/* request being served, 0: none */
	uint64		new_ticket;
	int64		flush_mark;		/* everything up to it */
	int64		unsettled;		/* rows up to it that were read and are not settled */
} Relay;

static Relay relay;

/* ---- reading: inside the transaction ---- */

static void *
copy(const void *data, Size size)
{
	return data ? memcpy(palloc(size), data, size) : NULL;
}

static void
note_commit(TransactionId xmin)
{
	XLogRecPtr	lsn;

	if (!TransactionIdIsNormal(xmin) || TransactionIdPrecedes(xmin, NexusOldestClogXid))
		return;					/* long on disk */
	lsn = TransactionIdGetCommitLSN(xmin);
	relay.flush_to = Max(relay.flush_to, lsn);
}

static bool
take_row(const OutboxRow *row)
{
	MemoryContext before;
	OutboxRow  *mine;

	if (relay.noutgoing == READ_ROWS || (relay.noutgoing > 0 && relay.outgoing_bytes > READ_BYTES))
		return false;
	before = MemoryContextSwitchTo(relay.outgoing_context);
	mine = &relay.outgoing[relay.noutgoing++];
	*mine = *row;
	mine->topic = pstrdup(row->topic);
	mine->key = row->key ? copy(row->key, VARSIZE_ANY(row->key)) : NULL;
	mine->value = row->value ? copy(row->value, VARSIZE_ANY(row->value)) : NULL;
	mine->headers = row->headers ? copy(row->headers, VARSIZE(row->headers)) : NULL;
	mine->message_id = pstrdup(row->message_id);
	relay.outgoing_bytes += (mine->key ? VARSIZE_ANY(mine->key) : 0) + (mine->value ? VARSIZE_ANY(mine->value) : 0);
	MemoryContextSwitchTo(before);

	note_commit(row->xmin);
	if (row->id <= relay.flush_mark)
		relay.unsettled++;
	return true;
}

static bool
take_new_row(const OutboxRow *row, void *arg)
{
	if (!take_row(row))
		return false;
	if (row->id > relay.last_id + 1)
		gaps_note(relay.last_id + 1, row->id - 1, GetActiveSnapshot());
	relay.last_id = row->id;
	return true;
}

static bool
take_gap_row(const OutboxRow *row, void *arg)
{
	if (!take_row(row))
		return false;
	gap_found(relay.gap, row->id);
	return true;
}

static bool
look_up_gap(Gap *gap)
{
	int64	   *firsts = palloc(MOST_RANGES * sizeof(int64));
	int64	   *lasts = palloc(MOST_RANGES * sizeof(int64));
	IdRange    *ranges = palloc(gap->nranges * sizeof(IdRange));
	int			nranges = gap->nranges;
	bool		all = true;

	/* the gap's own ranges change while rows are found */
	memcpy(ranges, gap->ranges, nranges * sizeof(IdRange));
	relay.gap = gap;
	for (int done = 0; done < nranges && all; done += MOST_RANGES)
	{
		int			n = Min(nranges - done, MOST_RANGES);

		for (int i = 0; i < n; i++)
		{
			firsts[i] = ranges[done + i].first;
			lasts[i] = ranges[done + i].last;
		}
		all = catalog_outbox_read_ranges(firsts, lasts, n, READ_ROWS + 1, take_gap_row, NULL);
	}
	pfree(firsts);
	pfree(lasts);
	pfree(ranges);
	return all;
}

/* A request for a flush begins: what is there now, is what it waits for. */
static void
begin_flush(void)
{
	if (relay.new_ticket == 0)
		return;
	relay.ticket = relay.new_ticket;
	relay.new_ticket = 0;
	relay.flush_mark = catalog_outbox_last_id();
	relay.unsettled = relay.in_flight + relay.nsettled + list_length(relay.refused);
	relay.caught_up = false;
	gaps_look_at_all();
}

/*
 * Rows that should have been seen: the sequence was set back, say. Read all
 * from the start; what is in flight is not touched, as there is none.
 */
static void
start_over_if_rows_are_left(bool found_none)
{
	if (!found_none || relay.in_flight > 0 || relay.noutgoing > 0 || relay.refused != NIL || gaps_exist() ||
		relay.last_id == 0 || GetCurrentTimestamp() < relay.next_look || catalog_outbox_last_id() == 0)
		return;
	ereport(LOG, (errmsg("nexus_kafka relay reads the outbox from its start: there are rows that it had passed"),
				  errhidestmt(true)));
	relay.last_id = 0;
	relay.caught_up = false;
}

static void
read_rows(void)
{
	Gap		   *gap;
	bool		all = true;

	gaps_advance(GetActiveSnapshot(), GetCurrentTimestamp());
	begin_flush();
	while (all && (gap = gaps_next_to_look_up()) != NULL)
	{
		all = look_up_gap(gap);
		if (all)
			gap_looked_up(gap);
	}
	if (all)
		relay.caught_up = catalog_outbox_read_after(relay.last_id, READ_ROWS + 1, take_new_row, NULL);
	else
		relay.caught_up = false;
	gaps_forget_hopeless();
	start_over_if_rows_are_left(relay.caught_up && relay.noutgoing == 0);
}

static void
exchange_body(void *arg)
{
	ListCell   *lc;
	bool		read = *(bool *) arg;

	relay.phase = EXCHANGE_DELETES;
	if (relay.nsettled > 0)
		catalog_outbox_delete(relay.settled, relay.nsettled);
	foreach(lc, relay.refused)
	{
		const Refusal *refusal = lfirst(lc);

		catalog_outbox_bury(refusal->id, refusal->failure.name, refusal->failure.text);
	}
	relay.phase = EXCHANGE_READS;
	if (read)
		read_rows();
	relay.phase = EXCHANGE_DONE;
}

/* ---- after the transaction ---- */

static void
settle(int64 id)
{
	if (id <= relay.flush_mark)
		relay.unsettled--;
}

static void
forget_settled(void)
{
	ListCell   *lc;

	for (int i = 0; i < relay.nsettled; i++)
		settle(relay.settled[i]);
	foreach(lc, relay.refused)
		settle(((Refusal *) lfirst(lc))->id);
	pg_atomic_fetch_add_u64(&MyJob->messages, relay.nsettled);
	pg_atomic_fetch_add_u64(&MyJob->rows, relay.nsettled);
	pg_atomic_fetch_add_u64(&MyJob->dead_letters, list_length(relay.refused));
	pg_atomic_fetch_add_u64(&MyJob->refused, list_length(relay.refused));
	relay.nsettled = 0;
	relay.refused = NIL;
	MemoryContextReset(relay.refused_context);
}

/*
 * Deletes what is settled and reads what is new. What fails in deleting is
 * tried again, with everything known kept; what fails in reading ends the
 * worker, which then starts from the table.
 */
static bool
exchange(bool read)
{
	ErrorData  *error;
	MemoryContext context = CurrentMemoryContext;

	if (worker_transaction(exchange_body, &read, context, &error))
	{
		forget_settled();
		pg_atomic_fetch_add_u64(&MyJob->batches, 1);
		if (relay.retry_at != 0 && relay.link.reachable)
			job_set_state(MyJob, JOB_RUNNING, NULL);
		relay.retry_at = 0;
		return true;
	}
	job_set_error(MyJob, error->sqlerrcode, error->message);
	job_set_state(MyJob, JOB_WAITING, "%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode));
	if (relay.phase == EXCHANGE_READS)
		ReThrowError(error);
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	relay.retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), AGAIN_MS);
	FreeErrorData(error);
	return false;
}

/* ---- sending ---- */

static const char *
utf8(const char *text, int len, size_t *utf8_len)
{
	char	   *converted = pg_server_to_any(text, len, PG_UTF8);

	*utf8_len = converted == text ? len : strlen(converted);
	return converted;
}

static void
add_header(KafkaRecord *record, KafkaHeader **headers, const char *name, const JsonbValue *v)
{
	KafkaHeader *header;

	if (record->nheaders % 8 == 0)
		*headers = repalloc(*headers, (record->nheaders + 8) * sizeof(KafkaHeader));
	header = &(*headers)[record->nheaders++];
	header->name = name;
	header->value = NULL;
	header->value_len = 0;
	if (v->type == jbvString)
		header->value = utf8(v->val.string.val, v->val.string.len, &header->value_len);
}

/* An array is a repeated name. nexus_produce has checked that there is nothing else. */
static void
add_headers(KafkaRecord *record, KafkaHeader **headers, Jsonb *jsonb)
{
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	const char *name = NULL;
	size_t		len;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = pnstrdup(v.val.string.val, v.val.string.len);
			name = utf8(name, v.val.string.len, &len);
		}
		else if (token == WJB_VALUE || token == WJB_ELEM)
			add_header(record, headers, name, &v);
	}
}

static KafkaSendResult
send_row(const OutboxRow *row, KafkaFailure *failure)
{
	KafkaRecord record = {.id = row->id, .topic = row->topic, .partition = row->partition};
	KafkaHeader *headers = palloc(8 * sizeof(KafkaHeader));
	JsonbValue	id;

	if (row->key)
	{
		record.key = VARDATA_ANY(row->key);
		record.key_len = VARSIZE_ANY_EXHDR(row->key);
	}
	if (row->value)
	{
		record.value = VARDATA_ANY(row->value);
		record.value_len = VARSIZE_ANY_EXHDR(row->value);
	}
	id.type = jbvString;
	id.val.string.val = row->message_id;
	id.val.string.len = strlen(row->message_id);
	add_header(&record, &headers, MESSAGE_ID_HEADER, &id);
	if (row->headers)
		add_headers(&record, &headers, row->headers);
	record.headers = headers;
	return kafka_producer_send(relay.link.client, &record, failure);
}

static void
note_again(int64 id, int delay_ms, const char *reason)
{
	gaps_note_again(id, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay_ms));
	settle(id);					/* for the count: gaps_hold_back() knows of it now */
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, reason);
	job_set_state(MyJob, JOB_WAITING, "%s", reason);
}

static void
note_settled(int64 id)
{
	if (relay.nsettled == relay.maxsettled)
	{
		relay.maxsettled *= 2;
		relay.settled = repalloc(relay.settled, relay.maxsettled * sizeof(int64));
	}
	relay.settled[relay.nsettled++] = id;
}

static void
note_refused(int64 id, const KafkaFailure *failure)
{
	MemoryContext before = MemoryContextSwitchTo(relay.refused_context);
	Refusal    *refusal = palloc(sizeof(Refusal));

	refusal->id = id;
	refusal->failure = *failure;
	relay.refused = lappend(relay.refused, refusal);
	MemoryContextSwitchTo(before);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, failure->text);
}

static void
note_failed(int64 id, const KafkaFailure *failure)
{
	switch (kafka_fate(failure->code))
	{
		case KAFKA_FATE_DELIVERED:
			Assert(false);
			break;
		case KAFKA_FATE_RETRY:
			note_again(id, AGAIN_MS, failure->text);
			break;
		case KAFKA_FATE_NO_TOPIC:
			note_again(id, NO_TOPIC_MS, "a topic of the outbox does not exist on the broker");
			break;
		case KAFKA_FATE_REFUSED:
			note_refused(id, failure);
			break;
	}
}

static void
send_rows(void)
{
	static MemoryContext context = NULL;
	MemoryContext before;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka record", ALLOCSET_DEFAULT_SIZES);
	if (relay.next_outgoing < relay.noutgoing)
		XLogFlush(relay.flush_to);

	before = MemoryContextSwitchTo(context);
	for (; relay.next_outgoing < relay.noutgoing && relay.in_flight < MOST_IN_FLIGHT; relay.next_outgoing++)
	{
		const OutboxRow *row = &relay.outgoing[relay.next_outgoing];
		KafkaFailure failure;
		KafkaSendResult result = send_row(row, &failure);

		MemoryContextReset(context);
		if (result == KAFKA_SEND_FULL)
			break;
		if (result == KAFKA_SEND_QUEUED)
			relay.in_flight++;
		else
			note_failed(row->id, &failure);
	}
	MemoryContextSwitchTo(before);

	if (relay.next_outgoing == relay.noutgoing && relay.noutgoing > 0)
	{
		relay.noutgoing = relay.next_outgoing = 0;
		relay.outgoing_bytes = 0;
		MemoryContextReset(relay.outgoing_context);
	}
}

static void
take_deliveries(void)
{
	const KafkaDelivery *deliveries;
	size_t		n = kafka_producer_deliveries(relay.link.client, &deliveries);
	bool		any_delivered = false;

	for (size_t i = 0; i < n; i++)
	{
		KafkaFailure failure;

		if (deliveries[i].code == 0)
		{
			any_delivered = true;
			note_settled(deliveries[i].id);
			continue;
		}
		kafka_failure_set(&failure, deliveries[i].code, NULL);
		note_failed(deliveries[i].id, &failure);
	}
	if (any_delivered)
		link_alive(&relay.link);
	relay.in_flight -= n;
	kafka_producer_forget_deliveries(relay.link.client);
}

/* ---- the loop ---- */

static void
watch_link(void)
{
	KafkaAnswer answer;

	link_serve(&relay.link);
	if (kafka_answered(relay.link.client, &answer))
	{
		if (answer.failure.code == 0)
			link_alive(&relay.link);
		else
			link_trouble(&relay.link, &answer.failure);
		kafka_answer_free(&answer);
	}
	if (link_probe_due(&relay.link))
		(void) kafka_ask(relay.link.client, &(KafkaQuestion) {.timeout_ms = ASK_TIMEOUT_MS});
}

static void
note_requests(void)
{
	uint64		asked = pg_atomic_read_u64(&MyJob->asked);

	if (relay.ticket == 0 && asked > pg_atomic_read_u64(&MyJob->answered))
	{
		relay.new_ticket = asked;
		relay.read_wanted = true;
	}
}

static void
answer_request(void)
{
	if (relay.ticket == 0 || relay.unsettled > 0 || gaps_hold_back(relay.flush_mark) ||
		(relay.last_id < relay.flush_mark && !relay.caught_up))
		return;
	job_answer(MyJob, relay.ticket);
	relay.ticket = 0;
	relay.flush_mark = 0;
	note_requests();
}

static bool
has_room(void)
{
	return relay.noutgoing == 0 && relay.in_flight < MOST_IN_FLIGHT;
}

static void
work(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due = gaps_next_due();
	bool		read;
	bool		settle_now;

	if (now >= relay.next_look || (due != 0 && now >= due))
		relay.read_wanted = true;
	read = has_room() && (relay.read_wanted || !relay.caught_up);
	settle_now = relay.nsettled >= DELETE_ROWS || relay.refused != NIL ||
		(relay.nsettled > 0 && relay.in_flight == 0);
	if (now < relay.retry_at || (relay.caught_up && now < relay.coalesce_until) || !(read || settle_now))
		return;
	if (!exchange(read) || !read)
		return;
	relay.read_wanted = false;
	if (relay.noutgoing > 0)
		relay.coalesce_until = TimestampTzPlusMilliseconds(now, COALESCE_MS);
	relay.next_look = TimestampTzPlusMilliseconds(now, gaps_exist() ? LOOK_AT_GAPS_MS : LOOK_AGAIN_MS);
	if (due != 0 && gaps_next_due() == 0 && relay.link.reachable)
		job_set_state(MyJob, JOB_RUNNING, NULL);
}

static long
sleep_time(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = relay.next_look;
	TimestampTz due = gaps_next_due();
	long		timeout;

	if (due != 0)
		next = Min(next, due);
	if (relay.retry_at != 0)
		next = Min(next, relay.retry_at);
	else if (relay.caught_up && now < relay.coalesce_until && (relay.read_wanted || relay.nsettled > 0))
		next = relay.coalesce_until;
	else if (has_room() && (relay.read_wanted || !relay.caught_up))
		return 0;
	timeout = TimestampDifferenceMilliseconds(now, next);
	if (link_probe_timeout(&relay.link) >= 0)
		timeout = Min(timeout, link_probe_timeout(&relay.link));
	return timeout;
}

/*
 * Told to end: what the broker acknowledges in the next moment is deleted
 * still, so that it isn't published again.
 */
static void
relay_last_words(void)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAST_WORDS_MS);

	SetConfigOption("lock_timeout", "200ms", PGC_USERSET, PGC_S_SESSION);
	while (relay.in_flight > 0 && relay.link.reachable && GetCurrentTimestamp() < until)
	{
		(void) worker_wait(kafka_client_fd(relay.link.client),
						   TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until));
		kafka_client_serve(relay.link.client);
		take_deliveries();
	}
	if (relay.nsettled > 0 || relay.refused != NIL)
		(void) exchange(false);
}

static void
locate(void *arg)
{
	if (!catalog_locate())
		proc_exit(0);			/* dropped meanwhile; the supervisor will see it */
}

static void
start(void)
{
	ErrorData  *error;

	if (!worker_transaction(locate, NULL, TopMemoryContext, &error))
		ReThrowError(error);
	/* a deletion that is lost publishes its row once more: allowed, and rare */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION);

	/*
	 * The outbox is empty at one moment and has a million rows at another, so no
	 * plan may depend on what it had when it was made: by the index, always.
	 */
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_sort", "off", PGC_USERSET, PGC_S_SESSION);
	relay.outgoing_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka outgoing", ALLOCSET_DEFAULT_SIZES);
	relay.refused_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka refused", ALLOCSET_SMALL_SIZES);
	relay.outgoing = MemoryContextAlloc(TopMemoryContext, READ_ROWS * sizeof(OutboxRow));
	relay.maxsettled = DELETE_ROWS * 2;
	relay.settled = MemoryContextAlloc(TopMemoryContext, relay.maxsettled * sizeof(int64));
	relay.read_wanted = true;
	gaps_init(AllocSetContextCreate(TopMemoryContext, "nexus_kafka gaps", ALLOCSET_DEFAULT_SIZES));
}

void
nexus_relay_main(Datum arg)
{
	KafkaSetting settings[1];
	char		max_bytes[16];
	int			opened_with = nexus_max_message_bytes;

	worker_begin(arg, JOB_RELAY);
	worker_connect();
	start();
	snprintf(max_bytes, sizeof(max_bytes), "%d", Max(opened_with, 1000) + 1024);
	settings[0] = (KafkaSetting) {"message.max.bytes", max_bytes};
	while (!link_open(&relay.link, KAFKA_PRODUCER, settings, lengthof(settings)))
		(void) worker_wait(-1, -1);
	worker_last_words = relay_last_words;

	for (;;)
	{
		worker_service();
		if (nexus_max_message_bytes != opened_with)
			worker_restart();
		watch_link();
		take_deliveries();
		note_requests();
		work();
		send_rows();
		answer_request();
		if (worker_wait(kafka_client_fd(relay.link.client), sleep_time()))
			relay.read_wanted = true;
	}
}
