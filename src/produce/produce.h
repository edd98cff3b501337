/*
 * produce.h
 *		From a call of nexus_produce to the broker's acknowledgement.
 *
 * contract.c	the prospect message: what it must be, what is added to it
 * message_id.c	UUIDv7
 * message.c	a message from the arguments of the SQL functions
 * produce.c	nexus_produce: into the outbox
 * now.c		nexus_produce_now: past it, with the broker's answer
 * gaps.c		ids of the outbox that are still to be looked up
 * relay.c		the worker that publishes the outbox: its loop
 * handover.c	when what waits is handed to librdkafka
 * exchange.c	its transaction: settled rows are deleted, new ones read
 * send.c		rows to the broker, acknowledgements and refusals back
 * topics.c		nexus_create_topic and nexus_topics, as the relay serves them
 * flush.c		nexus_flush, as the relay serves it
 * overdue.c	tells when a broker answers but acknowledges nothing
 */
#ifndef NEXUS_PRODUCE_H
#define NEXUS_PRODUCE_H

#include "postgres.h"

#include "fmgr.h"
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

typedef struct Message
{
	const char *connection;		/* "": the default one */
	char	   *topic;
	int32		partition;		/* -1: by the key */
	bytea	   *key;			/* NULL: none */
	bytea	   *value;			/* NULL: a tombstone */
	Jsonb	   *headers;		/* NULL: none */
	char		id[MESSAGE_ID_LENGTH + 1];
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

	MonoTime due;			/* again: not before this time; 0: a gap */
	bool		look;			/* to be looked up: something may have appeared */

	IdRange    *ranges;			/* ascending, apart */
	int			nranges;
	int			maxranges;
} Gap;

extern void gaps_init(MemoryContext context);

/* Notes [first, last] as not visible to the snapshot. */
extern void gaps_note(int64 first, int64 last, Snapshot snapshot);

/* Notes an id whose row is to be read again at a time. */
extern void gaps_note_again(int64 id, MonoTime due);

/* Which gaps the snapshot may see filled; to be called before they are looked up. */
extern void gaps_advance(Snapshot snapshot, MonoTime now);
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
extern MonoTime gaps_next_due(void); /* 0: none */

/* ---- what the relay's files share ---- */

#define AGAIN_MS	1000		/* after trouble that passes */

typedef struct Refusal
{
	int64		id;
	KafkaFailure failure;
} Refusal;

