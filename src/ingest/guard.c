/*
 * guard.c
 *		The statement of a superuser's pipeline runs no code but superusers'.
 *
 * What a statement writes to has triggers, defaults and constraints, and these have
 * the statement's rights, in a worker, whenever a message comes. With a superuser's
 * rights, whoever owns the table would be superuser, and so would the owner of the
 * schema or the database, who can put a table or function of their own in the place
 * of one that the statement names. So while such a statement runs, with those rights,
 * the tables that it writes to, the views, and the functions that are called must
 * belong to superusers. Others are refused when they are about to be used: what is
 * named by then, nobody can exchange.
 *
 * A SECURITY DEFINER function has its owner's rights, and may be anybody's.
 */
#include "nexus_kafka.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "ingest/ingest.h"

static bool guarding = false;
static needs_fmgr_hook_type next_needs_fmgr_hook = NULL;
static fmgr_hook_type next_fmgr_hook = NULL;
static ExecutorStart_hook_type next_executor_start_hook = NULL;

void
guard_begin(Oid role)
{
	guarding = superuser_arg(role);
}

void
guard_end(void)
{
	guarding = false;
}

static void
check_owner(Oid owner, const char *kind, const char *name)
{
	const char *owner_name;

	if (superuser_arg(owner))
		return;
	owner_name = GetUserNameFromId(owner, false);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the pipeline runs as superuser \"%s\", but %s \"%s\" belongs to \"%s\"",
					GetUserNameFromId(GetUserId(), false), kind, name, owner_name),
			 errdetail("Its owner would get a superuser's rights by it."),
			 errhint("Let the pipeline run as its owner, with the option run_as: nexus_alter_pipeline(name, options => '{\"run_as\": \"%s\"}')",
					 owner_name)));
}

/* ---- functions: in expressions, and as triggers ---- */

static void
check_function(Oid function)
{
	HeapTuple	tuple = guarding && superuser() ? SearchSysCache1(PROCOID, ObjectIdGetDatum(function)) : NULL;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);

		if (!form->prosecdef)
			check_owner(form->proowner, "function", NameStr(form->proname));
		ReleaseSysCache(tuple);
	}
}

/* Asked when a function is looked up, to be called or to be inlined. */
static bool
guard_lookup(Oid function)
{
	check_function(function);
	return next_needs_fmgr_hook ? next_needs_fmgr_hook(function) : false;
}

/* Not asked then for one with settings of its own (SET search_path …): at the call. */
static void
guard_call(FmgrHookEventType event, FmgrInfo *function, Datum *private)
{
	if (event == FHET_START)
		check_function(function->fn_oid);
	if (next_fmgr_hook)
		next_fmgr_hook(event, function, private);
}

/* ---- relations ---- */

static void
check_relation(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		check_owner(form->relowner, form->relkind == RELKIND_VIEW ? "view" : "table", NameStr(form->relname));
		ReleaseSysCache(tuple);
	}
}

/* One that is only read runs no code of its owner's, unless it is a view. */
static bool
runs_code(const RangeTblEntry *rte)
{
	return OidIsValid(rte->relid) && (rte->rellockmode >= RowExclusiveLock || rte->relkind == RELKIND_VIEW);
}

static void
guard_query(QueryDesc *query, int eflags)
{
	if (guarding && superuser())
	{
		ListCell   *lc;

		foreach(lc, query->plannedstmt->rtable)
		{
			const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

			if (runs_code(rte))
				check_relation(rte->relid);
		}
	}
	if (next_executor_start_hook)
		next_executor_start_hook(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

void
guard_install_hooks(void)
{
	next_needs_fmgr_hook = needs_fmgr_hook;
	needs_fmgr_hook = guard_lookup;
	next_fmgr_hook = fmgr_hook;
	fmgr_hook = guard_call;
	next_executor_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = guard_query;
}
