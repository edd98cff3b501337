/*
 * ingest.h
 *		Kafka to the pipeline's statement: what the files of src/ingest share.
 *
 * ingest.c		the worker: its loop, requests, what it tells of itself
 * replay_worker.c	the worker that takes in dead letters
 * pipeline_topics.c	which topics are the pipeline's
 * partitions.c	which partitions, from which offset; new ones, other clusters
 * start.c		where a pipeline begins
 * verify.c		is a topic still the same one
 * stale.c		may what a broker said of the topics be out of date
 * batch.c		the messages that were fetched, and how much of them is one transaction
 * messages.c	nexus_messages() and nexus_raw_messages(), which read the batch
 * scan.c		the same as a scan in the worker's plans
 * apply.c		a range of the batch in one transaction, halved until the culprit is alone
 * offsets_ledger.c	where a topic's batch is written down
 * triage.c		what kind of error it is
 */
#ifndef NEXUS_INGEST_H
#define NEXUS_INGEST_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "executor/spi.h"
#include "utils/jsonb.h"

#include "catalog/tables.h"
#include "kafka/kafka.h"
#include "worker/worker.h"

typedef struct Batch
{
	MemoryContext context;		/* reset with the batch and before each try; holds the errors */
	KafkaMessage *messages;
	Jsonb	  **stored_headers;	/* of dead letters, which have them as such; else NULL */
	ErrorData **dead;			/* the error of a message that is to be a dead letter */
	int			n;
	int			next;			/* those before are taken in */
	int			max;
	int			witness;		/* the last one asked for evidence (apply.c); 0: none since the last fetch */

	/* what a messages function shows: live ones of [lo, hi) */
	int			lo;
	int			hi;
	int			undecodable;	/* index of the message that could not be decoded, -1: none */
	int			shown;			/* the last one that the scan handed out, -1: none, or it came to the end */
} Batch;

/* Brokers' word on what may be out of date (stale.c). */
typedef struct Certainty
{
	int			answers;		/* in a row, of all brokers, that say so */
	MonoTime	since;
} Certainty;

typedef struct IngestPartition
{
	char	   *topic;
	int32		partition;
	int64		next;			/* as in nexus_offsets */
	int64		fetched;		/* beyond the last message that is in the batch */
	int64		noted;			/* the offset to tell the broker next */
	int64		mirrored;		/* the offset last told to the broker */
	int64		wanted;			/* where nexus_consume is done */
	int64		from_ms;		/* with OFFSET_BY_TIME: what is earlier is left out */
	int64		last_offset;	/* of the last message taken in, -1: none known */
	int64		last_hash;
	int64		settled_hash;	/* last_hash when the transaction under way has committed */
	BlockNumber place;			/* of its row in nexus_offsets */
	bool		verifying;		/* last_offset is read first, and compared */
	bool		begin_unknown;	/* no broker has said yet where it begins, and nothing of it came */
	bool		in_doubt;		/* stale.c's: its leader hasn't the next offset, and may be out of date */
	int64		doubted_end;	/* where that one says it ends; KAFKA_OFFSET_UNKNOWN: it only refused the offset */
	Certainty	gone;
	PartitionStat *stat;		/* NULL: no room */
} IngestPartition;

/* A topic of which nexus_offsets knows partitions. */
typedef struct KnownTopic
{
	char	   *name;
	int			npartitions;
} KnownTopic;

typedef struct Ingest Ingest;

/* What is asked beside the fetches. */
typedef enum AtOnce
{
	AT_ONCE_ENDS,				/* for nexus_consume */
	AT_ONCE_EVERY_BROKER,
	AT_ONCE_REFRESH
} AtOnce;

/* One transaction that takes in [lo, hi) of the batch. */
typedef struct Attempt
{
	Ingest	   *ingest;
	int			lo;
	int			hi;
	bool		dry_run;		/* roll back in the end */
	bool		passed;			/* a dry_run came to its end */
	bool		moved;			/* somebody else was there first */
	bool		full;			/* so many dead letters that the pipeline pauses itself */
	uint64		rows;
} Attempt;

/* Where a batch comes from, and is written down. */
typedef struct Ledger
{
	/* In the transaction, before the statement. False: somebody else was there first. */
	bool		(*settle) (Attempt *attempt);
	void		(*applied) (const Attempt *attempt);	/* after the commit */
	bool		asks_for_evidence;	/* an ambiguous error may be the statement's */
	bool		may_stop;		/* on_error is heeded */
} Ledger;

struct Ingest
{
	Pipeline   *pipeline;
	const Ledger *ledger;
	char	   *group_id;		/* of the offset mirror */
	MemoryContext context;		/* lives as long as the worker */
	KafkaLink	link;
	Batch	   *batch;

