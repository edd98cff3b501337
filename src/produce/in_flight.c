/*
 * in_flight.c
 *		The rows and calls that are under way: admitted, and what became of them isn't in the
 *		table yet.
 *
 * Every row that is read is looked for here, so the table is one of small entries with
 * nothing called indirectly (lib/simplehash.h), and what it points to stays where it is:
 * librdkafka carries the pointer as the message's opaque.
 */
#include "nexus_kafka.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "produce/produce.h"

#define USUAL_ROWS	4096

typedef struct RowEntry
{
	OutboxKey	key;
	Sent	   *sent;
	char		status;			/* simplehash's */
} RowEntry;

#define SH_PREFIX			rows
#define SH_ELEMENT_TYPE		RowEntry
#define SH_KEY_TYPE			OutboxKey
#define SH_KEY				key
#define SH_HASH_KEY(tb, k)	murmurhash32((uint32) ((k).identity ^ (k).id))
#define SH_EQUAL(tb, a, b)	((a).id == (b).id && (a).identity == (b).identity)
#define SH_SCOPE			static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static rows_hash *rows;
static int64 highest_id;		/* of those that are there; that of one which has gone, perhaps */
static MemoryContext sent_context;

void
in_flight_init(MemoryContext parent)
{
	rows = rows_create(parent, USUAL_ROWS, NULL);
	sent_context = AllocSetContextCreate(parent, "nexus_kafka in flight", ALLOCSET_DEFAULT_SIZES);
}

/* What is new has an id beyond all, and needs no look. */
bool
in_flight_has(OutboxKey key)
{
	return key.id <= highest_id && rows_lookup(rows, key) != NULL;
}

static Sent *
make_sent(OutboxKey key)
{
	Sent	   *sent = MemoryContextAllocZero(sent_context, sizeof(Sent));

	sent->key = key;
	return sent;
}

Sent *
in_flight_add(OutboxKey key)
{
	bool		found;
	Sent	   *sent = make_sent(key);
	RowEntry   *entry = rows_insert(rows, key, &found);

	Assert(!found);
	entry->sent = sent;
	highest_id = Max(highest_id, key.id);
	return sent;
}

Sent *
in_flight_add_call(int64 ticket)
{
	return make_sent((OutboxKey) {ticket, 0});
}

void
in_flight_forget(Sent *sent)
{
	Assert(sent->is_out);
	if (sent->key.id >= 0)
		(void) rows_delete(rows, sent->key);
	if (rows->members == 0)
		highest_id = 0;
	pfree(sent);
}

int64
in_flight_rows_up_to(int64 limit)
{
	rows_iterator iterator;
	RowEntry   *entry;
	int64		n = 0;

	rows_start_iterate(rows, &iterator);
	while ((entry = rows_iterate(rows, &iterator)) != NULL)
		n += entry->key.id <= limit;
	return n;
}
