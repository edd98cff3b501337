/*
 * coalesce.c
 *		When what waits, rows and calls of nexus_produce_now, is handed to librdkafka.
 *
 * librdkafka's idempotent producer sends a partition nothing more while more than
 * a few of its messages are in flight, and while others wait for that, its thread
 * spins: 60 % of a core at 200 rows a second with a broker 10 ms away. (It takes the
 * number of messages for the number of requests, in rd_kafka_toppar_producer_serve();
 * measured with 2.0.2, read in 2.14.) So what waits, waits here:
 *
 *	   open ----------> closed: others gather ------------> open
 *		  handed over						 answered
 *
 * That costs nothing: a broker needs hardly longer for a thousand messages than for
 * one, and so does the way there.
 *
 * Messages that aren't answered in several times the time that others were, as of a
 * partition without a leader or a topic that isn't there, are not counted any more.
 *
 * Those of nexus_produce_now who have an answer often have the next message at once.
 * So once there was more than one, as many are waited for, but no longer than half of
 * the time that the broker took.
 *
 * Nobody who calls meanwhile wakes the relay: it says from which call on it is to be
 * woken (Job.calls_wanted). Each side writes its own number before it reads the
 * other's, with a barrier between, so no call is overlooked.
 */
#include "nexus_kafka.h"


#include "produce/produce.h"

#define FEW					5	/* librdkafka's RD_KAFKA_IDEMP_MAX_INFLIGHT */
#define FIRST_CLOSED_US		250000	/* before any time is known */
#define SHORTEST_CLOSED_US	10000
#define LONGEST_CLOSED_US	1000000
#define PATIENCE			4		/* round trips */
#define LONGEST_CALLERS_US	5000

static int
in_flight(const Relay *relay)
{
	return relay->sender.in_flight + relay->calls.in_flight;
}

static MonoTime
closed_until(const Relay *relay)
{
	int64		longest = FIRST_CLOSED_US;

	if (relay->coalescing.round_trip > 0)
		longest = Min(Max(PATIENCE * relay->coalescing.round_trip, SHORTEST_CLOSED_US), LONGEST_CLOSED_US);
	return relay->coalescing.closed_since + longest;
}

static void
note_round_trip(Relay *relay, int64 took)
{
	relay->coalescing.round_trip += (took - relay->coalescing.round_trip) / (relay->coalescing.round_trip ? 8 : 1);
}

/* Answers open it, or time. */
static bool
decide_open(Relay *relay, MonoTime now)
{
	int			waiting;

	relay->coalescing.stalled = Min(relay->coalescing.stalled, in_flight(relay));
	waiting = in_flight(relay) - relay->coalescing.stalled;
	if (waiting < relay->coalescing.timed_below)
	{
		note_round_trip(relay, now - relay->coalescing.closed_since);
		relay->coalescing.timed_below = 0;
	}
	if (waiting < FEW)
		return true;
	if (now < closed_until(relay))
		return false;
	relay->coalescing.stalled = in_flight(relay);
	relay->coalescing.timed_below = 0;
	if (!relay->coalescing.answered)		/* the broker is slower than it was, perhaps */
		relay->coalescing.round_trip = Max(relay->coalescing.round_trip, now - relay->coalescing.closed_since);
	return true;
}

/* Are more calls than there are now to be waited for? */
static bool
may_come_back(const Relay *relay, MonoTime now)
{
	return relay->calls.in_flight == 0 && relay->coalescing.last_calls > 1 && now < relay->coalescing.callers_until;
}

void
coalesce_look(Relay *relay)
{
	MonoTime	now = mono_now();
	uint64		wanted = 0;

	relay->coalescing.open = decide_open(relay, now);
	if (!relay->coalescing.open)
		wanted = PG_UINT64_MAX;
	else if (may_come_back(relay, now))
		wanted = relay->calls.seen + relay->coalescing.last_calls;
	(void) pg_atomic_exchange_u64(&MyJob->calls_wanted, wanted);
	relay->coalescing.gathering = pg_atomic_read_u64(&MyJob->calls) < wanted;
}

MonoTime
coalesce_next_look(const Relay *relay)
{
	if (!relay->coalescing.open)
		return closed_until(relay);
	return relay->coalescing.gathering ? relay->coalescing.callers_until : 0;
}

void
coalesce_done(Relay *relay, int rows, int calls)
{
	int			before = in_flight(relay) - rows - calls;

	if (rows + calls == 0)
		return;
	relay->coalescing.closed_since = mono_now();
	relay->coalescing.answered = false;
	relay->coalescing.timed_below = before <= relay->coalescing.stalled ? Min(rows + calls, FEW) : 0;
	if (calls > 0)
		relay->coalescing.last_calls = calls;
	if (calls > 0 || relay->reader.caught_up)
		kafka_producer_push(relay->link.client);
}

/* The last call in flight was answered. */
void
coalesce_calls_answered(Relay *relay)
{
	MonoTime	now = mono_now();

	relay->coalescing.callers_until = now + Min((now - relay->coalescing.closed_since) / 2, LONGEST_CALLERS_US);
}

void
coalesce_note_answer(Relay *relay)
{
	relay->coalescing.answered = true;
}
