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

#include "utils/timestamp.h"

#include "produce/produce.h"

#define OVERDUE_MS	10000

void
overdue_count(Relay *relay, int64 id)
{
	relay->highest_sent = Max(relay->highest_sent, id);
	if (id > relay->overdue_mark)
		return;
	if (relay->marked++ == 0)	/* it has its time from now on, whenever the last one was settled */
		relay->overdue_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OVERDUE_MS);
}

void
overdue_settle(Relay *relay, int64 id)
{
	if (id > relay->overdue_mark)
		return;
	relay->marked--;
	relay->overdue_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OVERDUE_MS);
}

static bool
is_overdue(const Relay *relay)
{
	return relay->marked > 0 && GetCurrentTimestamp() >= relay->overdue_at;
}

static void
set_mark(Relay *relay)
{
	relay->overdue_mark = relay->highest_sent;
	relay->marked = relay->in_flight;
	if (relay->marked == 0)
		return;
	relay->overdue_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OVERDUE_MS);
	/* what was complained of before is over */
	if (relay->link.reachable)
		kafka_client_forget_failure(relay->link.client);
}

static void
report(Relay *relay)
{
	const KafkaFailure *last = kafka_client_last_failure(relay->link.client);

	relay->overdue = true;
	job_set_state(MyJob, JOB_WAITING,
				  "a broker answers, but messages sent %d s ago are not acknowledged: too few replicas in sync or no leader, see nexus_topics()%s%s",
				  OVERDUE_MS / 1000, last ? "; " : "", last ? last->text : "");
}

void
overdue_watch(Relay *relay)
{
	if (relay->marked == 0)
		set_mark(relay);
	if (relay->overdue && !is_overdue(relay))
		overdue_withdraw(relay, JOB_RUNNING, NULL);
	if (!relay->overdue && is_overdue(relay) && relay->link.reachable && job_get_state(MyJob) == JOB_RUNNING)
		report(relay);
}

/* It isn't so any more, but as the state says that comes with it. */
void
overdue_withdraw(Relay *relay, JobState state, const char *reason)
{
	if (relay->overdue && job_get_state(MyJob) == JOB_WAITING)
		job_set_state(MyJob, state, "%s", reason ? reason : "");
	relay->overdue = false;
}

/* When to look again; 0: no need. What is overdue and can't be reported is when something else changes. */
TimestampTz
overdue_next_look(const Relay *relay)
{
	return relay->marked > 0 && !is_overdue(relay) ? relay->overdue_at : 0;
}
