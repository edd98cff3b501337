/*
 * send.c
 *		The rows that were read on their way through librdkafka: out as records, back
 *		as acknowledged, refused, or to be read again.
 *
 * What was admitted (window.c) travels with the message as its opaque, so each delivery
 * report is of that very row or call. Nothing here touches the outbox.
 *
 * A broker refuses a whole batch, as librdkafka makes them, for one message's sake, or
 * because together they are too large for the topic. So what was not alone of its
 * partition in flight when it was refused is a suspect only, and is sent again.
 */
#include "nexus_kafka.h"

#include "utils/memutils.h"

#include "produce/produce.h"

#define FIRST_SETTLED		2000
#define LONGEST_SAFE_LOOK_MS	10
#define UNSAFE_MS			1000	/* until it is told that the standbys are waited for */

void
relay_send_init(Relay *relay)
{
	Settled    *settled = &relay->settled;

	relay->sender.record_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka record", ALLOCSET_DEFAULT_SIZES);
	settled->refused_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka refused", ALLOCSET_SMALL_SIZES);
	settled->max = FIRST_SETTLED;
	settled->acknowledged = MemoryContextAlloc(TopMemoryContext, settled->max * sizeof(Sent *));
}

/* ---- what became of a row ---- */

/* It is left in the table, to be read again. */
static void
put_back(Relay *relay, Sent *sent)
{
	window_out(&relay->window, sent);
	flush_count_done(relay, sent->key.id);	/* for the count: the window knows what is left */
	in_flight_forget(sent);
}

static void
note_acknowledged(Relay *relay, Sent *sent)
{
	Settled    *settled = &relay->settled;

	if (settled->n == settled->max)
	{
		settled->max *= 2;
		settled->acknowledged = repalloc(settled->acknowledged, settled->max * sizeof(Sent *));
	}
	settled->acknowledged[settled->n++] = sent;
	window_out(&relay->window, sent);
}

void
relay_refuse(Relay *relay, Sent *sent, const OutboxRow *row, const char *error_name, const char *text)
{
	MemoryContext before = MemoryContextSwitchTo(relay->settled.refused_context);
	Refusal    *refusal = palloc0(sizeof(Refusal));

	refusal->sent = sent;
	refusal->key = sent ? sent->key : (OutboxKey) {row->id, row->identity};
	strlcpy(refusal->error_name, error_name, sizeof(refusal->error_name));
	strlcpy(refusal->text, text, sizeof(refusal->text));
	relay->settled.refused = lappend(relay->settled.refused, refusal);
	MemoryContextSwitchTo(before);
	if (sent)
		window_out(&relay->window, sent);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, text);
}

static void
note_trouble(const char *text)
{
	pg_atomic_fetch_add_u64(&MyJob->retries, 1);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, text);
}

static void
note_failed(Relay *relay, Sent *sent, const KafkaFailure *failure, bool alone)
{
	Window	   *window = &relay->window;

	switch (kafka_fate(failure->code))
	{
		case KAFKA_FATE_DELIVERED:
			Assert(false);
			break;
		case KAFKA_FATE_RETRY:
			note_trouble(failure->text);
			strlcpy(window->why_again, failure->text, sizeof(window->why_again));
			window_note_again(window, sent, AGAIN_MS);
			put_back(relay, sent);
			break;
		case KAFKA_FATE_NO_TOPIC:
			note_trouble("a topic of the outbox does not exist on the broker");
			window_note_missing(window, sent);
			put_back(relay, sent);
			break;
		case KAFKA_FATE_REFUSED:
			if (sent->by_key && kafka_failure_is_no_partition(failure->code))
			{
				window_note_no_partition(window, sent);
				put_back(relay, sent);
			}
			else
				relay_refuse(relay, sent, NULL, failure->name, failure->text);
			break;
		case KAFKA_FATE_BATCH_REFUSED:
			if (alone)
				relay_refuse(relay, sent, NULL, failure->name, failure->text);
			else
			{
				pg_atomic_fetch_add_u64(&MyJob->retries, 1);
				window_note_suspect(window, sent);
				put_back(relay, sent);
			}
			break;
	}
}

/* ---- what became of it is in the table ---- */

static void
forget(Relay *relay, Sent *sent)
{
	flush_count_done(relay, sent->key.id);
	in_flight_forget(sent);
}