	IngestPartition *partitions;
	int			npartitions;
	int			room_for;		/* partitions for which the client's memory is shared out */
	bool		assigned;
	uint64		topics_hash;	/* of the topics and partitions as last seen */
	bool		in_trouble;		/* a partition can't be read, and nothing came since */
	MonoTime	assign_again_at;	/* when those with begin_unknown or in_doubt are; 0: not */
	bool		must_revalidate;		/* a topic or the broker was missed: when it is there again, is it the same? */

	MemoryContext known_context;
	KnownTopic *known;			/* stale.c's, as all to every_broker_at */
	int			nknown;
	Certainty	lacking;
	MonoTime	every_broker_at;	/* when all are to be asked; 0: not */
	AtOnce		asked_at_once;	/* the request at once that is under way */
	KafkaFailure refresh_failure;	/* of a look that timed out, and is to be made at once; code 0: none */

	MemoryContext refresh_context;	/* for a look at the topics */
	MemoryContext question_context;
	KafkaPosition *questions;	/* start.c's, to be asked next */
	int			nquestions;
	const char *question_group;

	SPIPlanPtr	plan;
	uint64		planned_at;		/* messages taken in when it was made */
	uint64		taken_in;
	XLogRecPtr	last_commit;

	MonoTime	next_refresh;		/* for new partitions, and leaders */
	MonoTime	refresh_often_until;
	MonoTime	next_commit;
	bool		commit_pending;
	XLogRecPtr	commit_offsets_now;	/* what the noted offsets were committed with; invalid: none are noted */
	uint64		ticket;			/* request being served, 0: none */
	XLogRecPtr	ticket_commit;	/* to be safe before it is answered; invalid: not all is taken in yet */
	bool		asked_ends;		/* the request under way asks for the ends too */
	bool		ends_by_refresh;	/* the ends are asked for with the topics, after a failure to at once */
	bool		ends_known;		/* partitions' wanted are set for it */

	MonoTime	retry_at;		/* 0: nothing to retry */
	int			retry_delay_ms;
};

/* ---- batch.c ---- */
extern Batch *batch_create(MemoryContext parent, int max);
extern int	batch_fetch(Batch *batch, KafkaClient *client);
extern void batch_drop(Batch *batch, int i);
extern void batch_release(Batch *batch);
extern void batch_forget_errors(Batch *batch);
static inline bool
batch_is_empty(const Batch *batch)
{
	return batch->next >= batch->n;
}

/* The end of the range from batch->next on that is at most max_bytes, or one message. */
extern int	batch_slice(const Batch *batch, int max_messages, int max_bytes);
extern int	batch_count_live(const Batch *batch, int lo, int hi);
extern int	batch_first_live(const Batch *batch, int lo, int hi);

/* ---- messages.c ---- */
extern Batch *current_batch;	/* NULL: no statement of a pipeline is running */

extern bool message_timestamp(const KafkaMessage *message, TimestampTz *timestamp);
extern int64 message_unix_ms(TimestampTz time);
extern void message_try_decode(const KafkaMessage *message);
extern Jsonb *batch_headers(const Batch *batch, int i);	/* NULL: none */
extern struct varlena *message_bytes(const void *data, size_t len);

#define MESSAGE_COLUMNS			7
#define MESSAGE_COLUMN_HEADERS	7	/* its number */

/* Raises (55000) if no statement of a pipeline is running. */
extern Batch *current_batch_for(bool raw);

/* Rows of messages; headers false: without them. Lives in the current context. */
typedef struct MessageDecoder MessageDecoder;
extern MessageDecoder *message_decoder_create(bool raw, bool headers);
extern bool message_decode_next(MessageDecoder *decoder, Batch *batch, int *i, Datum *values, bool *nulls);

/* ---- scan.c ---- */
extern void messages_scan_install_hook(void);

/* ---- triage.c ---- */
typedef enum ErrorKind
{
	ERROR_OF_DATA,				/* the message's fault */
	ERROR_OF_ENVIRONMENT,		/* passes, or is mended elsewhere */
	ERROR_AMBIGUOUS				/* the message's or the statement's */
} ErrorKind;

extern ErrorKind triage(int sqlstate);

/* ---- apply.c ---- */
typedef enum ApplyOutcome
{
	APPLY_DONE,
	APPLY_RETRY,				/* trouble of the environment */
	APPLY_FAILING,				/* the statement fails for every message */
	APPLY_MOVED,				/* somebody else moved the offsets */
	APPLY_STOP,					/* before a bad message, as on_error says */
	APPLY_FULL					/* as many dead letters as may be */
} ApplyOutcome;

/* Takes in messages from batch->next on; *error says why if not all. */
extern ApplyOutcome apply_batch(Ingest *ingest, ErrorData **error);

/* ---- offsets_ledger.c ---- */
extern const Ledger offsets_ledger;

/* ---- replay_worker.c ---- */

