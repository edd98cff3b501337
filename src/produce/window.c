/*
 * window.c
 *		What may be in flight, by topic and partition; and what is left in the table till then.
 *
 * A lane is a partition, or all of a topic while its partitions aren't known. Each admits
 * rows by itself, so that what holds up one holds up no other:
 *	- Before anything of it was acknowledged, few are in flight: it may have no leader, or
 *	  not be there at all. For a moment its next row waits for that, and all after it.
 *	- Where nothing comes back for a second, it is stalled, and takes no more. What it
 *	  has in flight doesn't count for what all may have.
 *	- A topic that is missing gets one row to find out, after 1 s to 30 s, or at once when
 *	  the broker tells of it.
 *	- While the culprit of a refused batch is looked for, it takes rows in groups, each when
 *	  the one before is done. A refused group halves the next, until the culprit stands
 *	  alone; after some that passed they are twice as large, until rows flow as ever.
 *
 * Anybody can name topics that don't exist. So few lanes are for such that the broker doesn't
 * list; of the others, and of all where too many wait, one range of ids is known. It is passed
 * through now and then, and when the list has new ones. A topic that gets a lane after that
 * begins with all of that range, so that its earlier rows are read first.
 *
 * What isn't admitted is left in the table. Of it a lane knows the first and the last id,
 * and reads it again, in order, before anything newer. So a message overtakes none of its
 * partition that has to be sent again, unless both were in flight, and memory doesn't grow
 * with what waits. The range may have rows of others in it, or such that are in flight: all
 * of those are known.
 *
 * Which partition a row with a key goes to is reckoned as librdkafka does. One without a key
 * is given a partition that moves.
 */
#include "nexus_kafka.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "produce/produce.h"

#define MOST_ROUTES			5000
#define MOST_UNLISTED		1000	/* of them, for topics that the broker doesn't list: anybody can name some more */
#define PASS_MS				10000	/* between looks at rows without a route, then twice as long */
#define LONGEST_PASS_MS		60000
#define FIRST_WINDOW		100		/* rows of a lane before any was acknowledged */
#define FIRST_ANSWER_MS		250		/* for it new rows wait, rather than be read twice */
#define STALL_MS			1000
#define STALLED_BYTES		(1024 * 1024)	/* of calls that a stalled lane still takes */
#define MISSING_MS			1000	/* the first time, then twice as long */
#define LONGEST_MISSING_MS	30000	/* for each hundred topics that are unlisted */
#define NO_PARTITION_MS		100
#define PASSES_TO_DOUBLE	8		/* a size that is too large is not to be tried every other time */
#define KEYLESS_RUN			100		/* messages without a key that go to one partition, before the next */

static MemoryContext window_context;
static HTAB *routes;
static dlist_head busy;			/* lanes with something in flight or left */
static bool crowded;			/* so much is stalled that a lane of which nothing is known gets one row */

static const IdRange no_ids = {PG_INT64_MAX, PG_INT64_MIN};

static void lane_init(Lane *lane, Route *route);
static void collect_left(Route *route);