void
relay_forget_settled(Relay *relay, int refused)
{
	Settled    *settled = &relay->settled;

	for (int i = 0; i < settled->n; i++)
		forget(relay, settled->acknowledged[i]);
	for (int i = 0; i < refused; i++)
	{
		const Refusal *refusal = linitial(settled->refused);

		if (refusal->sent)
			forget(relay, refusal->sent);
		settled->refused = list_delete_first(settled->refused);
	}
	pg_atomic_fetch_add_u64(&MyJob->messages, settled->n);
	pg_atomic_fetch_add_u64(&MyJob->rows, settled->n);
	pg_atomic_fetch_add_u64(&MyJob->dead_letters, refused);
	pg_atomic_fetch_add_u64(&MyJob->refused, refused);
	settled->n = 0;
	if (settled->refused == NIL)
		MemoryContextReset(settled->refused_context);
}

/* ---- handing over ---- */

bool
relay_has_room(const Relay *relay)
{
	int			in_flight = relay->sender.in_flight + relay->calls.in_flight;

	return relay->reader.n == 0 && (relay->link.reachable || in_flight == 0) &&
		window_has_room(&relay->window, in_flight);
}

/* Are the commits of what was read where a failover finds them? */
static bool
is_safe(Relay *relay)
{
	MonoTime	now = mono_now();

	if (relay->sender.unsafe_since != 0 && now < relay->sender.next_safe_look)
		return false;
	if (commit_is_safe(relay->reader.flush_to))
	{
		relay->sender.unsafe_since = 0;
		job_condition_clear(MyJob, CONDITION_NOT_REPLICATED);
		return true;
	}
	if (relay->sender.unsafe_since == 0)
		relay->sender.unsafe_since = now;
	relay->sender.next_safe_look = mono_after_ms(now, Min((now - relay->sender.unsafe_since) / 1000 + 1, LONGEST_SAFE_LOOK_MS));
	if (now >= mono_after_ms(relay->sender.unsafe_since, UNSAFE_MS) &&
		!job_condition_is_set(MyJob, CONDITION_NOT_REPLICATED))
		job_condition_set(MyJob, CONDITION_NOT_REPLICATED, "messages wait until a synchronous standby has them");
	return false;
}

MonoTime
relay_next_safe_look(const Relay *relay)
{
	return relay->sender.unsafe_since != 0 && relay->reader.n > 0 ? relay->sender.next_safe_look : 0;
}

/* False: librdkafka has no room now. */
static bool
send_row(Relay *relay, const Outgoing *out)
{
	KafkaFailure failure;

	if (window_would_overtake(out->sent))
	{
		window_leave(out->sent);
		put_back(relay, out->sent);
		return true;
	}
	switch (send_record(relay->link.client, &out->record, out->sent, &failure))
	{
		case KAFKA_SEND_QUEUED:
			relay->sender.in_flight++;
			return true;
		case KAFKA_SEND_FULL:
			if (relay->sender.in_flight + relay->calls.in_flight > 0)
				return false;
			relay_refuse(relay, out->sent, NULL, "_QUEUE_FULL", "the message is larger than librdkafka's queue");
			return true;
		default:
			note_failed(relay, out->sent, &failure, true);
			return true;
	}
}

void
relay_send(Relay *relay)
{
	const Outgoing *out;
	MemoryContext before;

	if (relay_next_outgoing(relay) == NULL || !is_safe(relay))
		return;
	before = MemoryContextSwitchTo(relay->sender.record_context);
	while ((out = relay_next_outgoing(relay)) != NULL && send_row(relay, out))
	{
		relay_outgoing_done(relay);
		MemoryContextReset(relay->sender.record_context);
	}
	MemoryContextSwitchTo(before);
}

/* ---- what comes back ---- */

static void
take_row_back(Relay *relay, Sent *sent, int code)
{
	KafkaFailure failure;

	relay->sender.in_flight--;
	if (code == 0)
	{
		window_note_delivered(&relay->window, sent);
		note_acknowledged(relay, sent);
		return;
	}
	kafka_failure_set(&failure, code, NULL);
	note_failed(relay, sent, &failure, window_was_alone(sent));
}

void
relay_take_deliveries(Relay *relay)
{
	const KafkaDelivery *deliveries;
	size_t		n = kafka_producer_deliveries(relay->link.client, &deliveries);
	bool		any_delivered = false;
	MonoTime	now = mono_now();

	for (size_t i = 0; i < n; i++)
	{
		Sent	   *sent = (Sent *) (intptr_t) deliveries[i].id;

		any_delivered = any_delivered || deliveries[i].code == 0;
		window_note_answer(sent, now);
		if (sent->key.id < 0)
			now_answer(relay, sent, &deliveries[i]);
		else
			take_row_back(relay, sent, deliveries[i].code);
	}
	if (any_delivered)
		link_alive(&relay->link);
	kafka_producer_forget_deliveries(relay->link.client);
	if (n > 0)
	{
		coalesce_note_answer(relay);
		relay_read_on(relay);
		now_look_if_waiting(relay);
	}
	window_watch(&relay->window);
}
