/*
 * overdue.c
 *		Tells when a broker answers but acknowledges nothing.
 *
 * With too few replicas in sync, or with a partition's leader gone while other
 * brokers are there, librdkafka tries again by itself for as long as it takes, and
 * tells nobody. So if anything has been in flight for too long without an
 * acknowledgement of its partition, nexus_status says so, until that has come. Meanwhile
 * the connection may go and come again, which acknowledges nothing.
 */
#include "nexus_kafka.h"

#include "produce/produce.h"

#define OVERDUE_MS	10000

static MonoTime watched;			/* the progress that is waited on */
static bool reported;			/* with a broker there, whose complaints it has */

static MonoTime
overdue_at(const Relay *relay)
{
	if (relay->window.oldest == 0 || relay->sender.in_flight == 0)
		return 0;
	return mono_after_ms(relay->window.oldest, OVERDUE_MS);
}

/* Of the time without a broker link.c has more to say, before this. */
static void
report(Relay *relay)
{
	const KafkaFailure *last = relay->link.reachable ? kafka_client_last_failure(relay->link.client) : NULL;

	reported = relay->link.reachable;

	job_condition_set(MyJob, CONDITION_UNACKNOWLEDGED,
					  "a broker answers, but messages sent %d s ago are not acknowledged: too few replicas in sync or no leader, see nexus_topics()%s%s",
					  OVERDUE_MS / 1000, last ? "; " : "", last ? last->text : "");
}

void
overdue_watch(Relay *relay)
{
	MonoTime	at = overdue_at(relay);

	if (at != watched && at != 0 && relay->link.reachable)
	{
		kafka_client_forget_failure(relay->link.client);	/* what was complained of before is over */
		watched = at;
	}
	if (at == 0 || mono_now() < at)
		job_condition_clear(MyJob, CONDITION_UNACKNOWLEDGED);
	else if (!job_condition_is_set(MyJob, CONDITION_UNACKNOWLEDGED) || (relay->link.reachable && !reported))
		report(relay);
}

/* When to look again; what is overdue by then is reported, and changes by an answer only. */
MonoTime
overdue_next_look(const Relay *relay)
{
	MonoTime	at = overdue_at(relay);

	return at > mono_now() ? at : 0;
}
