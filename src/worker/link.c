/*
 * link.c
 *		A worker's connection to Kafka: opened by the settings, watched, closed at exit.
 *
 * Whether the broker is there can't be asked of librdkafka, which reconnects by
 * itself and tells of nothing but trouble. So when it tells that all brokers
 * are down, and at the start, the worker asks the cluster a question; answered
 * or not is what nexus_status shows. While all is well nothing is asked.
 */
#include "nexus_kafka.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "worker/worker.h"

#define CLOSE_TIMEOUT_MS	500
#define FIRST_PROBE_MS		250
#define LONGEST_PROBE_MS	2000
#define NOT_ALLOWED_MS		5000	/* until it is asked again */
#define OPEN_AGAIN_MS		5000	/* what stood in the way of a client may have passed */
#define PROBATION_MS		2000	/* within which a producer without rights is told so */

static KafkaLink *open_link = NULL;

const char *
link_state_name(LinkState state)
{
	static const char *const names[] = {"unknown", "up", "unreachable", "tls_failed", "not_authenticated"};

	return names[state];
}

bool
link_is_embedded(void)
{
	return nexus_embedded_broker;
}

static void
embedded_bootstrap(char *bootstrap, size_t size)
{
	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	strlcpy(bootstrap, nexus_shared->embedded_bootstrap, size);
	LWLockRelease(nexus_shared->lock);
}

/* ---- what the settings say ---- */

typedef struct Connection
{
	char		bootstrap[1024];
	KafkaProperties properties; /* with secrets: to be freed soon */
	uint64		hash;			/* of all of it */
} Connection;

/* Why there is no broker to connect to. */
static void
explain_none(const Connection *connection, const char *name, char *why, size_t size)
{
	const char *none = "neither nexus_kafka.bootstrap_servers nor bootstrap.servers in nexus_kafka.config_file is set";

	if (nexus_embedded_broker)
		none = "the embedded broker is not up yet";
	else if (!nexus_config_file[0])
		none = name[0] ? "nexus_kafka.config_file is not set" : "nexus_kafka.bootstrap_servers is not set";
	else if (!connection->properties.found)
		none = "nexus_kafka.config_file has no such section";
	snprintf(why, size, "%s%s%s%s", name[0] ? "connection \"" : "", name, name[0] ? "\": " : "", none);
}

/* False, and why, if there is nothing to connect to; refused: because of the file. */
static bool
read_connection(const char *name, Connection *connection, char *why, size_t size, bool *refused)
{
	KafkaFailure failure;
	const char *bootstrap = NULL;

	memset(connection, 0, sizeof(*connection));
	*refused = false;
	if (nexus_embedded_broker)
		embedded_bootstrap(connection->bootstrap, sizeof(connection->bootstrap));
	else
	{
		if (nexus_config_file[0] && !kafka_properties_read(nexus_config_file, name, &connection->properties, &failure))
		{
			*refused = true;
			snprintf(why, size, "nexus_kafka.config_file: %s", failure.text);
			return false;
		}
		bootstrap = kafka_properties_get(&connection->properties, "bootstrap.servers");
		if (bootstrap == NULL && name[0] == '\0')
			bootstrap = nexus_bootstrap_servers;
		strlcpy(connection->bootstrap, bootstrap ? bootstrap : "", sizeof(connection->bootstrap));
	}
	connection->hash = connection->properties.hash ^
		hash_bytes_extended((unsigned char *) connection->bootstrap, strlen(connection->bootstrap), 0);
	if (connection->bootstrap[0])
		return true;
	explain_none(connection, name, why, size);
	kafka_properties_free(&connection->properties);
	return false;
}

/*
 * Another connection is to be used: start anew with it. One that can't be used is
 * complained of, and the connection that is there goes on.
 */
static void
heed_reload(KafkaLink *link)
{
	Connection	connection;
	KafkaFailure failure;
	char		why[512];
	bool		refused;
	bool		left_over;
	bool		usable = read_connection(link->connection, &connection, why, sizeof(why), &refused);

	link->reloads = worker_reloads;
	if (!usable && !refused)
		worker_restart();		/* there is none to be used any more */
	if (usable && connection.hash != link->hash)
	{
		usable = kafka_properties_try(&connection.properties, &failure, &left_over);
		if (left_over)
			worker_leave_hard();
		if (!usable)
			snprintf(why, sizeof(why), "%s", failure.text);
	}
	kafka_properties_free(&connection.properties);
	if (usable)
	{
		link->complained = false;
		if (connection.hash != link->hash)
			worker_restart();
		return;
	}
	job_set_error(MyJob, ERRCODE_CONFIG_FILE_ERROR, why);
	if (link->complained)
		return;
	link->complained = true;
	ereport(LOG,
			(errmsg("nexus_kafka %s%s%s keeps its connection, since the new settings can't be used: %s",
					job_kind_name(MyJob->kind), MyJob->name[0] ? " " : "", MyJob->name, why)));
}

