/*
 * produce.h
 *		From a call of nexus_produce to the broker's acknowledgement.
 *
 * contract.c	the prospect message: what it must be, what is added to it
 * message_id.c	UUIDv7
 * message.c	a message from the arguments of the SQL functions
 * produce.c	nexus_produce: into the outbox
 * now.c		nexus_produce_now: past it, with the broker's answer
 * record.c		a row of the outbox as a record, with all checks
 * gaps.c		ids of the outbox that are still to be looked up
 * relay.c		the worker that publishes the outbox: its loop
 * in_flight.c	the rows and calls that are under way
 * window.c		what may be in flight, by topic and partition, and what is left till then
 * coalesce.c	when what waits is handed to librdkafka
 * exchange.c	its transaction: settled rows are deleted, new ones read
 * send.c		rows to the broker, acknowledgements and refusals back
 * topic_calls.c	nexus_create_topic and nexus_topics, as the relay serves them
 * flush.c		nexus_flush, as the relay serves it
 * overdue.c	tells when a broker answers but acknowledges nothing
 */
#ifndef NEXUS_PRODUCE_H
#define NEXUS_PRODUCE_H

#include "postgres.h"

#include "fmgr.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "catalog/tables.h"
#include "kafka/kafka.h"
#include "worker/worker.h"

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

/* ---- message.c ---- */

/* Of a message, in UTF-8, with its id among them (record.c). */
typedef struct Headers
{
	StringInfoData flat;
	int			n;
	Size		size;			/* what they count for in the message's */
} Headers;

typedef struct Message
{
	const char *connection;		/* "": the default one */
	char	   *topic;
	int32		partition;		/* -1: by the key */
	bytea	   *key;			/* NULL: none */
	bytea	   *value;			/* NULL: a tombstone */
	Jsonb	   *headers;		/* NULL: none */
	char		id[MESSAGE_ID_LENGTH + 1];
	Headers		flat;			/* the headers as they are sent */
} Message;

/*
 * From (payload), or (topic, value, key, headers, partition), and the connection from the
 * argument of that number. Raise 22023 or 54000, and 42501 where nexus_topic_rights doesn't
 * allow the topic.
 */
extern void message_of_prospect(FunctionCallInfo fcinfo, Message *message);
extern void message_of_text(FunctionCallInfo fcinfo, int connection, Message *message);
extern void message_of_jsonb(FunctionCallInfo fcinfo, int connection, Message *message);
extern void message_of_bytea(FunctionCallInfo fcinfo, int connection, Message *message);

/* {"status":"accepted","messageId",…}; place: what "kafka" is, NULL: nothing */
extern Datum message_answer(const Message *message, const char *text, Jsonb *place);

/* ---- record.c ---- */

/* Why a row can't be sent. */
typedef struct Fault
{
	int			sqlstate;
	char		text[256];
} Fault;

typedef struct Record
{
	const char *topic;
	int32		partition;		/* -1: by the key */
	struct varlena *key;		/* NULL: none */
	struct varlena *value;		/* NULL: a tombstone */
	const char *headers;		/* flat */
	int			nheaders;
	Size		size;
} Record;

/* False, and why, if they can't be sent; within a transaction, in the current context. */
extern bool headers_flatten(Jsonb *jsonb, const char *message_id, Headers *headers, Fault *fault);

/* Of a row that isn't loaded, by its sizes too; and of one that is possible, which is loaded. */
extern bool record_row_is_possible(const OutboxRow *row, Fault *fault);
extern bool record_of_row(OutboxRow *row, Record *record, Fault *fault);
extern KafkaSendResult send_record(KafkaClient *client, const Record *record, void *opaque, KafkaFailure *failure);

/* ---- gaps.c ---- */

typedef struct IdRange
{
	int64		first;
	int64		last;
} IdRange;

/* Ids of the outbox that were not visible when ids beyond them were. */
typedef struct Gap
{
	/* transactions that may yet fill it: these, and any from unassigned_from to unassigned_to - 1 */
	TransactionId *xids;
	int			nxids;
	TransactionId unassigned_from;
	TransactionId unassigned_to;

	bool		look;			/* to be looked up: something may have appeared */
	int64		looked_up_to;	/* but not up to this id, again */
	bool		look_again;		/* once that is done */

	IdRange    *ranges;			/* ascending, apart */
	int			nranges;
} Gap;

extern void gaps_init(MemoryContext context);

/* Notes [first, last] as not visible to the snapshot. */
extern void gaps_note(int64 first, int64 last, Snapshot snapshot);

