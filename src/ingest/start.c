/*
 * start.c
 *		Where a pipeline begins: what its option start says, carried out once.
 *
 * Partitions that are there at the first look begin by it, those that come later at
 * their beginning, or messages would be lost. What needs the broker to say (a time,
 * a consumer group's offsets) is asked for with the next request; an offset by
 * time stands in nexus_offsets as such until it is answered, so a pipeline that is
 * stopped meanwhile forgets nothing.
 *
 * The offsets of a group are taken over when it has no members any more: the old
 * consumer has then committed what it did, and does nothing more.
 */
#include "nexus_kafka.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "ingest/ingest.h"

typedef struct Beginning
{
	Ingest	   *ingest;
	List	   *offsets;
} Beginning;

static void
add_partitions(void *arg)
{
	Beginning  *beginning = arg;
	Pipeline   *pipeline = beginning->ingest->pipeline;
	ListCell   *lc;

	foreach(lc, beginning->offsets)
	{
		PartitionOffset *offset = lfirst(lc);

		if (!pipeline->started && start_group(pipeline->start) == NULL)
		{
			Position	p = start_position(pipeline->start, offset->topic, offset->partition, pipeline->created_at);

			offset->offset = p.offset;
			offset->start_time = p.time;
		}
		catalog_offset_add(pipeline->name, offset);
	}
	if (!pipeline->started)
		catalog_pipeline_started(pipeline->name);
}

static void
carry_out(Ingest *ingest, List *offsets)
{
	Beginning	beginning = {ingest, offsets};

	ingest_run_or_leave(add_partitions, &beginning, ingest->batch->context);
	ingest->pipeline->started = true;
}

/* A request that waits to be asked, possibly for days: its lists have a memory of their own. */
static void
must_ask(Ingest *ingest, List *offsets, const char *group)
{
	MemoryContext before;
	ListCell   *lc;

	MemoryContextReset(ingest->question_context);
	before = MemoryContextSwitchTo(ingest->question_context);
	ingest->questions = palloc(Max(list_length(offsets), 1) * sizeof(KafkaPosition));
	ingest->nquestions = 0;
	foreach(lc, offsets)
	{
		const PartitionOffset *offset = lfirst(lc);

		ingest->questions[ingest->nquestions++] =
			(KafkaPosition) {pstrdup(offset->topic), offset->partition, message_unix_ms(offset->start_time)};
	}
	ingest->question_group = group;
	MemoryContextSwitchTo(before);
}

/*
 * A topic that comes later begins at its beginning: that is what earliest and latest say,
 * but not what a time, a group or given offsets say.
 */
bool
start_without_all_topics(const Pipeline *pipeline)
{
	return pipeline->started || strcmp(pipeline->start, "earliest") == 0 || strcmp(pipeline->start, "latest") == 0;
}

bool
start_partitions(Ingest *ingest, List *fresh, const char *cluster_id)
{
	const Pipeline *pipeline = ingest->pipeline;
	ListCell   *lc;

	foreach(lc, fresh)
		((PartitionOffset *) lfirst(lc))->cluster_id = cluster_id[0] ? pstrdup(cluster_id) : NULL;
	if (!pipeline->started && start_group(pipeline->start) && fresh != NIL)
	{
		must_ask(ingest, fresh, start_group(pipeline->start));
		return false;
	}
	carry_out(ingest, fresh);
	return true;
}

bool
start_must_ask(Ingest *ingest, List *mine)
{
	List	   *by_time = NIL;
	ListCell   *lc;

	/* the embedded broker doesn't know times: what is too early is left out (partitions.c) */
	if (link_is_embedded())
		return false;
	foreach(lc, mine)
		if (((PartitionOffset *) lfirst(lc))->offset == OFFSET_BY_TIME)
			by_time = lappend(by_time, lfirst(lc));
	if (by_time == NIL)
		return false;
	must_ask(ingest, by_time, NULL);
	return true;
}

/* ---- the answers ---- */

static void
move_from_times(void *arg)
{
	Beginning  *beginning = arg;
	ListCell   *lc;

	foreach(lc, beginning->offsets)
	{
		const PartitionOffset *offset = lfirst(lc);
		OffsetMove	move = {offset->topic, offset->partition, OFFSET_BY_TIME, offset->offset, -1};

		/* nexus_seek may have been there meanwhile: the next look sees it */
		(void) catalog_offsets_move(beginning->ingest->pipeline->name, &move, 1);
	}
}

static List *
answered_offsets(const KafkaResponse *answer, int64 if_unknown, int *unknown)
{
	List	   *offsets = NIL;

	*unknown = 0;
	for (size_t i = 0; i < answer->npositions; i++)
	{
		PartitionOffset *offset = palloc0(sizeof(PartitionOffset));

		offset->topic = pstrdup(answer->positions[i].topic);
		offset->partition = answer->positions[i].partition;
		offset->offset = answer->positions[i].offset;
		if (answer->cluster_id[0] && !link_is_embedded())
			offset->cluster_id = pstrdup(answer->cluster_id);
		if (offset->offset < 0)
		{
			offset->offset = if_unknown;
			(*unknown)++;
		}
		offsets = lappend(offsets, offset);
	}
	return offsets;
}

/* False: the old consumer is still there, or another look is needed for another reason. */
bool
start_take_answer(Ingest *ingest, const KafkaResponse *answer)
{
	const char *group = ingest->question_group;
	int			unknown;
	List	   *offsets;
	Beginning	beginning;

	if (ingest->nquestions == 0 || answer->npositions != ingest->nquestions)
		return true;
	ingest->nquestions = 0;
	if (group == NULL)
	{
		beginning = (Beginning) {ingest, answered_offsets(answer, OFFSET_EARLIEST, &unknown)};
		ingest_run_or_leave(move_from_times, &beginning, ingest->batch->context);
		return true;
	}
	if (answer->group_members != 0)
	{
		job_condition_set(MyJob, CONDITION_GROUP_IN_USE,
						  "consumer group \"%s\" has %smembers still: end them, and reading goes on from their offsets",
						  group, answer->group_members > 0 ? psprintf("%d ", answer->group_members) : "");
		return false;
	}
	job_condition_clear(MyJob, CONDITION_GROUP_IN_USE);
	offsets = answered_offsets(answer, OFFSET_EARLIEST, &unknown);
	if (unknown == list_length(offsets))
		ingest_stop(ingest, "consumer group \"%s\" has committed no offset for \"%s\": nexus_alter_pipeline() with another start says where to begin",
					group, ingest->pipeline->topic);
	carry_out(ingest, offsets);
	return true;
}