void
window_init(Window *window)
{
	HASHCTL		info = {.keysize = sizeof(((Route *) 0)->topic), .entrysize = sizeof(Route)};

	window_context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka window", ALLOCSET_DEFAULT_SIZES);
	info.hcxt = window_context;
	routes = hash_create("nexus_kafka routes", 64, &info, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	in_flight_init(window_context);
	dlist_init(&busy);
	lane_init(&window->others, &window->no_route);
	window->waiting = window->pass = no_ids;
}

/* ---- lanes ---- */

static void
lane_init(Lane *lane, Route *route)
{
	memset(lane, 0, sizeof(*lane));
	lane->route = route;
	lane->most = FIRST_WINDOW;
	lane->group = MOST_IN_FLIGHT;
	lane->first_left = PG_INT64_MAX;
	lane->last_left = PG_INT64_MIN;
}

static bool
has_left(const Lane *lane)
{
	return lane->first_left <= lane->last_left;
}

static void
note_busy(Lane *lane)
{
	if (lane->is_busy)
		return;
	lane->is_busy = true;
	dlist_push_tail(&busy, &lane->node);
}

static bool
is_idle(const Lane *lane)
{
	return lane->in_flight == 0 && !has_left(lane);
}

static bool
looks_for_culprit(const Lane *lane)
{
	return lane->group < MOST_IN_FLIGHT;
}

/* ---- topics that have no route ---- */

static bool
is_empty(const IdRange *range)
{
	return range->first > range->last;
}

static void
wait_for_route(Window *window, int64 first, int64 last)
{
	if (first > last)
		return;
	if (is_empty(&window->waiting) && is_empty(&window->pass))
	{
		window->waiting_ms = PASS_MS;
		window->waiting_due = mono_in_ms(PASS_MS);
	}
	window->waiting.first = Min(window->waiting.first, first);
	window->waiting.last = Max(window->waiting.last, last);
}

bool
window_begin_pass(Window *window)
{
	if (!is_empty(&window->pass))
		return true;
	if (is_empty(&window->waiting) || mono_now() < window->waiting_due)
		return false;
	window->pass = window->waiting;
	window->waiting = no_ids;
	window->waiting_due = mono_in_ms(window->waiting_ms);	/* or sooner, if the list has new ones meanwhile */
	window->waiting_ms = Min(window->waiting_ms * 2, LONGEST_PASS_MS);
	return true;
}

void
window_passed(Window *window, int64 id)
{
	if (id < window->pass.last)
		window->pass.first = id + 1;
	else
		window->pass = no_ids;
}

MonoTime
window_next_pass(const Window *window, MonoTime now)
{
	if (!is_empty(&window->pass))
		return now;
	return is_empty(&window->waiting) ? 0 : Max(window->waiting_due, 1);
}

static void
pass_soon(Window *window)
{
	window->waiting_due = 0;
	window->waiting_ms = PASS_MS;
}

/* ---- routes ---- */

static uint64
hash_of_topic(const char *topic)
{
	return hash_bytes_extended((const unsigned char *) topic, strlen(topic), 0);
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

static bool
is_listed(const Window *window, uint64 hash)
{
	return window->nlisted > 0 &&
		bsearch(&hash, window->listed, window->nlisted, sizeof(uint64), compare_hashes) != NULL;
}

static void
set_unlisted(Window *window, Route *route, bool unlisted)
{
	window->unlisted += (int) unlisted - (int) route->unlisted;
	route->unlisted = unlisted;
}

static bool
lane_may_go(const Lane *lane, bool with_left)
{
	return lane->in_flight == 0 && (with_left || !(lane->is_busy || has_left(lane)));
}

static bool
route_may_go(const Route *route, bool with_left)
{
	if (!lane_may_go(&route->any, with_left))
		return false;
	for (int i = 0; i < route->maxpartitions; i++)
		if (!lane_may_go(route->partitions[i], with_left))
			return false;
	return true;
}

static void
no_longer_busy(Lane *lane)
{
	if (lane->is_busy)
		dlist_delete(&lane->node);
	lane->is_busy = false;
}

/* What is left of it waits with that of other topics without a route. */
static void
forget_route(Window *window, Route *route)
{
	collect_left(route);
	wait_for_route(window, route->any.first_left, route->any.last_left);
	set_unlisted(window, route, false);
	no_longer_busy(&route->any);
	for (int i = 0; i < route->maxpartitions; i++)
	{
		no_longer_busy(route->partitions[i]);
		pfree(route->partitions[i]);
	}
	if (route->partitions)
		pfree(route->partitions);
	if (window->last_route == route)
		window->last_route = NULL;
	(void) hash_search(routes, route->topic, HASH_REMOVE, NULL);
}

/* The idle ones, and where all routes are taken, those of missing topics too. */
static void
forget_routes(Window *window, bool all_taken)
{
	HASH_SEQ_STATUS seq;
	Route	   *route;

	hash_seq_init(&seq, routes);
	while ((route = hash_seq_search(&seq)) != NULL)
		if ((all_taken || route->unlisted) && route_may_go(route, all_taken && route->missing))
			forget_route(window, route);
}

/* A call waits for nothing else, so its route is idle soon. */
static bool
has_room_for(Window *window, bool listed, bool call)
{
	for (;;)
	{
		bool		all_taken = hash_get_num_entries(routes) >= MOST_ROUTES;

		if (!all_taken && (listed || call || window->unlisted < MOST_UNLISTED))
			return true;
		if (mono_now() < window->next_forget)
			return false;
		forget_routes(window, all_taken);
		window->next_forget = mono_in_ms(STALL_MS);
	}
}

/* Rows of its topic may be among those that wait for a route: they are read first. */
static Route *
make_route(Window *window, const char *topic, bool listed)
{
	Route	   *route = hash_search(routes, topic, HASH_ENTER, NULL);

	memset((char *) route + sizeof(route->topic), 0, sizeof(Route) - sizeof(route->topic));
	lane_init(&route->any, route);
	set_unlisted(window, route, !listed);
	window_end_left(&route->any, Min(window->waiting.first, window->pass.first),
					Max(window->waiting.last, window->pass.last));
	if (has_left(&route->any))
		window->waiting_ms = PASS_MS;
	return route;
}

/* NULL: there are too many already, all with something that waits. */
static Route *
route_of(Window *window, const char *topic, bool call)
{
	Route	   *route = window->last_route;
	bool		listed;

	if (route && strcmp(route->topic, topic) == 0)
		return route;
	route = hash_search(routes, topic, HASH_FIND, NULL);
	if (route == NULL)
	{
		listed = is_listed(window, hash_of_topic(topic));
		if (has_room_for(window, listed, call))
			route = make_route(window, topic, listed);
	}
	window->last_route = route;
	return route;
}

static Lane *
next_open_lane(Route *route)
{
	for (int i = 0; i < route->npartitions; i++)
	{
		Lane	   *lane = route->partitions[route->keyless];

		if (!lane->stalled && !has_left(lane) && route->nkeyless++ < KEYLESS_RUN)
			return lane;
		route->nkeyless = 0;
		route->keyless = (route->keyless + 1) % route->npartitions;
	}
	return route->partitions[route->keyless];
}

/* *partition: which it is to be given, -1: librdkafka's choice. left: the lane that is being read, NULL: none. */
static Lane *
lane_of(Route *route, int32 wanted, const struct varlena *key, Lane *left, int32 *partition)
{
	Lane	   *lane = left;

	*partition = wanted;
	if (route->npartitions == 0 || wanted >= route->npartitions)
		return &route->any;
	if (wanted >= 0)
		return route->partitions[wanted];
	if (key)
		return route->partitions[kafka_partition_of_key(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), route->npartitions)];
	if (left == NULL || left == &route->any)
		lane = next_open_lane(route);
	*partition = lane->partition;
	return lane;
}

/* All that is left of the topic, whatever partition it was for. */
static void
collect_left(Route *route)
{
	for (int i = 0; i < route->maxpartitions; i++)
	{
		int64		last;
		int64		first = window_begin_left(route->partitions[i], &last);

		window_end_left(&route->any, first, last);
		route->any.due = Max(route->any.due, route->partitions[i]->due);
	}
}

static void
set_partitions(Route *route, int n)
{
	MemoryContext before = MemoryContextSwitchTo(window_context);

	collect_left(route);

	if (n > route->maxpartitions)
	{
		route->partitions = route->partitions
			? repalloc(route->partitions, n * sizeof(Lane *)) : palloc(n * sizeof(Lane *));
		for (int i = route->maxpartitions; i < n; i++)
		{
			route->partitions[i] = palloc(sizeof(Lane));
			lane_init(route->partitions[i], route);
			route->partitions[i]->partition = i;
		}
		route->maxpartitions = n;
	}
	route->npartitions = n;
	route->keyless = 0;
	MemoryContextSwitchTo(before);
}

/* ---- what is left in the table ---- */

static void
leave(Lane *lane, int64 id)
{
	if (lane != &lane->route->any && has_left(&lane->route->any))
		lane = &lane->route->any;	/* in which there may be others of the lane, before it */
	lane->first_left = Min(lane->first_left, id);
	lane->last_left = Max(lane->last_left, id);
	note_busy(lane);
}

static void
leave_till(Lane *lane, int64 id, MonoTime due)
{
	leave(lane, id);
	if (has_left(&lane->route->any))
		lane = &lane->route->any;
	lane->due = Max(lane->due, due);
}

static int
most_of(const Lane *lane)
{
	return crowded && lane->most == FIRST_WINDOW ? 1 : lane->most;
}

static bool
admits(const Lane *lane)
{
	return !lane->stalled && lane->in_flight < most_of(lane) &&
		(!looks_for_culprit(lane) || (lane->handed_over < lane->group && !lane->group_closed));
}

static bool
may_read_left(const Lane *lane, MonoTime now)
{
	if (!has_left(lane) || now < lane->due)
		return false;
	if (lane == &lane->route->any)
		return lane->route->npartitions > 0 || admits(lane);
	return admits(lane) && !has_left(&lane->route->any);
}

Lane *
window_next_left(MonoTime now, const Lane *after)
{
	dlist_iter	iter;
	bool		passed = after == NULL;

	dlist_foreach(iter, &busy)
	{
		Lane	   *lane = dlist_container(Lane, node, iter.cur);

		if (passed && may_read_left(lane, now))
			return lane;
		passed = passed || lane == after;
	}
	return NULL;
}

/* The next time those after it come first. */
void
window_begin_after(Lane *lane)
{
	dlist_node *node;

	do
	{
		node = dlist_pop_head_node(&busy);
		dlist_push_tail(&busy, node);
	} while (node != &lane->node);
}

MonoTime
window_next_due(MonoTime now)
{
	MonoTime	next = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &busy)
	{
		const Lane *lane = dlist_container(Lane, node, iter.cur);

		if (has_left(lane) && lane->due > now && (next == 0 || lane->due < next))
			next = lane->due;
	}
	return next;
}

