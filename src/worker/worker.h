/*
 * worker.h
 *		What every background worker shares, and the table of jobs.
 *
 * A job is what is to be done (supervise a database, publish its outbox, run a
 * pipeline, be the embedded broker); a worker is the process that does it at
 * the moment. The job stays in shared memory when its worker ends, with its
 * state, its counters and its last error.
 *
 * shmem.c		the shared memory
 * jobs.c		the table of jobs, counters, wakes and answers
 * partition_stats.c	what is known of partitions, for nexus_partitions
 * condition.c	what is amiss with a job, and the state that follows
 * clock.h		the clock that deadlines go by
 * process.c	a worker's life: attaching to its job, waiting, leaving
 * xact.c		a transaction with its error caught
 * blocked.c	a transaction that waits for a lock
 * children.c	a parent starts workers and starts them again, with back-off
 * launcher.c, supervisor.c, broker.c	the workers that are no pipeline
 * hold.c		keeping workers out of a database or away from a pipeline for a while
 * commands.c	what PostgreSQL's own commands mean for the workers
 * transaction_end.c	what a backend does when its transaction ends, and in which order
 * wake.c		waking a worker, at once or when the transaction commits
 * resume.c		waiting for what nexus_resume() sets going
 * names.c		sets of names, and how a name looks in a line of the log
 * request.c	a backend asks a worker: may it, until when, and which; tickets
 * calls.c		calls from backends to the relay
 * new_topic.c	a topic that is to be made, as a call has it, to and fro
 * link.c		a worker's connection to Kafka, and whether it is up
 * connections.c	which connections have a name
 * synchronous.c	is a commit on disk, here and on the synchronous standbys
 * definition.c	can a pipeline run as it is written?
 */
#ifndef NEXUS_WORKER_H
#define NEXUS_WORKER_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/palloc.h"

#include "compat.h"
#include "kafka/kafka.h"
#include "worker/clock.h"

typedef enum JobKind
{
	JOB_SUPERVISOR,
	JOB_RELAY,
	JOB_INGEST,
	JOB_REPLAY,
	JOB_BROKER
} JobKind;

/* What follows from a job's conditions (condition.c). */
typedef enum JobState
{
	JOB_STARTING,
	JOB_RUNNING,
	JOB_UNREACHABLE,			/* no broker answers */
	JOB_WAITING,				/* trouble in the environment: tried again with back-off */
	JOB_FAILING,				/* the statement fails for every message: likewise */
	JOB_STOPPED,				/* a person must decide */
	JOB_PAUSED,
	JOB_ON_DEMAND,				/* nobody asks for it now */
	JOB_NOT_CONFIGURED,
	JOB_NO_WORKER				/* no free background worker slot */
} JobState;

/*
 * What may be amiss with a job, or keep it from running. Each is set and cleared by one
 * file only, the one that is named here. The table in condition.c has the state that
 * follows from each, and their rank.
 */
typedef enum JobCondition
{
	CONDITION_PAUSED,			/* supervisor.c */
	CONDITION_NO_ROOM,			/* supervisor.c: of its own job: none is left for others */
	CONDITION_NO_SLOT,			/* children.c: no background worker slot is free */
	CONDITION_STOPPED,			/* ingest.c: a person must decide */
	CONDITION_BAD_DEFINITION,	/* supervisor.c: the pipeline's row is not one that can run */
	CONDITION_NOT_NEEDED,		/* supervisor.c: nobody asks for it now */
	CONDITION_BAD_SECTION,		/* supervisor.c: the connection's section can't be used, and nobody asks for it */
	CONDITION_NOT_CONFIGURED,	/* link.c: there is nothing to connect to */
	CONDITION_NO_CLIENT,		/* link.c: want of memory or threads; tried again */
	CONDITION_TABLES_UNREADABLE,	/* supervisor.c: our own tables can't be read */
	CONDITION_KEEPS_ENDING,		/* children.c: the worker does */
	CONDITION_UNREACHABLE,		/* link.c: no broker answers */
	CONDITION_NOT_ALLOWED,		/* link.c: the broker says so */
	CONDITION_TOPIC_MISSING,	/* ingest.c, window.c */
	CONDITION_GROUP_IN_USE,		/* start.c: the consumer group to go on from has members */
	CONDITION_STALE_BROKER,		/* stale.c: partitions are lacking in what brokers tell, which may be out of date */
	CONDITION_STALE_LEADER,		/* stale.c: a partition's leader hasn't what was read, and may be out of date */
	CONDITION_PARTITION_FAILS,	/* ingest.c: it can't be read */
	CONDITION_STATEMENT_FAILS,	/* ingest.c: for every message */
	CONDITION_TRANSACTION_FAILS,	/* ingest.c, exchange.c: by the environment; tried again */
	CONDITION_BLOCKED,			/* blocked.c: a transaction waits for a lock */
	CONDITION_NO_LEADER,		/* ingest.c */
	CONDITION_UNACKNOWLEDGED,	/* overdue.c: the broker answers, and acknowledges nothing */
	CONDITION_NOT_REPLICATED,	/* send.c: what is committed waits for the synchronous standbys */
	CONDITION_SENT_AGAIN,		/* window.c: the broker could not take rows now */
	CONDITION_STARTING,			/* process.c, link.c, supervisor.c: it is on its way */
	CONDITION_REMARK,			/* broker.c, ingest.c: it runs, and there is something to say of it */
} JobCondition;

