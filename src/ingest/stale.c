/*
 * stale.c
 *		May what a broker said of the topics be out of date?
 *
 * A broker that has lost touch with the others still answers, by what it knew then: without
 * the topics and partitions that came later. So where an answer lacks some that the pipeline
 * has offsets of, every broker is asked, and the answer that knows most counts
 * (KafkaQuestion.every_broker). Only if all there are lack the same, more than once and for
 * some seconds, has the topic gone or been made anew. Until then the partitions that are
 * there go on.
 */
#include "nexus_kafka.h"

#include "ingest/ingest.h"

#define CERTAIN_ANSWERS		3
#define CERTAIN_AFTER_MS	5000
#define AGAIN_MS			2000	/* until every broker is asked again */
#define MISSING_AGAIN_MS	20000	/* likewise, about a topic that is waited for */
#define ASK_TIMEOUT_MS		3000

/* ---- what is known ---- */

/*
 * Of the pipeline's topics that are there, how many partitions each has offsets of. One that
 * isn't there at the start may have gone long ago.
 */
void
stale_note_known(Ingest *ingest, List *offsets, const KafkaAnswer *answer)
{
	MemoryContext before;
	ListCell   *lc;

	MemoryContextReset(ingest->known_context);
	before = MemoryContextSwitchTo(ingest->known_context);
	ingest->known = palloc0(Max(list_length(offsets), 1) * sizeof(KnownTopic));
	ingest->nknown = 0;
	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);
		KnownTopic *known = ingest->nknown > 0 ? &ingest->known[ingest->nknown - 1] : NULL;

		if (!topics_include(ingest->pipeline, offset->topic) || !topics_find(answer, offset->topic))
			continue;
		if (known == NULL || strcmp(known->name, offset->topic) != 0)
		{
			known = &ingest->known[ingest->nknown++];
			known->name = pstrdup(offset->topic);
		}
		known->npartitions = Max(known->npartitions, offset->partition + 1);
	}
	MemoryContextSwitchTo(before);
}

/* The first topic of which the answer knows less; NULL: none. */
static const KnownTopic *
find_lacking(const Ingest *ingest, const KafkaAnswer *answer)
{
	for (int i = 0; i < ingest->nknown; i++)
	{
		const KafkaTopic *topic = topics_find(answer, ingest->known[i].name);

		if (topic == NULL || topic->npartitions < ingest->known[i].npartitions)
			return &ingest->known[i];
	}
	return NULL;
}

/* ---- is it so? ---- */

static void
want_every_broker(Ingest *ingest, int delay_ms)
{
	MonoTime	at = mono_in_ms(delay_ms);

	ingest->every_broker_at = ingest->every_broker_at ? Min(ingest->every_broker_at, at) : at;
}

static void
show_doubt(const KnownTopic *lacking, const KafkaAnswer *answer)
{
	const KafkaTopic *topic = topics_find(answer, lacking->name);

	if (topic)
		job_condition_set(MyJob, CONDITION_STALE_BROKER,
						  "topic \"%s\" had a partition %d and has %d partitions by the brokers that answer (%d of %d): they may be out of date",
						  lacking->name, lacking->npartitions - 1, topic->npartitions, answer->brokers_heard, answer->brokers);
	else
		job_condition_set(MyJob, CONDITION_STALE_BROKER,
						  "topic \"%s\" is not known to the brokers that answer (%d of %d): they may be out of date",
						  lacking->name, answer->brokers_heard, answer->brokers);
}

/* Have all brokers there are said so often and long enough? */
static bool
is_certain(Ingest *ingest, const KafkaAnswer *answer)
{
	MonoTime	now = mono_now();

	if (answer->brokers_heard < answer->brokers)
	{
		ingest->lacking_answers = 0;
		return false;
	}
	if (ingest->lacking_answers++ == 0)
		ingest->lacking_since = now;
	return ingest->lacking_answers >= CERTAIN_ANSWERS && now >= mono_after_ms(ingest->lacking_since, CERTAIN_AFTER_MS);
}

StaleVerdict
stale_judge(Ingest *ingest, const KafkaAnswer *answer)
{
	const KnownTopic *lacking = find_lacking(ingest, answer);

	if (answer->brokers > 0 || lacking == NULL)
		ingest->every_broker_at = 0;
	if (lacking == NULL)
	{
		ingest->lacking_answers = 0;
		job_condition_clear(MyJob, CONDITION_STALE_BROKER);
		return STALE_NOTHING_LACKS;
	}
	/* the embedded broker is alone, and forgets everything at each start */
	if (link_is_embedded())
		return STALE_LACKS;
	if (answer->brokers == 0)	/* it is one broker's word */
	{
		want_every_broker(ingest, job_condition_is_set(MyJob, CONDITION_STALE_BROKER) ? AGAIN_MS : 0);
		return STALE_UNKNOWN;
	}
	if (is_certain(ingest, answer))
	{
		job_condition_clear(MyJob, CONDITION_STALE_BROKER);
		return STALE_LACKS;
	}
	show_doubt(lacking, answer);
	want_every_broker(ingest, AGAIN_MS);
	return STALE_MAY_BE;
}

/* A topic that is there with fewer partitions is another one. */
void
stale_stop_if_made_anew(Ingest *ingest, const KafkaAnswer *answer)
{
	const KnownTopic *lacking = find_lacking(ingest, answer);
	const KafkaTopic *topic = lacking ? topics_find(answer, lacking->name) : NULL;

	if (topic)
		ingest_stop(ingest, "topic \"%s\" was made anew: it had a partition %d and now has %d partitions; nexus_seek() says where to go on",
					lacking->name, lacking->npartitions - 1, topic->npartitions);
}

/* ---- asking every broker ---- */

/* A topic that is waited for may be there, and the broker that was asked not know of it. */
void
stale_note_missing(Ingest *ingest)
{
	static MonoTime next = 0;

	if (link_is_embedded() || mono_now() < next)
		return;
	next = mono_in_ms(MISSING_AGAIN_MS);
	want_every_broker(ingest, 0);
}

bool
stale_must_ask(const Ingest *ingest)
{
	return ingest->every_broker_at != 0 && mono_now() >= ingest->every_broker_at;
}

/* False: it could not be asked. */
bool
stale_ask(Ingest *ingest)
{
	KafkaQuestion question = {.every_broker = true, .timeout_ms = ASK_TIMEOUT_MS};

	ingest->every_broker_at = 0;
	topics_fill_question(ingest->pipeline, &question);
	if (kafka_ask_at_once(ingest->link.client, &question))
		return true;
	stale_unanswered(ingest);
	return false;
}

void
stale_unanswered(Ingest *ingest)
{
	want_every_broker(ingest, AGAIN_MS);
}