/* librdkafka's own lines are for those who look for a fault. */
static void
log_line(int level, const char *text)
{
	ereport(DEBUG1, (errmsg_internal("librdkafka: %s", text), errhidestmt(true)));
}

static void
close_link(int code, Datum arg)
{
	if (open_link && open_link->client && !kafka_client_close(open_link->client, CLOSE_TIMEOUT_MS))
		worker_leave_hard();
	open_link = NULL;
}

/* ---- what nexus_health() tells ---- */

static void
note_state(LinkState state)
{
	pg_atomic_write_u32(&MyJob->link, state);
}

static void
note_trouble(const KafkaFailure *failure)
{
	switch (kafka_trouble(failure))
	{
		case KAFKA_TROUBLE_UNREACHABLE:
			note_state(LINK_UNREACHABLE);
			break;
		case KAFKA_TROUBLE_TLS:
			note_state(LINK_TLS_FAILED);
			break;
		case KAFKA_TROUBLE_AUTHENTICATION:
			note_state(LINK_NOT_AUTHENTICATED);
			break;
	}
}

void
link_note_topic(const KafkaResponse *answer)
{
	TopicPresence presence = answer ? TOPIC_MISSING : TOPIC_UNKNOWN;

	for (size_t i = 0; answer && i < answer->ntopics && presence != TOPIC_FOUND; i++)
		if (strcmp(answer->topics[i].name, nexus_topic) == 0)
			presence = TOPIC_FOUND;
	pg_atomic_write_u32(&MyJob->topic, presence);
}

/* ---- the connection ---- */

/* Why no client could be made: the settings, which a person has to mend, or want of something here. */
static void
note_no_client(const KafkaFailure *failure)
{
	bool		passes = kafka_failure_is_of_system(failure);

	job_condition_set(MyJob, passes ? CONDITION_NO_CLIENT : CONDITION_NOT_CONFIGURED, "%s", failure->text);
	job_condition_clear(MyJob, passes ? CONDITION_NOT_CONFIGURED : CONDITION_NO_CLIENT);
}

static bool
open_once(KafkaLink *link, const char *name, KafkaKind kind, const KafkaSetting *settings, int nsettings)
{
	Connection	connection;
	KafkaFailure failure;
	KafkaSetting *all;
	int			n = 0;
	char		why[512];
	bool		refused;

	if (!read_connection(name, &connection, why, sizeof(why), &refused))
	{
		job_condition_set(MyJob, CONDITION_NOT_CONFIGURED, "%s", why);
		return false;
	}
	strlcpy(link->connection, name, sizeof(link->connection));
	strlcpy(link->bootstrap, connection.bootstrap, sizeof(link->bootstrap));
	link->hash = connection.hash;
	link->reloads = worker_reloads;
	link->complained = false;

	all = palloc((connection.properties.n + nsettings + 1) * sizeof(KafkaSetting));
	for (size_t i = 0; i < connection.properties.n; i++)
		all[n++] = connection.properties.settings[i];
	all[n++] = (KafkaSetting) {"bootstrap.servers", link->bootstrap};
	for (int i = 0; i < nsettings; i++)
		all[n++] = settings[i];
	if (open_link == NULL)
		before_shmem_exit(close_link, 0);
	open_link = link;
	kafka_log_hook = log_line;
	link->client = kafka_client_open(kind, all, n, &failure);
	pfree(all);
	kafka_properties_free(&connection.properties);
	if (link->client == NULL)
	{
		note_no_client(&failure);
		return false;
	}
	job_condition_clear(MyJob, CONDITION_NOT_CONFIGURED);
	job_condition_clear(MyJob, CONDITION_NO_CLIENT);
	link->reachable = false;
	link->next_probe = mono_now();
	link->probe_delay_ms = FIRST_PROBE_MS;
	note_state(LINK_UNKNOWN);
	link->allowed_at = 0;
	return true;
}

void
link_open(KafkaLink *link, const char *name, KafkaKind kind, const KafkaSetting *settings, int nsettings)
{
	while (!open_once(link, name, kind, settings, nsettings))
		(void) worker_wait(-1, job_condition_is_set(MyJob, CONDITION_NO_CLIENT) ? OPEN_AGAIN_MS : -1);
}

static void
note_not_allowed(const KafkaFailure *failure)
{
	note_state(LINK_UP);
	job_condition_set(MyJob, CONDITION_NOT_ALLOWED, "the broker does not allow it: %s", failure->text);
	job_set_error(MyJob, ERRCODE_INSUFFICIENT_PRIVILEGE, failure->text);
}

