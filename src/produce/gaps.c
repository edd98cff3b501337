/*
 * gaps.c
 *		Ids of the outbox that the relay has passed and must look up yet.
 *
 * The ids are those of one sequence (catalog/outbox.c). Where connections share it, the
 * rows of another one look like those of a transaction that was rolled back.
 *
 * The relay reads ids upwards. But the order of ids is not the order of
 * commits: a transaction may take an id now and commit when others, with higher
 * ids, are long published. So when the relay sees an id missing, it notes a
 * gap, with the transactions that may fill it. nexus_produce has its
 * transaction's id assigned before it takes an id of the outbox, and a higher id
 * was committed already; so whoever holds the missing one
 *	- had a transaction id when the snapshot was taken, so it is below the next
 *	  one to be assigned, and
 *	- was running in that snapshot, or else its row would have been seen: its id
 *	  is in the snapshot's list, or at or beyond the snapshot's xmax.
 * When any of these has ended (by a later snapshot), the gap is looked up under
 * that snapshot; when all have ended and it was looked up, it is forgotten: it
 * was a rolled-back transaction's. Gaps that wait for the same transactions are
 * one Gap, so each id is looked up once or twice.
 *
 * A gap has so many ranges of ids and no more, however long a transaction stays open:
 * then what lies between two is taken into one. What was seen of it is found again, and
 * the window knows it (window.c).
 */
#include "nexus_kafka.h"

#include "access/transam.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "produce/produce.h"

#define MOST_RANGES	256

static MemoryContext gaps_context;
static List *gaps = NIL;

void
gaps_init(MemoryContext context)
{
	gaps_context = context;
}

static Gap *
add_gap(void)
{
	MemoryContext before = MemoryContextSwitchTo(gaps_context);
	Gap		   *gap = palloc0(sizeof(Gap));

	gap->ranges = palloc((MOST_RANGES + 1) * sizeof(IdRange));
	gaps = lappend(gaps, gap);
	MemoryContextSwitchTo(before);
	return gap;
}

static void
free_gap(Gap *gap)
{
	gaps = list_delete_ptr(gaps, gap);
	if (gap->xids)
		pfree(gap->xids);
	pfree(gap->ranges);
	pfree(gap);
}

/* ---- ranges ---- */

/* The first range that ends at id or later. */
static int
find_range(const Gap *gap, int64 id)
{
	int			at = gap->nranges;

	while (at > 0 && gap->ranges[at - 1].last >= id)
		at--;
	return at;
}

static void
remove_range(Gap *gap, int at)
{
	memmove(&gap->ranges[at], &gap->ranges[at + 1], (gap->nranges - at - 1) * sizeof(IdRange));
	gap->nranges--;
}

/* Of two neighbours with the least between them, one is made. */
static void
merge_nearest(Gap *gap)
{
	int			nearest = 0;

	for (int i = 1; i + 1 < gap->nranges; i++)
		if (gap->ranges[i + 1].first - gap->ranges[i].last <
			gap->ranges[nearest + 1].first - gap->ranges[nearest].last)
			nearest = i;
	gap->ranges[nearest].last = gap->ranges[nearest + 1].last;
	remove_range(gap, nearest + 1);
}

/* Ranges that come to touch become one. */
static void
add_range(Gap *gap, int64 first, int64 last)
{
	int			at = find_range(gap, first > PG_INT64_MIN ? first - 1 : first);

	while (at < gap->nranges && gap->ranges[at].first - 1 <= last)
	{
		first = Min(first, gap->ranges[at].first);
		last = Max(last, gap->ranges[at].last);
		remove_range(gap, at);
	}
	memmove(&gap->ranges[at + 1], &gap->ranges[at], (gap->nranges - at) * sizeof(IdRange));
	gap->ranges[at] = (IdRange) {first, last};
	if (++gap->nranges > MOST_RANGES)
		merge_nearest(gap);
}

/* ---- who may fill it ---- */

static int
compare_xids(const void *a, const void *b)
{
	TransactionId x = *(const TransactionId *) a;
	TransactionId y = *(const TransactionId *) b;

	return x < y ? -1 : x > y;
}

static bool
waits_for(const Gap *gap, const TransactionId *xids, int nxids, TransactionId from, TransactionId to)
{
	return !gap->look && gap->nxids == nxids &&
		gap->unassigned_from == from && gap->unassigned_to == to &&
		memcmp(gap->xids, xids, nxids * sizeof(TransactionId)) == 0;
}

static Gap *
gap_waiting_for(const TransactionId *xids, int nxids, TransactionId from, TransactionId to)
{
	ListCell   *lc;

	foreach(lc, gaps)
		if (waits_for(lfirst(lc), xids, nxids, from, to))
			return lfirst(lc);
	return NULL;
}