int64
window_begin_left(Lane *lane, int64 *last)
{
	int64		first = lane->first_left;

	*last = lane->last_left;
	lane->first_left = PG_INT64_MAX;
	lane->last_left = PG_INT64_MIN;
	return first;
}

/* The range from there on is still to be read. */
void
window_end_left(Lane *lane, int64 first, int64 last)
{
	if (first > last)
		return;
	lane->first_left = Min(lane->first_left, first);
	lane->last_left = Max(lane->last_left, last);
	note_busy(lane);
}

/* Nothing of it could be admitted. */
void
window_delay_left(Lane *lane, int delay_ms)
{
	if (has_left(lane))
		lane->due = Max(lane->due, mono_in_ms(delay_ms));
}

bool
window_holds_back(const Window *window, int64 limit)
{
	dlist_iter	iter;

	if (window->waiting.first <= limit || window->pass.first <= limit)
		return true;
	dlist_foreach(iter, &busy)
	{
		const Lane *lane = dlist_container(Lane, node, iter.cur);

		if (has_left(lane) && lane->first_left <= limit)
			return true;
	}
	return false;
}

/* For nexus_flush: what waits for its time is tried now, but for topics that are missing. */
void
window_look_at_all(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &busy)
	{
		Lane	   *lane = dlist_container(Lane, node, iter.cur);

		if (!lane->route->missing)
			lane->due = 0;
	}
}