#define JOB_CONDITIONS		(CONDITION_REMARK + 1)
#define JOB_REASON_SIZE		256

#define JOB_LAG_UNKNOWN		((uint64) -1)

/* What a worker knows of its connection. */
typedef enum LinkState
{
	LINK_UNKNOWN,				/* not tried yet */
	LINK_UP,
	LINK_UNREACHABLE,
	LINK_TLS_FAILED,
	LINK_NOT_AUTHENTICATED
} LinkState;

/* Is nexus_kafka.topic there? */
typedef enum TopicPresence
{
	TOPIC_UNKNOWN,
	TOPIC_FOUND,
	TOPIC_MISSING
} TopicPresence;

/* Guarded by Job.mutex; written by condition.c. */
typedef struct JobConditions
{
	uint32		set;			/* a bit for each; a condition's owner may read its bit without the mutex */
	JobState	state;			/* that follows from them */
	TimestampTz since;			/* when the state was entered */
	char		reasons[JOB_CONDITIONS][JOB_REASON_SIZE];
} JobConditions;

/* The last one. Guarded by Job.mutex; written by jobs.c. */
typedef struct JobError
{
	char		text[256];		/* empty: none */
	int			sqlstate;
	TimestampTz at;
} JobError;

typedef struct Job
{
	/* written under NexusShared.lock, read under it too */
	bool		in_use;
	JobKind		kind;
	Oid			database;		/* InvalidOid: the broker's */
	char		database_name[NAMEDATALEN]; /* as last known, for messages */
	char		name[NAMEDATALEN];	/* of the pipeline; of a relay's connection, empty: the default one; else empty */
	int			part;			/* of a pipeline's workers, from 0 on */
	uint32		generation;		/* counts the uses of this slot */
	uint32		definition;		/* hash of the pipeline's definition: another one, another worker */
	bool		wanted;			/* of a supervisor's jobs: a worker should run */
	int			pid;			/* of the worker, 0: none */
	uint32		attached;		/* the definition that its worker began with */

	/* of the worker, NULL: none; read without a lock: a stale one wakes a stranger, no harm */
	Latch	   *volatile latch;

	/* written while there is a worker, read by its parent after the worker's end */
	bool		restart_at_once;
	bool		told_to_end;	/* by SIGTERM: no sign of trouble */

	slock_t		mutex;			/* guards the fields down to counted_since */
	JobConditions conditions;
	JobError	error;
	TimestampTz counted_since;

	pg_atomic_uint64 messages;
	pg_atomic_uint64 rows;
	pg_atomic_uint64 batches;
	pg_atomic_uint64 dead_letters;
	pg_atomic_uint64 retries;
	pg_atomic_uint64 lag;		/* JOB_LAG_UNKNOWN */
	pg_atomic_uint64 last_message_at;	/* a TimestampTz, 0: none */
	pg_atomic_uint64 last_commit;	/* of an ingest worker: where in the log its last transaction ends */
	pg_atomic_uint32 long_transaction;	/* 1: its transaction takes more than a second */
	pg_atomic_uint32 link;		/* a LinkState */
	pg_atomic_uint32 topic;		/* a TopicPresence */

	/*
	 * Requests (nexus_flush, nexus_consume): a backend takes the next ticket and
	 * waits on answered_cv until answered has come to it.
	 */
	pg_atomic_uint64 asked;
	pg_atomic_uint64 answered;
	pg_atomic_uint64 refused;	/* messages that went to the dead letters, ever */
	pg_atomic_uint64 reported;	/* messages of which nexus_consume has told */
	pg_atomic_uint64 calls;		/* of backends, ever (calls.c): the relay looks when there are more */
	pg_atomic_uint64 calls_wanted;	/* while there are fewer, one more need not wake it */
	pg_atomic_uint64 wakes;		/* for any other reason, such as a commit: likewise */
	ConditionVariable answered_cv;
} Job;

