/*
 * tables.h
 *		The extension's tables: the only place that names them. (Not catalog.h: PostgreSQL has one.)
 *
 * Every function runs inside a transaction with SPI connected and an active
 * snapshot, and raises on an error. Plans are kept for the process.
 *
 * query.c		our own queries: on which tables, with whose rights
 * pipelines.c	nexus_pipelines, nexus_identity, and whether the extension is there
 * offsets.c	nexus_offsets
 * position.c	how a place in a topic is written
 * outbox.c		nexus_outbox
 * dead_letters.c	nexus_dead_letters
 * topic_rights.c	nexus_topic_rights
 * row_lock.c	has a transaction that is open locked a row?
 * triggers.c	who may put a trigger on one of them
 */
#ifndef NEXUS_TABLES_H
#define NEXUS_TABLES_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "storage/block.h"
#include "storage/lockdefs.h"
#include "utils/jsonb.h"

/* ---- query.c ---- */

typedef enum CatalogMember
{
	CATALOG_IDENTITY,
	CATALOG_PIPELINES,
	CATALOG_OFFSETS,
	CATALOG_DEAD_LETTERS,
	CATALOG_OUTBOX,
	CATALOG_NAMED_IDS,			/* a sequence */
	CATALOG_TOPIC_RIGHTS,
} CatalogMember;

#define CATALOG_MEMBERS	(CATALOG_TOPIC_RIGHTS + 1)

/* In sql, "@" stands for the extension's schema and the dot. The rest is query.c's. */
typedef struct CatalogQuery
{
	const char *sql;
	int			nargs;
	Oid			argtypes[15];
	bool		no_seqscan;		/* planned without, however small the table is now */
	char	   *text;			/* with the schema's name */
	SPIPlanPtr	plan;
	uint32		generation;		/* of the name */
	LOCKMODE	locks[CATALOG_MEMBERS]; /* what an analysis has found it to use */
	uint32		checks;			/* counts these */
} CatalogQuery;

/* False if the extension isn't installed here; raises if its tables can't be used. */
extern bool catalog_locate(void);

/* Raise if it isn't there. */
extern Oid	catalog_schema(void);
extern Oid	catalog_owner(void);	/* of the tables */
extern Oid	catalog_member(CatalogMember member);

/*
 * Runs the query, with the rights of the tables' owner whoever the caller is, and
 * checks that it did what it was to do (an SPI_OK_ code).
 */
extern uint64 catalog_run(CatalogQuery *query, Datum *values, const char *nulls, bool read_only, int expected);

/* ---- pipelines.c ---- */

#define PIPELINE_MOST_WORKERS			32
#define PIPELINE_MOST_BATCH_MESSAGES	10000
#define PIPELINE_LEAST_BATCH_BYTES		1024
#define PIPELINE_MOST_BATCH_BYTES		67108864
#define PIPELINE_LONGEST_GROUP			249

typedef struct Pipeline
{
	char		name[NAMEDATALEN];
	bool		name_is_cut;
	char	   *topic;			/* one, several with commas between, or ^ and a regular expression */
	char	   *statement;
	char	   *run_as;			/* the role's name when it was given */
	Oid			role;			/* InvalidOid: there was none */
	char	   *search_path;
	char	   *start;			/* a position (position.c), or group:NAME, or a JSON object */
	int			workers;
	int			batch_messages;
	int			batch_bytes;
	bool		stop_on_error;	/* false: dead letters */
	int			max_dead_letters;	/* 0: no limit */
	char	   *group_id;		/* of the offset mirror, NULL: the default */
	bool		on_demand;
	char	   *connection;		/* NULL: the default one */
	bool		paused;
	TimestampTz created_at;
	bool		started;		/* start was carried out */
	int64		resumes;		/* calls of nexus_resume: each has its workers begin anew */
	bool		held;			/* some transaction is changing it, or was when this was read */
	uint32		definition;		/* hash of all that decides how it runs */
	char	   *mistake;		/* why it can't run: supervisor.c's; NULL: it can */
} Pipeline;

/*
 * Palloc'd in context; NULL if there is none of that name. What stands in them is
 * checked by definition_check() or definition_mistake() (worker/definition.c).
 */