/* ---- admitting a row ---- */

/* Its first rows went out just now. */
static bool
will_admit_soon(const Lane *lane)
{
	return !lane->stalled && !lane->route->unlisted && !looks_for_culprit(lane) &&
		lane->in_flight > 0 && lane->in_flight >= most_of(lane) &&
		mono_now() < mono_after_ms(lane->progress, FIRST_ANSWER_MS);
}

/* Which lane the row goes by, and if it may now; left is the one that is being read, NULL: none. */
WindowVerdict
window_judge(Window *window, const OutboxRow *row, const struct varlena *key, Lane *left, Lane **lane,
			 int32 *partition)
{
	Route	   *route = route_of(window, row->topic, false);

	if (route == NULL)
	{
		if (row->id > Max(window->waiting.last, window->pass.last))
			window->wants_partitions = true;	/* the topic may be newer than the list */
		wait_for_route(window, row->id, row->id);
		return WINDOW_NO_ROUTE;
	}
	*lane = lane_of(route, row->partition, key, left, partition);
	if (left && *lane != left && left != &route->any)
		return WINDOW_OTHERS;
	if (!admits(*lane) || has_left(*lane) || (has_left(&route->any) && left != &route->any))
	{
		if (*lane != left && !has_left(*lane) && !has_left(&route->any) && will_admit_soon(*lane))
			return WINDOW_WAIT;
		leave(*lane, row->id);
		return *lane == left && (left != &route->any || route->npartitions == 0) ? WINDOW_FULL : WINDOW_LEFT;
	}
	return WINDOW_ADMITTED;
}

