/*
 * calls.c
 *		Calls from backends to one of a database's relays (or the embedded broker), each
 *		with an answer of its own.
 *
 * A backend fills a slot, asks, and waits on its latch; the relay takes what was
 * asked and answers it, in whatever order. What is larger than a slot is in a dynamic
 * shared memory segment, which the slot names.
 *
 *	free -> filling -> asked -> taken -> answered -> free
 *	            |        |        `----> abandoned --^      by the relay
 *	            `--------'-------------------------> free   by the backend
 *
 * Each arrow is a compare-and-exchange, so a backend that gives up (a timeout, a
 * cancel, its end) leaves nothing behind, and knows whether it was taken.
 */
#include "nexus_kafka.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "worker/worker.h"

#define RECHECK_MS	500			/* for a relay that can't go on meanwhile */
#define NO_SLOT_MS	2

static Call *calls = NULL;

/* The one of this backend, while it has one. */
static Call *my_call = NULL;

/* In the memory of the call that it answered. */
static char *my_reply = NULL;

Size
calls_size(void)
{
	return mul_size(NEXUS_MAX_CALLS, sizeof(Call));
}

void
calls_start(void)
{
	bool		found;

	calls = ShmemInitStruct("nexus_kafka calls", calls_size(), &found);
	if (found)
		return;
	for (int i = 0; i < NEXUS_MAX_CALLS; i++)
	{
		memset(&calls[i], 0, offsetof(Call, request));
		pg_atomic_init_u32(&calls[i].state, CALL_FREE);
	}
}

static bool
move(Call *call, uint32 from, uint32 to)
{
	return pg_atomic_compare_exchange_u32(&call->state, &from, to);
}

/* By name, not by job: that may be another's by now, and its broker another one. */
static bool
is_for(const Call *call, const char *connection)
{
	return call->database == MyDatabaseId && strcmp(call->connection, connection) == 0;
}

/* ---- the backend ---- */

/* True if the relay has taken it, so that it may take effect still. */
static bool
give_up(void)
{
	Call	   *call = my_call;
	bool		taken = false;

	my_call = NULL;
	if (call->segment)
		dsm_detach(call->segment);
	call->segment = NULL;
	if (!move(call, CALL_FILLING, CALL_FREE) && !move(call, CALL_ASKED, CALL_FREE))
	{
		taken = true;
		if (!move(call, CALL_TAKEN, CALL_ABANDONED))
			(void) move(call, CALL_ANSWERED, CALL_FREE);
	}
	return taken;
}

static void
give_up_at_exit(int code, Datum arg)
{
	if (my_call)
		(void) give_up();
}

static Call *
find_slot(MonoTime deadline)
{
	for (;;)
	{
		for (int i = 0; i < NEXUS_MAX_CALLS; i++)
		{
			Call	   *call = &calls[(MyProcPid + i) % NEXUS_MAX_CALLS];

			if (move(call, CALL_FREE, CALL_FILLING))
				return call;
		}
		CHECK_FOR_INTERRUPTS();
		if (mono_now() >= deadline)
			return NULL;
		pg_usleep(NO_SLOT_MS * 1000L);
	}
}

/*
 * Where the request is to be written; NULL: all slots are taken. What may fail, as for want
 * of memory for a segment, comes before the slot is taken: nothing would give it back.
 */
char *
call_begin(CallKind kind, Oid database, const char *connection, Size size, MonoTime deadline)
{
	static bool registered = false;
	dsm_segment *segment = size > CALL_REQUEST_SIZE ? dsm_create(size, 0) : NULL;
	Call	   *call;

	Assert(my_call == NULL);
	if (!registered)
		before_shmem_exit(give_up_at_exit, 0);
	registered = true;
	call = find_slot(deadline);
	if (call == NULL)
	{
		call_unmap(segment);
		return NULL;
	}
	my_call = call;
	call->kind = kind;
	call->database = database;
	strlcpy(call->connection, connection, NAMEDATALEN);
	call->generation++;
	call->latch = MyLatch;
	call->size = size;
	call->handle = segment ? dsm_segment_handle(segment) : DSM_HANDLE_INVALID;
	call->segment = segment;
	return segment ? dsm_segment_address(segment) : call->request;
}

static void
keep_reply(const Call *call, Size size)
{
	my_reply = palloc_extended(size + 1, MCXT_ALLOC_HUGE);
	memcpy(my_reply, call->segment ? dsm_segment_address(call->segment) : call->request, size);
	my_reply[size] = '\0';
}

const char *
call_reply(void)
{
	return my_reply;
}

