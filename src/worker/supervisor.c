/*
 * supervisor.c
 *		One a database with the extension: compares what nexus_pipelines asks for
 *		with the table of jobs, starts and stops workers accordingly, and leaves
 *		when the extension is gone.
 *
 * There is a relay for each connection. The default one's always runs; that of another
 * is started by the first row of the outbox, or the first call, that is for it.
 *
 * It wakes when a command may have changed something (wake.c, hold.c), when a
 * worker ends, and once a minute, for what nobody told it.
 */
#include "nexus_kafka.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "catalog/tables.h"
#include "worker/worker.h"

#define LOOK_AGAIN_MS	60000
#define ON_DEMAND_REASON	"nexus_consume() makes it run"
#define UNUSED_REASON		"nothing was produced to it yet"

PGDLLEXPORT void nexus_supervisor_main(Datum arg);

/* What the tables say. */
typedef struct Wish
{
	MemoryContext context;
	bool		installed;
	bool		is_ours;
	List	   *pipelines;
	List	   *connections;	/* NamedConnection */
	List	   *connections_with_rows;	/* names */
} Wish;

/* Before they were read. */
static uint64 holds_ended;

static void
read_wish(void *arg)
{
	Wish	   *wish = arg;

	wish->installed = catalog_locate();
	if (!wish->installed)
		return;
	wish->is_ours = catalog_identity_is_ours();
	wish->pipelines = catalog_pipelines(wish->context);
	wish->connections = connections_named();
	if (wish->connections != NIL)
		wish->connections_with_rows = catalog_outbox_connections(wish->context);
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

/* Brings a job that exists in line with the wish. Holds the lock. */
static void
adjust_job(Job *job, const Wish *wish)
{
	Pipeline   *pipeline = job->kind == JOB_INGEST ? wished_pipeline(wish, job->name) : NULL;
	NamedConnection *connection = job->kind == JOB_RELAY ? wished_connection(wish, job->name) : NULL;
	bool		exists = wish->installed &&
		(job->kind == JOB_RELAY ? connection || !job->name[0] : pipeline && job->part < pipeline->workers);
	bool		paused = !wish->is_ours || (pipeline && pipeline->paused);
	bool		idle = is_idle(job, pipeline, wish);

	job->wanted = exists && !paused && !idle;
	if (pipeline && job->definition != pipeline->definition)
	{
		job->definition = pipeline->definition;
		job_conditions_forget(job, true);
		stop_worker(job);
	}
	if ((!exists || paused) && job->pid != 0)
		stop_worker(job);
	else if (!exists)
		job_free(job);
	else if (job->pid == 0)
		show_idle(job, paused, idle, connection);
}

static bool
add_job(JobKind kind, const char *name, int part, uint32 definition, bool wanted)
{
	Job		   *job = job_find(kind, MyDatabaseId, name, part);

	if (job)
		return true;
	job = job_create(kind, MyDatabaseId, name, part);
	if (job == NULL)
		return false;
	job->definition = definition;
	job->wanted = wanted;
	if (!wanted)
		job_condition_set(job, CONDITION_NOT_NEEDED, ON_DEMAND_REASON);
	return true;
}

static bool
add_relay(const NamedConnection *connection, const Wish *wish)
{
	Job		   *job = job_find(JOB_RELAY, MyDatabaseId, connection->name, 0);

	if (job == NULL)
		job = job_create(JOB_RELAY, MyDatabaseId, connection->name, 0);
	if (job)
		adjust_job(job, wish);
	return job != NULL;
}

static bool
add_jobs(const Wish *wish)
{
	ListCell   *lc;
	bool		room;

	if (!wish->installed || !wish->is_ours)
		return true;
	room = add_job(JOB_RELAY, "", 0, 0, true);
	foreach(lc, wish->connections)
		if (!add_relay(lfirst(lc), wish))
			room = false;
	foreach(lc, wish->pipelines)
	{
		Pipeline   *pipeline = lfirst(lc);

		for (int part = 0; part < pipeline->workers && !pipeline->paused; part++)
			if (!add_job(JOB_INGEST, pipeline->name, part, pipeline->definition, !pipeline->on_demand))
				room = false;
	}
	return room;
}

/* True while any job of this database but the supervisor's own is left. */
static bool
reconcile(const Wish *wish)
{
	bool		any = false;
	bool		room;

	LWLockAcquire(nexus_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *job = &nexus_shared->jobs[i];

		/* a replay is its caller's */
		if (!job->in_use || job->database != MyDatabaseId || job == MyJob || job->kind == JOB_REPLAY)
			continue;
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

/*
 * A partition belongs to one worker at a time: those of an older definition leave
 * first. And what was held back when the tables were read may be paused or dropped
 * by now.
 */
static bool
is_ready(const Job *job)
{
	if (nexus_shared->holds_ended != holds_ended)
		return false;			/* supervise() looks again */
	for (int i = 0; i < nexus_max_jobs; i++)
	{
		Job		   *other = &nexus_shared->jobs[i];

		if (other->in_use && other->database == job->database && other->kind == job->kind && other->pid != 0 &&
			other->attached != job->definition && strcmp(other->name, job->name) == 0)
			return false;
	}
	return true;
}

static uint64
count_holds_ended(void)
{
	uint64		n;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	n = nexus_shared->holds_ended;
	LWLockRelease(nexus_shared->lock);
	return n;
}

/* Looks at the tables and acts; returns milliseconds until it must look again. */
static long
supervise(MemoryContext context)
{
	static const Parent parent = {is_mine, NULL, is_ready};
	Wish		wish = {context, false, false, NIL};
	ErrorData  *error;
	long		due;

	holds_ended = count_holds_ended();
	if (!worker_transaction(read_wish, &wish, context, &error))
	{
		job_set_error(MyJob, error->sqlerrcode, error->message);
		job_condition_set(MyJob, CONDITION_TABLES_UNREADABLE, "%s", error->message);
		return 10000;
	}
	job_condition_clear(MyJob, CONDITION_TABLES_UNREADABLE);
	if (!reconcile(&wish) && !wish.installed)
		worker_retire();
	due = children_tend(&parent);
	if (count_holds_ended() != holds_ended)
		return 0;
	if (!wish.installed)
		return 100;				/* its last workers are leaving */
	return due < 0 ? LOOK_AGAIN_MS : Min(due, LOOK_AGAIN_MS);
}

void
nexus_supervisor_main(Datum arg)
{
	MemoryContext context;

	worker_begin(arg, JOB_SUPERVISOR);
	worker_connect();
	context = AllocSetContextCreate(TopMemoryContext, "nexus_kafka supervisor", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		worker_service();
		worker_wait(-1, supervise(context));
		MemoryContextReset(context);
	}
}