/* In a dynamic shared memory segment, between nexus_replay() and its worker. */
typedef struct ReplayRequest
{
	bool		finished;		/* the rest is valid */
	int64		replayed;
	int64		failed;			/* stay where they are, with their new error */
	int			sqlstate;		/* 0: all were tried; else why not */
	char		error[512];
	int			nids;			/* -1: all */
	int64		ids[FLEXIBLE_ARRAY_MEMBER];
} ReplayRequest;

/* ---- pipeline_topics.c ---- */
extern void topics_fill_question(const Pipeline *pipeline, KafkaRequest *request);
extern bool topics_include(const Pipeline *pipeline, const char *topic);
extern const KafkaTopic *topics_find(const KafkaResponse *answer, const char *name);	/* NULL: it isn't there */
extern bool topics_any(const Pipeline *pipeline, const KafkaResponse *answer);
extern char *topics_missing(const Pipeline *pipeline, const KafkaResponse *answer);
extern char *topics_leaderless(const Pipeline *pipeline, const KafkaResponse *answer);

/* ---- partitions.c ---- */

/*
 * What the broker said of the topics: takes up partitions, checks the cluster.
 * False if it can't be done yet, and is to be asked for again.
 */
extern bool partitions_learn(Ingest *ingest, const KafkaResponse *answer);

/* Drops what is not to be taken in: of no partition of this worker, or behind its offset. */
extern void partitions_check_messages(Ingest *ingest, int first);
extern IngestPartition *partition_find(Ingest *ingest, const char *topic, int32 partition);
extern int	partitions_count(const Ingest *ingest, List *offsets);
extern void partitions_assign(Ingest *ingest);
extern void partition_assign_again(Ingest *ingest, IngestPartition *partition);
extern void partitions_assign_unsettled(Ingest *ingest);

/* Remembers the last commit, which is to be on disk before anybody is told of it. */
extern void ingest_note_commit(Ingest *ingest);

/* Runs it in a transaction; the worker ends where that fails. */
extern void ingest_run_or_leave(XactBody body, void *arg, MemoryContext context);

/* Moves offsets over what holds no message (control records, compacted ones). */
extern void partition_skip_to(Ingest *ingest, IngestPartition *partition, int64 offset);
extern void partitions_publish_lag(Ingest *ingest);

/* Is all taken in, as far as is known of all? */
extern bool partitions_at_end(Ingest *ingest);

/* The offsets are to be told to the broker; false: not yet, since standbys that are waited for don't have them. */
extern void partitions_note_for_commit(Ingest *ingest);
extern bool partitions_commit_offsets(Ingest *ingest, int timeout_ms);
pg_noreturn extern void partitions_start_over(Ingest *ingest);
pg_noreturn extern void partition_start_over(Ingest *ingest, const IngestPartition *partition);

/* ---- start.c ---- */

/* May reading begin, or go on, while one of several topics isn't there? */
extern bool start_without_all_topics(const Pipeline *pipeline);

/* Adds new partitions; false if the broker has to be asked first. */
extern bool start_partitions(Ingest *ingest, List *fresh, const char *cluster_id);

/* True if any of the offsets is one by time, to be asked for. */
extern bool start_must_ask(Ingest *ingest, List *mine);
extern bool start_take_answer(Ingest *ingest, const KafkaResponse *answer);

/* ---- verify.c ---- */
extern int64 message_hash(const KafkaMessage *message);
extern void verify_message(Ingest *ingest, IngestPartition *p, const KafkaMessage *message);
extern void verify_end(Ingest *ingest, IngestPartition *p, int64 end);
extern bool verify_gone(Ingest *ingest, IngestPartition *p);

/* ---- stale.c ---- */
typedef enum StaleVerdict
{
	STALE_NOTHING_LACKS,
	STALE_UNKNOWN,				/* every broker is asked */
	STALE_MAY_BE,				/* not all were heard, or not often enough */
	STALE_LACKS					/* it is so */
} StaleVerdict;

extern void stale_note_known(Ingest *ingest, List *offsets, const KafkaResponse *answer);
extern StaleVerdict stale_judge(Ingest *ingest, const KafkaResponse *answer);
extern void stale_stop_if_made_anew(Ingest *ingest, const KafkaResponse *answer);
extern void stale_doubt_partition(Ingest *ingest, IngestPartition *p, int64 end);
extern void stale_clear_partition(const Ingest *ingest, IngestPartition *p);
extern void stale_judge_partitions(Ingest *ingest, const KafkaResponse *answer);
extern void stale_note_missing(Ingest *ingest);
extern bool stale_must_ask(const Ingest *ingest);
extern bool stale_ask(Ingest *ingest);
extern void stale_unanswered(Ingest *ingest);

/* ---- ingest.c ---- */

/* Ends the reading until nexus_resume(); doesn't return. */
pg_noreturn extern void ingest_stop(Ingest *ingest, const char *reason,...) pg_attribute_printf(2, 3);

#endif							/* NEXUS_INGEST_H */