/* Which gaps the snapshot may see filled; to be called before they are looked up. */
extern void gaps_advance(Snapshot snapshot);
extern void gaps_look_at_all(void);

/* The next gap to look up, or NULL; and what came of it. */
extern Gap *gaps_next_to_look_up(void);
extern void gap_looked_up_to(Gap *gap, int64 id);
extern void gap_looked_up(Gap *gap);

/* Forgets those that nothing can fill any more. */
extern void gaps_forget_hopeless(void);

extern bool gaps_exist(void);

/* True if an id <= limit is yet to be looked up. */
extern bool gaps_hold_back(int64 limit);

/* ---- in_flight.c ---- */

struct Lane;

/* A row or a call from its admission until what became of it is in the table. */
typedef struct Sent
{
	OutboxKey	key;			/* id: a call's ticket is negative */
	struct Lane *lane;
	int			npartitions;	/* of its topic, by which the lane was found */
	Size		size;
	bool		by_key;			/* its partition is our choice or librdkafka's */
	bool		is_out;			/* of the window: acknowledged or refused, say */
} Sent;

extern void in_flight_init(MemoryContext parent);
extern bool in_flight_has(OutboxKey key);

/* All zero but for the key. A row's must not be there yet; a call's ticket is known to nobody else. */
extern Sent *in_flight_add(OutboxKey key);
extern Sent *in_flight_add_call(int64 ticket);

/* It may be read again. */
extern void in_flight_forget(Sent *sent);
extern int64 in_flight_rows_up_to(int64 limit);

/* ---- window.c ---- */

#define MOST_IN_FLIGHT		20000
#define MOST_BYTES			(12 * 1024 * 1024)

/* In librdkafka's queue at most, with what doesn't come back; it has room for a last reading more (relay.c). */
#define MOST_QUEUED			45000
#define MOST_QUEUED_BYTES	((Size) 28 * 1024 * 1024)

struct Route;

typedef struct Lane
{
	struct Route *route;
	int32		partition;

	int			in_flight;		/* rows and calls; also what was admitted and not yet sent */
	Size		bytes;
	int			most;			/* that may be */
	MonoTime	progress;		/* when anything of it came back, or the first went out */
	bool		stalled;		/* not for a second */

	/* what is left in the table; none: first_left is larger */
	int64		first_left;
	int64		last_left;
	MonoTime	due;			/* not to be read before */
	bool		again;			/* some of it was sent before */

	/* while the culprit of a refused batch is looked for */
	int			group;			/* so many go together */
	int			handed_over;	/* since nothing was in flight */
	int			suspects;		/* came back since the last look at it */
	bool		group_closed;	/* none joins it any more */
	bool		group_refused;
	int			groups_passed;	/* in a row, of this size */
	bool		call_went_last;	/* and not a row */

	bool		is_busy;		/* something is in flight or left: then it is in the list of those */
	dlist_node	node;
} Lane;

typedef struct Route
{
	char		topic[250];		/* the hash table's key */
	bool		missing;
	bool		unlisted;		/* as far as is known, the broker doesn't have it */
	bool		seen;			/* something was acknowledged */
	int			delay_ms;		/* between looks for a missing one */
	Lane		any;			/* while its partitions aren't known */
	Lane	  **partitions;
	int			npartitions;
	int			maxpartitions;
	int			keyless;		/* where messages without a key go now */
	int			nkeyless;
} Route;

typedef struct Window
{
	Size		bytes;
	int			stalled;		/* in flight in stalled lanes, as of the last look */
	Size		stalled_bytes;
	MonoTime	next_look;		/* 0: no need */
	MonoTime	oldest;			/* progress of the lane that has waited for longest, 0: none waits */
	bool		wants_partitions;	/* a topic's partitions are to be asked for */
	char		why_again[256];
	Route	   *last_route;
	MonoTime	next_forget;
	Route		no_route;
	Lane		others;			/* of calls, where there are too many topics */
	int			unlisted;		/* routes that are */
	uint64	   *listed;			/* hashes of the names of the broker's topics, ascending */
	int			nlisted;

	/* rows of topics that have no route */
	IdRange		waiting;
	IdRange		pass;			/* of them, what is being looked at: others are noted in waiting */
	MonoTime	waiting_due;	/* the next pass */
	int			waiting_ms;
} Window;

