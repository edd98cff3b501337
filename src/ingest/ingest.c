/*
 * ingest.c
 *		The ingest worker: one a pipeline, or as many as its option workers says.
 *
 * Its loop: serve librdkafka and interrupts; look at the topics (at the start,
 * every 20 s, and when something is amiss); fetch what is there; take it
 * in; answer nexus_consume; sleep until the next of these. It never waits for a
 * batch to fill, and never for the network.
 *
 * The worker that can't go on without a person stops: it closes nothing, shows
 * the reason, and waits for its end: nexus_resume changes the pipeline's row, and
 * whatever changes that has its workers started anew.
 */
#include "nexus_kafka.h"

#include <stdarg.h>

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "ingest/ingest.h"

#define LOOK_TIMEOUT_MS		5000
#define ENDS_TIMEOUT_MS		3000
#define REFRESH_EVERY_MS		20000
#define REFRESH_OFTEN_MS		3000
#define REFRESH_OFTEN_FOR_MS	30000	/* a broker that died is missed by the others so much later at most */
#define NO_TOPIC_DELAY_MS	1000
#define IN_TROUBLE_MS		5000
#define MIRROR_EVERY_MS		5000
#define MIRROR_AGAIN_MS		200		/* where synchronous standbys don't have it yet */
#define LAST_MIRROR_MS		200
#define STANDBYS_MS			10		/* until they are looked at again, while somebody waits for them */
#define LAST_STANDBYS_MS	200
#define NUDGE_EVERY_MS		20
#define LAG_EVERY_MS		100
#define LEAST_ROOM			100		/* messages: more than one is evidence for another (apply.c) */
#define FIRST_RETRY_MS		50
#define LONGEST_RETRY_MS	5000

PGDLLEXPORT void nexus_ingest_main(Datum arg);

pg_noreturn static void
await_resume(const char *reason)
{
	job_condition_set(MyJob, CONDITION_STOPPED, "%s", reason);
	for (;;)
		worker_wait(-1, -1);
}

void
ingest_stop(Ingest *ingest, const char *reason,...)
{
	char		text[1024];
	va_list		args;

	va_start(args, reason);
	vsnprintf(text, sizeof(text), reason, args);
	va_end(args);
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, text);
	ingest->must_revalidate = true;
	await_resume(text);
}

/* ---- starting ---- */

static char *
group_id(const Pipeline *pipeline)
{
	if (pipeline->group_id)
		return pipeline->group_id;
	if (start_group(pipeline->start))
		return unconstify(char *, start_group(pipeline->start));
	return psprintf("nexus_kafka-%s-%s", get_database_name(MyDatabaseId), pipeline->name);
}

static void
load_pipeline(void *arg)
{
	Ingest	   *ingest = arg;

	if (!catalog_locate())
		return;
	ingest->pipeline = catalog_pipeline(MyJob->name, ingest->context);
	if (ingest->pipeline == NULL || ingest->pipeline->paused)
		return;
	ingest->pipeline->mistake = definition_mistake(ingest->pipeline);
	if (ingest->pipeline->mistake)
		return;
	ingest->room_for = partitions_count(ingest, catalog_offsets(MyJob->name, CurrentMemoryContext));
	ingest->group_id = MemoryContextStrdup(ingest->context, group_id(ingest->pipeline));
}

static Ingest *
start(void)
{
	Ingest	   *ingest = MemoryContextAllocZero(TopMemoryContext, sizeof(Ingest));
	ErrorData  *error;

	ingest->context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka ingest", ALLOCSET_DEFAULT_SIZES);
	ingest->known_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka known topics", ALLOCSET_SMALL_SIZES);
	ingest->refresh_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka look", ALLOCSET_DEFAULT_SIZES);
	ingest->question_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka request", ALLOCSET_DEFAULT_SIZES);
	if (!worker_transaction(load_pipeline, ingest, ingest->context, &error))
		ReThrowError(error);
	if (ingest->pipeline == NULL || ingest->pipeline->mistake)
		proc_exit(0);			/* dropped or changed meanwhile; the supervisor will see it */
	if (ingest->pipeline->paused || ingest->pipeline->held)
		worker_restart();		/* likewise; it begins when the transaction that holds it back has ended */
	ingest->batch = batch_create(ingest->context, Max(ingest->pipeline->batch_messages, LEAST_ROOM));
	ingest->ledger = &offsets_ledger;
	/* what the worker before this one took in, and a server before this run of it */
	ingest->last_commit = Max(pg_atomic_read_u64(&MyJob->last_commit), commits_seen());

	/* rows and offset are lost together, and Kafka has the messages still */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION);
	return ingest;
}

