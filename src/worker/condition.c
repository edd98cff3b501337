/*
 * condition.c
 *		What is amiss with a job, and the state that follows.
 *
 * A condition is a fact with one owner, the file that sets it when it becomes so and
 * clears it when it no longer is: by success, not by another try. Several may hold at
 * once. The state that people see is that of the condition with the highest rank, with
 * its reason; none: running. So nobody has to know who else has said what, and nothing
 * flaps. Each change of the state is logged once.
 *
 * What a worker found stays when it ends, until the next one knows better.
 */
#include "nexus_kafka.h"

#include <stdarg.h>

#include "mb/pg_wchar.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

typedef struct ConditionKind
{
	JobState	state;
	bool		of_worker;		/* found out anew by each worker: forgotten when one starts */
	bool		of_definition;	/* void when the pipeline's definition changes */
} ConditionKind;

/* In order of rank, which is that of JobCondition. */
static const ConditionKind kinds[JOB_CONDITIONS] = {
	[CONDITION_PAUSED] = {JOB_PAUSED},
	[CONDITION_NO_ROOM] = {JOB_NO_WORKER},
	[CONDITION_NO_SLOT] = {JOB_NO_WORKER},
	[CONDITION_STOPPED] = {JOB_STOPPED, true, true},
	[CONDITION_BAD_DEFINITION] = {JOB_FAILING},
	[CONDITION_NOT_NEEDED] = {JOB_ON_DEMAND},
	[CONDITION_BAD_SECTION] = {JOB_NOT_CONFIGURED},
	[CONDITION_NOT_CONFIGURED] = {JOB_NOT_CONFIGURED, false, true},
	[CONDITION_NO_CLIENT] = {JOB_WAITING, true},
	[CONDITION_TABLES_UNREADABLE] = {JOB_FAILING},
	[CONDITION_KEEPS_ENDING] = {JOB_WAITING, false, true},
	[CONDITION_UNREACHABLE] = {JOB_UNREACHABLE, false, true},
	[CONDITION_NOT_ALLOWED] = {JOB_WAITING, false, true},
	[CONDITION_TOPIC_MISSING] = {JOB_WAITING, false, true},
	[CONDITION_GROUP_IN_USE] = {JOB_WAITING, false, true},
	[CONDITION_STALE_BROKER] = {JOB_WAITING, true, true},
	[CONDITION_STALE_LEADER] = {JOB_WAITING, true, true},
	[CONDITION_PARTITION_FAILS] = {JOB_WAITING, false, true},
	[CONDITION_STATEMENT_FAILS] = {JOB_FAILING, false, true},
	[CONDITION_TRANSACTION_FAILS] = {JOB_WAITING, false, true},
	[CONDITION_BLOCKED] = {JOB_WAITING},
	[CONDITION_NO_LEADER] = {JOB_WAITING, false, true},
	[CONDITION_UNACKNOWLEDGED] = {JOB_WAITING, true},
	[CONDITION_NOT_REPLICATED] = {JOB_WAITING, true},
	[CONDITION_SENT_AGAIN] = {JOB_WAITING, true},
	[CONDITION_STARTING] = {JOB_STARTING},
	[CONDITION_REMARK] = {JOB_RUNNING, true, true},
};

const char *
job_state_name(JobState state)
{
	static const char *const names[] = {
		"starting", "running", "unreachable", "waiting", "failing", "stopped", "paused", "on_demand",
		"not_configured", "no_worker"
	};

	return names[state];
}

static inline uint32
bit(JobCondition condition)
{
	return UINT32_C(1) << condition;
}

void
copy_clipped(char *to, const char *from, int size)
{
	int			whole = strlen(from);
	int			len = Min(pg_mbcliplen(from, whole, size - 1), whole);	/* it may end within a character */

	memcpy(to, from, len);
	to[len] = '\0';
}

void
make_valid(char *text)
{
	for (;;)
	{
		int			len = strlen(text);
		int			valid = pg_encoding_verifymbstr(GetDatabaseEncoding(), text, len);

		if (valid == len)
			return;
		text[valid] = '?';
		text += valid + 1;
	}
}

/* JOB_CONDITIONS: none. The caller holds the mutex. */
static int
highest(const JobConditions *conditions)
{
	int			i = 0;

	while (i < JOB_CONDITIONS && !(conditions->set & bit(i)))
		i++;
	return i;
}