static CallOutcome
await(Job *relay, MonoTime deadline, CallAnswer *answer)
{
	Call	   *call = my_call;

	for (;;)
	{
		long		left = mono_ms_until(deadline);

		if (pg_atomic_read_u32(&call->state) == CALL_ANSWERED)
		{
			pg_read_barrier();
			*answer = call->answer;
			if (answer->reply_size > 0)
				keep_reply(call, answer->reply_size);
			(void) give_up();
			return CALL_DONE;
		}
		if (left <= 0 || (pg_atomic_read_u32(&call->state) == CALL_ASKED && job_is_hopeless(relay)))
			return give_up() ? CALL_UNKNOWN : CALL_NOT_TAKEN;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(left, RECHECK_MS), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

CallOutcome
call_and_wait(Job *relay, MonoTime deadline, CallAnswer *answer)
{
	CallOutcome outcome;

	(void) move(my_call, CALL_FILLING, CALL_ASKED);
	job_wake_for_call(relay);	/* counted when it is there to be found, or it would be overlooked */
	if (relay->pid == 0)
		wake_supervisor();		/* one that nobody has needed yet is started for it */
	PG_TRY();
	{
		outcome = await(relay, deadline, answer);
	}
	PG_CATCH();
	{
		if (my_call)
			(void) give_up();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return outcome;
}

/* ---- the supervisor ---- */

bool
call_waits_for(const char *connection)
{
	for (int i = 0; i < NEXUS_MAX_CALLS; i++)
		if (pg_atomic_read_u32(&calls[i].state) == CALL_ASKED && is_for(&calls[i], connection))
			return true;
	return false;
}

/* ---- the relay ---- */

/*
 * While it was looked at, its backend gave it up, and another one has asked somebody else
 * by the same slot. That one may have looked already, and seen it taken.
 */
static void
pass_on(Call *call)
{
	Oid			database = call->database;
	char		connection[NAMEDATALEN];
	Job		   *job;

	strlcpy(connection, call->connection, NAMEDATALEN);
	call_put_back(call);
	job = OidIsValid(database) ? job_lookup(JOB_RELAY, database, connection, 0)
		: job_lookup(JOB_BROKER, InvalidOid, "", 0);
	if (job)
		job_wake_for_call(job);
}

/* The next one that was asked of this worker, from *i on; it is the caller's now. */
Call *
call_take_next(int *i)
{
	for (; *i < NEXUS_MAX_CALLS; (*i)++)
	{
		Call	   *call = &calls[*i];

		if (pg_atomic_read_u32(&call->state) != CALL_ASKED || !is_for(call, MyJob->name))
			continue;
		if (!move(call, CALL_ASKED, CALL_TAKEN))
			continue;
		pg_read_barrier();
		if (!is_for(call, MyJob->name))
		{
			pass_on(call);
			continue;
		}
		(*i)++;
		return call;
	}
	return NULL;
}

char *
call_map(Call *call, dsm_segment **segment)
{
	*segment = NULL;
	if (call->handle == DSM_HANDLE_INVALID)
		return call->request;
	*segment = dsm_attach(call->handle);
	return *segment ? dsm_segment_address(*segment) : NULL;
}

void
call_unmap(dsm_segment *segment)
{
	if (segment)
		dsm_detach(segment);
}

/* It can't be served now: as if it had not been taken. */
void
call_put_back(Call *call)
{
	if (!move(call, CALL_TAKEN, CALL_ASKED))
		(void) move(call, CALL_ABANDONED, CALL_FREE);
}

/* A number that comes back with its delivery report; below 0, as no row's id is. */
int64
call_ticket(const Call *call)
{
	return -((int64) call->generation * NEXUS_MAX_CALLS + (call - calls)) - 1;
}

Call *
call_of_ticket(int64 ticket)
{
	int64		number = -(ticket + 1);
	Call	   *call = &calls[number % NEXUS_MAX_CALLS];

	return call->generation == (uint32) (number / NEXUS_MAX_CALLS) ? call : NULL;
}

void
call_answer(Call *call, const CallAnswer *answer)
{
	Latch	   *latch = call->latch;

	if (pg_atomic_read_u32(&call->state) == CALL_TAKEN)
		call->answer = *answer;
	pg_write_barrier();
	if (move(call, CALL_TAKEN, CALL_ANSWERED))
		SetLatch(latch);
	else
		(void) move(call, CALL_ABANDONED, CALL_FREE);
}

/* Those that a former worker of this job had taken before it ended. */
void
calls_answer_left_over(const CallAnswer *answer)
{
	for (int i = 0; i < NEXUS_MAX_CALLS; i++)
	{
		uint32		state = pg_atomic_read_u32(&calls[i].state);

		if ((state == CALL_TAKEN || state == CALL_ABANDONED) && is_for(&calls[i], MyJob->name))
			call_answer(&calls[i], answer);
	}
}