/* ---- looking at the topic ---- */

/* nexus_consume's request: where do the partitions end? */
static void
fill_ends(const Ingest *ingest, KafkaRequest *request)
{
	KafkaPosition *ends = palloc(Max(ingest->npartitions, 1) * sizeof(KafkaPosition));

	for (int i = 0; i < ingest->npartitions; i++)
		ends[i] = (KafkaPosition) {ingest->partitions[i].topic, ingest->partitions[i].partition, KAFKA_OFFSET_END};
	request->positions = ends;
	request->npositions = ingest->npartitions;
}

static bool
ends_are_wanted(const Ingest *ingest)
{
	return ingest->ticket && !ingest->ends_known && ingest->assigned && ingest->link.reachable;
}

static void
ask(Ingest *ingest)
{
	KafkaRequest request = {.timeout_ms = LOOK_TIMEOUT_MS};
	bool		ends = ingest->ticket && ingest->assigned && ingest->ends_by_refresh && ingest->nquestions == 0;

	topics_fill_question(ingest->pipeline, &request);
	request.positions = ingest->questions;
	request.npositions = ingest->nquestions;
	request.group = ingest->nquestions > 0 ? ingest->question_group : NULL;
	if (ends)
		fill_ends(ingest, &request);
	if (kafka_request(ingest->link.client, &request))
		ingest->asked_ends = ends;
	else						/* no memory */
		ingest->next_refresh = ingest->link.next_probe = mono_in_ms(NO_TOPIC_DELAY_MS);
}

/* Somebody waits for it, so not behind a fetch. */
static void
ask_ends(Ingest *ingest)
{
	KafkaRequest request = {.timeout_ms = ENDS_TIMEOUT_MS};

	topics_fill_question(ingest->pipeline, &request);
	fill_ends(ingest, &request);
	if (kafka_request_at_once(ingest->link.client, &request))
		ingest->asked_ends = true;
	else						/* no memory */
		ingest->ends_by_refresh = true;
	ingest->asked_at_once = AT_ONCE_ENDS;
}

static void
note_no_answer(Ingest *ingest, const KafkaFailure *failure)
{
	ingest->refresh_failure.code = 0;
	link_trouble(&ingest->link, failure);
	ingest->next_refresh = ingest->link.next_probe;
}

/* The look timed out: behind a fetch, which waits as long as its connection's settings say? */
static void
refresh_at_once(Ingest *ingest)
{
	KafkaRequest request = {.timeout_ms = ENDS_TIMEOUT_MS};

	topics_fill_question(ingest->pipeline, &request);
	if (kafka_request_at_once(ingest->link.client, &request))
		ingest->asked_ends = false;
	else						/* no memory */
		note_no_answer(ingest, &ingest->refresh_failure);
	ingest->asked_at_once = AT_ONCE_REFRESH;
}

static void
request_at_once(Ingest *ingest)
{
	if (kafka_requesting_at_once(ingest->link.client))
		return;
	if (ends_are_wanted(ingest) && !ingest->ends_by_refresh)
		ask_ends(ingest);
	else if (stale_must_ask(ingest))
	{
		if (stale_ask(ingest))
			ingest->asked_at_once = AT_ONCE_EVERY_BROKER;
	}
	else if (ingest->refresh_failure.code != 0)
		refresh_at_once(ingest);
}