/* What an ingest worker knows of a partition. Allocated under NexusShared.lock. */
typedef struct PartitionStat
{
	int			job;			/* index, -1: free */
	uint32		generation;		/* of the job */
	char		topic[250];
	int32		partition;
	pg_atomic_uint64 end_offset;	/* UINT64_MAX: unknown */
} PartitionStat;

#define NEXUS_MAX_PARTITIONS	2048
#define NEXUS_MAX_HOLDS			64
#define NEXUS_MAX_WANTED		64

typedef struct NexusShared
{
	LWLock	   *lock;

	/* under lock */
	Oid			holds[NEXUS_MAX_HOLDS]; /* databases that workers are kept out of; InvalidOid: free */
	bool		starved;		/* somebody found no room for a job: to be told when there is some */
	Oid			wanted[NEXUS_MAX_WANTED];	/* databases for the launcher to look into */
	int			nwanted;
	bool		rescan;			/* the list was full: look into all */
	char		embedded_bootstrap[128];	/* empty: no embedded broker is up */
	char		embedded_cluster[64];	/* names this run of it */
	PartitionStat partitions[NEXUS_MAX_PARTITIONS];

	Latch	   *volatile launcher_latch;
	ConditionVariable worker_left;

	Job			jobs[FLEXIBLE_ARRAY_MEMBER];
} NexusShared;

/* NULL without shared_preload_libraries. */
extern NexusShared *nexus_shared;

/* ---- shmem.c ---- */
extern void shmem_install_hooks(void);

/* ---- jobs.c ---- */
extern void jobs_init(void);	/* new shared memory */
extern const char *job_kind_name(JobKind kind);

/*
 * The next one in use; after NULL: the first; NULL: no more. Without nexus_shared->lock a job
 * may become another one any time.
 */
extern Job *job_next(const Job *after);

/* Its place in the table, from 0 to nexus_max_jobs - 1; and what is there, in use or not. */
extern int	job_index(const Job *job);
extern Job *job_at(int index);

/* The caller holds nexus_shared->lock (create, free: exclusively). */
extern Job *job_find(JobKind kind, Oid database, const char *name, int part);
extern Job *job_create(JobKind kind, Oid database, const char *name, int part);
extern void job_free(Job *job);
extern int	jobs_free(void);
extern void job_fold(Job *job, Job *into);

/* These take it themselves. */
extern Job *job_demand(const char *pipeline, int part);
extern uint64 job_count_unreported(const char *pipeline);

/* Finds without the caller holding the lock; the job may be freed any time. */
extern Job *job_lookup(JobKind kind, Oid database, const char *name, int part);

/* Names of this database's connections whose relays run, or are to, without the default one. */
extern List *relays_at_work(MemoryContext context);

extern void job_set_error(Job *job, int sqlstate, const char *message);
extern void job_get_error(Job *job, JobError *error, TimestampTz *counted_since);
extern void job_wake(Job *job);
extern void job_wake_for_call(Job *job);

/* ---- partition_stats.c ---- */
extern void partition_stats_init(void);
extern PartitionStat *partition_stat(Job *job, const char *topic, int32 partition);
extern void partition_stats_release(Job *job);
extern Job *partition_stat_job(const PartitionStat *stat);

/* ---- condition.c ---- */
extern const char *job_state_name(JobState state);

/* Says so in the log if the job's state changes by it. A condition that is set already may get another reason. */
extern void job_condition_set(Job *job, JobCondition condition, const char *reason,...) pg_attribute_printf(3, 4);
extern void job_condition_clear(Job *job, JobCondition condition);
extern bool job_condition_is_set(const Job *job, JobCondition condition);

