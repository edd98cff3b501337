/*
 * kafka.h
 *		What the workers need of Kafka: librdkafka behind functions of ours.
 *
 * Nothing here knows of PostgreSQL, nothing outside of src/kafka knows of
 * librdkafka. A KafkaClient belongs to the main thread of the process that
 * opened it. librdkafka's threads never run code of this project: errors and
 * delivery reports are recorded when the main thread serves the client, and
 * looked at afterwards, so that no caller ever unwinds through librdkafka.
 *
 * client.c	a handle: opening, serving, closing in bounded time
 * config.c	the properties that a handle is made with
 * topic.c		names of topics
 * properties.c	a file with the connection's properties, secrets among them
 * property_names.c	which may be set, and which one was meant
 * files.c		the files that they name: have they changed, are keys kept secret?
 * errors.c	what an error of Kafka means for a message
 * error_text.c	what librdkafka complains of, in words for people
 * producer.c	sending, delivery reports
 * consumer.c	assigned partitions, messages, offsets
 * partition_queues.c	several partitions in step
 * admin.c		topics: making and describing them
 * admin_thread.c	questions that librdkafka only answers to a thread that waits
 * embedded.c	a broker inside this process
 */
#ifndef NEXUS_KAFKA_KAFKA_H
#define NEXUS_KAFKA_KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct KafkaClient KafkaClient;

/* Why something failed. code is an rd_kafka_resp_err_t, 0 for none. */
typedef struct KafkaFailure
{
	int			code;
	char		name[64];		/* Kafka's name of the error, say TOPIC_AUTHORIZATION_FAILED */
	char		text[384];		/* for people */
} KafkaFailure;

typedef struct KafkaSetting
{
	const char *name;
	const char *value;
} KafkaSetting;

typedef enum KafkaKind
{
	KAFKA_PRODUCER,
	KAFKA_CONSUMER
} KafkaKind;

/* A place in a topic. offset: the next one to read, or KAFKA_OFFSET_EARLIEST. */
typedef struct KafkaPosition
{
	char	   *topic;
	int32_t		partition;
	int64_t		offset;
} KafkaPosition;

#define KAFKA_OFFSET_EARLIEST	(-2)
#define KAFKA_OFFSET_END		(-1)
#define KAFKA_OFFSET_UNKNOWN	(-1001)

#define KAFKA_MEMBERS_UNCOUNTED	(-1)

/* ---- client.c ---- */

/* NULL and *failure if a setting is refused or no handle can be made. */
extern KafkaClient *kafka_client_open(KafkaKind kind, const KafkaSetting *settings, size_t nsettings,
									  KafkaFailure *failure);

/*
 * Ends the client. False if librdkafka hasn't ended its threads in time: they
 * are still there, and the process must leave by _exit().
 */
extern bool kafka_client_close(KafkaClient *client, int timeout_ms);

/* Readable when there is something to serve, fetch or collect. */
extern int	kafka_client_fd(const KafkaClient *client);

/* Empties the fd and runs what librdkafka has for the main thread. */
extern void kafka_client_serve(KafkaClient *client);

/* True once after every broker became unreachable. */
extern bool kafka_client_lost(KafkaClient *client);

/* True once after librdkafka complained of something, such as a broker that it lost. */
extern bool kafka_client_had_error(KafkaClient *client);

/* What librdkafka complained of last, NULL: nothing since it was told to forget. */
extern const KafkaFailure *kafka_client_last_failure(const KafkaClient *client);
extern void kafka_client_forget_failure(KafkaClient *client);

/* True if the client can't be used any more and must be opened anew. */
extern bool kafka_client_is_fatal(KafkaClient *client, KafkaFailure *why);

/* Receives librdkafka's log lines, in the main thread, while a client is served. */
extern void (*kafka_log_hook) (int level, const char *text);

/* ---- topic.c ---- */

/* 1 to 249 letters, digits, dots, underscores and hyphens, but not "." or "..". */
extern bool kafka_topic_is_valid(const char *name, size_t len);

/* ---- properties.c ---- */

#define KAFKA_LONGEST_SECTION_NAME	63

