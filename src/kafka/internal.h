/*
 * internal.h
 *		What the files of src/kafka share: the inside of a KafkaClient.
 */
#ifndef NEXUS_KAFKA_INTERNAL_H
#define NEXUS_KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <sys/stat.h>

#include "kafka/kafka.h"

typedef struct AdminThread AdminThread;
typedef struct PartitionQueue PartitionQueue;

/*
 * Everything but rk and wakeup[1], which librdkafka's functions and the
 * admin_thread's thread may use too, is touched by the main thread only.
 */
struct KafkaClient
{
	rd_kafka_t *rk;
	rd_kafka_queue_t *main_queue;	/* errors, delivery reports */
	rd_kafka_queue_t *log_queue;
	rd_kafka_queue_t *message_queue;	/* a consumer's; else NULL */
	int			wakeup[2];		/* a non-blocking pipe */

	KafkaFailure last_failure;
	bool		lost;
	bool		complained;
	bool		fatal;

	/* producer */
	KafkaDelivery *deliveries;
	size_t		ndeliveries;
	size_t		maxdeliveries;

	/* consumer */
	rd_kafka_topic_partition_list_t *assigned;
	rd_kafka_message_t **fetched;	/* a hand-over's */
	size_t		maxfetched;
	KafkaEvent *events;			/* from next_event on not looked at */
	size_t		nevents;
	size_t		next_event;
	size_t		maxevents;
	bool		needs_nudge;
	bool		topic_gone;
	PartitionQueue	   *queues;
	size_t		nqueues;
	size_t		next_queue;

	AdminThread   *admin_thread;
	AdminThread   *at_once;		/* with a handle of its own */

	/*
	 * For that; NULL: a producer, which fetches nothing. Secrets are in it for the client's
	 * life, as they are in librdkafka's handles, which connect anew with them.
	 */
	rd_kafka_conf_t *at_once_conf;
};

/* client.c */
extern void kafka_client_wake(KafkaClient *client);

/* The only call of rd_kafka_new(). Takes conf; NULL and *failure if there is no handle. */
extern rd_kafka_t *kafka_handle_new(KafkaKind kind, rd_kafka_conf_t *conf, KafkaFailure *failure);
extern bool kafka_start_thread(pthread_t *thread, void *(*main) (void *), void *arg);

/* Runs finish(arg) in a thread of its own; false if it isn't done in time. */
extern bool kafka_run_bounded(void (*finish) (void *), void *arg, int timeout_ms);

/* error_text.c */
extern void kafka_failure_explain(KafkaFailure *failure, int code, const char *reason);

/* files.c */
#define KAFKA_HASH_SEED	UINT64_C(14695981039346656037)

extern uint64_t kafka_hash(uint64_t hash, const void *bytes, size_t size);

/* NULL, and the hash of their content; or what is wrong with the file that *property names. */
extern const char *kafka_files_check(const KafkaProperties *properties, uint64_t *hash, const char **property);

/* False, and why: of a handle that is about to be made, which opens them. */
extern bool kafka_files_are_kept(const rd_kafka_conf_t *conf, char *why, size_t size);

/* NULL, or why a file with a secret in it isn't kept as it should be. */
extern const char *kafka_secret_file_fault(const struct stat *st);

/* property_names.c */
typedef struct KafkaRefusedProperty
{
	const char *name;			/* or, with a * at its end, the beginning of names */
	const char *why;
} KafkaRefusedProperty;

/* The table's copy of the name, or of the one that is very near to it; NULL: none. */
extern const char *kafka_property_allowed(const char *name);
extern const char *kafka_property_meant(const char *name);
extern const KafkaRefusedProperty *kafka_property_refused(const char *name);

/* config.c */
extern rd_kafka_conf_t *kafka_config_build(KafkaKind kind, const KafkaSetting *settings, size_t nsettings,
										   bool *needs_nudge, KafkaFailure *failure);

/* False, and why in words that tell nothing of the value. */
extern bool kafka_config_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *why, size_t size);

/* producer.c */
extern void kafka_producer_record_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque);

/* topic.c: without its partitions; false: no memory */
extern bool kafka_topic_fill(KafkaTopic *topic, const struct rd_kafka_metadata_topic *metadata);

/* partition_queues.c */
extern void kafka_queue_open(KafkaClient *client, const char *topic, int32_t partition);
extern size_t kafka_queues_take(KafkaClient *client, rd_kafka_message_t **messages, size_t max);
extern void kafka_lane_close(KafkaClient *client, const char *topic, int32_t partition);
extern void kafka_queues_close(KafkaClient *client);

/* admin.c: these wait */
extern bool kafka_create_topic(rd_kafka_t *rk, const KafkaNewTopic *topic, int timeout_ms, KafkaFailure *failure);
extern bool kafka_describe_topics(rd_kafka_t *rk, int timeout_ms, KafkaResponse *answer);

/* admin_thread.c */
extern void kafka_admin_thread_end(AdminThread *admin_thread);

#endif							/* NEXUS_KAFKA_INTERNAL_H */