static void
count_in(Lane *lane, Size size)
{
	if (lane->in_flight++ == 0)
	{
		lane->progress = mono_now();
		lane->handed_over = 0;
		lane->group_closed = false;
		lane->group_refused = false;
	}
	lane->handed_over++;
	lane->bytes += size;
	note_busy(lane);
}

Sent *
window_admit(Window *window, Lane *lane, OutboxKey key, Size size, bool by_key)
{
	Sent	   *sent = in_flight_add(key);

	sent->lane = lane;
	sent->npartitions = lane->route->npartitions;
	sent->size = size;
	sent->by_key = by_key;
	count_in(lane, size);
	window->bytes += size;
	return sent;
}

/* A call of nexus_produce_now; NULL: it has to wait. */
Sent *
window_admit_call(Window *window, const Record *record, int64 ticket, int32 *partition)
{
	Route	   *route = route_of(window, record->topic, true);
	Lane	   *lane = route ? lane_of(route, record->partition, record->key, NULL, partition) : &window->others;
	Sent	   *sent;

	if (route == NULL)
		*partition = record->partition;
	if (lane->stalled && (lane->bytes >= STALLED_BYTES || lane->in_flight >= (crowded ? 1 : FIRST_WINDOW)))
		return NULL;			/* of callers who gave up, too, all stays in librdkafka's queue */
	if (looks_for_culprit(lane) && !lane->stalled &&
		(lane->in_flight > 0 || (lane->call_went_last && has_left(lane))))
		return NULL;
	sent = in_flight_add_call(ticket);
	sent->lane = lane;
	sent->npartitions = lane->route->npartitions;
	sent->size = record->size;
	sent->by_key = record->partition < 0;
	count_in(lane, record->size);
	lane->group_closed = looks_for_culprit(lane);
	lane->call_went_last = true;
	window->bytes += record->size;
	return sent;
}

/* Was nothing else of the lane in flight with it? */
bool
window_was_alone(const Sent *sent)
{
	return sent->lane->handed_over == 1;
}

static void
count_out(Window *window, Sent *sent)
{
	Lane	   *lane = sent->lane;

	lane->in_flight--;
	lane->bytes -= sent->size;
	window->bytes -= sent->size;
}

/* It can't be sent as it is, or not yet, or is settled: it is no longer in flight. */
void
window_out(Window *window, Sent *sent)
{
	count_out(window, sent);
	sent->is_out = true;
}

/* ---- what came back ---- */

void
window_note_answer(Sent *sent, MonoTime now)
{
	sent->lane->progress = now;
	sent->lane->stalled = false;
}

/* By which it goes now: its topic may have had other partitions when it was sent. */
static Lane *
lane_back(const Sent *sent)
{
	Route	   *route = sent->lane->route;

	return sent->npartitions == route->npartitions ? sent->lane : &route->any;
}