typedef enum WindowVerdict
{
	WINDOW_ADMITTED,
	WINDOW_LEFT,				/* noted as left in the table */
	WINDOW_FULL,				/* likewise, and so will be the rest of the lane that is being read */
	WINDOW_WAIT,				/* not noted: it can be admitted in a moment, so nothing more is to be read now */
	WINDOW_OTHERS,				/* none of the lane's that is being read */
	WINDOW_NO_ROUTE				/* too many topics wait: noted as one of such a topic */
} WindowVerdict;

extern void window_init(Window *window);
extern WindowVerdict window_judge(Window *window, const OutboxRow *row, const struct varlena *key, Lane *left,
								  Lane **lane, int32 *partition);
extern Sent *window_admit(Window *window, Lane *lane, OutboxKey key, Size size, bool by_key);
extern Sent *window_admit_call(Window *window, const Record *record, int64 ticket, int32 *partition);

/* What became of it. Then it is out, and when the table has that, forgotten. */
extern bool window_was_alone(const Sent *sent);
extern void window_note_answer(Sent *sent, MonoTime now);
extern void window_note_delivered(Window *window, Sent *sent);
extern void window_note_missing(Window *window, Sent *sent);
extern void window_note_no_partition(Window *window, Sent *sent);
extern void window_note_again(Window *window, Sent *sent, int delay_ms);
extern void window_note_suspect(Window *window, Sent *sent);

/* Of what was admitted and not yet sent: did an earlier one come back since? Then it is left in the table. */
extern bool window_would_overtake(const Sent *sent);
extern void window_leave(Sent *sent);

extern void window_out(Window *window, Sent *sent);

/* After what came back was noted, and from time to time. */
extern void window_watch(Window *window);
extern bool window_has_room(const Window *window, int in_flight);

/* The lanes of which what is left may be read now; its range is taken, and what is not read of it given back. */
extern Lane *window_next_left(MonoTime now, const Lane *after);
extern void window_begin_after(Lane *lane);
extern int64 window_begin_left(Lane *lane, int64 *last);
extern void window_end_left(Lane *lane, int64 first, int64 last);
extern MonoTime window_next_due(MonoTime now);	/* 0: none */
extern void window_delay_left(Lane *lane, int delay_ms);
extern bool window_holds_back(const Window *window, int64 limit);
extern void window_look_at_all(void);

/* Of topics that have no route: what is to be looked at now, false: nothing; and when that is so. */
extern bool window_begin_pass(Window *window);
extern void window_passed(Window *window, int64 id);
extern MonoTime window_next_pass(const Window *window, MonoTime now);	/* 0: no need */

extern bool window_misses_topic(const Window *window);

/* Topics' partitions are to be asked for; and they are being. */
extern void window_want_partitions(Window *window);
extern void window_asks_partitions(Window *window);
extern void window_take_topics(Window *window, const KafkaResponse *answer);

/* ---- what the relay's files share ---- */

#define AGAIN_MS	1000		/* after trouble that passes */

/* A row that was admitted, as it goes to librdkafka. */
typedef struct Outgoing
{
	Sent	   *sent;
	Record		record;
} Outgoing;

/* A row that is to be a dead letter. */
typedef struct Refusal
{
	Sent	   *sent;			/* NULL: it was never admitted */
	OutboxKey	key;
	char		error_name[64];
	char		text[384];
} Refusal;

/* exchange.c: rows that were read, not yet handed to librdkafka */
typedef struct Reader
{
	MemoryContext context;
	Outgoing   *outgoing;
	int			n;
	int			next;			/* to be handed over */
	Size		bytes;
	XLogRecPtr	flush_to;		/* their commits are safe once all up to it is */
	TransactionId last_xmin;	/* the last one that was looked up for it in this transaction */

	int64		last_id;		/* all ids up to it were read or are in a gap */
	bool		caught_up;		/* nothing was left to read */
	MonoTime	paused_until;	/* a row can be admitted in a moment: then, or with the next answer */
	Oid			filenode;		/* of the outbox */
	MonoTime	next_look_back;
	int			look_back_ms;
	MonoTime	retry_at;		/* the transaction failed: not before, 0: it didn't */
} Reader;

/* send.c: acknowledged and not yet deleted; refused and not yet in the dead letters */
typedef struct Settled
{
	Sent	  **acknowledged;
	int			n;
	int			max;
	List	   *refused;
	MemoryContext refused_context;
} Settled;

/* flush.c */
typedef struct Flush
{
	uint64		ticket;			/* request being served, 0: none */
	uint64		new_ticket;
	int64		mark;			/* everything up to it */
	int64		unsettled;		/* rows up to it that were read and are not settled */
} Flush;

