/*
 * apply.c
 *		Taking in a batch: one transaction for the rows and the offsets, and what
 *		happens when it fails.
 *
 * apply_range() tries [lo, hi) in one transaction. If that fails
 *	- by the environment: nothing moved, the caller tries again later;
 *	- by messages that can't be decoded: all of the range's are found at one go
 *	  and flagged, and the range is tried again without them;
 *	- otherwise it is split, in order, until the culprit stands alone: at the
 *	  message that the scan handed out last, which it is if the statement works row
 *	  by row; where that guess was wrong, in halves. A lone message with an error
 *	  of data is flagged. With an ambiguous error it takes evidence: does the
 *	  statement, now, pass for another message of the batch?
 * What becomes of a flagged message, and where the progress is written down, is the
 * ledger's (offsets_ledger, replay_worker.c): by the transaction that holds the rows.
 *
 * No subtransactions: a deferred constraint fails at the commit, which is a
 * failure of the transaction like any other.
 *
 * The statement has the rights of the pipeline's role, from its start to the
 * end of the commit, where deferred triggers run. SECURITY_LOCAL_USERID_CHANGE
 * keeps it from taking others (SET ROLE, SET SESSION AUTHORIZATION). A superuser's are
 * given to nobody else's code (guard/).
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guard/guard.h"
#include "ingest/ingest.h"

#define MOST_WITNESSES	8
#define FIRST_REPLAN	500		/* messages; then at each doubling */

/* ---- the statement ---- */

/*
 * A plan made for a small table may read all of a large one. PostgreSQL makes a
 * new one when statistics change, a minute later at best; so one is made at
 * each doubling of what was taken in, too.
 */
static void
prepare_statement(Ingest *ingest)
{
	SPIPlanPtr	plan;

	if (ingest->plan && ingest->taken_in < Max(ingest->planned_at * 2, FIRST_REPLAN))
		return;
	if (ingest->plan)
		SPI_freeplan(ingest->plan);
	ingest->plan = NULL;

	plan = SPI_prepare(ingest->pipeline->statement, 0, NULL);
	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the pipeline's statement could not be prepared: %s", SPI_result_code_string(SPI_result))));
	if (list_length(SPI_plan_get_plan_sources(plan)) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the pipeline's statement is not a single statement")));
	SPI_keepplan(plan);
	ingest->plan = plan;
	ingest->planned_at = ingest->taken_in;
}

static void
assume_role(const Pipeline *pipeline)
{
	Oid			role = catalog_pipeline_role(pipeline);
	int			context;
	Oid			user;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE);
	(void) guard_begin(role, false);
}

static void
run_statement(Attempt *attempt)
{
	Ingest	   *ingest = attempt->ingest;
	Batch	   *batch = ingest->batch;
	int			settings;
	int			rc;

	/* until the transaction ends: for deferred triggers too */
	(void) set_config_option("search_path", ingest->pipeline->search_path,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	settings = NewGUCNestLevel();
	assume_role(ingest->pipeline);
	prepare_statement(ingest);

	batch->lo = attempt->lo;
	batch->hi = attempt->hi;
	current_batch = batch;		/* until the transaction ends: deferred triggers may read it too */
	/* rows that it returns are nobody's, and mustn't pile up */
	rc = SPI_execute_plan_extended(ingest->plan, &(SPIExecuteOptions) {.dest = None_Receiver});
	attempt->rows = SPI_processed;
	if (rc < 0)
		elog(ERROR, "the pipeline's statement gave %s", SPI_result_code_string(rc));

	if (attempt->dry_run)
		SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);

	/* what the statement has set for the session */
	AtEOXact_GUC(false, settings);
}

/* ---- the transaction ---- */

static void
apply_body(void *arg)
{
	Attempt    *attempt = arg;
	Ingest	   *ingest = attempt->ingest;

	if (!attempt->dry_run && !ingest->ledger->settle(attempt))
	{
		attempt->moved = true;
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the offsets of the pipeline were moved by somebody else")));
	}
	if (batch_count_live(ingest->batch, attempt->lo, attempt->hi) > 0)
		run_statement(attempt);
	if (attempt->dry_run)
	{
		attempt->passed = true;
		ereport(ERROR, (errcode(ERRCODE_SUCCESSFUL_COMPLETION), errmsg_internal("dry_run")));
	}
}

