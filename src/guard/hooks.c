/*
 * hooks.c
 *		The guard over a superuser's statement: on and off, and where PostgreSQL asks.
 *
 * What a statement writes to has triggers, defaults and constraints, and these have the
 * statement's rights, in a worker, whenever a message comes. With a superuser's rights,
 * whoever owns the table would be superuser, and so would the owner of the schema or the
 * database, who can put a table or function of their own in the place of one that the
 * statement names. So while the guard is on, from before the statement is prepared to the
 * end of its commit, nothing runs or is planned but what belongs to trusted owners. By
 * then what is named, nobody can exchange.
 *
 *	planner				the query and all that it touches, before planning runs any of it
 *	start of a query	the relations of its plan once more: it may be an old one
 *	look-up of a function	its owner
 *	call of a function	again, unless it is C: it may have been looked up long ago
 *	execution right		the same for aggregates, and for built-in functions: is it
 *						trusted text that calls it?
 *	utility commands	cursors WITH HOLD, and what is run without a plan
 *
 * It doesn't matter who is the current user meanwhile. A SECURITY DEFINER function of
 * somebody else's has no superuser's rights, but runs in a superuser's transaction: what
 * it leaves there, a cursor or an event, is carried out with those rights later.
 *
 * The hooks are installed with the first guarded statement of a process.
 */
#include "nexus_kafka.h"

#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "optimizer/planner.h"
#include "tcop/utility.h"
#include "utils/plancache.h"

#include "guard/guard.h"

static bool installed = false;
static bool guarding = false;
static int	planning = 0;
static uint64 plans_generation = 0;

static planner_hook_type next_planner_hook = NULL;
static ExecutorStart_hook_type next_executor_start_hook = NULL;
static needs_fmgr_hook_type next_needs_fmgr_hook = NULL;
static fmgr_hook_type next_fmgr_hook = NULL;
static object_access_hook_type next_object_access_hook = NULL;
static ProcessUtility_hook_type next_utility_hook = NULL;

/* ---- functions ---- */

/*
 * Asked when a function is looked up, to be called or to be inlined. True: each call is
 * announced, which a C function needn't be. One in SQL can't be inlined then, so it is left
 * out while planning, which keeps no pointer to it; but not a volatile one, the body of
 * which is to be planned, and walked, by itself.
 */
static bool
guard_lookup(Oid function)
{
	bool		next = next_needs_fmgr_hook && next_needs_fmgr_hook(function);
	GuardedFunction found;

	if (!guarding)
		return next;
	found = guard_check_function(function);
	return next || !(found.is_fixed || (found.is_sql && !found.is_volatile && planning > 0));
}

static void
guard_call(FmgrHookEventType event, FmgrInfo *function, Datum *private)
{
	if (guarding && event == FHET_START)
		(void) guard_check_function(function->fn_oid);
	if (next_fmgr_hook)
		next_fmgr_hook(event, function, private);
}

static void
guard_access(ObjectAccessType access, Oid catalog, Oid object, int subobject, void *arg)
{
	if (guarding && access == OAT_FUNCTION_EXECUTE && catalog == ProcedureRelationId)
		guard_check_call(object);
	if (next_object_access_hook)
		next_object_access_hook(access, catalog, object, subobject, arg);
}

/* ---- queries ---- */

static PlannedStmt *
plan_query(Query *query, const char *sql, int options, ParamListInfo params)
{
	PlannedStmt *plan;

	planning++;
	PG_TRY();
	{
		plan = next_planner_hook ? next_planner_hook(query, sql, options, params) :
			standard_planner(query, sql, options, params);
	}
	PG_FINALLY();
	{
		planning--;
	}
	PG_END_TRY();
	return plan;
}

/* In parallel workers nobody would be on guard. */
static PlannedStmt *
guard_planner(Query *query, const char *sql, int options, ParamListInfo params)
{
	if (!guarding)
		return plan_query(query, sql, options, params);
	guard_check_query(query);
	return plan_query(query, sql, options & ~CURSOR_OPT_PARALLEL_OK, params);
}

static void
guard_start(QueryDesc *query, int eflags)
{
	if (guarding)
		guard_check_plan(query->plannedstmt);
	if (next_executor_start_hook)
		next_executor_start_hook(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* ---- commands ---- */

static void
check_target(const RangeVar *target, LOCKMODE lock)
{
	Oid			relation = target ? RangeVarGetRelid(target, lock, true) : InvalidOid;

	if (OidIsValid(relation))
		guard_check_relation(relation, true);
}

static void
check_command(Node *command)
{
	ListCell   *lc;

	switch (nodeTag(command))
	{
		case T_DeclareCursorStmt:
			if (((DeclareCursorStmt *) command)->options & CURSOR_OPT_HOLD)
				refuse_held_cursor(((DeclareCursorStmt *) command)->portalname);
			break;
		case T_CopyStmt:
			if (((CopyStmt *) command)->is_from)
				check_target(((CopyStmt *) command)->relation, RowExclusiveLock);
			guard_check_expression(((CopyStmt *) command)->whereClause);
			break;
		case T_TruncateStmt:
			foreach(lc, ((TruncateStmt *) command)->relations)
				check_target(lfirst_node(RangeVar, lc), AccessExclusiveLock);
			break;
		case T_CallStmt:
			guard_check_expression((Node *) ((CallStmt *) command)->funcexpr);
			break;
		default:
			break;
	}
}

static void
guard_utility(PlannedStmt *command, const char *sql, bool read_only, ProcessUtilityContext context,
			  ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (guarding)
		check_command(command->utilityStmt);
	if (next_utility_hook)
		next_utility_hook(command, sql, read_only, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(command, sql, read_only, context, params, environment, dest, completion);
}

/* ---- on and off ---- */

static void
install_hooks(void)
{
	guard_watch_changes();
	next_planner_hook = planner_hook;
	planner_hook = guard_planner;
	next_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = guard_start;
	next_needs_fmgr_hook = needs_fmgr_hook;
	needs_fmgr_hook = guard_lookup;
	next_fmgr_hook = fmgr_hook;
	fmgr_hook = guard_call;
	next_object_access_hook = object_access_hook;
	object_access_hook = guard_access;
	next_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = guard_utility;
	installed = true;
}

/* A plan holds what was inlined of functions: it is as old as the trust in their owners. */
Guard
guard_begin(Oid role, bool replan)
{
	Guard		before = {.on = guarding};

	trust_save(&before);
	guarding = false;
	if (!trust_begin(role))
		return before;
	if (replan || !installed || plans_generation != trust_generation())
		ResetPlanCache();
	if (!installed)
		install_hooks();
	plans_generation = trust_generation();
	guarding = true;
	return before;
}

void
guard_end(const Guard *before)
{
	guarding = before->on;
	trust_restore(before);
	if (guarding)
		ResetPlanCache();		/* what was planned meanwhile was for another role */
}