/* now.c */
typedef struct Calls
{
	uint64		seen;			/* MyJob->calls when they were looked at */
	int			in_flight;
	bool		waits;			/* one for its lane */
} Calls;

/* coalesce.c */
typedef struct Coalescing
{
	bool		open;			/* what waits may be handed over */
	MonoTime	closed_since;	/* the last time that something was */
	int			timed_below;	/* when so few of it are in flight it has taken a round trip; 0: not to be told */
	int64		round_trip;		/* that, on average, in microseconds; 0: not known */
	int			stalled;			/* in flight, not counted */
	int			last_calls;		/* so many calls went together */
	bool		gathering;		/* calls that wait have to wait for others, if nothing else is to be handed over */
	MonoTime	callers_until; /* at most */
	bool		answered;		/* send.c: anything has been since */
} Coalescing;

/* send.c */
typedef struct Sender
{
	int			in_flight;		/* rows that librdkafka has */
	MonoTime	unsafe_since;	/* what is read waits for the synchronous standbys, 0: it doesn't */
	MonoTime	next_safe_look;
	MemoryContext record_context;	/* reset with each row that is handed over */
} Sender;

/* Each part is written by the file that is named with it (src/README.md), and read by all. */
typedef struct Relay
{
	KafkaLink	link;
	Reader		reader;
	Window		window;
	Sender		sender;
	Settled		settled;
	Flush		flush;
	Calls		calls;
	Coalescing	coalescing;
} Relay;

/* ---- exchange.c ---- */
extern void relay_exchange_init(Relay *relay);

/*
 * Deletes what is settled and, if told to, reads what is new. What fails in
 * deleting is tried again, with everything known kept (then false); what fails
 * in reading ends the worker, which then starts from the table.
 */
extern bool relay_exchange(Relay *relay, bool read);

/* The next row to hand over, NULL: none; and that it was. */
extern const Outgoing *relay_next_outgoing(const Relay *relay);
extern void relay_outgoing_done(Relay *relay);

/* Not before all was looked at is everything read. */
extern void relay_read_all(Relay *relay);

/* Something came back: a row that had to wait a moment may be admitted. */
extern void relay_read_on(Relay *relay);

/* ---- send.c ---- */
extern void relay_send_init(Relay *relay);
extern bool relay_has_room(const Relay *relay);
extern void relay_send(Relay *relay);
extern void relay_take_deliveries(Relay *relay);

/* The table has what was acknowledged, and the first so many that were refused. */
extern void relay_forget_settled(Relay *relay, int refused);

/* It is to be a dead letter; sent NULL: the row was never admitted. */
extern void relay_refuse(Relay *relay, Sent *sent, const OutboxRow *row, const char *error_name, const char *text);
extern MonoTime relay_next_safe_look(const Relay *relay);	/* 0: no need */

/* ---- now.c ---- */
extern void now_take_calls(Relay *relay);
extern void now_answer(Relay *relay, Sent *sent, const KafkaDelivery *delivery);
extern void now_look_again(Relay *relay);	/* at calls that have been looked at */
extern void now_look_if_waiting(Relay *relay);
extern void now_answer_left_over(void);

/* ---- coalesce.c ---- */

/* Sets open and gathering; whoever calls from then on wakes the relay, if it has to know. */
extern void coalesce_look(Relay *relay);
extern MonoTime coalesce_next_look(const Relay *relay);	/* 0: no need */

/* So many were handed over; they go to the broker now, unless there is more to read at once. */
extern void coalesce_done(Relay *relay, int rows, int calls);
extern void coalesce_calls_answered(Relay *relay);
extern void coalesce_note_answer(Relay *relay);

/* ---- topic_calls.c ---- */
extern bool topics_take_call(Relay *relay, Call *call);
extern bool topics_answer(Relay *relay, const KafkaResponse *answer);

/* ---- flush.c ---- */
extern void flush_note_request(Relay *relay);
extern void flush_begin(Relay *relay);
extern void flush_answer(Relay *relay);

/* A row was read; one that was read is settled, or left in the table. */
extern void flush_count(Relay *relay, int64 id);
extern void flush_count_done(Relay *relay, int64 id);

/* ---- overdue.c ---- */

extern void overdue_watch(Relay *relay);

extern MonoTime overdue_next_look(const Relay *relay);	/* 0: no need */

#endif							/* NEXUS_PRODUCE_H */
