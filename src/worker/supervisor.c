/*
 * supervisor.c
 *		One a database with the extension: compares what nexus_pipelines asks for
 *		with the table of jobs, starts and stops workers accordingly, and leaves
 *		when the extension is gone.
 *
 * There is a relay for each connection. The default one's always runs; that of another
 * is started by the first row of the outbox, or the first call, that is for it.
 *
 * It wakes when something may have changed (wake.c, hold.c), when a worker ends, and
 * once a minute, for what nobody told it. Anybody who may use the extension can wake it;
 * so after each look it rests ten times as long as that took.
 *
 * A pipeline whose row is locked by a transaction that hasn't ended gets no new worker
 * (hold.c).
 */
#include "nexus_kafka.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "catalog/tables.h"
#include "worker/worker.h"

#define LOOK_AGAIN_MS	60000
#define HELD_AGAIN_MS	1000	/* a rollback to a savepoint, say, tells nobody */
#define LONGEST_REST_MS	200
#define ON_DEMAND_REASON	"nexus_consume() makes it run"
#define UNUSED_REASON		"nothing was produced to it yet"
#define HELD_REASON			"a transaction that changes the pipeline has not ended"

PGDLLEXPORT void nexus_supervisor_main(Datum arg);

/* What the tables say. */
typedef struct Wish
{
	MemoryContext context;
	bool		installed;
	bool		is_ours;
	List	   *pipelines;
	List	   *connections;	/* NamedConnection */
	List	   *connections_with_rows;	/* names, where no relay is at work */
	bool		held_back;		/* some worker of a pipeline that is held isn't started for that */
} Wish;

/* Left, since the extension is gone. */
static bool retired = false;
static uint64 wakes_seen;		/* when the last look began */

static void
find_mistakes(Wish *wish)
{
	MemoryContext before = MemoryContextSwitchTo(wish->context);
	ListCell   *lc;

	foreach(lc, wish->pipelines)
	{
		Pipeline   *pipeline = lfirst(lc);

		pipeline->mistake = definition_mistake(pipeline);
		pipeline->workers = Min(Max(pipeline->workers, 1), PIPELINE_MOST_WORKERS);
	}
	MemoryContextSwitchTo(before);
}

static void
read_wish(void *arg)
{
	Wish	   *wish = arg;

	wish->installed = catalog_locate();
	if (!wish->installed)
		return;
	wish->is_ours = catalog_identity_is_ours();
	wish->pipelines = catalog_pipelines(wish->context);
	find_mistakes(wish);
	wish->connections = connections_named();
	if (wish->connections != NIL)
		wish->connections_with_rows = catalog_outbox_connections(relays_at_work(wish->context), wish->context);
}