static const char *
reason_of(const JobConditions *conditions)
{
	int			i = highest(conditions);

	return i < JOB_CONDITIONS ? conditions->reasons[i] : "";
}

/* Names and reasons are others': a line of the log is ours. */
static void
log_state(const Job *job, JobState state, const char *reason)
{
	char		line[4 * JOB_REASON_SIZE];

	snprintf(line, sizeof(line), "nexus_kafka %s%s%s%s%s is %s%s%s",
			 job_kind_name(job->kind), job->name[0] ? " " : "", job->name,
			 job->database_name[0] ? " of database " : "", job->database_name,
			 job_state_name(state), reason[0] ? ": " : "", reason);
	make_printable(line);
	ereport(LOG, (errmsg_internal("%s", line), errhidestmt(true), errhidecontext(true)));
}

/* less and more: bits; text: the reason of condition, NULL: as it was. */
static void
change(Job *job, uint32 less, uint32 more, int condition, const char *text)
{
	JobConditions *conditions = &job->conditions;
	char		reason[JOB_REASON_SIZE];
	TimestampTz now = GetCurrentTimestamp();
	JobState	before;
	JobState	state;
	int			top;

	SpinLockAcquire(&job->mutex);
	before = conditions->state;
	conditions->set = (conditions->set & ~less) | more;
	if (text)
		strlcpy(conditions->reasons[condition], text, JOB_REASON_SIZE);
	top = highest(conditions);
	state = top < JOB_CONDITIONS ? kinds[top].state : JOB_RUNNING;
	conditions->state = state;
	if (state != before)
		conditions->since = now;
	strlcpy(reason, reason_of(conditions), sizeof(reason));
	SpinLockRelease(&job->mutex);

	if (state != before && state != JOB_STARTING)
		log_state(job, state, reason);
}

void
job_condition_set(Job *job, JobCondition condition, const char *reason,...)
{
	char		whole[1024];
	char		text[JOB_REASON_SIZE];
	va_list		args;

	va_start(args, reason);
	vsnprintf(whole, sizeof(whole), reason ? reason : "", args);
	va_end(args);
	make_printable(whole);
	copy_clipped(text, whole, sizeof(text));
	change(job, 0, bit(condition), condition, text);
}

void
job_condition_clear(Job *job, JobCondition condition)
{
	if (job_condition_is_set(job, condition))
		change(job, bit(condition), 0, condition, NULL);
}

bool
job_condition_is_set(const Job *job, JobCondition condition)
{
	return (job->conditions.set & bit(condition)) != 0;
}

void
job_conditions_init(Job *job)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&job->mutex);
	memset(&job->conditions, 0, sizeof(JobConditions));
	job->conditions.set = bit(CONDITION_STARTING);
	job->conditions.state = JOB_STARTING;
	job->conditions.since = now;
	SpinLockRelease(&job->mutex);
}

void
job_conditions_forget(Job *job, bool new_definition)
{
	uint32		forgotten = 0;

	for (int i = 0; i < JOB_CONDITIONS; i++)
		if (new_definition ? kinds[i].of_definition : kinds[i].of_worker)
			forgotten |= bit(i);
	change(job, forgotten, bit(CONDITION_STARTING), CONDITION_STARTING, "");
}

/* ---- what others see ---- */

JobState
job_get_state(Job *job)
{
	JobState	state;

	SpinLockAcquire(&job->mutex);
	state = job->conditions.state;
	SpinLockRelease(&job->mutex);
	return state;
}

JobState
job_get_reason(Job *job, char reason[JOB_REASON_SIZE], TimestampTz *since)
{
	JobState	state;

	SpinLockAcquire(&job->mutex);
	state = job->conditions.state;
	strlcpy(reason, reason_of(&job->conditions), JOB_REASON_SIZE);
	if (since)
		*since = job->conditions.since;
	SpinLockRelease(&job->mutex);
	make_valid(reason);
	return state;
}

bool
job_is_hopeless(Job *job)
{
	switch (job_get_state(job))
	{
		case JOB_STOPPED:
		case JOB_PAUSED:
		case JOB_NO_WORKER:
			return true;
		case JOB_NOT_CONFIGURED:
			return !nexus_embedded_broker;	/* which may be on its way up */
		default:
			return false;
	}
}