static bool
run_attempt(Attempt *attempt, ErrorData **error)
{
	Oid			user;
	int			context;
	bool		ok;

	GetUserIdAndSecContext(&user, &context);
	attempt->ingest->batch->undecodable = attempt->ingest->batch->shown = -1;
	pgstat_report_activity(STATE_RUNNING, attempt->ingest->pipeline->statement);
	ok = worker_transaction(apply_body, attempt, attempt->ingest->batch->context, error);
	current_batch = NULL;
	guard_end(&(Guard) {.on = false});
	SetUserIdAndSecContext(user, context);
	pgstat_report_activity(STATE_IDLE, NULL);
	return ok;
}

static ApplyOutcome
note_applied(const Attempt *attempt)
{
	Ingest	   *ingest = attempt->ingest;

	ingest->batch->next = attempt->hi;
	ingest->taken_in += attempt->hi - attempt->lo;
	ingest_note_commit(ingest);
	ingest->ledger->applied(attempt);
	return attempt->full ? APPLY_FULL : APPLY_DONE;
}

/* ---- failures ---- */

/*
 * Flags every message of the range that can't be decoded. The transaction does
 * nothing but decode, in memory, and is rolled back; so an error of one message
 * can be caught without a subtransaction.
 */
static void
flag_undecodable_body(void *arg)
{
	Attempt    *attempt = arg;
	Batch	   *batch = attempt->ingest->batch;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "nexus_kafka flag_undecodable", ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(context);

	for (int i = attempt->lo; i < attempt->hi; i++)
	{
		if (batch->dead[i])
			continue;
		PG_TRY();
		{
			message_try_decode(&batch->messages[i]);
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(batch->context);
			error = CopyErrorData();
			if (triage(error->sqlerrcode) != ERROR_OF_DATA)
				PG_RE_THROW();
			FlushErrorState();
			batch->dead[i] = error;
		}
		PG_END_TRY();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(before);
	ereport(ERROR, (errcode(ERRCODE_SUCCESSFUL_COMPLETION), errmsg_internal("dry_run")));
}

static bool
flag_undecodable(Ingest *ingest, int lo, int hi)
{
	Attempt		attempt = {ingest, lo, hi};
	int			before = batch_count_live(ingest->batch, lo, hi);
	ErrorData  *ignored;

	if (!worker_transaction(flag_undecodable_body, &attempt, ingest->batch->context, &ignored))
		FreeErrorData(ignored);
	return batch_count_live(ingest->batch, lo, hi) < before;
}

static bool
passes(Ingest *ingest, int lo, int hi)
{
	Attempt		attempt = {ingest, lo, hi, .dry_run = true};
	ErrorData  *error;
	bool		works;

	(void) run_attempt(&attempt, &error);	/* its end is an error too */
	/* a row that is there already shows as well that the statement itself works */
	works = attempt.passed || ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;
	FreeErrorData(error);
	return works;
}

/*
 * Does the statement pass, now, for any other message of the batch? Those that came
 * last are asked first, and at the next try those before them.
 */
static bool
has_witness(Ingest *ingest, int suspect)
{
	Batch	   *batch = ingest->batch;
	int			asked = 0;

	if (suspect + 1 < batch->n && batch_count_live(batch, suspect + 1, batch->n) > 1 &&
		passes(ingest, suspect + 1, batch->n))
		return true;
	for (int n = 0; n < batch->n && asked < MOST_WITNESSES; n++)
	{
		int			i = batch->witness = (batch->witness + batch->n - 1) % batch->n;

		if (i == suspect || batch->dead[i])
			continue;
		asked++;
		if (passes(ingest, i, i + 1))
			return true;
	}
	return false;
}

static ApplyOutcome apply_range(Ingest *ingest, int lo, int hi, bool may_guess, ErrorData **error);

static bool
stops_at_error(const Ingest *ingest)
{
	return ingest->pipeline->stop_on_error && ingest->ledger->may_stop;
}

/* It is the message's error: a dead letter, or the end of the reading. */
static ApplyOutcome
give_up_on(Ingest *ingest, int lo, int hi, int i, ErrorData **error)
{
	if (stops_at_error(ingest))
		return APPLY_STOP;
	ingest->batch->dead[i] = *error;
	return apply_range(ingest, lo, hi, true, error);
}

/* An error that is not to be told: a batch may have thousands. */
static void
forget(ErrorData **error)
{
	FreeErrorData(*error);
	*error = NULL;
}

/*
 * A lone message with an error that may be its own or the statement's. Only if
 * the statement passes for others, and then fails for this one again, is it
 * this one's. A statement that broke a moment ago passes for none.
 */
static ApplyOutcome
judge(Ingest *ingest, int lo, int hi, int suspect, ErrorData **error)
{
	Attempt		again = {ingest, lo, hi};

	if (!has_witness(ingest, suspect))
		return APPLY_FAILING;
	forget(error);
	if (run_attempt(&again, error))
		return note_applied(&again);
	if (again.moved)
		return APPLY_MOVED;
	if (triage((*error)->sqlerrcode) == ERROR_OF_ENVIRONMENT)
		return APPLY_RETRY;
	return give_up_on(ingest, lo, hi, suspect, error);
}

/* [lo, middle), then [middle, hi). */
static ApplyOutcome
apply_parts(Ingest *ingest, int lo, int middle, int hi, bool may_guess, ErrorData **error)
{
	ApplyOutcome outcome = APPLY_DONE;

	if (middle > lo)
		outcome = apply_range(ingest, lo, middle, may_guess, error);
	if (outcome == APPLY_DONE && hi > middle)
		outcome = apply_range(ingest, middle, hi, may_guess, error);
	return outcome;
}

static ApplyOutcome
apply_range(Ingest *ingest, int lo, int hi, bool may_guess, ErrorData **error)
{
	Batch	   *batch = ingest->batch;

	for (;;)
	{
		Attempt		attempt = {ingest, lo, hi};
		ApplyOutcome outcome;
		ErrorKind	kind;
		int			suspect;

		if (run_attempt(&attempt, error))
			return note_applied(&attempt);
		if (attempt.moved)
			return APPLY_MOVED;
		pg_atomic_fetch_add_u64(&MyJob->retries, 1);
		kind = triage((*error)->sqlerrcode);
		if (kind == ERROR_OF_ENVIRONMENT)
			return APPLY_RETRY;
		suspect = batch->undecodable >= 0 ? batch->undecodable : batch->shown;
		if (batch->undecodable >= 0 && !stops_at_error(ingest) && flag_undecodable(ingest, lo, hi))
		{
			forget(error);
			continue;			/* without them */
		}

		if (batch_count_live(batch, lo, hi) == 1)
		{
			suspect = batch_first_live(batch, lo, hi);
			if (kind == ERROR_AMBIGUOUS && ingest->ledger->asks_for_evidence)
				return judge(ingest, lo, hi, suspect, error);
			return give_up_on(ingest, lo, hi, suspect, error);
		}
		if (batch_first_live(batch, lo, hi) == hi)
			return APPLY_FAILING;	/* all are flagged, so the dead letters can't be written */
		forget(error);
		if (!may_guess || suspect < lo || suspect >= hi)
			return apply_parts(ingest, lo, lo + (hi - lo) / 2, hi, true, error);

		/* it is probably this one: what is before it passes, and goes first; then what follows it */
		outcome = apply_parts(ingest, lo, suspect, suspect + 1, false, error);
		lo = suspect + 1;
		if (outcome != APPLY_DONE || lo == hi)
			return outcome;
	}
}

ApplyOutcome
apply_batch(Ingest *ingest, ErrorData **error)
{
	ApplyOutcome outcome = APPLY_DONE;

	batch_forget_errors(ingest->batch);
	while (outcome == APPLY_DONE && !batch_is_empty(ingest->batch))
	{
		outcome = apply_range(ingest, ingest->batch->next,
							  batch_slice(ingest->batch, ingest->pipeline->batch_messages, ingest->pipeline->batch_bytes),
							  true, error);
		worker_service();
	}
	return outcome;
}