/* Of a new job: it is starting. */
extern void job_conditions_init(Job *job);

/* Another definition, or a new worker: what the one before found is no longer known. */
extern void job_conditions_forget(Job *job, bool new_definition);

extern JobState job_get_state(Job *job);

/* The state, and why: the reason of the condition that it follows from; since may be NULL. */
extern JobState job_get_reason(Job *job, char reason[JOB_REASON_SIZE], TimestampTz *since);

/* True if it can't go on without a person, so that waiting for it is vain. */
extern bool job_is_hopeless(Job *job);

/* As much as fits, without half a character at the end. */
extern void copy_clipped(char *to, const char *from, int size);

/*
 * For who reads: settings and files have bytes in any encoding, which are no text in this
 * database's. Such a byte is a question mark.
 */
extern void make_valid(char *text);

/* ---- request.c ---- */

#define HALTED_REASON	"this database was restored from a dump or copied from another: nexus_resume() makes it run"

/* Restored from a dump, or copied: nothing runs here (HALTED_REASON). */
extern bool worker_database_is_halted(void);

/* When the timeout, which must not be negative, ends; raises 22023. */
extern MonoTime worker_deadline(Interval *timeout);

/* Raises 55000 where no worker can run at all: not preloaded, a standby. */
extern void worker_check_possible(const char *function);

/* The job that is to be asked; NULL: there is none, or not in time. */
extern Job *worker_await_job(JobKind kind, const char *name, int part, MonoTime deadline);

typedef enum RequestOutcome
{
	REQUEST_ANSWERED,
	REQUEST_UNANSWERED,			/* in time; or the worker can't go on without a person */
	REQUEST_JOB_GONE			/* there may be another one: after DROP and CREATE EXTENSION, say */
} RequestOutcome;

/* Asks the job's worker. */
extern RequestOutcome request_and_wait(Job *job, MonoTime deadline);

/* The worker: what was asked for till that ticket is done. */
extern void job_answer(Job *job, uint64 ticket);

/* ---- calls.c ---- */

#define NEXUS_MAX_CALLS		256
#define CALL_REQUEST_SIZE	8192	/* larger ones are in a segment of their own */

typedef enum CallState
{
	CALL_FREE,
	CALL_FILLING,
	CALL_ASKED,
	CALL_TAKEN,
	CALL_ANSWERED,
	CALL_ABANDONED
} CallState;

typedef enum CallKind
{
	CALL_PRODUCE,
	CALL_CREATE_TOPIC,
	CALL_TOPICS
} CallKind;

typedef struct CallAnswer
{
	KafkaFailure failure;		/* code 0: the rest is valid */
	int32		partition;
	int64		offset;
	Size		reply_size;		/* of what is written over the request, 0: nothing */
} CallAnswer;

typedef struct Call
{
	pg_atomic_uint32 state;
	CallKind	kind;
	Oid			database;		/* of the worker that is called; InvalidOid: the embedded broker */
	char		connection[NAMEDATALEN];	/* of the relay that is called, empty: the default one */
	uint32		generation;		/* counts the uses of this slot */
	Latch	   *latch;			/* of the backend */
	Size		size;
	dsm_handle	handle;			/* DSM_HANDLE_INVALID: the request is here */
	dsm_segment *segment;		/* the backend's own mapping of it */
	CallAnswer	answer;
	char		request[CALL_REQUEST_SIZE];
} Call;

typedef enum CallOutcome
{
	CALL_DONE,
	CALL_NOT_TAKEN,				/* it has had and will have no effect */
	CALL_UNKNOWN				/* taken, but not answered in time: it may take effect still */
} CallOutcome;

extern Size calls_size(void);
extern void calls_start(void);

/* The backend: room for a request or, if that is larger, its reply, of that size (NULL: none till the deadline), then the call itself. */
extern char *call_begin(CallKind kind, Oid database, const char *connection, Size size, MonoTime deadline);
extern CallOutcome call_and_wait(Job *worker, MonoTime deadline, CallAnswer *answer);

/* Does one wait for the relay of this database and connection? */
extern bool call_waits_for(const char *connection);