typedef struct Relay
{
	KafkaLink	link;

	/* relay.c: what it asks the broker now and then */
	MonoTime next_question;
	bool		asked_topics;	/* the one under way: which are there? */
	bool		topic_doubtful; /* a topic was not there */
	int			topic_reloads;	/* worker_reloads when it was asked; nexus_kafka.topic may be another since */

	/* read, not yet handed to librdkafka */
	MemoryContext outgoing_context;
	OutboxRow  *outgoing;
	int			noutgoing;
	int			next_outgoing;
	size_t		outgoing_bytes;
	XLogRecPtr	flush_to;		/* their commits are on disk from here on */

	int64		last_id;		/* all ids up to it were read or are in a gap */
	bool		caught_up;		/* nothing was left to read */
	int			in_flight;

	/* send.c: how much may be in flight together while the culprit of a refused batch is looked for */
	int			group;
	int			handed_over;	/* since nothing was in flight */
	bool		joined_by_calls;	/* of nexus_produce_now, meanwhile */
	int			suspects;		/* of refused batches, put back since the last look at it */
	bool		group_refused;	/* some of what was handed over was */
	int			groups_passed;	/* in a row, of this size */

	/* now.c: likewise for calls */
	uint64		calls_seen;		/* MyJob->calls when they were looked at */
	int			calls_in_flight;
	int			calls_to_isolate;	/* so many are sent alone */
	bool		call_is_alone;	/* the one in flight was */
	bool		calls_went_last;	/* and not rows */

	/* handover.c */
	bool		open;			/* what waits may be handed over */
	MonoTime closed_since;	/* the last time that something was */
	bool		answered;		/* anything has been since */
	int			timed_below;	/* when so few of it are in flight it has taken a round trip; 0: not to be told */
	int64		round_trip;		/* that, on average, in microseconds; 0: not known */
	int			stuck;			/* in flight, not counted */
	int			last_calls;		/* so many calls went together */
	bool		gathering;		/* calls that wait have to wait for others, if nothing else is to be handed over */
	MonoTime comeback_until; /* at most */

	/* overdue.c */
	int64		highest_sent;
	int64		overdue_mark;	/* a row's id */
	int			marked;			/* rows in flight up to it */
	MonoTime overdue_at;		/* if none of them is settled until then */

	/* acknowledged, not yet deleted; refused, not yet in the dead letters */
	int64	   *settled;
	int			nsettled;
	int			maxsettled;
	List	   *refused;
	MemoryContext refused_context;
	MemoryContext record_context;	/* reset with each row that is handed over */

	uint64		wakes_seen;		/* MyJob->wakes when it was last wanted to read */
	bool		read_wanted;
	MonoTime next_look;
	MonoTime coalesce_until;	/* rows came a moment ago: let some more gather */
	MonoTime retry_at;		/* the exchange failed: not before */

	/* nexus_flush */
	uint64		ticket;			/* request being served, 0: none */
	uint64		new_ticket;
	int64		flush_mark;		/* everything up to it */
	int64		unsettled;		/* rows up to it that were read and are not settled */
} Relay;

/* ---- exchange.c ---- */
extern void relay_exchange_init(Relay *relay);

/*
 * Deletes what is settled and, if told to, reads what is new. What fails in
 * deleting is tried again, with everything known kept (then false); what fails
 * in reading ends the worker, which then starts from the table.
 */
extern bool relay_exchange(Relay *relay, bool read);

/* ---- send.c ---- */
extern void relay_send_init(Relay *relay);
extern bool relay_has_room(const Relay *relay);
extern void relay_send(Relay *relay);
extern void relay_take_deliveries(Relay *relay);
extern void relay_nothing_is_put_back(void);

/* It is sending in groups (send.c). */
extern bool relay_looks_for_culprit(const Relay *relay);
extern KafkaSendResult relay_send_row(Relay *relay, const OutboxRow *row, KafkaFailure *failure);

/* ---- now.c ---- */
extern void now_take_calls(Relay *relay);
extern void now_answer(Relay *relay, const KafkaDelivery *delivery);
extern bool now_keeps_rows_back(const Relay *relay);
extern void now_answer_left_over(void);

/* ---- handover.c ---- */

/* Sets relay->open and relay->gathering; whoever calls from then on wakes the relay, if it has to know. */
extern void handover_look(Relay *relay);
extern MonoTime handover_next_look(const Relay *relay);	/* 0: no need */

/* So many were handed over; they go to the broker now, unless there is more to read at once. */
extern void handover_done(Relay *relay, int rows, int calls);
extern void handover_calls_answered(Relay *relay);

/* ---- topics.c ---- */
extern bool topics_take_call(Relay *relay, Call *call);
extern bool topics_answer(Relay *relay, const KafkaAnswer *answer);

/* ---- flush.c ---- */
extern void flush_note_request(Relay *relay);
extern void flush_begin(Relay *relay);
extern void flush_answer(Relay *relay);

/* A row was read; a row that was read is settled. */
extern void flush_count(Relay *relay, int64 id);
extern void flush_settle(Relay *relay, int64 id);

/* ---- overdue.c ---- */

/* A row was handed to librdkafka; what became of it is known. */
extern void overdue_count(Relay *relay, int64 id);
extern void overdue_settle(Relay *relay, int64 id);
extern void overdue_watch(Relay *relay);

extern MonoTime overdue_next_look(const Relay *relay);

#endif							/* NEXUS_PRODUCE_H */
