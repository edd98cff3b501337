/*
 * send.c
 *		The rows that were read on their way through librdkafka: out as records, back
 *		as settled, refused, or to be read again.
 *
 * The row's id travels as the message's opaque, so each delivery report is of
 * that very row. Nothing here touches the outbox.
 *
 * A broker refuses a whole batch, as librdkafka makes them, for one message's
 * sake, or because together they are too large for the topic. So what was not
 * alone in flight when it was refused is a suspect only: it is put back, and
 * from then on rows are sent in groups, each when the one before is done. A
 * refused group halves the next, until the culprit stands alone; after some
 * that passed they are twice as large, until rows flow as ever.
 */
#include "nexus_kafka.h"

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "produce/produce.h"

#define MOST_IN_FLIGHT		20000
#define FIRST_SETTLED		2000
#define NO_TOPIC_MS			3000
#define PASSES_TO_DOUBLE	8		/* a size that is too large is not to be tried every other time */

void
relay_send_init(Relay *relay)
{
	relay->record_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka record", ALLOCSET_DEFAULT_SIZES);
	relay->refused_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka refused", ALLOCSET_SMALL_SIZES);
	relay->group = MOST_IN_FLIGHT;
	relay->maxsettled = FIRST_SETTLED;
	relay->settled = MemoryContextAlloc(TopMemoryContext, relay->maxsettled * sizeof(int64));
}

/* ---- a row as a record ---- */

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

KafkaSendResult
relay_send_row(Relay *relay, const OutboxRow *row, KafkaFailure *failure)
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
	return kafka_producer_send(relay->link.client, &record, failure);
}

/* ---- what became of a row ---- */

/* To be read again. */
static void
put_back(Relay *relay, int64 id, int delay_ms)
{
	gaps_note_again(id, mono_in_ms(delay_ms));
	flush_settle(relay, id);	/* for the count: gaps_hold_back() knows of it now */
}

static void
note_again(Relay *relay, int64 id, int delay_ms, JobCondition condition, const char *reason)
{
	put_back(relay, id, delay_ms);
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, reason);
	job_condition_set(MyJob, condition, "%s", reason);
}

void
relay_nothing_is_put_back(void)
{
	job_condition_clear(MyJob, CONDITION_TOPIC_MISSING);
	job_condition_clear(MyJob, CONDITION_SENT_AGAIN);
}

static void
note_settled(Relay *relay, int64 id)
{
	if (relay->nsettled == relay->maxsettled)
	{
		relay->maxsettled *= 2;
		relay->settled = repalloc(relay->settled, relay->maxsettled * sizeof(int64));
	}
	relay->settled[relay->nsettled++] = id;
}

static void
note_refused(Relay *relay, int64 id, const KafkaFailure *failure)
{
	MemoryContext before = MemoryContextSwitchTo(relay->refused_context);
	Refusal    *refusal = palloc(sizeof(Refusal));

	refusal->id = id;
	refusal->failure = *failure;
	relay->refused = lappend(relay->refused, refusal);
	MemoryContextSwitchTo(before);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, failure->text);
}

static void
note_suspect(Relay *relay, int64 id)
{
	put_back(relay, id, 0);
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	relay->suspects++;
}

static void
note_failed(Relay *relay, int64 id, const KafkaFailure *failure, bool alone)
{
	switch (kafka_fate(failure->code))
	{
		case KAFKA_FATE_DELIVERED:
			Assert(false);
			break;
		case KAFKA_FATE_RETRY:
			note_again(relay, id, AGAIN_MS, CONDITION_SENT_AGAIN, failure->text);
			break;
		case KAFKA_FATE_NO_TOPIC:
			relay->topic_doubtful = true;
			note_again(relay, id, NO_TOPIC_MS, CONDITION_TOPIC_MISSING,
					   "a topic of the outbox does not exist on the broker");
			break;
		case KAFKA_FATE_REFUSED:
			note_refused(relay, id, failure);
			break;
		case KAFKA_FATE_BATCH_REFUSED:
			if (alone)
				note_refused(relay, id, failure);
			else
				note_suspect(relay, id);
			break;
	}
}

