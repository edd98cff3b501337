/*
 * produce.h
 *		From a call of nexus_produce to the broker's acknowledgement.
 *
 * contract.c	the prospect message: what it must be, what is added to it
 * message_id.c	UUIDv7
 * produce.c	the SQL functions: validation, the outbox
 * gaps.c		ids of the outbox that are still to be looked up
 * relay.c		the worker that publishes the outbox
 */
#ifndef NEXUS_PRODUCE_H
#define NEXUS_PRODUCE_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

#define MESSAGE_ID_HEADER	"nexus-message-id"
#define MESSAGE_ID_LENGTH	36

/* ---- message_id.c ---- */

/* A new UUIDv7 (RFC 9562) as text: time-ordered, so that indexes on it grow at one end. */
extern void make_message_id(char id[MESSAGE_ID_LENGTH + 1]);

/* ---- contract.c ---- */

/* Raises 22023 if the payload breaks the contract for producers; warns of a missing fingerprint. */
extern void contract_check_payload(Jsonb *payload);

/* Appends the enriched payload as JSON text. */
extern void contract_enrich(Jsonb *payload, const char *message_id, StringInfo json);

/* ---- gaps.c ---- */

/*
 * Ids of the outbox that were not visible when ids beyond them were (a gap), or
 * whose row has to be read once more (again). See gaps.c.
 */
typedef struct IdRange
{
	int64		first;
	int64		last;
} IdRange;

typedef struct Gap
{
	/* transactions that may yet fill it: these, and any from unassigned_from to unassigned_to - 1 */
	TransactionId *xids;
	int			nxids;
	TransactionId unassigned_from;
	TransactionId unassigned_to;

	TimestampTz due;			/* again: not before this time; 0: a gap */
	bool		look;			/* to be looked up: something may have appeared */

	IdRange    *ranges;			/* ascending, apart */
	int			nranges;
	int			maxranges;
} Gap;

extern void gaps_init(MemoryContext context);

/* Notes [first, last] as not visible to the snapshot. */
extern void gaps_note(int64 first, int64 last, Snapshot snapshot);

/* Notes an id whose row is to be read again at a time. */
extern void gaps_note_again(int64 id, TimestampTz due);

/* Which gaps the snapshot may see filled; to be called before they are looked up. */
extern void gaps_advance(Snapshot snapshot, TimestampTz now);
extern void gaps_look_at_all(void);

/* The next gap to look up, or NULL; and what came of it. */
extern Gap *gaps_next_to_look_up(void);
extern void gap_found(Gap *gap, int64 id);
extern void gap_looked_up(Gap *gap);

/* Forgets those that nothing can fill any more. */
extern void gaps_forget_hopeless(void);

extern bool gaps_exist(void);

/* True if an id <= limit is yet to be looked up, or to be read again. */
extern bool gaps_hold_back(int64 limit);
extern TimestampTz gaps_next_due(void); /* 0: none */

#endif							/* NEXUS_PRODUCE_H */