extern List *catalog_pipelines(MemoryContext context);
extern Pipeline *catalog_pipeline(const char *name, MemoryContext context);

/* Until the transaction ends, nobody else changes, pauses or resumes it. */
extern Pipeline *catalog_pipeline_lock(const char *name, MemoryContext context);

/* False if there is one of that name. */
extern bool catalog_pipeline_add(const Pipeline *pipeline);
extern void catalog_pipeline_change(const Pipeline *pipeline);
extern void catalog_pipeline_remove(const char *name);
extern bool catalog_set_paused(const char *name, bool paused, const char *reason);
extern void catalog_pipeline_started(const char *name);

/* Pauses it if it has max_dead_letters dead letters; true if so. */
extern bool catalog_pause_if_full(const char *name);

/* Why it can't run as its role, palloc'd; NULL: it can. */
extern char *catalog_role_mistake(const Pipeline *pipeline);

/* The role as which it runs; raises 42501, or 42704 if there is none, if it can't. */
extern Oid	catalog_pipeline_role(const Pipeline *pipeline);

/* False in a restored dump or a copied database. */
extern bool catalog_identity_is_ours(void);
extern void catalog_take_identity(void);

/* ---- offsets.c ---- */

#define OFFSET_EARLIEST	(-2)	/* the partition's earliest */
#define OFFSET_BY_TIME	(-3)	/* the first message from start_time on */

typedef struct PartitionOffset
{
	char	   *topic;
	int32		partition;
	int64		offset;
	TimestampTz start_time;		/* of OFFSET_BY_TIME */
	int64		last_offset;	/* of the last message taken in, -1: none yet */
	int64		last_hash;
	char	   *cluster_id;		/* NULL: not known */
} PartitionOffset;

extern List *catalog_offsets(const char *pipeline, MemoryContext context);

/* Does nothing if the partition has an offset already. */
extern void catalog_offset_add(const char *pipeline, const PartitionOffset *offset);

/* Writes it over what is there: topic NULL: of all partitions; partition -1: of all of the topic. Returns how many. */
extern uint64 catalog_offsets_set(const char *pipeline, const char *topic, int32 partition, int64 offset,
								  TimestampTz start_time);
extern void catalog_offsets_forget(const char *pipeline);
extern void catalog_offset_forget(const char *pipeline, const PartitionOffset *offset);
extern void catalog_offsets_name_cluster(const char *pipeline, const char *cluster_id);

typedef struct OffsetMove
{
	const char *topic;
	int32		partition;
	int64		from;
	int64		to;
	int64		last_offset;	/* -1: as it was */
	int64		last_hash;
	BlockNumber *place;			/* where the row was last, kept up to date; may be NULL or InvalidBlockNumber */
} OffsetMove;

/* Compare-and-set: false if any row doesn't hold the offset that it was to move from. */
extern bool catalog_offsets_move(const char *pipeline, const OffsetMove *moves, int nmoves);

/* ---- position.c ---- */

typedef struct Position
{
	int64		offset;			/* or OFFSET_EARLIEST, OFFSET_BY_TIME */
	TimestampTz time;			/* of OFFSET_BY_TIME */
} Position;

/* Raises 22007, 22023 or 22003 for what is no position. */
extern Position position_parse(const char *text, TimestampTz called_at);

/*
 * A pipeline's start: a position, group:NAME, or offsets as a JSON object. Raises
 * likewise. Returns it palloc'd, with times in UTC: the worker's time zone is another.
 */
extern char *start_normalize(const char *start);
extern const char *start_group(const char *start);	/* NULL: no group */
extern Position start_position(const char *start, const char *topic, int32 partition, TimestampTz called_at);

/* ---- outbox.c ---- */

/* What a row is known by: its id may be given to another one. */
typedef struct OutboxKey
{
	int64		id;
	uint64		identity;		/* hash of its message id; 0: it has none of use */
} OutboxKey;