static void
note_ends(Ingest *ingest, const KafkaResponse *answer)
{
	if (!ingest->asked_ends || answer->npositions != ingest->npartitions)
		return;
	for (size_t i = 0; i < answer->npositions; i++)
	{
		IngestPartition *p = partition_find(ingest, answer->positions[i].topic, answer->positions[i].partition);

		if (p)
			p->wanted = answer->positions[i].offset;
	}
	ingest->ends_known = ingest->ticket != 0;
}

/* False: partitions that are read are lacking in it, and reading goes on as if they weren't. */
static bool
is_up_to_date(Ingest *ingest, const KafkaResponse *answer)
{
	StaleVerdict verdict = stale_judge(ingest, answer);

	stale_judge_partitions(ingest, answer);
	switch (verdict)
	{
		case STALE_NOTHING_LACKS:
			return true;
		case STALE_LACKS:
			stale_stop_if_made_anew(ingest, answer);
			return true;
		case STALE_UNKNOWN:
		case STALE_MAY_BE:
			break;
	}
	link_alive(&ingest->link);
	note_ends(ingest, answer);
	return false;
}

/* What the broker answered; returns ms until the next look. */
static long
learn(Ingest *ingest, const KafkaResponse *answer)
{
	char	   *missing = topics_missing(ingest->pipeline, answer);
	char	   *leaderless = topics_leaderless(ingest->pipeline, answer);

	ingest->refresh_failure.code = 0;
	link_heard(&ingest->link);
	link_note_topic(ingest->pipeline->connection == NULL && topics_include(ingest->pipeline, nexus_topic) ? answer : NULL);
	if (ingest->assigned && !ingest->must_revalidate && !is_up_to_date(ingest, answer))
		return REFRESH_OFTEN_MS;
	if (missing && !(topics_any(ingest->pipeline, answer) && start_without_all_topics(ingest->pipeline)))
	{
		if (ingest->assigned)
			worker_restart();
		stale_note_missing(ingest);
		job_condition_set(MyJob, CONDITION_TOPIC_MISSING, "%s", missing);
		return NO_TOPIC_DELAY_MS;
	}
	job_condition_clear(MyJob, CONDITION_TOPIC_MISSING);
	if (!start_take_answer(ingest, answer))
		return NO_TOPIC_DELAY_MS;
	if (!partitions_learn(ingest, answer))
		return ingest->nquestions > 0 ? 0 : NO_TOPIC_DELAY_MS;
	link_alive(&ingest->link);
	note_ends(ingest, answer);
	if (ingest->in_trouble)
	{
		partitions_assign(ingest);	/* it tells once only, and again when begun anew */
		return IN_TROUBLE_MS;
	}
	if (leaderless)
		job_condition_set(MyJob, CONDITION_NO_LEADER, "%s", leaderless);
	else
		job_condition_clear(MyJob, CONDITION_NO_LEADER);
	if (missing)
		job_condition_set(MyJob, CONDITION_REMARK, "%s", missing);
	else
		job_condition_clear(MyJob, CONDITION_REMARK);
	if (leaderless || missing)
		return NO_TOPIC_DELAY_MS;
	return mono_now() < ingest->refresh_often_until ? REFRESH_OFTEN_MS : REFRESH_EVERY_MS;
}

/* The broker, or a topic, was gone: nothing is taken in before it is known to be the same. */
static void
doubt(Ingest *ingest, int delay_ms)
{
	ingest->must_revalidate = true;
	ingest->next_refresh = mono_in_ms(delay_ms);
}

/* A broker may have died, and left a partition without a leader. */
static void
note_error(Ingest *ingest)
{
	MonoTime	now = mono_now();

	ingest->refresh_often_until = mono_after_ms(now, REFRESH_OFTEN_FOR_MS);
	ingest->next_refresh = Min(ingest->next_refresh, mono_after_ms(now, REFRESH_OFTEN_MS));
}

static void
take_answer(Ingest *ingest)
{
	KafkaResponse answer;

	if (!kafka_response(ingest->link.client, &answer))
		return;
	if (answer.failure.code == 0)
		ingest->next_refresh = mono_in_ms(learn(ingest, &answer));
	else if (ingest->assigned && kafka_failure_is_timeout(&answer.failure))
	{
		ingest->refresh_failure = answer.failure;
		ingest->next_refresh = ingest->link.next_probe = mono_in_ms(REFRESH_EVERY_MS);
	}
	else
		note_no_answer(ingest, &answer.failure);
	kafka_response_free(&answer);
}