/* ---- handing over, and what comes back ---- */

static void
forget_outgoing(Relay *relay)
{
	relay->noutgoing = relay->next_outgoing = 0;
	relay->outgoing_bytes = 0;
	MemoryContextReset(relay->outgoing_context);
}

/* Before what follows: what was put back is read again together with it, in order. */
static void
put_back_outgoing(Relay *relay)
{
	for (; relay->next_outgoing < relay->noutgoing; relay->next_outgoing++)
		put_back(relay, relay->outgoing[relay->next_outgoing].id, 0);
	forget_outgoing(relay);
}

static void
adapt_group(Relay *relay)
{
	if (relay->suspects > 0)
	{
		relay->group = Max(Min(relay->group, relay->suspects) / 2, 1);
		relay->suspects = 0;
		relay->group_refused = true;
		relay->groups_passed = 0;
		put_back_outgoing(relay);
	}
	else if (relay->group < MOST_IN_FLIGHT && relay->in_flight == 0 && !relay->group_refused &&
			 ++relay->groups_passed == PASSES_TO_DOUBLE)
	{
		relay->group = Min(relay->group * 2, MOST_IN_FLIGHT);
		relay->groups_passed = 0;
	}
}

bool
relay_looks_for_culprit(const Relay *relay)
{
	return relay->group < MOST_IN_FLIGHT;
}

bool
relay_has_room(const Relay *relay)
{
	return relay->noutgoing == 0 && relay->in_flight < MOST_IN_FLIGHT;
}

void
relay_send(Relay *relay)
{
	MemoryContext before;

	if (now_keeps_rows_back(relay))
		return;
	if (relay->in_flight == 0)
	{
		relay->handed_over = 0;
		relay->joined_by_calls = relay->calls_in_flight > 0;
		relay->group_refused = false;
	}
	else if (relay_looks_for_culprit(relay))
		return;					/* one group at a time */
	if (relay->next_outgoing < relay->noutgoing)
		XLogFlush(relay->flush_to);

	before = MemoryContextSwitchTo(relay->record_context);
	for (; relay->next_outgoing < relay->noutgoing && relay->in_flight < relay->group; relay->next_outgoing++)
	{
		const OutboxRow *row = &relay->outgoing[relay->next_outgoing];
		KafkaFailure failure;
		KafkaSendResult result = relay_send_row(relay, row, &failure);

		MemoryContextReset(relay->record_context);
		if (result == KAFKA_SEND_FULL)
			break;
		if (result == KAFKA_SEND_QUEUED)
		{
			relay->in_flight++;
			relay->handed_over++;
			overdue_count(relay, row->id);
		}
		else
			note_failed(relay, row->id, &failure, true);
	}
	MemoryContextSwitchTo(before);

	if (relay->next_outgoing == relay->noutgoing && relay->noutgoing > 0)
		forget_outgoing(relay);
}

void
relay_take_deliveries(Relay *relay)
{
	const KafkaDelivery *deliveries;
	size_t		n = kafka_producer_deliveries(relay->link.client, &deliveries);
	bool		any_delivered = false;
	bool		any_row = false;

	for (size_t i = 0; i < n; i++)
	{
		KafkaFailure failure;

		if (deliveries[i].id < 0)
		{
			any_delivered = any_delivered || deliveries[i].code == 0;
			now_answer(relay, &deliveries[i]);
			continue;
		}
		relay->in_flight--;
		overdue_settle(relay, deliveries[i].id);
		any_row = true;
		if (deliveries[i].code == 0)
		{
			any_delivered = true;
			note_settled(relay, deliveries[i].id);
			continue;
		}
		kafka_failure_set(&failure, deliveries[i].code, NULL);
		note_failed(relay, deliveries[i].id, &failure, relay->handed_over == 1 && !relay->joined_by_calls);
	}
	relay->answered = relay->answered || n > 0;
	if (any_delivered)
		link_alive(&relay->link);
	kafka_producer_forget_deliveries(relay->link.client);
	if (any_row)
		adapt_group(relay);
}
