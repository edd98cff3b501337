/*
 * stale.c
 *		May what a broker said of the topics be out of date?
 *
 * A broker that has lost touch with the others still answers, by what it knew then: without
 * the topics and partitions that came later. So where an answer lacks some that the pipeline
 * has offsets of, every broker is asked, and the answer that knows most counts
 * (KafkaRequest.every_broker). Only if all there are lack the same, more than once and for
 * some seconds, has the topic gone or been made anew. Until then the partitions that are
 * there go on.
 *
 * One that led a partition, and doesn't know that another has taken it over, has less of it
 * than was read: it refuses the next offset, or says that the partition ends before it. That
 * partition is then in doubt. It is read again every few seconds, and the leaders that the
 * brokers name are asked what they have. Only if none has the offset, by all brokers there
 * are, as often and as long, is it gone.
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
stale_note_known(Ingest *ingest, List *offsets, const KafkaResponse *answer)
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
find_lacking(const Ingest *ingest, const KafkaResponse *answer)
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
show_doubt(const KnownTopic *lacking, const KafkaResponse *answer)
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
is_certain(Certainty *certainty, const KafkaResponse *answer, bool says_so)
{
	MonoTime	now = mono_now();

	if (!says_so || answer->brokers_heard < answer->brokers)
	{
		certainty->answers = 0;
		return false;
	}
	if (certainty->answers++ == 0)
		certainty->since = now;
	return certainty->answers >= CERTAIN_ANSWERS && now >= mono_after_ms(certainty->since, CERTAIN_AFTER_MS);
}

/* The first one in doubt; NULL: none is. */
static IngestPartition *
find_in_doubt(const Ingest *ingest)
{
	for (int i = 0; i < ingest->npartitions; i++)
		if (ingest->partitions[i].in_doubt)
			return &ingest->partitions[i];
	return NULL;
}

StaleVerdict
stale_judge(Ingest *ingest, const KafkaResponse *answer)
{
	const KnownTopic *lacking = find_lacking(ingest, answer);

	if (answer->brokers > 0 || (lacking == NULL && find_in_doubt(ingest) == NULL))
		ingest->every_broker_at = 0;
	if (lacking == NULL)
	{
		ingest->lacking.answers = 0;
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
	if (is_certain(&ingest->lacking, answer, true))
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
stale_stop_if_made_anew(Ingest *ingest, const KafkaResponse *answer)
{
	const KnownTopic *lacking = find_lacking(ingest, answer);
	const KafkaTopic *topic = lacking ? topics_find(answer, lacking->name) : NULL;

	if (topic)
		ingest_stop(ingest, "topic \"%s\" was made anew: it had a partition %d and now has %d partitions; nexus_seek() says where to go on",
					lacking->name, lacking->npartitions - 1, topic->npartitions);
}

/* ---- a partition that has less than was read of it ---- */

static void
show_partition_in_doubt(const Ingest *ingest, const char *heard)
{
	const IngestPartition *p = find_in_doubt(ingest);

	if (p)
		job_condition_set(MyJob, CONDITION_STALE_LEADER,
						  "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not on the broker that leads it%s: it may be out of date",
						  p->next, p->partition, p->topic, heard);
	else
		job_condition_clear(MyJob, CONDITION_STALE_LEADER);
}

/*
 * By what its leader says: that it ends there, or hasn't the next offset (KAFKA_OFFSET_UNKNOWN).
 * Reading begins with the last message taken in, for if the topic was made anew, it may be
 * filled beyond the offset meanwhile.
 */
void
stale_doubt_partition(Ingest *ingest, IngestPartition *p, int64 end)
{
	MonoTime	again = mono_in_ms(AGAIN_MS);

	p->doubted_end = end;
	p->verifying = p->last_offset >= 0 && p->last_offset < p->next;
	if (!p->in_doubt)
	{
		p->in_doubt = true;
		p->gone.answers = 0;
		show_partition_in_doubt(ingest, "");
		want_every_broker(ingest, 0);
	}
	ingest->assign_again_at = ingest->assign_again_at ? Min(ingest->assign_again_at, again) : again;
	ingest->next_refresh = Min(ingest->next_refresh, again);	/* tells librdkafka who leads it */
}

/* What comes of it is at or after the next offset. */
void
stale_clear_partition(const Ingest *ingest, IngestPartition *p)
{
	if (!p->in_doubt)
		return;
	p->in_doubt = false;
	show_partition_in_doubt(ingest, "");
}

/* Has none of the leaders that were asked the next offset? */
static bool
is_gone_by(const IngestPartition *p, const KafkaResponse *answer)
{
	for (size_t i = 0; i < answer->nranges; i++)
	{
		const KafkaRange *range = &answer->ranges[i];

		if (range->partition == p->partition && strcmp(range->topic, p->topic) == 0)
			return range->first >= 0 && (p->next < range->first || p->next > range->end);
	}
	return false;
}

static void
stop_as_gone(Ingest *ingest, const IngestPartition *p)
{
	if (p->doubted_end != KAFKA_OFFSET_UNKNOWN)
		ingest_stop(ingest, "topic \"%s\" was made anew: partition %d ends at offset " INT64_FORMAT ", before the next one to read, " INT64_FORMAT "; nexus_seek() says where to go on",
					p->topic, p->partition, p->doubted_end, p->next);
	ingest_stop(ingest, "offset " INT64_FORMAT " of partition %d of topic \"%s\" is not on the broker any more: nexus_seek() says where to go on",
				p->next, p->partition, p->topic);
}

void
stale_judge_partitions(Ingest *ingest, const KafkaResponse *answer)
{
	if (answer->brokers == 0 || find_in_doubt(ingest) == NULL)
		return;
	for (int i = 0; i < ingest->npartitions; i++)
	{
		IngestPartition *p = &ingest->partitions[i];

		if (p->in_doubt && is_certain(&p->gone, answer, is_gone_by(p, answer)))
			stop_as_gone(ingest, p);
	}
	show_partition_in_doubt(ingest, psprintf(" (%d of %d brokers answer)", answer->brokers_heard, answer->brokers));
	want_every_broker(ingest, AGAIN_MS);
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

static void
fill_partitions_in_doubt(const Ingest *ingest, KafkaRequest *request)
{
	KafkaPosition *positions = palloc(Max(ingest->npartitions, 1) * sizeof(KafkaPosition));

	for (int i = 0; i < ingest->npartitions; i++)
		if (ingest->partitions[i].in_doubt)
			positions[request->npositions++] =
				(KafkaPosition) {ingest->partitions[i].topic, ingest->partitions[i].partition, KAFKA_OFFSET_END};
	request->positions = positions;
}

/* False: it could not be asked. */
bool
stale_ask(Ingest *ingest)
{
	KafkaRequest request = {.every_broker = true, .timeout_ms = ASK_TIMEOUT_MS};

	ingest->every_broker_at = 0;
	topics_fill_question(ingest->pipeline, &request);
	fill_partitions_in_doubt(ingest, &request);
	if (kafka_request_at_once(ingest->link.client, &request))
		return true;
	stale_unanswered(ingest);
	return false;
}

void
stale_unanswered(Ingest *ingest)
{
	want_every_broker(ingest, AGAIN_MS);
}