/*
 * Whether the broker is there is told by the connection that messages come from. Where only
 * this request's has trouble (as many as the broker lets in?), the other one is asked.
 */
static void
take_answer_at_once(Ingest *ingest)
{
	KafkaResponse answer;

	if (!kafka_response_at_once(ingest->link.client, &answer))
		return;
	if (answer.failure.code == 0)
		ingest->next_refresh = mono_in_ms(learn(ingest, &answer));
	else if (ingest->asked_at_once == AT_ONCE_EVERY_BROKER)
		stale_unanswered(ingest);
	else if (ingest->asked_at_once == AT_ONCE_ENDS)
		ingest->ends_by_refresh = true;
	else if (ingest->refresh_failure.code != 0)
		note_no_answer(ingest, &ingest->refresh_failure);
	kafka_response_free(&answer);
}

static void
refresh_if_due(Ingest *ingest)
{
	MemoryContext before;

	if (!batch_is_empty(ingest->batch))
		return;
	before = MemoryContextSwitchTo(ingest->refresh_context);
	take_answer_at_once(ingest);
	take_answer(ingest);
	request_at_once(ingest);
	if (!kafka_requesting(ingest->link.client) &&
		(link_probe_due(&ingest->link) || mono_now() >= ingest->next_refresh ||
		 (ends_are_wanted(ingest) && ingest->ends_by_refresh)))
		ask(ingest);
	MemoryContextSwitchTo(before);
	MemoryContextReset(ingest->refresh_context);
}

/* ---- taking in ---- */

/* A partition that could not be read can be; one that never could is told of by what comes of it. */
static void
note_progress(Ingest *ingest)
{
	ingest->in_trouble = false;
	for (int i = 0; i < ingest->npartitions; i++)
		if (ingest->partitions[i].begin_unknown)
			return;
	job_condition_clear(MyJob, CONDITION_PARTITION_FAILS);
}

static void
note_failing_partition(const KafkaEvent *event)
{
	job_condition_set(MyJob, CONDITION_PARTITION_FAILS, "topic \"%s\", partition %d: %s", event->topic,
					  event->partition, event->failure.text);
}

/*
 * A partition that was never read has no offset that could be gone: who was asked where it
 * begins doesn't know it, as a broker that has not heard of new partitions. It will, or
 * another one comes to lead the partition.
 */
static void
note_unknown_begin(Ingest *ingest, const KafkaEvent *event)
{
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, event->failure.text);
	note_failing_partition(event);
	if (ingest->assign_again_at == 0)
		ingest->assign_again_at = mono_in_ms(IN_TROUBLE_MS);
}

/* Not while messages are in hand: they may be of such a partition. */
static void
assign_again_if_due(Ingest *ingest)
{
	if (ingest->assign_again_at == 0 || mono_now() < ingest->assign_again_at || !batch_is_empty(ingest->batch))
		return;
	ingest->assign_again_at = 0;
	partitions_assign_unsettled(ingest);
}

static void
note_event(Ingest *ingest, const KafkaEvent *event)
{
	IngestPartition *p = partition_find(ingest, event->topic, event->partition);

	switch (event->kind)
	{
		case KAFKA_EVENT_END:
			link_alive(&ingest->link);
			if (p)
				p->begin_unknown = false;
			note_progress(ingest);
			if (p && (p->verifying || p->in_doubt))
				verify_end(ingest, p, event->offset);
			if (p)
				partition_skip_to(ingest, p, event->offset);
			break;

		case KAFKA_EVENT_OFFSET_GONE:
			if (p && verify_gone(ingest, p))
				break;
			if (p && link_is_embedded())
				partition_start_over(ingest, p);
			if (p && p->next < 0)
				note_unknown_begin(ingest, event);
			else if (p)
				stale_doubt_partition(ingest, p, KAFKA_OFFSET_UNKNOWN);
			break;

		case KAFKA_EVENT_ERROR:
			job_set_error(MyJob, kafka_failure_is_authorization(&event->failure) ? ERRCODE_INSUFFICIENT_PRIVILEGE
						  : ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, event->failure.text);
			if (event->topic[0] == '\0')
				break;			/* of the group's copy of the offsets, say: no partition is in trouble */
			if (p && p->begin_unknown && kafka_fate(event->failure.code) == KAFKA_FATE_NO_TOPIC)
			{
				note_unknown_begin(ingest, event);	/* why, told beside that it isn't known */
				break;
			}
			note_failing_partition(event);
			ingest->in_trouble = true;
			if (kafka_fate(event->failure.code) == KAFKA_FATE_NO_TOPIC)
				ingest->must_revalidate = true;
			ingest->next_refresh = mono_in_ms(NO_TOPIC_DELAY_MS);
			break;
	}
}