/* What a file says of a connection. */
typedef struct KafkaProperties
{
	KafkaSetting *settings;
	size_t		n;
	uint64_t	hash;			/* of the section's text, and of the files that it names */
	bool		found;			/* the section is there */
	char	  **sections;		/* names of all that are there */
	size_t		nsections;
} KafkaProperties;

/*
 * section: its name; "": what stands before the first one; NULL: the sections' names
 * only. False, and *failure with file and line, if the file, or one with a key that it
 * names, isn't kept secret, or if anything in the section, or of the sections' order, is
 * refused. Never repeats what stands in the file.
 */
extern bool kafka_properties_read(const char *path, const char *section, KafkaProperties *properties,
								  KafkaFailure *failure);

/* The same of a text, which is written over; path: for errors. */
extern bool kafka_properties_parse(const char *path, const char *section, char *text, KafkaProperties *properties,
								   KafkaFailure *failure);

/* Letters, digits, underscores and hyphens. */
extern bool kafka_section_name_is_valid(const char *name);

/*
 * Can a client be made with them: are files there and certificates what they should
 * be? left_over: as when kafka_client_close() is false.
 */
extern bool kafka_properties_try(const KafkaProperties *properties, KafkaFailure *failure, bool *left_over);

/* NULL: not set. */
extern const char *kafka_properties_get(const KafkaProperties *properties, const char *name);
extern void kafka_properties_free(KafkaProperties *properties);

/* ---- errors.c ---- */

typedef enum KafkaFate
{
	KAFKA_FATE_DELIVERED,
	KAFKA_FATE_RETRY,			/* trouble that passes: send it again */
	KAFKA_FATE_NO_TOPIC,		/* the topic isn't there (yet) */
	KAFKA_FATE_REFUSED,			/* the broker will never take this message */
	KAFKA_FATE_BATCH_REFUSED	/* it will never take the batch, for this message's sake or another's */
} KafkaFate;

extern KafkaFate kafka_fate(int code);

/* Of a request: a broker is connected, and does not answer. */
extern bool kafka_failure_is_timeout(const KafkaFailure *failure);

/* The broker answers, and says that it is not allowed. */
extern bool kafka_failure_is_authorization(const KafkaFailure *failure);

/* Want of memory, threads or the like, of this machine: it may pass. */
extern bool kafka_failure_is_of_system(const KafkaFailure *failure);

/* The topic hasn't got the partition. */
extern bool kafka_failure_is_no_partition(int code);
extern void kafka_failure_set(KafkaFailure *failure, int code, const char *text);

/* ---- error_text.c ---- */

typedef enum KafkaTrouble
{
	KAFKA_TROUBLE_UNREACHABLE,	/* nobody is there, or answers */
	KAFKA_TROUBLE_TLS,			/* who answers isn't taken for the broker, or speaks no TLS */
	KAFKA_TROUBLE_AUTHENTICATION	/* the broker answers, and doesn't let us in */
} KafkaTrouble;

/* Of a failure of the connection. */
extern KafkaTrouble kafka_trouble(const KafkaFailure *failure);

/* ---- producer.c ---- */

typedef struct KafkaHeader
{
	const char *name;
	const void *value;			/* NULL: a header without value */
	size_t		value_len;
} KafkaHeader;

typedef struct KafkaRecord
{
	int64_t		id;				/* comes back in the delivery report */
	const char *topic;
	int32_t		partition;		/* -1: by the key */
	const void *key;			/* NULL: none */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	const KafkaHeader *headers;
	size_t		nheaders;
} KafkaRecord;

typedef enum KafkaSendResult
{
	KAFKA_SEND_QUEUED,			/* copied; a delivery report will follow */
	KAFKA_SEND_FULL,			/* try again when some are delivered */
	KAFKA_SEND_FAILED			/* *failure says why; no delivery report */
} KafkaSendResult;

typedef struct KafkaDelivery
{
	int64_t		id;
	int			code;			/* 0: acknowledged by all in-sync replicas */
	int32_t		partition;
	int64_t		offset;
} KafkaDelivery;

extern KafkaSendResult kafka_producer_send(KafkaClient *client, const KafkaRecord *record,
										   KafkaFailure *failure);