static void
set_waiting(Gap *gap, const TransactionId *xids, int nxids, TransactionId from, TransactionId to)
{
	if (gap->xids)
		pfree(gap->xids);
	gap->xids = MemoryContextAlloc(gaps_context, Max(nxids, 1) * sizeof(TransactionId));
	memcpy(gap->xids, xids, nxids * sizeof(TransactionId));
	gap->nxids = nxids;
	gap->unassigned_from = from;
	gap->unassigned_to = to;
}

void
gaps_note(int64 first, int64 last, Snapshot snapshot)
{
	TransactionId *xids = palloc(Max(snapshot->xcnt, 1) * sizeof(TransactionId));
	TransactionId next = ReadNextTransactionId();
	Gap		   *gap;

	if (first > last)
		return;
	if (snapshot->xcnt > 0)
		memcpy(xids, snapshot->xip, snapshot->xcnt * sizeof(TransactionId));
	qsort(xids, snapshot->xcnt, sizeof(TransactionId), compare_xids);
	gap = gap_waiting_for(xids, snapshot->xcnt, snapshot->xmax, next);
	if (gap == NULL)
	{
		gap = add_gap();
		set_waiting(gap, xids, snapshot->xcnt, snapshot->xmax, next);
	}
	add_range(gap, first, last);
	pfree(xids);
}

/* A look-up that is under way is done first, or a gap that changes often would never be. */
static void
look_up(Gap *gap)
{
	gap->look_again = gap->look && gap->looked_up_to != PG_INT64_MIN;
	if (!gap->look)
		gap->looked_up_to = PG_INT64_MIN;
	gap->look = true;
}

/* What the gap waits for, less what the snapshot sees ended. */
static void
advance_gap(Gap *gap, Snapshot snapshot)
{
	TransactionId *left = palloc((gap->nxids + snapshot->xcnt + 1) * sizeof(TransactionId));
	TransactionId from = gap->unassigned_from;
	TransactionId to = gap->unassigned_to;
	int			n = 0;

	for (int i = 0; i < gap->nxids; i++)
		if (XidInMVCCSnapshot(gap->xids[i], snapshot))
			left[n++] = gap->xids[i];
	for (uint32 i = 0; i < snapshot->xcnt; i++)
	{
		TransactionId xid = snapshot->xip[i];

		if (TransactionIdFollowsOrEquals(xid, from) && TransactionIdPrecedes(xid, to))
			left[n++] = xid;
	}
	if (TransactionIdPrecedes(from, snapshot->xmax))
		from = TransactionIdPrecedes(snapshot->xmax, to) ? snapshot->xmax : to;
	qsort(left, n, sizeof(TransactionId), compare_xids);

	if (n != gap->nxids || from != gap->unassigned_from || memcmp(left, gap->xids, n * sizeof(TransactionId)) != 0)
	{
		set_waiting(gap, left, n, from, to);
		if (from == to)
			gap->unassigned_from = gap->unassigned_to = InvalidTransactionId;
		look_up(gap);
	}
	pfree(left);
}

void
gaps_advance(Snapshot snapshot)
{
	ListCell   *lc;

	foreach(lc, gaps)
		advance_gap(lfirst(lc), snapshot);
}

/* For nexus_flush: what was committed before the call is found, whatever it waits for. */
void
gaps_look_at_all(void)
{
	ListCell   *lc;

	foreach(lc, gaps)
		look_up(lfirst(lc));
}

/* ---- looking up ---- */

Gap *
gaps_next_to_look_up(void)
{
	ListCell   *lc;

	foreach(lc, gaps)
		if (((Gap *) lfirst(lc))->look)
			return lfirst(lc);
	return NULL;
}

/* Up to there it was; the rest has to wait for room. */
void
gap_looked_up_to(Gap *gap, int64 id)
{
	gap->looked_up_to = id;
}

/* All of it was looked up. */
void
gap_looked_up(Gap *gap)
{
	Gap		   *same;

	if (gap->look_again)
	{
		gap->look_again = false;
		gap->looked_up_to = PG_INT64_MIN;
		return;
	}

	/* it may wait for the same as another now */
	same = gap_waiting_for(gap->xids, gap->nxids, gap->unassigned_from, gap->unassigned_to);
	gap->look = false;
	if (same == NULL)
		return;
	for (int i = 0; i < gap->nranges; i++)
		add_range(same, gap->ranges[i].first, gap->ranges[i].last);
	free_gap(gap);
}

void
gaps_forget_hopeless(void)
{
	ListCell   *lc;

	foreach(lc, gaps)
	{
		Gap		   *gap = lfirst(lc);

		if (!gap->look && gap->nxids == 0 && gap->unassigned_from == gap->unassigned_to)
		{
			free_gap(gap);
			gaps_forget_hopeless();
			return;
		}
	}
}

bool
gaps_exist(void)
{
	return gaps != NIL;
}

bool
gaps_hold_back(int64 limit)
{
	ListCell   *lc;

	foreach(lc, gaps)
	{
		Gap		   *gap = lfirst(lc);

		if (gap->look && gap->ranges[0].first <= limit)
			return true;
	}
	return false;
}
