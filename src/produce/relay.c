/*
 * relay.c
 *		The worker that publishes the outbox, or the rows of one connection in it: its loop.
 *
 * Each connection has a relay of its own, so that a silent cluster holds up nobody
 * else's messages. MyJob->name says which.
 *
 * It reads rows upwards by id, hands them to librdkafka, and deletes each after
 * the broker's acknowledgement of that very row. Deleting and reading share a
 * transaction, and nothing waits for the network in it.
 *
 *	   exchange.c            send.c            delivery report
 * row -----------> outgoing ------> in flight ---------------> settled --> deleted
 *		   ^                              |                `---> refused --> dead letter
 *		   `------- again, later <--------'  (no topic yet, passing trouble)
 *
 * What is in memory only is rebuilt from the table. A crash between the
 * acknowledgement and the deletion publishes a row once more, with the same
 * message id.
 */
#include "nexus_kafka.h"

#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "produce/produce.h"

#define DELETE_ROWS			1000	/* settled rows that are worth a transaction of their own */
#define COALESCE_MS			1		/* between readings while rows keep coming */
#define ASK_TIMEOUT_MS		5000
#define LOOK_AGAIN_MS		60000
#define LOOK_AT_BROKER_MS	20000
#define LOOK_AT_TOPICS_MS	60000
#define LOOK_FOR_TOPIC_MS	3000	/* one that is missing; at first, then twice as long */
#define LONGEST_LOOK_FOR_TOPIC_MS	30000
#define LOOK_FOR_PARTITIONS_MS	1000
#define LOOK_AT_GAPS_MS		10000
#define DRAIN_MS		500
#define QUEUE_KBYTES		32768	/* of librdkafka's, besides two of the largest messages */

PGDLLEXPORT void nexus_relay_main(Datum arg);

static Relay relay;

/* What it asks the broker now and then, and when it reads. */
static struct
{
	MonoTime	next_question;
	MonoTime	next_topics;
	MonoTime	last_topics;
	int			look_for_topic_ms;	/* between looks for one that is missing */
	bool		asked_topics;	/* the one under way: which are there? */
	int			topic_reloads;	/* worker_reloads when it was asked; nexus_kafka.topic may be another since */

	uint64		wakes_seen;		/* MyJob->wakes when it was last wanted to read */
	bool		read_wanted;
	bool		woken;			/* since it has read */
	MonoTime	next_look;
	MonoTime	coalesce_until;	/* rows came a moment ago: let some more gather */
}			plan;

/*
 * A broker that hangs tells nothing, so it is asked now and then. By name the broker
 * must not be asked for the topic: it might make it. So topics are looked for among all:
 * nexus_kafka.topic, which is the default connection's, until it is there; those that
 * rows wait for; and those whose partitions aren't known, or may be more by now.
 */
static bool
wants_topics(void)
{
	if (MyJob->name[0] == '\0' &&
		(pg_atomic_read_u32(&MyJob->topic) != TOPIC_FOUND || plan.topic_reloads != worker_reloads))
		return true;
	return relay.window.wants_partitions || mono_now() >= plan.next_topics ||
		(window_misses_topic(&relay.window) && mono_now() >= mono_after_ms(plan.last_topics, plan.look_for_topic_ms));
}

static void
ask(void)
{
	plan.asked_topics = wants_topics();
	plan.topic_reloads = worker_reloads;
	plan.next_question = mono_in_ms(LOOK_AT_BROKER_MS);
	if (plan.asked_topics)
	{
		plan.last_topics = mono_now();
		plan.next_topics = mono_after_ms(plan.last_topics, LOOK_AT_TOPICS_MS);
		plan.look_for_topic_ms = window_misses_topic(&relay.window)
			? Min(plan.look_for_topic_ms * 2, LONGEST_LOOK_FOR_TOPIC_MS) : LOOK_FOR_TOPIC_MS;
		window_asks_partitions(&relay.window);
	}
	if (!kafka_request(relay.link.client, &(KafkaRequest) {.all_topics = plan.asked_topics,.timeout_ms = ASK_TIMEOUT_MS}))
		relay.link.next_probe = plan.next_question;	/* no memory */
}