/* Which of so many partitions the producer chooses for a key. */
extern int32_t kafka_partition_of_key(const void *key, size_t len, int32_t npartitions);

/*
 * What was sent goes to the broker now, as one request for each partition; it would
 * else within 2 ms. Takes 1 ms at most, and may serve the client.
 */
extern void kafka_producer_push(KafkaClient *client);

/* The reports since the last kafka_producer_forget_deliveries(); the client's memory. */
extern size_t kafka_producer_deliveries(KafkaClient *client, const KafkaDelivery **deliveries);
extern void kafka_producer_forget_deliveries(KafkaClient *client);

/* ---- consumer.c ---- */

typedef struct KafkaMessage
{
	const char *topic;			/* all pointers: valid until released */
	int32_t		partition;
	int64_t		offset;
	int64_t		timestamp_ms;	/* since the Unix epoch, -1: none */
	const void *key;			/* NULL: none */
	size_t		key_len;
	const void *value;			/* NULL: a tombstone */
	size_t		value_len;
	void	   *handle;
} KafkaMessage;

typedef enum KafkaEventKind
{
	KAFKA_EVENT_END,			/* the partition is read up to position.offset */
	KAFKA_EVENT_OFFSET_GONE,	/* the wanted offset isn't in the partition */
	KAFKA_EVENT_ERROR			/* failure says what is wrong with the partition */
} KafkaEventKind;

typedef struct KafkaEvent
{
	KafkaEventKind kind;
	char		topic[250];
	int32_t		partition;
	int64_t		offset;
	KafkaFailure failure;
} KafkaEvent;

/*
 * What bounds the memory of a consumer of so many partitions: values for
 * queued.max.messages.kbytes and fetch.message.max.bytes. Known at the opening only.
 */
typedef struct KafkaMemory
{
	char		queue_kbytes[12];
	char		fetch_bytes[12];
} KafkaMemory;

extern KafkaMemory kafka_consumer_memory(int npartitions);

/* Reads these partitions from these offsets, and no others. Copies its input. */
extern bool kafka_consumer_assign(KafkaClient *client, const KafkaPosition *positions, size_t n,
								  KafkaFailure *failure);

/* Some of these anew, of which nothing is under way; the others' reading goes on. */
extern bool kafka_consumer_assign_again(KafkaClient *client, const KafkaPosition *positions, size_t n,
										KafkaFailure *failure);

/*
 * What is there now, without waiting: up to max messages and events, of several
 * partitions the earliest first (partition_queues.c). The messages are to be released by the
 * caller. The events wait until they are
 * asked for, each valid until the next fetch. They came among the messages and
 * are to be looked at after them: an end that later messages have passed tells
 * nothing any more.
 */
extern size_t kafka_consumer_fetch(KafkaClient *client, KafkaMessage *messages, size_t max);
extern const KafkaEvent *kafka_consumer_next_event(KafkaClient *client);
extern void kafka_message_release(KafkaMessage *message);

/* A topic or a partition went away. Nothing more is fetched until the next assignment. */
extern bool kafka_consumer_topic_gone(const KafkaClient *client);

/* The i-th header; false when there are no more. */
extern bool kafka_message_header(const KafkaMessage *message, size_t i, KafkaHeader *header);

/* The partition's end as the last fetch reported it, or KAFKA_OFFSET_UNKNOWN. */
extern int64_t kafka_consumer_end_offset(KafkaClient *client, const char *topic, int32_t partition);

/*
 * Ends the pause of a fetcher that found its queue full: with librdkafka
 * before 2.2 that is a whole second (figures in src/README.md). Cheap; to be
 * called every 20 ms or so while behind.
 */
extern void kafka_consumer_nudge(KafkaClient *client);

/*
 * Tells the broker the offsets, for the tools that show lag and for who goes on
 * in the same group. Waits so long for its answer, 0: not at all.
 */
extern void kafka_commit_offsets(KafkaClient *client, const KafkaPosition *positions, size_t n, int timeout_ms);

/* ---- admin_thread.c ---- */