/*
 * The client can't be used any more. A producer without the right to write is told so
 * just after it has connected, and again when it does so anew: that is the only way to
 * learn of the right.
 */
pg_noreturn static void
leave_fatal(const KafkaFailure *failure)
{
	MonoTime	again = mono_in_ms(NOT_ALLOWED_MS);
	int			reloads = worker_reloads;

	if (kafka_failure_is_authorization(failure))
	{
		note_not_allowed(failure);
		while (mono_now() < again && worker_reloads == reloads)
			(void) worker_wait(-1, mono_ms_until(again));
		worker_restart();
	}
	job_set_error(MyJob, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, failure->text);
	ereport(LOG, (errmsg("nexus_kafka %s opens its connection anew: %s",
						 job_kind_name(MyJob->kind), failure->text)));
	proc_exit(0);				/* not at once: it may be the same again */
}

/* All brokers are gone. A refusal is told at once; what else it is, the answer to a question shows. */
static void
note_lost(KafkaLink *link)
{
	const KafkaFailure *last = kafka_client_last_failure(link->client);

	if (last && kafka_trouble(last) != KAFKA_TROUBLE_UNREACHABLE)
		link_trouble(link, last);
	else if (last)
		note_state(LINK_UNREACHABLE);
	link->next_probe = mono_now();
	link->reachable = false;
}

bool
link_serve(KafkaLink *link)
{
	KafkaFailure failure;
	char		bootstrap[sizeof(link->bootstrap)];
	bool		lost;

	kafka_client_serve(link->client);

	if (kafka_client_is_fatal(link->client, &failure))
		leave_fatal(&failure);
	lost = kafka_client_lost(link->client);
	if (lost)
		note_lost(link);
	if (link->reloads != worker_reloads)
		heed_reload(link);
	if (!nexus_embedded_broker)
		return lost;
	embedded_bootstrap(bootstrap, sizeof(bootstrap));
	if (bootstrap[0] && strcmp(bootstrap, link->bootstrap) != 0)
		worker_restart();
	return lost;
}

bool
link_probe_due(KafkaLink *link)
{
	return !link->reachable && !kafka_requesting(link->client) && mono_now() >= link->next_probe;
}

/* Until the next question is due, -1: none is wanted, or an answer will come. */
long
link_probe_timeout(KafkaLink *link)
{
	if (link->reachable || kafka_requesting(link->client))
		return -1;
	return mono_ms_until(link->next_probe);
}

/*
 * The broker lets the worker do its work. Of a producer without the right to write, that is
 * only known when it hasn't been told otherwise for a while.
 */
static void
note_allowed(KafkaLink *link)
{
	if (!job_condition_is_set(MyJob, CONDITION_NOT_ALLOWED))
		return;
	if (link->allowed_at == 0)
		link->allowed_at = MyJob->kind == JOB_RELAY ? mono_in_ms(PROBATION_MS) : mono_now();
	if (mono_now() >= link->allowed_at)
		job_condition_clear(MyJob, CONDITION_NOT_ALLOWED);
}

void
link_heard(KafkaLink *link)
{
	if (!link->reachable)
		kafka_client_forget_failure(link->client);
	note_allowed(link);
	job_condition_clear(MyJob, CONDITION_UNREACHABLE);
	note_state(LINK_UP);
	link->reachable = true;
	link->probe_delay_ms = FIRST_PROBE_MS;
}

void
link_alive(KafkaLink *link)
{
	link_heard(link);
	job_condition_clear(MyJob, CONDITION_STARTING);
}

/* 0: not on probation, else until then. */
MonoTime
link_probation(const KafkaLink *link)
{
	return job_condition_is_set(MyJob, CONDITION_NOT_ALLOWED) ? link->allowed_at : 0;
}

/* failure: of a question; librdkafka's last complaint says more, if it had one. */
void
link_trouble(KafkaLink *link, const KafkaFailure *failure)
{
	const KafkaFailure *last = kafka_client_last_failure(link->client);
	const char *text = last ? last->text : failure->text;

	if (kafka_failure_is_authorization(failure))
	{
		link->next_probe = mono_in_ms(NOT_ALLOWED_MS);
		link->allowed_at = 0;
		note_not_allowed(failure);
		return;
	}
	note_trouble(last ? last : failure);
	link->reachable = false;
	link->next_probe = mono_in_ms(link->probe_delay_ms);
	link->probe_delay_ms = Min(link->probe_delay_ms * 2, LONGEST_PROBE_MS);
	job_condition_set(MyJob, CONDITION_STARTING, NULL);	/* what follows the first answer */
	job_condition_set(MyJob, CONDITION_UNREACHABLE, "no answer from %s: %s", link->bootstrap, text);
	job_set_error(MyJob, ERRCODE_CONNECTION_FAILURE, text);
}
