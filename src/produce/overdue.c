/*
 * overdue.c
 *		Tells when a broker answers but acknowledges nothing.
 *
 * With too few replicas in sync, or with a partition's leader gone while other
 * brokers are there, librdkafka tries again by itself for as long as it takes, and
 * tells nobody. So a mark is set from time to time: the rows that are in flight then
 * are counted until all of them are settled, and the next mark is set. If none of
 * them is for too long, nexus_status says so.
 *
 * A row is known by its id, and all up to the mark are counted: so is one whose
 * transaction committed late. It only puts the next mark off.
 */
#include "nexus_kafka.h"


#include "produce/produce.h"

#define OVERDUE_MS	10000

void
overdue_count(Relay *relay, int64 id)
{
	relay->highest_sent = Max(relay->highest_sent, id);
	if (id > relay->overdue_mark)
		return;
	if (relay->marked++ == 0)	/* it has its time from now on, whenever the last one was settled */
		relay->overdue_at = mono_in_ms(OVERDUE_MS);
}

void
overdue_settle(Relay *relay, int64 id)
{
	if (id > relay->overdue_mark)
		return;
	relay->marked--;
	relay->overdue_at = mono_in_ms(OVERDUE_MS);
}

static bool
is_overdue(const Relay *relay)
{
	return relay->marked > 0 && mono_now() >= relay->overdue_at;
}

static void
set_mark(Relay *relay)
{
	relay->overdue_mark = relay->highest_sent;
	relay->marked = relay->in_flight;
	if (relay->marked == 0)
		return;
	relay->overdue_at = mono_in_ms(OVERDUE_MS);
	/* what was complained of before is over */
	if (relay->link.reachable)
		kafka_client_forget_failure(relay->link.client);
}

static void
report(Relay *relay)
{
	const KafkaFailure *last = kafka_client_last_failure(relay->link.client);

	job_condition_set(MyJob, CONDITION_UNACKNOWLEDGED,
					  "a broker answers, but messages sent %d s ago are not acknowledged: too few replicas in sync or no leader, see nexus_topics()%s%s",
				  OVERDUE_MS / 1000, last ? "; " : "", last ? last->text : "");
}

void
overdue_watch(Relay *relay)
{
	if (relay->marked == 0)
		set_mark(relay);
	if (!is_overdue(relay) || !relay->link.reachable)
		job_condition_clear(MyJob, CONDITION_UNACKNOWLEDGED);
	else if (!job_condition_is_set(MyJob, CONDITION_UNACKNOWLEDGED))
		report(relay);
}

/* When to look again; 0: no need. What is overdue and can't be reported is when something else changes. */
MonoTime
overdue_next_look(const Relay *relay)
{
	return relay->marked > 0 && !is_overdue(relay) ? relay->overdue_at : 0;
}