static void
note_failure(Ingest *ingest, ApplyOutcome outcome, const ErrorData *error)
{
	ingest->retry_delay_ms = ingest->retry_delay_ms ? Min(ingest->retry_delay_ms * 2, LONGEST_RETRY_MS) : FIRST_RETRY_MS;
	ingest->retry_at = mono_in_ms(ingest->retry_delay_ms);
	job_set_error(MyJob, error->sqlerrcode, error->message);

	/* a deadlock or the like, gone at the next try, needs no line in the log */
	if (outcome == APPLY_FAILING || ingest->retry_delay_ms > FIRST_RETRY_MS)
		job_condition_set(MyJob, outcome == APPLY_FAILING ? CONDITION_STATEMENT_FAILS : CONDITION_TRANSACTION_FAILS,
						  "%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode));
	job_condition_clear(MyJob, outcome == APPLY_FAILING ? CONDITION_TRANSACTION_FAILS : CONDITION_STATEMENT_FAILS);
}

/* on_error => stop. Nothing moved beyond the messages before it. */
pg_noreturn static void
stop_before_message(Ingest *ingest, const ErrorData *error)
{
	const Batch *batch = ingest->batch;
	const KafkaMessage *message = &batch->messages[batch_first_live(batch, batch->next, batch->n)];

	job_set_error(MyJob, error->sqlerrcode, error->message);
	await_resume(psprintf("offset " INT64_FORMAT " of partition %d of topic \"%s\": %s (SQLSTATE %s)",
						  message->offset, message->partition, message->topic, error->message,
						  unpack_sql_state(error->sqlerrcode)));
}

/* A batch was taken in, or there is none left. */
static void
note_nothing_fails(void)
{
	job_condition_clear(MyJob, CONDITION_STATEMENT_FAILS);
	job_condition_clear(MyJob, CONDITION_TRANSACTION_FAILS);
}

static void
take_in(Ingest *ingest)
{
	ErrorData  *error = NULL;
	ApplyOutcome outcome = apply_batch(ingest, &error);

	switch (outcome)
	{
		case APPLY_DONE:
			link_alive(&ingest->link);
			note_nothing_fails();
			ingest->retry_at = 0;
			note_progress(ingest);
			ingest->retry_delay_ms = 0;
			break;
		case APPLY_RETRY:
		case APPLY_FAILING:
			note_failure(ingest, outcome, error);
			break;
		case APPLY_MOVED:
			worker_restart();	/* read from where they are now */
		case APPLY_STOP:
			stop_before_message(ingest, error);
		case APPLY_FULL:
			worker_restart();	/* not before somebody resumes what has paused itself */
	}
}

static void
note_events(Ingest *ingest)
{
	const KafkaEvent *event;

	while ((event = kafka_consumer_next_event(ingest->link.client)) != NULL)
		note_event(ingest, event);
}

/* often: no more than every so often. */
static bool
publish_lag(Ingest *ingest, bool often)
{
	static MonoTime next = 0;
	MonoTime	now = mono_now();

	if (often && now < next)
		return false;
	partitions_publish_lag(ingest);
	next = mono_after_ms(now, LAG_EVERY_MS);
	return true;
}

/* True if there may be more at once. */
static bool
fetch_and_take_in(Ingest *ingest)
{
	if (!ingest->assigned || (!batch_is_empty(ingest->batch) && mono_now() < ingest->retry_at))
		return false;

	/* what is tried again, is so together with what came since: that may be evidence (apply.c) */
	if (!ingest->must_revalidate)
		partitions_check_messages(ingest, batch_fetch(ingest->batch, ingest->link.client));
	if (!ingest->must_revalidate && kafka_consumer_topic_gone(ingest->link.client))
		doubt(ingest, NO_TOPIC_DELAY_MS);
	if (batch_is_empty(ingest->batch))
	{
		note_events(ingest);
		return false;
	}
	/* what is in hand is not taken in yet, and may wait for a lock */
	publish_lag(ingest, pg_atomic_read_u64(&MyJob->lag) != 0);
	take_in(ingest);
	if (!batch_is_empty(ingest->batch))
		return false;			/* to be tried again later; the events are looked at then */
	batch_release(ingest->batch);
	note_events(ingest);
	return true;
}

/* ---- nexus_consume ---- */

static bool
all_wanted_taken_in(const Ingest *ingest)
{
	for (int i = 0; i < ingest->npartitions; i++)
		if (ingest->partitions[i].in_doubt || ingest->partitions[i].wanted > Max(ingest->partitions[i].next, 0))
			return false;
	return true;
}

static void
serve_requests(Ingest *ingest)
{
	uint64		asked = pg_atomic_read_u64(&MyJob->asked);

	if (ingest->ticket == 0 && asked > pg_atomic_read_u64(&MyJob->answered))
	{
		ingest->ticket = asked;
		ingest->ends_known = false;
		ingest->asked_ends = false;
		ingest->ends_by_refresh = false;
	}
	if (ingest->ticket && ingest->ends_known && ingest->ticket_commit == InvalidXLogRecPtr &&
		all_wanted_taken_in(ingest))
		ingest->ticket_commit = Max(ingest->last_commit, 1);

	/* nobody is told of what a crash or a failover could undo */
	if (ingest->ticket_commit != InvalidXLogRecPtr && commit_is_safe(ingest->ticket_commit))
	{
		job_answer(MyJob, ingest->ticket);
		ingest->ticket = 0;
		ingest->ticket_commit = InvalidXLogRecPtr;
		if (pg_atomic_read_u64(&MyJob->asked) > pg_atomic_read_u64(&MyJob->answered))
			SetLatch(MyLatch);	/* for who came meanwhile */
	}
}

/* Of a pipeline that runs on demand, when nobody waits any more. */
static void
leave_if_idle(Ingest *ingest)
{
	if (ingest->pipeline->on_demand && ingest->ticket == 0 && batch_is_empty(ingest->batch) &&
		pg_atomic_read_u64(&MyJob->asked) <= pg_atomic_read_u64(&MyJob->answered))
		worker_restart();
}

/* ---- the loop ---- */

static long
until(MonoTime when, long timeout)
{
	long		ms = mono_ms_until(when);

	return timeout < 0 ? ms : Min(ms, timeout);
}

static long
sleep_time(Ingest *ingest, bool behind)
{
	long		timeout = -1;

	if (!batch_is_empty(ingest->batch))
		timeout = until(ingest->retry_at, timeout); /* until then nobody looks */
	else if (!kafka_requesting(ingest->link.client))
	{
		if (ingest->every_broker_at)
			timeout = until(ingest->every_broker_at, timeout);
		timeout = until(ingest->next_refresh, timeout);
		if (link_probe_timeout(&ingest->link) >= 0)
			timeout = until(ingest->link.next_probe, timeout);
	}
	if (ingest->assign_again_at && batch_is_empty(ingest->batch))
		timeout = until(ingest->assign_again_at, timeout);
	if (ingest->commit_pending || ingest->commit_offsets_now != InvalidXLogRecPtr)
		timeout = until(ingest->next_commit, timeout);
	if (ingest->ticket_commit != InvalidXLogRecPtr)
		timeout = timeout < 0 ? STANDBYS_MS : Min(timeout, STANDBYS_MS);
	if (behind)
		timeout = timeout < 0 ? NUDGE_EVERY_MS : Min(timeout, NUDGE_EVERY_MS);
	return timeout;
}

/* The offsets are noted, and told when a failover would find them here. */
static void
tend_commit(Ingest *ingest, MonoTime now)
{
	if (ingest->commit_offsets_now == InvalidXLogRecPtr && ingest->commit_pending)
	{
		partitions_note_for_commit(ingest);
		ingest->commit_pending = false;
	}
	if (ingest->commit_offsets_now == InvalidXLogRecPtr)
		return;
	if (partitions_commit_offsets(ingest, 0))
		ingest->next_commit = mono_after_ms(now, MIRROR_EVERY_MS);
	else
		ingest->next_commit = mono_after_ms(now, MIRROR_AGAIN_MS);
}

/* Lag, the mirror, the nudge: what is done now and then while messages flow. */
static bool
tend_progress(Ingest *ingest, bool busy)
{
	static MonoTime next_nudge = 0;
	MonoTime	now = mono_now();
	bool		behind;

	ingest->commit_pending = ingest->commit_pending || busy;
	if (publish_lag(ingest, busy) && !busy && partitions_at_end(ingest))
		note_nothing_fails();
	behind = pg_atomic_read_u64(&MyJob->lag) > ingest->batch->max && ingest->retry_at == 0;
	if (behind && now >= next_nudge)
	{
		kafka_consumer_nudge(ingest->link.client);
		next_nudge = mono_after_ms(now, NUDGE_EVERY_MS);
	}
	if (now >= ingest->next_commit)
		tend_commit(ingest, now);
	return behind;
}

/*
 * Runs before the link is closed. Who goes on in the group finds in it what was taken in;
 * librdkafka doesn't end while messages of it are out.
 */
static void
finish(int code, Datum arg)
{
	Ingest	   *ingest = (Ingest *) DatumGetPointer(arg);

	if (ingest->link.reachable && !ingest->must_revalidate)
	{
		partitions_note_for_commit(ingest);
		for (int waited = 0; waited < LAST_STANDBYS_MS && !commit_is_safe(ingest->commit_offsets_now); waited += STANDBYS_MS)
			pg_usleep(STANDBYS_MS * 1000L);
		(void) partitions_commit_offsets(ingest, LAST_MIRROR_MS);
	}
	batch_release(ingest->batch);
}

void
nexus_ingest_main(Datum arg)
{
	Ingest	   *ingest;
	KafkaMemory memory;
	KafkaSetting settings[4];
	int			nsettings = 0;

	worker_begin(arg, JOB_INGEST);
	worker_connect();
	messages_scan_install_hook();
	ingest = start();
	memory = kafka_consumer_memory(ingest->room_for);
	settings[nsettings++] = (KafkaSetting) {"group.id", ingest->group_id};
	settings[nsettings++] = (KafkaSetting) {"queued.max.messages.kbytes", memory.queue_kbytes};
	settings[nsettings++] = (KafkaSetting) {"fetch.message.max.bytes", memory.fetch_bytes};
	/* the embedded broker answers a fetch when its time is up, not when a message comes */
	if (link_is_embedded())
		settings[nsettings++] = (KafkaSetting) {"fetch.wait.max.ms", "20"};
	link_open(&ingest->link, ingest->pipeline->connection ? ingest->pipeline->connection : "", KAFKA_CONSUMER,
			  settings, nsettings);
	before_shmem_exit(finish, PointerGetDatum(ingest));
	ingest->next_refresh = mono_now();

	for (;;)
	{
		bool		busy;
		bool		behind;

		worker_service();
		if (link_serve(&ingest->link))
			doubt(ingest, 0);
		if (kafka_client_had_error(ingest->link.client))
			note_error(ingest);
		serve_requests(ingest);
		refresh_if_due(ingest);
		assign_again_if_due(ingest);
		busy = fetch_and_take_in(ingest);
		serve_requests(ingest);
		leave_if_idle(ingest);
		behind = tend_progress(ingest, busy);
		if (!busy)
			worker_wait(kafka_client_fd(ingest->link.client), sleep_time(ingest, behind));
	}
}