/* What the worker has written over the request; in the context of call_and_wait(). */
extern const char *call_reply(void);

/* The relay. */
extern Call *call_take_next(int *i);
extern void call_put_back(Call *call);

/* The request, mapped into this process till call_unmap(); NULL: the caller is gone. */
extern char *call_map(Call *call, dsm_segment **segment);
extern void call_unmap(dsm_segment *segment);
extern int64 call_ticket(const Call *call);
extern Call *call_of_ticket(int64 ticket);	/* NULL: it is another's now */
extern void call_answer(Call *call, const CallAnswer *answer);
extern void calls_answer_left_over(const CallAnswer *answer);

/* ---- new_topic.c ---- */

/* The request of a CALL_CREATE_TOPIC, and what it asks for; in the current context. replication_factor -1: the broker's default. */
extern char *new_topic_request(const char *topic, int partitions, int replication_factor, Jsonb *config);
extern KafkaNewTopic new_topic_of_request(const char *request);

/* ---- process.c ---- */
extern Job *MyJob;

/* Attaches to the job; doesn't return where there is nothing to do any more. */
extern void worker_begin(Datum main_arg, JobKind kind);
extern void worker_connect(void);

/* Interrupts, barriers, reload, stopping: to be called in every loop. */
extern void worker_service(void);

/* Sleeps until the latch (then true), the fd (-1: none) or the time (-1: none). */
extern bool worker_wait(int fd, long timeout_ms);

/* Counts the reloads of the configuration. */
extern int	worker_reloads;

/* Called once, when the worker is told to end, before it does. */
extern void (*worker_drain) (void);

/* Ends the process and takes its job along. */
pg_noreturn extern void worker_retire(void);

/* Whenever and however the process ends, it takes its job along. */
extern void worker_retire_at_end(void);

/* Ends the process, to be started anew at once (other settings, say). */
pg_noreturn extern void worker_restart(void);

/* At exit, librdkafka's threads may be left over: leave without atexit handlers. */
extern void worker_leave_hard(void);

/* ---- xact.c ---- */
typedef void (*XactBody) (void *arg);

/*
 * Runs body in a transaction of its own, with SPI and an active snapshot.
 * On an error: rolls back, puts the error into *error (in context) and returns
 * false. FATAL passes through.
 */
extern bool worker_transaction(XactBody body, void *arg, MemoryContext context, ErrorData **error);

/* Keeps own queries safe from what a statement may have set in this session. */
extern void worker_secure_search_path(void);

/* ---- blocked.c ---- */

/* Around each transaction of a worker. */
extern void blocked_watch_begin(void);
extern void blocked_watch_end(void);

/* The supervisor: looks at the database's jobs; returns ms until it must look again, -1: not. */
extern long blocked_look(MemoryContext context);

/* ---- children.c ---- */
typedef struct Parent
{
	bool		(*is_mine) (const Job *job);
	bool		(*may_start) (Job *job);	/* NULL: always; false: the job is freed */
	bool		(*is_ready) (const Job *job);	/* NULL: always; false: not yet; with the lock held */
} Parent;

/* Starts what is due; returns milliseconds until something is, or -1. */
extern long children_tend(const Parent *parent);

/* Starts the job's worker for the calling process, which is told when it ends. extra: for the worker, may be NULL. */
extern bool worker_register(const Job *job, const char *extra, size_t size, BackgroundWorkerHandle **handle);

/* ---- hold.c ---- */

/* Ends the workers of the database, waits for that, 5 s at most, and lets none start until the transaction has ended. */
extern void hold_database(Oid database);

/* The caller holds nexus_shared->lock. */
extern bool job_is_held(const Job *job);

/*
 * Of a pipeline whose row the transaction has locked, which keeps others from starting:
 * ends its workers, and waits for that, 5 s at most. False if it isn't done by then.
 */
extern bool hold_pipeline(const char *pipeline);

/* transaction_end.c: the holds end. */
extern void holds_end(void);

/* ---- launcher.c ---- */
/* May anybody be in it, or is it a template? */
extern bool database_may_have_workers(Form_pg_database database);

/* ---- commands.c ---- */
extern bool database_is_template(Oid database);
extern void commands_install_hooks(void);

/* ---- wake.c ---- */