void
window_note_delivered(Window *window, Sent *sent)
{
	Lane	   *lane = sent->lane;
	Route	   *route = lane->route;

	lane->most = MOST_IN_FLIGHT * 2;
	lane->again = false;
	lane->due = 0;
	set_unlisted(window, route, false);
	route->missing = false;
	route->delay_ms = 0;
	if (!route->seen)
	{
		route->seen = true;
		window->wants_partitions = true;
	}
}

void
window_note_missing(Window *window, Sent *sent)
{
	Route	   *route = sent->lane->route;
	Lane	   *any = &route->any;
	MonoTime	now = mono_now();
	int			longest = LONGEST_MISSING_MS * (1 + window->unlisted / 100);

	collect_left(route);
	route->npartitions = 0;
	route->seen = false;
	if (sent->key.id < 0)
		return;
	set_unlisted(window, route, true);
	if (!route->missing || now >= any->due)
	{
		route->delay_ms = route->delay_ms ? Min(route->delay_ms * 2, longest) : MISSING_MS;
		any->due = mono_after_ms(now, route->delay_ms);
	}
	route->missing = true;
	any->most = 1;
	leave(any, sent->key.id);
}

void
window_note_again(Window *window, Sent *sent, int delay_ms)
{
	Lane	   *lane = lane_back(sent);

	lane->again = true;
	if (sent->key.id >= 0)
		leave_till(lane, sent->key.id, mono_in_ms(delay_ms));
}

/* A partition that it was given isn't there: the topic is another one by now. */
void
window_note_no_partition(Window *window, Sent *sent)
{
	Route	   *route = sent->lane->route;

	collect_left(route);
	route->npartitions = 0;
	route->seen = false;		/* and is looked at anew, once anything of it is acknowledged */
	if (sent->key.id >= 0)
		leave_till(&route->any, sent->key.id, mono_in_ms(NO_PARTITION_MS));
}

void
window_note_suspect(Window *window, Sent *sent)
{
	sent->lane->suspects++;
	if (sent->key.id >= 0)
		leave(lane_back(sent), sent->key.id);
}

bool
window_would_overtake(const Sent *sent)
{
	const Lane *lane = lane_back(sent);

	return lane->first_left < sent->key.id || lane->route->any.first_left < sent->key.id;
}

void
window_leave(Sent *sent)
{
	leave(lane_back(sent), sent->key.id);
}

static void
adapt_group(Lane *lane)
{
	if (lane->suspects > 0)
	{
		lane->group = Max(Min(lane->group, lane->suspects) / 2, 1);
		lane->suspects = 0;
		lane->group_closed = true;
		lane->group_refused = true;
		lane->groups_passed = 0;
	}
	else if (looks_for_culprit(lane) && lane->in_flight == 0 && !lane->group_refused && lane->handed_over > 0 &&
			 ++lane->groups_passed == PASSES_TO_DOUBLE)
	{
		lane->group = Min(lane->group * 2, MOST_IN_FLIGHT);
		lane->groups_passed = 0;
	}
	if (lane->in_flight == 0)
	{
		lane->handed_over = 0;
		lane->group_closed = lane->group_refused = false;
	}
}

/* ---- looking at all of them ---- */

static bool
notice_stall(Lane *lane, MonoTime now)
{
	if (lane->in_flight == 0)
		lane->stalled = false;
	else if (!lane->stalled && now >= mono_after_ms(lane->progress, STALL_MS))
	{
		lane->stalled = true;
		lane->most = FIRST_WINDOW;
	}
	return lane->stalled;
}

static void
tell(const Window *window, bool missing, bool again)
{
	if (!missing)
		job_condition_clear(MyJob, CONDITION_TOPIC_MISSING);
	else if (!job_condition_is_set(MyJob, CONDITION_TOPIC_MISSING))
		job_condition_set(MyJob, CONDITION_TOPIC_MISSING, "a topic of the outbox does not exist on the broker");
	if (!again)
		job_condition_clear(MyJob, CONDITION_SENT_AGAIN);
	else if (!job_condition_is_set(MyJob, CONDITION_SENT_AGAIN))
		job_condition_set(MyJob, CONDITION_SENT_AGAIN, "%s", window->why_again);
}