static void
take_answer(const KafkaResponse *answer)
{
	if (answer->failure.code != 0)
	{
		link_trouble(&relay.link, &answer->failure);
		return;
	}
	link_alive(&relay.link);
	if (link_probation(&relay.link) != 0)
		plan.next_question = link_probation(&relay.link);
	if (!plan.asked_topics)
		return;
	window_take_topics(&relay.window, answer);
	if (MyJob->name[0] == '\0')
		link_note_topic(answer);
}

static MonoTime
next_question(void)
{
	if (!relay.link.reachable)
		return plan.next_question;
	if (relay.window.wants_partitions)
		return Min(plan.next_question, mono_after_ms(plan.last_topics, LOOK_FOR_PARTITIONS_MS));
	if (window_misses_topic(&relay.window))
		return Min(plan.next_question, mono_after_ms(plan.last_topics, plan.look_for_topic_ms));
	return plan.next_question;
}

static void
watch_link(void)
{
	KafkaResponse answer;

	link_serve(&relay.link);
	if (kafka_response(relay.link.client, &answer))
	{
		if (!topics_answer(&relay, &answer))
			take_answer(&answer);
		kafka_response_free(&answer);
	}
	if (!kafka_requesting(relay.link.client) &&
		(link_probe_due(&relay.link) || mono_now() >= next_question()))
		ask();
}

/* When it is to read what it has left, or what is not to be known otherwise; in the past: at once. */
static MonoTime
next_reading(MonoTime now)
{
	MonoTime	next = plan.next_look;
	MonoTime	due = window_next_due(now);

	if (window_next_left(now, NULL))
		return now;
	if (due != 0)
		next = Min(next, due);
	if (window_next_pass(&relay.window, now) != 0)
		next = Min(next, window_next_pass(&relay.window, now));
	return next;
}

static bool
reading_is_wanted(void)
{
	return plan.read_wanted || relay.flush.new_ticket != 0;
}

static void
work(void)
{
	MonoTime	now = mono_now();
	uint64		wakes = pg_atomic_read_u64(&MyJob->wakes);
	Settled    *settled = &relay.settled;
	bool		woken = wakes != plan.wakes_seen;
	bool		read;
	bool		settle_now;

	plan.woken = plan.woken || woken;
	if (woken || now >= next_reading(now))
		plan.read_wanted = true;
	plan.wakes_seen = wakes;
	read = relay_has_room(&relay) && now >= relay.reader.paused_until &&
		(reading_is_wanted() || !relay.reader.caught_up);
	settle_now = settled->n >= DELETE_ROWS || settled->refused != NIL ||
		(settled->n > 0 && (relay.sender.in_flight <= relay.window.stalled || relay.reader.retry_at != 0));
	if (now < relay.reader.retry_at || (relay.reader.caught_up && now < plan.coalesce_until) || !(read || settle_now))
		return;
	if (!relay_exchange(&relay, read) || !read)
		return;
	plan.read_wanted = false;
	if (relay.reader.n > 0)
		plan.coalesce_until = mono_after_ms(now, COALESCE_MS);
	plan.next_look = mono_after_ms(now, gaps_exist() ? LOOK_AT_GAPS_MS : LOOK_AGAIN_MS);
	/* something was committed that isn't found: its id may be one that was passed */
	if (plan.woken && relay.reader.n == 0)
		plan.next_look = Min(plan.next_look, relay.reader.next_look_back);
	plan.woken = false;
}