extern void wake_relay_at_commit(const char *connection);
extern void wake_supervisor_at_commit(void);
extern void wake_supervisor_at_end(void);	/* of the transaction, also by a rollback */
extern void wake_launcher_at_commit(Oid database);
extern void wake_relays(void);
extern void wake_supervisor(void);
extern void wake_launcher(Oid database);
extern void wakes_end(bool committed);

/* ---- resume.c ---- */

/* The pipeline is to be resumed: once that is committed, its supervisor is waited for, 2 s at most. */
extern void resume_at_commit(const char *pipeline);
extern void resumes_end(bool committed);

/* ---- transaction_end.c ---- */

/* Before something is kept for then. False where no worker runs anyway. */
extern bool transaction_end_register(void);

/* ---- names.c ---- */

/* Of a list of strings. */
static inline bool
names_include(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* A set lives as long as the transaction: who keeps one sets it to NULL at its end, or begins with it. */
extern void name_set_add(HTAB **set, const char *name);
extern bool name_set_has(HTAB *set, const char *name);

/* In place: what can't be seen becomes a blank. */
extern void make_printable(char *text);

/* ---- link.c ---- */
extern const char *link_state_name(LinkState state);
typedef struct KafkaLink
{
	KafkaClient *client;
	char		connection[NAMEDATALEN];	/* its section's name; empty: the default one */
	char		bootstrap[1024];
	uint64		hash;			/* of all that the settings said of it */
	int			reloads;		/* worker_reloads when they were looked at */
	bool		complained;		/* of settings that can't be used */
	char		cluster_id[128];	/* as last heard */
	bool		reachable;
	MonoTime	allowed_at;		/* when it is known that the broker allows it again; 0: nothing was heard yet */
	MonoTime	next_probe;
	int			probe_delay_ms;
} KafkaLink;

/* Waits, and the job's state says why, while there is nothing to connect to. connection: its name or "". */
extern void link_open(KafkaLink *link, const char *connection, KafkaKind kind, const KafkaSetting *settings,
					  int nsettings);

/*
 * Serves the client, watches over it; restarts the worker for another broker or a fatal
 * error. True once after all brokers were gone: what answers next may be another cluster.
 */
extern bool link_serve(KafkaLink *link);

/* Something came from the broker; and with it the worker can do its work. */
extern void link_heard(KafkaLink *link);
extern void link_alive(KafkaLink *link);
extern MonoTime link_probation(const KafkaLink *link);	/* when it ends, 0: none */
extern void link_trouble(KafkaLink *link, const KafkaFailure *failure);

/* Asks on behalf of link_serve's watch: true if the caller should ask now. */
extern bool link_probe_due(KafkaLink *link);
extern long link_probe_timeout(KafkaLink *link);

/* For nexus_health(): is nexus_kafka.topic among the topics of the answer? NULL: it wasn't asked for. */
extern void link_note_topic(const KafkaResponse *answer);

extern bool link_is_embedded(void);

/* ---- connections.c ---- */

/* A section of nexus_kafka.config_file. */
typedef struct NamedConnection
{
	char		name[NAMEDATALEN];
	char		mistake[256];	/* why it can't be used, empty: it can */
} NamedConnection;

/* Of the file as it was at the last reload; where it couldn't be read then, at the one before. */
extern List *connections_named(void);

/* Raises 22023 for what can't be a name of one. */
extern void connection_check_name(const char *name);

/* An SQL function's argument: the name, checked likewise, or "" if it is NULL, the default one. */
extern const char *connection_argument(FunctionCallInfo fcinfo, int n);

/* ---- synchronous.c ---- */

/*
 * A snapshot that was taken before sees no commit beyond it, but of those that didn't wait
 * for the disk; of these TransactionIdGetCommitLSN() tells.
 */
extern XLogRecPtr commits_seen(void);

/* Has all up to lsn on this server's disk; true if all synchronous standbys that are waited for have it on theirs too. */
extern bool commit_is_safe(XLogRecPtr lsn);

/* ---- definition.c ---- */
struct Pipeline;

/* Raises for what no pipeline can have, mostly 22023. */
extern void definition_check(const struct Pipeline *pipeline);

/* The same of one that is there, and whether it can run as its role: why not, palloc'd, or NULL. */
extern char *definition_mistake(const struct Pipeline *pipeline);

#endif							/* NEXUS_WORKER_H */