static NamedConnection *
wished_connection(const Wish *wish, const char *name)
{
	ListCell   *lc;

	foreach(lc, wish->connections)
		if (strcmp(((NamedConnection *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	return NULL;
}

static Pipeline *
wished_pipeline(const Wish *wish, const char *name)
{
	ListCell   *lc;

	foreach(lc, wish->pipelines)
	{
		Pipeline   *pipeline = lfirst(lc);

		if (strcmp(pipeline->name, name) == 0)
			return pipeline;
	}
	return NULL;
}

static void
stop_worker(Job *job)
{
	job->restart_at_once = true;	/* should it be wanted again */
	if (job->pid != 0)
		kill(job->pid, SIGTERM);
}

static bool
has_requests(Job *job)
{
	return pg_atomic_read_u64(&job->asked) > pg_atomic_read_u64(&job->answered);
}

/* A pipeline on demand ends and starts again; a relay stays, once it was started. */
static bool
is_idle(Job *job, const Pipeline *pipeline, const Wish *wish)
{
	if (pipeline)
		return pipeline->on_demand && !has_requests(job);
	return job->name[0] && !job->wanted && !names_include(wish->connections_with_rows, job->name) &&
		!has_requests(job) && !call_waits_for(job->name);
}

static void
show_mistake(Job *job, const Pipeline *pipeline)
{
	if (pipeline && pipeline->mistake)
		job_condition_set(job, CONDITION_BAD_DEFINITION, "%s", pipeline->mistake);
	else
		job_condition_clear(job, CONDITION_BAD_DEFINITION);
}

/* Keeps the conditions that say why the supervisor starts no worker. */
static void
show_idle(Job *job, bool paused, bool idle, const NamedConnection *connection)
{
	bool		mistaken = idle && connection && connection->mistake[0];

	if (paused)
		job_condition_set(job, CONDITION_PAUSED, NULL);
	else
		job_condition_clear(job, CONDITION_PAUSED);
	if (mistaken)
		job_condition_set(job, CONDITION_BAD_SECTION, "nexus_kafka.config_file: %s", connection->mistake);
	else
		job_condition_clear(job, CONDITION_BAD_SECTION);
	if (idle && !mistaken)
		job_condition_set(job, CONDITION_NOT_NEEDED, connection ? UNUSED_REASON : ON_DEMAND_REASON);
	else
		job_condition_clear(job, CONDITION_NOT_NEEDED);
}

/*
 * A pipeline keeps one job, with its counters, also while nobody asks for it; those of its
 * further workers are made with the demand (job_demand), and go with it.
 */
static bool
is_superfluous(Job *job, const Pipeline *pipeline)
{
	return job->pid == 0 && job->part > 0 && pipeline &&
		(job->part >= pipeline->workers || (pipeline->on_demand && !has_requests(job)));
}

static void
remove_superfluous(Job *job)
{
	Job		   *first = job_find(JOB_INGEST, MyDatabaseId, job->name, 0);

	if (first)
		job_fold(job, first);
	job_free(job);
}

/* Brings a job that exists in line with the wish. Holds the lock. */
static void
adjust_job(Job *job, Wish *wish)
{
	Pipeline   *pipeline = job->kind == JOB_INGEST ? wished_pipeline(wish, job->name) : NULL;
	NamedConnection *connection = job->kind == JOB_RELAY ? wished_connection(wish, job->name) : NULL;
	bool		exists = wish->installed &&
		(job->kind == JOB_RELAY ? connection || !job->name[0] : pipeline && job->part < pipeline->workers);
	bool		paused = !wish->is_ours || (pipeline && pipeline->paused);
	bool		mistaken = pipeline && pipeline->mistake;
	bool		idle = is_idle(job, pipeline, wish);
	bool		held = pipeline && pipeline->held && exists && !paused && !mistaken && !idle;

	job->wanted = exists && !paused && !mistaken && !idle && !held;
	if (pipeline && job->definition != pipeline->definition)
	{
		job->definition = pipeline->definition;
		job_conditions_forget(job, true);
		stop_worker(job);
	}
	show_mistake(job, pipeline);
	if ((!exists || paused || mistaken) && job->pid != 0)
		stop_worker(job);
	else if (is_superfluous(job, pipeline))
		remove_superfluous(job);
	else if (!exists)
		job_free(job);
	else if (job->pid == 0)
		show_idle(job, paused, idle, connection);
	if (held && job->pid == 0)
	{
		job_condition_set(job, CONDITION_STARTING, HELD_REASON);
		wish->held_back = true;
	}
}

/* Makes the job if it isn't there. Holds the lock. */
static bool
add_job(JobKind kind, const char *name, int part, Wish *wish)
{
	Job		   *job = job_find(kind, MyDatabaseId, name, part);

	if (job)
		return true;
	job = job_create(kind, MyDatabaseId, name, part);
	if (job)
		adjust_job(job, wish);
	return job != NULL;
}

static bool
add_jobs(Wish *wish)
{
	ListCell   *lc;
	bool		room;

	if (!wish->installed || !wish->is_ours)
		return true;
	room = add_job(JOB_RELAY, "", 0, wish);
	foreach(lc, wish->connections)
		room = add_job(JOB_RELAY, ((NamedConnection *) lfirst(lc))->name, 0, wish) && room;
	foreach(lc, wish->pipelines)
	{
		Pipeline   *pipeline = lfirst(lc);
		int			workers = pipeline->paused ? 0 : pipeline->on_demand ? 1 : pipeline->workers;

		for (int part = 0; part < workers; part++)
			room = add_job(JOB_INGEST, pipeline->name, part, wish) && room;
	}
	return room;
}

/* True while any job of this database but the supervisor's own is left. */
static bool
reconcile(Wish *wish)
{
	bool		any = false;
	bool		room;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (Job *job = job_next(NULL); job; job = job_next(job))
	{
		/* a replay is its caller's */
		if (job->database != MyDatabaseId || job == MyJob || job->kind == JOB_REPLAY)
			continue;
		if (!job->database_name[0])	/* of one that a backend has made */
			strlcpy(job->database_name, MyJob->database_name, NAMEDATALEN);
		adjust_job(job, wish);
		any = any || job->in_use;
	}
	room = add_jobs(wish);
	LWLockRelease(nexus_shared->lock);

	if (!wish->installed)
		return any;
	if (!room)
		job_condition_set(MyJob, CONDITION_NO_ROOM,
						  "no room for one more worker: raise nexus_kafka.max_jobs (now %d) and restart the server",
						  nexus_max_jobs);
	else
		job_condition_clear(MyJob, CONDITION_NO_ROOM);
	job_condition_clear(MyJob, CONDITION_STARTING);
	return any;
}

static bool
is_mine(const Job *job)
{
	return job->database == MyDatabaseId && (job->kind == JOB_RELAY || job->kind == JOB_INGEST) && job->wanted;
}

/* A partition belongs to one worker at a time: those of an older definition leave first. */
static bool
is_ready(const Job *job)
{
	for (Job *other = job_next(NULL); other; other = job_next(other))
		if (other->database == job->database && other->kind == job->kind && other->pid != 0 &&
			other->attached != job->definition && strcmp(other->name, job->name) == 0)
			return false;
	return true;
}

/* Looks at the tables and acts; returns milliseconds until it must look again. */
static long
supervise(MemoryContext context)
{
	static const Parent parent = {is_mine, NULL, is_ready};
	Wish		wish = {context, false, false, NIL};
	ErrorData  *error;
	long		due;
	long		blocked;

	wakes_seen = pg_atomic_read_u64(&MyJob->wakes);
	blocked = blocked_look(context);	/* before the tables, which may be locked too */
	if (!worker_transaction(read_wish, &wish, context, &error))
	{
		job_set_error(MyJob, error->sqlerrcode, error->message);
		job_condition_set(MyJob, CONDITION_TABLES_UNREADABLE, "%s", error->message);
		return 10000;
	}
	job_condition_clear(MyJob, CONDITION_TABLES_UNREADABLE);
	if (!reconcile(&wish) && !wish.installed)
	{
		retired = true;
		worker_retire();
	}
	due = children_tend(&parent);
	if (!wish.installed)
		return 100;				/* its last workers are leaving */
	if (wish.held_back)
		due = due < 0 ? HELD_AGAIN_MS : Min(due, HELD_AGAIN_MS);
	if (blocked >= 0)
		due = due < 0 ? blocked : Min(due, blocked);
	return due < 0 ? LOOK_AGAIN_MS : Min(due, LOOK_AGAIN_MS);
}

/*
 * Since the last look began. A wait for a lock takes the latch's setting for its own, and the
 * snapshot is from before it: so it isn't known what of that was seen.
 */
static bool
was_woken(void)
{
	return pg_atomic_read_u64(&MyJob->wakes) != wakes_seen;
}

/*
 * The launcher sends nobody into a database that has a supervisor. So one that was woken
 * while it was leaving asks for its successor, when its job is free.
 */
static void
look_again_if_woken(int code, Datum arg)
{
	if (retired && was_woken())
		wake_launcher(MyDatabaseId);	/* the job may be another's by now */
}

/* True if it was woken meanwhile. */
static bool
rest_after(MonoTime begun)
{
	MonoTime	now = mono_now();
	MonoTime	until = Min(now + 10 * (now - begun), mono_after_ms(now, LONGEST_REST_MS));
	bool		woken = false;

	while (mono_now() < until)
		woken = worker_wait(-1, mono_ms_until(until)) || woken;
	return woken;
}

void
nexus_supervisor_main(Datum arg)
{
	MemoryContext context;

	on_shmem_exit(look_again_if_woken, 0);
	worker_begin(arg, JOB_SUPERVISOR);
	worker_connect();
	context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka supervisor", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MonoTime	begun = mono_now();
		uint64		ticket = pg_atomic_read_u64(&MyJob->asked);
		long		due;

		worker_service();
		due = supervise(context);
		job_answer(MyJob, ticket);
		MemoryContextReset(context);
		if (!rest_after(begun) && !was_woken())
			(void) worker_wait(-1, due);
	}
}