static void
hand_over(void)
{
	int			rows = relay.sender.in_flight;
	int			calls = relay.calls.in_flight;

	coalesce_look(&relay);
	if (!relay.coalescing.open)
		return;
	now_take_calls(&relay);
	relay_send(&relay);
	coalesce_done(&relay, relay.sender.in_flight - rows, relay.calls.in_flight - calls);
}

/* The earlier one; 0: none. */
static MonoTime
earlier(MonoTime a, MonoTime b)
{
	return b != 0 && b < a ? b : a;
}

static long
sleep_time(void)
{
	MonoTime	now = mono_now();
	MonoTime	next = mono_after_ms(now, LOOK_AGAIN_MS);
	long		timeout;

	if (relay_has_room(&relay) && relay.reader.retry_at == 0)
		next = Max(next_reading(now), relay.reader.paused_until);
	next = earlier(next, overdue_next_look(&relay));
	next = earlier(next, coalesce_next_look(&relay));
	next = earlier(next, relay_next_safe_look(&relay));
	next = earlier(next, relay.window.next_look);
	if (relay.reader.retry_at != 0)
		next = Min(next, relay.reader.retry_at);
	else if (relay.reader.caught_up && now < plan.coalesce_until && (reading_is_wanted() || relay.settled.n > 0))
		next = plan.coalesce_until;
	else if (relay_has_room(&relay) && (reading_is_wanted() || !relay.reader.caught_up))
		next = Min(next, relay.reader.paused_until);
	if (!kafka_requesting(relay.link.client))
		next = Min(next, next_question());
	timeout = mono_ms_between(now, next);
	if (link_probe_timeout(&relay.link) >= 0)
		timeout = Min(timeout, link_probe_timeout(&relay.link));
	return timeout;
}

/*
 * Told to end: what the broker acknowledges in the next moment is deleted
 * still, so that it isn't published again.
 */
static void
relay_drain(void)
{
	MonoTime	until = mono_in_ms(DRAIN_MS);

	SetConfigOption("lock_timeout", "200ms", PGC_USERSET, PGC_S_SESSION);
	while (relay.sender.in_flight > relay.window.stalled && relay.link.reachable && mono_now() < until)
	{
		(void) worker_wait(kafka_client_fd(relay.link.client),
						   mono_ms_until(until));
		kafka_client_serve(relay.link.client);
		relay_take_deliveries(&relay);
	}
	if (relay.settled.n > 0 || relay.settled.refused != NIL)
		(void) relay_exchange(&relay, false);
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
	relay_exchange_init(&relay);
	relay_send_init(&relay);
	plan.look_for_topic_ms = LOOK_FOR_TOPIC_MS;
	plan.read_wanted = true;
	now_answer_left_over();
}

void
nexus_relay_main(Datum arg)
{
	KafkaSetting settings[2];
	char		max_bytes[16];
	char		queue_kbytes[16];
	int			opened_with = nexus_max_message_bytes;

	worker_begin(arg, JOB_RELAY);
	worker_connect();
	start();
	snprintf(max_bytes, sizeof(max_bytes), "%d", Max(opened_with, 1000) + 1024);
	snprintf(queue_kbytes, sizeof(queue_kbytes), "%d", QUEUE_KBYTES + 2 * (opened_with / 1024));
	settings[0] = (KafkaSetting) {"message.max.bytes", max_bytes};
	settings[1] = (KafkaSetting) {"queue.buffering.max.kbytes", queue_kbytes};
	link_open(&relay.link, MyJob->name, KAFKA_PRODUCER, settings, lengthof(settings));
	worker_drain = relay_drain;

	for (;;)
	{
		worker_service();
		if (nexus_max_message_bytes != opened_with)
			worker_restart();
		watch_link();
		relay_take_deliveries(&relay);
		hand_over();
		flush_note_request(&relay);
		work();
		hand_over();
		overdue_watch(&relay);
		flush_answer(&relay);
		(void) worker_wait(kafka_client_fd(relay.link.client), sleep_time());
	}
}