typedef struct KafkaPartition
{
	int32_t		id;
	int32_t		leader;			/* a broker's id, -1: none */
	int			replicas;
	int			in_sync;
	int64_t		first;			/* offsets; KAFKA_OFFSET_UNKNOWN */
	int64_t		end;
} KafkaPartition;

typedef struct KafkaTopic
{
	char	   *name;
	int			npartitions;
	int			leaderless;		/* the first partition without a leader, -1: none */
	KafkaPartition *partitions; /* if asked for */
} KafkaTopic;

typedef struct KafkaNewTopic
{
	const char *name;
	int			partitions;
	int			replication_factor; /* -1: the broker's default */
	const KafkaSetting *settings;
	size_t		nsettings;
} KafkaNewTopic;

/* All zero but for the timeout: does the cluster answer? The request is copied. */
typedef struct KafkaRequest
{
	const char *const *topics;	/* which of these are there, with how many partitions? */
	size_t		ntopics;
	bool		all_topics;		/* which topics are there at all? */

	/*
	 * Where do these partitions end (offset KAFKA_OFFSET_END), or which is the
	 * first message at or after a time (offset: ms since the Unix epoch; the end,
	 * if there is none)?
	 */
	const KafkaPosition *positions;
	size_t		npositions;
	const char *group;			/* instead, what has this consumer group committed for them? */

	bool		describe;		/* nothing of that, but all topics with all that is known of them */
	const KafkaNewTopic *create;	/* nothing of that: make this topic */

	/*
	 * Of kafka_request_at_once() only: what do all of them know of the topics? With positions:
	 * and what have those partitions, by whoever each broker says leads them?
	 */
	bool		every_broker;
	int			timeout_ms;
} KafkaRequest;

/* What a partition has by all that were asked. */
typedef struct KafkaRange
{
	char	   *topic;
	int32_t		partition;
	int64_t		first;			/* the least; KAFKA_OFFSET_UNKNOWN: nobody told */
	int64_t		end;			/* the greatest */
} KafkaRange;

typedef struct KafkaResponse
{
	KafkaFailure failure;		/* code 0: the rest is valid */
	char		cluster_id[128];	/* empty if the broker doesn't tell */
	KafkaTopic *topics;			/* those that are there */
	size_t		ntopics;
	KafkaPosition *positions;	/* of the request's, in its order; KAFKA_OFFSET_UNKNOWN: nothing committed */
	size_t		npositions;
	int			group_members;	/* of the request's group, or KAFKA_MEMBERS_UNCOUNTED: some */
	KafkaRange *ranges;			/* with every_broker: of the request's positions, in place of theirs */
	size_t		nranges;
	int			brokers;		/* with every_broker: so many there are */
	int			brokers_heard;	/* and so many have told of the topics what they know */
} KafkaResponse;

/* The answer makes the client's fd readable. False if a request is under way already. */
extern bool kafka_request(KafkaClient *client, const KafkaRequest *request);
extern bool kafka_requesting(KafkaClient *client);

/* True once for each request, when it is answered; to be freed by kafka_response_free(). */
extern bool kafka_response(KafkaClient *client, KafkaResponse *answer);

/*
 * The same beside that, of a consumer that has partitions: a broker answers in order, and
 * kafka_request()'s request waits there until a fetch is answered. This one has connections of
 * its own, which are kept for a minute.
 */
extern bool kafka_request_at_once(KafkaClient *client, const KafkaRequest *request);
extern bool kafka_requesting_at_once(KafkaClient *client);
extern bool kafka_response_at_once(KafkaClient *client, KafkaResponse *answer);
extern void kafka_response_free(KafkaResponse *answer);

/* ---- embedded.c ---- */

typedef struct KafkaEmbedded KafkaEmbedded;

/* A broker on a free port of the loopback interface; keeps everything in memory. */
extern KafkaEmbedded *kafka_embedded_start(KafkaFailure *failure);
extern const char *kafka_embedded_bootstrap(const KafkaEmbedded *broker);
extern bool kafka_embedded_create_topic(KafkaEmbedded *broker, const char *topic, int partitions,
										KafkaFailure *failure);
extern bool kafka_embedded_stop(KafkaEmbedded *broker, int timeout_ms);

#endif							/* NEXUS_KAFKA_KAFKA_H */