typedef struct OutboxRow
{
	int64		id;
	uint64		identity;		/* as of its key */
	TransactionId xmin;
	char	   *topic;			/* NULL: there is none, or not one that can be of use */
	int32		partition;		/* -1: by the key */
	char	   *message_id;		/* NULL: as with the topic */
	Size		size;			/* of key, value and headers */

	/* once loaded */
	struct varlena *key;		/* NULL: none */
	struct varlena *value;		/* NULL: a tombstone */
	Jsonb	   *headers;		/* NULL: none */

	Datum		stored_key;
	Datum		stored_value;
	Datum		stored_headers;
} OutboxRow;

/* headers and the bytea values may be NULL; here and below, connection "": the default one. */
extern void catalog_outbox_add(const char *connection, text *topic, int32 partition, struct varlena *key,
							   struct varlena *value, Jsonb *headers, const char *message_id);

/* Takes a row (its memory is gone afterwards), or returns false: no more, and not this one. */
typedef bool (*OutboxReader) (OutboxRow *row, void *arg);

/* Reads key, value and headers too, in the current context. */
extern void catalog_outbox_load(OutboxRow *row);

/*
 * Hands rows of the connection to the reader in order of id, at most limit: those
 * with id > after, those of some ranges, or those of a topic in a range. True if that was all there is to see.
 */
extern bool catalog_outbox_read_after(const char *connection, int64 after, int limit, OutboxReader reader, void *arg);
extern bool catalog_outbox_read_ranges(const char *connection, const int64 *firsts, const int64 *lasts, int n,
									   int limit, OutboxReader reader, void *arg);

extern bool catalog_outbox_read_topic(const char *connection, const char *topic, int64 first, int64 last, int limit,
									  OutboxReader reader, void *arg);

/* Sorts the keys. */
extern void catalog_outbox_delete(OutboxKey *keys, int n);

extern int64 catalog_outbox_first_id(const char *connection);

/* The last id that any transaction has taken, committed or not. */
extern int64 catalog_outbox_last_given_id(const char *connection);

/* The id before the first that a row of the connection can have. */
extern int64 catalog_outbox_id_before_all(const char *connection);

/* Names of the connections that have rows, without the default one and those that are known; palloc'd in context. */
extern List *catalog_outbox_connections(List *known, MemoryContext context);

/* Moves a row to the dead letters. One without a message id of use is known by its id alone. */
extern void catalog_outbox_dead_letter(OutboxKey key, const char *error_name, const char *message);

/* ---- dead_letters.c ---- */

typedef struct DeadLetter
{
	int64		id;				/* of one that is there */
	const char *pipeline;
	const char *topic;
	int32		partition;
	int64		offset;
	bool		has_timestamp;
	TimestampTz timestamp;
	struct varlena *key;
	struct varlena *value;
	Jsonb	   *headers;
	const ErrorData *error;
} DeadLetter;

extern void catalog_dead_letter_add(const DeadLetter *letter);

/* Of a pipeline, after < id <= upto. */
typedef struct DeadLetterRange
{
	const char *pipeline;
	int64		after;
	int64		upto;
	const int64 *ids;			/* only these */
	int			nids;			/* -1: all */
} DeadLetterRange;

/* In order of id, at most max, and at most max_bytes of keys and values (or one). Palloc'd in context. */
extern List *catalog_dead_letters(const DeadLetterRange *range, int max, int max_bytes, MemoryContext context);
extern int64 catalog_dead_letter_last_id(void);
extern uint64 catalog_dead_letters_lock(const int64 *ids, int n);
extern void catalog_dead_letters_remove(const int64 *ids, int n);
extern void catalog_dead_letter_renew(int64 id, const ErrorData *error);

/* ---- topic_rights.c ---- */

/* May the role produce to the connection's topic? The tables' owner may to all. */
extern bool catalog_may_produce(Oid role, const char *topic, const char *connection);

/* ---- row_lock.c ---- */

/* Of a row that the transaction's snapshot sees. */
extern bool catalog_row_is_held(Oid table, ItemPointer row);

/* ---- triggers.c ---- */

/* One that the current command makes or replaces, on whatever table; raises 42501 on one of ours that isn't the user's. */
extern void catalog_check_new_trigger(Oid trigger);

#endif							/* NEXUS_TABLES_H */
