/*
 * scan.c
 *		How the worker's plans read nexus_messages(): row by row.
 *
 * A set-returning function in FROM fills a tuplestore, whole, before its first
 * row is seen. Here, in the worker only, the planner gets a scan of the batch in
 * its place, which decodes each message when it is asked for: nothing is copied,
 * a message is still in the processor's cache when its row is written, and what
 * the statement doesn't use of topic, timestamp and headers isn't built. Key and
 * value are decoded in any case, so that the same messages are dead letters
 * either way.
 *
 * Where the whole row is wanted as one value, and where the function isn't
 * alone in its place in FROM, it stays the function that it is.
 */
#include "nexus_kafka.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "ingest/ingest.h"

static set_rel_pathlist_hook_type next_pathlist_hook = NULL;

typedef struct MessagesScan
{
	CustomScanState css;
	bool		raw;
	MessageDecoder *decoder;
	bool		begun;
	int			next;			/* index in the batch */
} MessagesScan;

static Node *create_state(CustomScan *scan);
static Plan *plan_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
					   List *custom_plans);
static void begin_scan(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *exec_scan(CustomScanState *node);
static void end_scan(CustomScanState *node);
static void rescan(CustomScanState *node);

static const CustomPathMethods path_methods = {
	.CustomName = "NexusMessages",
	.PlanCustomPath = plan_scan
};

static const CustomScanMethods scan_methods = {
	.CustomName = "NexusMessages",
	.CreateCustomScanState = create_state
};

static const CustomExecMethods exec_methods = {
	.CustomName = "NexusMessages",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan
};

/* ---- planning ---- */

/* The call, if that is all that stands there in FROM; NULL otherwise. */
static FuncExpr *
messages_call(const RangeTblEntry *rte, bool *raw)
{
	FuncExpr   *call;
	char	   *name;

	if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1 || rte->funcordinality)
		return NULL;
	call = (FuncExpr *) ((RangeTblFunction *) linitial(rte->functions))->funcexpr;
	if (!IsA(call, FuncExpr) || !call->funcretset || call->args != NIL)
		return NULL;
	name = get_func_name(call->funcid);
	if (name == NULL || get_func_namespace(call->funcid) != catalog_schema())
		return NULL;
	*raw = strcmp(name, "nexus_raw_messages") == 0;
	return *raw || strcmp(name, "nexus_messages") == 0 ? call : NULL;
}

static Bitmapset *
used_columns(const RelOptInfo *rel)
{
	Bitmapset  *used = NULL;
	ListCell   *lc;

	pull_varattnos((Node *) rel->reltarget->exprs, rel->relid, &used);
	foreach(lc, rel->baserestrictinfo)
		pull_varattnos((Node *) lfirst_node(RestrictInfo, lc)->clause, rel->relid, &used);
	return used;
}

static bool
is_used(const Bitmapset *used, AttrNumber column)
{
	return bms_is_member(column - FirstLowInvalidHeapAttributeNumber, used);
}

static void
offer_scan(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	CustomPath *path;
	Path	   *call_path;
	bool		raw;

	if (next_pathlist_hook)
		next_pathlist_hook(root, rel, rti, rte);
	if (rel->rtekind != RTE_FUNCTION || rel->pathlist == NIL || !bms_is_empty(rel->lateral_relids) ||
		messages_call(rte, &raw) == NULL || is_used(used_columns(rel), 0))
		return;

	call_path = linitial(rel->pathlist);
	path = makeNode(CustomPath);
	path->path = *call_path;
	path->path.type = T_CustomPath;
	path->path.pathtype = T_CustomScan;
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;
	rel->pathlist = list_make1(path);
}

/* All columns of the function, for the plan's references to find. */
static List *
whole_tlist(Index relid, Oid function)
{
	TupleDesc	desc;
	List	   *tlist = NIL;

	if (get_func_result_type(function, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != MESSAGE_COLUMNS)
		elog(ERROR, "function %u doesn't return messages", function);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(desc, i);
		Var		   *var = makeVar(relid, i + 1, a->atttypid, a->atttypmod, a->attcollation, 0);

		tlist = lappend(tlist, makeTargetEntry((Expr *) var, i + 1, NULL, false));
	}
	return tlist;
}

static Plan *
plan_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	bool		raw;
	FuncExpr   *call = messages_call(planner_rt_fetch(rel->relid, root), &raw);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->flags = path->flags;
	scan->methods = &scan_methods;
	scan->custom_scan_tlist = whole_tlist(rel->relid, call->funcid);
	scan->custom_private = list_make3(list_make1_oid(call->funcid), makeInteger(raw),
									  makeInteger(is_used(used_columns(rel), MESSAGE_COLUMN_HEADERS)));
	return &scan->scan.plan;
}

/* ---- running ---- */

static Node *
create_state(CustomScan *scan)
{
	MessagesScan *state = (MessagesScan *) newNode(sizeof(MessagesScan), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

/* What the executor does for a function in FROM: may the role call it? */
static void
check_rights(Oid function)
{
	AclResult	result = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static void
begin_scan(CustomScanState *node, EState *estate, int eflags)
{
	MessagesScan *state = (MessagesScan *) node;
	List	   *private = castNode(CustomScan, node->ss.ps.plan)->custom_private;

	check_rights(linitial_oid(linitial(private)));
	state->raw = intVal(lsecond(private));
	state->decoder = message_decoder_create(state->raw, intVal(lthird(private)));
}

static TupleTableSlot *
next_message(ScanState *node)
{
	MessagesScan *state = (MessagesScan *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;
	Batch	   *batch = current_batch_for(state->raw);

	ExecClearTuple(slot);
	if (!state->begun)
		state->next = batch->lo;
	state->begun = true;
	batch->shown = -1;
	if (message_decode_next(state->decoder, batch, &state->next, slot->tts_values, slot->tts_isnull))
	{
		ExecStoreVirtualTuple(slot);
		batch->shown = state->next - 1;
	}
	return slot;
}

/* A row of the batch is what it was. */
static bool
recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, next_message, recheck);
}

static void
end_scan(CustomScanState *node)
{
	/* the decoder goes with the query's memory */
}

static void
rescan(CustomScanState *node)
{
	((MessagesScan *) node)->begun = false;
	ExecScanReScan(&node->ss);
}

void
messages_scan_install_hook(void)
{
	next_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = offer_scan;
}