/*
 * What lanes that stall one after the other have in flight all stays in librdkafka's
 * queue. So each time the others get half of what is left of that, at most.
 */
bool
window_has_room(const Window *window, int in_flight)
{
	Size		moving = window->bytes - Min(window->stalled_bytes, window->bytes);
	Size		room = MOST_QUEUED_BYTES - Min(window->stalled_bytes, MOST_QUEUED_BYTES);

	return in_flight - window->stalled < Min(MOST_IN_FLIGHT, Max((MOST_QUEUED - window->stalled) / 2, 1)) &&
		(moving == 0 || moving < Min(MOST_BYTES, room / 2));
}

void
window_watch(Window *window)
{
	MonoTime	now = mono_now();
	bool		missing = false;
	bool		again = false;
	dlist_mutable_iter iter;

	window->stalled = 0;
	window->stalled_bytes = 0;
	window->next_look = 0;
	window->oldest = 0;
	dlist_foreach_modify(iter, &busy)
	{
		Lane	   *lane = dlist_container(Lane, node, iter.cur);

		adapt_group(lane);
		if (notice_stall(lane, now))
		{
			window->stalled += lane->in_flight;
			window->stalled_bytes += lane->bytes;
		}
		else if (lane->in_flight > 0 && (window->next_look == 0 || lane->progress < window->next_look))
			window->next_look = lane->progress;
		if (lane->in_flight > 0 && (window->oldest == 0 || lane->progress < window->oldest))
			window->oldest = lane->progress;
		missing = missing || lane->route->missing;
		again = again || lane->again;
		if (!is_idle(lane))
			continue;
		lane->again = false;
		lane->is_busy = false;
		if (lane == &lane->route->any)
			lane->route->missing = false;
		dlist_delete(&lane->node);
	}
	crowded = window->stalled > MOST_IN_FLIGHT / 2 || window->stalled_bytes > MOST_BYTES / 2;
	if (window->next_look != 0)
		window->next_look = mono_after_ms(window->next_look, STALL_MS);
	tell(window, missing, again);
}

/* ---- what the broker tells of its topics ---- */

bool
window_misses_topic(const Window *window)
{
	return job_condition_is_set(MyJob, CONDITION_TOPIC_MISSING) || !is_empty(&window->waiting) ||
		!is_empty(&window->pass);
}

void
window_want_partitions(Window *window)
{
	window->wants_partitions = true;
}

void
window_asks_partitions(Window *window)
{
	window->wants_partitions = false;
}

/* True if there are some that were not there. */
static bool
take_list(Window *window, const KafkaResponse *answer)
{
	uint64	   *listed = MemoryContextAllocHuge(window_context, (answer->ntopics + 1) * sizeof(uint64));
	int			n = 0;
	bool		any_new = false;

	for (size_t i = 0; i < answer->ntopics; i++)
	{
		if (answer->topics[i].npartitions <= 0)
			continue;
		listed[n] = hash_of_topic(answer->topics[i].name);
		any_new = any_new || !is_listed(window, listed[n]);
		n++;
	}
	qsort(listed, n, sizeof(uint64), compare_hashes);
	if (window->listed)
		pfree(window->listed);
	window->listed = listed;
	window->nlisted = n;
	return any_new;
}

static void
take_topic(Window *window, Route *route, int npartitions)
{
	set_unlisted(window, route, false);
	if (route->missing)
		route->any.due = 0;
	else if (route->seen && npartitions != route->npartitions)
		set_partitions(route, npartitions);
}

void
window_take_topics(Window *window, const KafkaResponse *answer)
{
	if (take_list(window, answer))
		pass_soon(window);
	for (size_t i = 0; i < answer->ntopics; i++)
	{
		const KafkaTopic *topic = &answer->topics[i];
		Route	   *route = strlen(topic->name) < sizeof(route->topic)
			? hash_search(routes, topic->name, HASH_FIND, NULL) : NULL;

		if (route && topic->npartitions > 0)
			take_topic(window, route, topic->npartitions);
	}
}
