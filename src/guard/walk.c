/*
 * walk.c
 *		What a query, a relation or a type would run: is it all of trusted owners?
 *
 * Planning runs code, too: it evaluates functions, index expressions, partition bounds.
 * So a query's tree is walked before it is planned, with the relations that it touches
 * and their expressions as the catalogs have them: the relation cache hands them out
 * simplified, which is having been run.
 *
 * Expressions are of the owner of what they are part of. A volatile function may do
 * anything with the rights that it is given, whoever owns it (query_to_xml, lo_export).
 * So of owners who aren't trusted, and in triggers' conditions, which are of who had the
 * right TRIGGER once, volatile functions aren't taken. Those that trusted text calls are
 * noted (called). A volatile function that isn't among them is looked at when it is about
 * to run: then something calls it that couldn't be walked, as the domain of a variable in
 * a function of ours, and it is refused unless only trusted owners' domains do.
 *
 * What was found right is remembered until the catalogs say that it changed.
 */
#include "nexus_kafka.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/indexing.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_language.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_statistic_ext.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "guard/guard.h"

typedef struct SeenKey
{
	Oid			catalog;
	Oid			object;
	Oid			written;		/* a relation: 1 or 0 */
} SeenKey;

typedef struct Seen
{
	SeenKey		key;
	uint32		hash;			/* in the catalog's cache */
	bool		done;
	uint64		walk;			/* not done: the walk that came by */
	GuardedFunction function;
} Seen;

/* Whose the expression is. None of them set: a trusted owner's. */
typedef struct Walk
{
	const char *table;			/* of an owner who isn't trusted */
	const char *trigger;		/* … or of anybody, with this trigger, made by anybody */
	Oid			owner;			/* the table's */
} Walk;

static HTAB *seen_table = NULL;
static HTAB *called = NULL;		/* volatile functions that trusted text calls; kept, as plans are */
static bool stale = false;
static uint64 seen_generation = 0;
static uint64 this_walk = 0;

static void check_type(Oid type);
static void check_relation(Oid relation, bool written);
static bool walk_node(Node *node, Walk *walk);

/* ---- what was found right ---- */

static void
note_cache_change(Datum catalog, int cache, uint32 hash)
{
	HASH_SEQ_STATUS status;
	Seen	   *seen;

	if (seen_table == NULL || stale)
		return;
	stale = hash == 0;
	if (stale)
		return;
	hash_seq_init(&status, seen_table);
	while ((seen = hash_seq_search(&status)) != NULL)
		stale = stale || (seen->key.catalog == DatumGetObjectId(catalog) && seen->hash == hash);
}

static void
note_relation_change(Datum arg, Oid relation)
{
	SeenKey		key = {RelationRelationId, relation, 0};

	if (seen_table == NULL || stale)
		return;
	stale = !OidIsValid(relation) || hash_search(seen_table, &key, HASH_FIND, NULL);
	key.written = 1;
	stale = stale || hash_search(seen_table, &key, HASH_FIND, NULL);
}

void
guard_watch_changes(void)
{
	HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(Oid)};

	called = hash_create("nexus_kafka functions called", 64, &control, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(PROCOID, note_cache_change, ObjectIdGetDatum(ProcedureRelationId));
	CacheRegisterSyscacheCallback(TYPEOID, note_cache_change, ObjectIdGetDatum(TypeRelationId));
	CacheRegisterSyscacheCallback(OPEROID, note_cache_change, ObjectIdGetDatum(OperatorRelationId));
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, note_cache_change, ObjectIdGetDatum(ForeignServerRelationId));
	CacheRegisterRelcacheCallback(note_relation_change, (Datum) 0);
}

static void
begin_walk(void)
{
	if (stale || seen_table == NULL || seen_generation != trust_generation())
	{
		HASHCTL		control = {.keysize = sizeof(SeenKey), .entrysize = sizeof(Seen)};

		if (seen_table)
			hash_destroy(seen_table);
		seen_table = NULL;
		stale = false;
		seen_generation = trust_generation();
		seen_table = hash_create("nexus_kafka guard", 128, &control, HASH_ELEM | HASH_BLOBS);
	}
	this_walk++;
}

/* To be filled in, and done then; one that is being looked at further up is as good as done. */
static Seen *
see(Oid catalog, int cache, Oid object, bool written)
{
	SeenKey		key = {catalog, object, written};
	bool		found;
	Seen	   *seen = hash_search(seen_table, &key, HASH_ENTER, &found);

	if (!found)
	{
		seen->done = false;
		seen->walk = 0;
		seen->hash = cache >= 0 ? GetSysCacheHashValue1(cache, ObjectIdGetDatum(object)) : 0;
	}
	return seen;
}

/* False: nothing is left to do. */
static bool
enter(Seen *seen)
{
	if (seen->done || seen->walk == this_walk)
		return false;
	seen->walk = this_walk;
	return true;
}

/* ---- functions and operators ---- */

/* What is called for an argument that isn't given; put in only when it is planned. */
static void
check_argument_defaults(HeapTuple function)
{
	Walk		walk = {0};
	bool		isnull;
	Datum		defaults = SysCacheGetAttr(PROCOID, function, Anum_pg_proc_proargdefaults, &isnull);

	if (!isnull)
		(void) walk_node(stringToNode(TextDatumGetCString(defaults)), &walk);
}

/* They are stable. What they read gets out by an error's message, or by what a trigger does. */
static bool
reads_anything(Oid function)
{
	return function == F_TABLE_TO_XML || function == F_TABLE_TO_XML_AND_XMLSCHEMA ||
		function == F_SCHEMA_TO_XML || function == F_SCHEMA_TO_XML_AND_XMLSCHEMA ||
		function == F_DATABASE_TO_XML || function == F_DATABASE_TO_XML_AND_XMLSCHEMA;
}

static Seen *
check_function(Oid function)
{
	Seen	   *seen = see(ProcedureRelationId, PROCOID, function, false);
	HeapTuple	tuple;
	Form_pg_proc form;

	if (!enter(seen))
		return seen;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (!trust_owner(form->proowner))
		refuse_owner(form->prokind == PROKIND_AGGREGATE ? "aggregate" : form->prokind == PROKIND_PROCEDURE ? "procedure" : "function",
					 NameStr(form->proname), form->proowner);
	seen->function.is_volatile = form->provolatile == PROVOLATILE_VOLATILE;
	seen->function.reads_anything = reads_anything(function);
	seen->function.is_fixed = form->prolang == INTERNALlanguageId || form->prolang == ClanguageId;
	seen->function.is_sql = form->prolang == SQLlanguageId;
	check_argument_defaults(tuple);
	ReleaseSysCache(tuple);
	seen->done = true;
	return seen;
}

GuardedFunction
guard_check_function(Oid function)
{
	begin_walk();
	return check_function(function)->function;
}

/* Volatile, but nothing comes of it that one couldn't have otherwise. */
static bool
is_harmless(Oid function)
{
	return function == F_NEXTVAL || function == F_RANDOM || function == F_CLOCK_TIMESTAMP ||
		function == F_TIMEOFDAY || function == F_GEN_RANDOM_UUID;
}

/* May it be called by trusted text only? */
static bool
is_open(Oid function)
{
	GuardedFunction found = check_function(function)->function;

	return found.reads_anything || (found.is_volatile && !is_harmless(function));
}

static void
note_call(Oid function)
{
	if (OidIsValid(function))
		(void) hash_search(called, &function, HASH_ENTER, NULL);
}

/* What a trusted owner's aggregate calls is the owner's choice. */
static void
note_aggregate(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(function));

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_aggregate form = (Form_pg_aggregate) GETSTRUCT(tuple);

		note_call(form->aggtransfn);
		note_call(form->aggfinalfn);
		note_call(form->aggcombinefn);
		note_call(form->aggserialfn);
		note_call(form->aggdeserialfn);
		note_call(form->aggmtransfn);
		note_call(form->aggminvtransfn);
		note_call(form->aggmfinalfn);
		ReleaseSysCache(tuple);
	}
}

static bool
walk_function(Oid function, void *arg)
{
	Walk	   *walk = arg;

	if (is_open(function))
	{
		if (walk->trigger)
			refuse_condition(walk->trigger, walk->table, walk->owner, get_func_name(function));
		if (walk->table)
			refuse_owner("table", walk->table, walk->owner);
		note_call(function);
	}
	return false;
}

static void
check_operator(Oid operator)
{
	HeapTuple	tuple = OidIsValid(operator) ? SearchSysCache1(OPEROID, ObjectIdGetDatum(operator)) : NULL;
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_operator) GETSTRUCT(tuple);
	if (enter(see(OperatorRelationId, OPEROID, operator, false)))
	{
		if (!trust_owner(form->oprowner))
			refuse_owner("operator", NameStr(form->oprname), form->oprowner);
		if (OidIsValid(form->oprcode))
			(void) check_function(form->oprcode);
		see(OperatorRelationId, OPEROID, operator, false)->done = true;
	}
	ReleaseSysCache(tuple);
}

/* ---- types ---- */

static void
check_stored(Datum expression, Walk *walk)
{
	(void) walk_node(stringToNode(TextDatumGetCString(expression)), walk);
}

static void
check_domain_constraints(Oid domain)
{
	Walk		walk = {0};
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(domain));
	scan = systable_beginscan(constraints, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		expression = heap_getattr(tuple, Anum_pg_constraint_conbin, RelationGetDescr(constraints), &isnull);

		if (!isnull)
			check_stored(expression, &walk);
	}
	systable_endscan(scan);
	table_close(constraints, AccessShareLock);
}

static bool
is_function(Oid function, void *wanted)
{
	return function == *(Oid *) wanted;
}

static bool
calls(Node *node, Oid *function)
{
	if (node == NULL)
		return false;
	return check_functions_in_node(node, is_function, function) || expression_tree_walker(node, calls, function);
}

/* Of a trusted owner: it is noted, as text that is planned would be. */
static void
judge_domain(Oid domain, Oid function)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_type form = (Form_pg_type) GETSTRUCT(tuple);

		if (!trust_owner(form->typowner))
			refuse_owner("domain", NameStr(form->typname), form->typowner);
		ReleaseSysCache(tuple);
		note_call(function);
	}
}

/* Nothing that was planned calls it. A domain may, and nothing tells which one is being checked. */
static void
find_domain(Oid function)
{
	Relation	constraints = table_open(ConstraintRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(constraints, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			domain = ((Form_pg_constraint) GETSTRUCT(tuple))->contypid;
		bool		isnull = !OidIsValid(domain);
		Datum		expression = isnull ? (Datum) 0 :
			heap_getattr(tuple, Anum_pg_constraint_conbin, RelationGetDescr(constraints), &isnull);

		if (!isnull && calls(stringToNode(TextDatumGetCString(expression)), &function))
			judge_domain(domain, function);
	}
	systable_endscan(scan);
	table_close(constraints, AccessShareLock);
}

static bool
is_called(Oid function)
{
	return hash_search(called, &function, HASH_FIND, NULL) != NULL;
}

void
guard_check_call(Oid function)
{
	begin_walk();
	if (!is_open(function) || is_called(function))
		return;
	find_domain(function);
	/* the others may be called by what was inlined */
	if (!is_called(function) && check_function(function)->function.is_volatile)
		refuse_unknown_call(get_func_name(function));
}

static void
check_columns(Oid relation)
{
	Relation	composite = try_relation_open(relation, AccessShareLock);
	TupleDesc	desc;

	if (composite == NULL)
		return;
	desc = CreateTupleDescCopy(RelationGetDescr(composite));
	/* a column added later is to be noticed */
	(void) see(RelationRelationId, -1, relation, false);
	relation_close(composite, AccessShareLock);
	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			check_type(TupleDescAttr(desc, i)->atttypid);
	}
}

static void
check_type_form(Form_pg_type form)
{
	switch (form->typtype)
	{
		case TYPTYPE_DOMAIN:
			if (!trust_owner(form->typowner))
				refuse_owner("domain", NameStr(form->typname), form->typowner);
			check_domain_constraints(form->oid);
			check_type(form->typbasetype);
			break;
		case TYPTYPE_COMPOSITE:
			check_columns(form->typrelid);
			break;
		case TYPTYPE_RANGE:
			if (!trust_owner(form->typowner))
				refuse_owner("type", NameStr(form->typname), form->typowner);
			check_type(get_range_subtype(form->oid));
			break;
		case TYPTYPE_MULTIRANGE:
			check_type(get_multirange_range(form->oid));
			break;
		default:
			break;
	}
	if (OidIsValid(form->typelem))
		check_type(form->typelem);
}

static void
check_type(Oid type)
{
	HeapTuple	tuple;
	Seen	   *seen;

	if (type < FirstGenbkiObjectId)
		return;					/* no domain, and made of none */
	seen = see(TypeRelationId, TYPEOID, type, false);
	if (!enter(seen))
		return;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (HeapTupleIsValid(tuple))
	{
		check_type_form((Form_pg_type) GETSTRUCT(tuple));
		ReleaseSysCache(tuple);
	}
	seen->done = true;
}

/* ---- trees ---- */

static void
check_types(List *types)
{
	ListCell   *lc;

	foreach(lc, types)
		check_type(lfirst_oid(lc));
}

static void
check_node_type(Node *node)
{
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_FuncExpr:
		case T_OpExpr:
		case T_Aggref:
		case T_WindowFunc:
		case T_RowExpr:
		case T_FieldSelect:
		case T_FieldStore:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ArrayExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
			check_type(exprType(node));
			break;
		case T_TableFunc:
			check_types(((TableFunc *) node)->coltypes);
			break;
		default:
			break;
	}
}

/* Those of which the function is known, but that are objects of an owner themselves. */
static void
check_node_operator(Node *node)
{
	ListCell   *lc;

	switch (nodeTag(node))
	{
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			check_operator(((OpExpr *) node)->opno);
			break;
		case T_ScalarArrayOpExpr:
			check_operator(((ScalarArrayOpExpr *) node)->opno);
			break;
		case T_RowCompareExpr:
			foreach(lc, ((RowCompareExpr *) node)->opnos)
				check_operator(lfirst_oid(lc));
			break;
		case T_SortGroupClause:
			check_operator(((SortGroupClause *) node)->eqop);
			check_operator(((SortGroupClause *) node)->sortop);
			break;
		default:
			break;
	}
}

static void
note_aggregate_of(Node *node, const Walk *walk)
{
	if (walk->table == NULL && IsA(node, Aggref))
		note_aggregate(((Aggref *) node)->aggfnoid);
	if (walk->table == NULL && IsA(node, WindowFunc))
		note_aggregate(((WindowFunc *) node)->winfnoid);
}

static void
check_entry(const RangeTblEntry *entry)
{
	HeapTuple	tuple;
	ListCell   *lc;

	foreach(lc, entry->functions)
		check_types(lfirst_node(RangeTblFunction, lc)->funccoltypes);
	if (!OidIsValid(entry->relid))
		return;
	check_relation(entry->relid, entry->rellockmode >= RowExclusiveLock);
	if (entry->securityQuals == NIL)
		return;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(entry->relid));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);

		if (!trust_owner(form->relowner))
			refuse_owner("table with policies", NameStr(form->relname), form->relowner);
		ReleaseSysCache(tuple);
	}
}

static bool
walk_node(Node *node, Walk *walk)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		check_entry((RangeTblEntry *) node);
		return false;			/* query_tree_walker goes into it */
	}
	(void) check_functions_in_node(node, walk_function, walk);
	note_aggregate_of(node, walk);
	check_node_operator(node);
	check_node_type(node);
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, walk_node, walk, QTW_EXAMINE_RTES_BEFORE | QTW_EXAMINE_SORTGROUP);
	return expression_tree_walker(node, walk_node, walk);
}

void
guard_check_expression(Node *expression)
{
	Walk		walk = {0};

	begin_walk();
	(void) walk_node(expression, &walk);
}

void
guard_check_query(Query *query)
{
	guard_check_expression((Node *) query);
}

/* A plan may be older than a change of a partition's owner, of a type, of a role. */
void
guard_check_plan(const PlannedStmt *plan)
{
	ListCell   *lc;

	begin_walk();
	foreach(lc, plan->rtable)
	{
		const RangeTblEntry *entry = lfirst_node(RangeTblEntry, lc);

		if (OidIsValid(entry->relid))
			check_relation(entry->relid, entry->rellockmode >= RowExclusiveLock);
	}
}

/* ---- relations ---- */

static void
check_attribute(int cache, Oid object, AttrNumber attribute, Walk *walk)
{
	HeapTuple	tuple = SearchSysCache1(cache, ObjectIdGetDatum(object));
	bool		isnull;
	Datum		expression;

	if (!HeapTupleIsValid(tuple))
		return;
	expression = SysCacheGetAttr(cache, tuple, attribute, &isnull);
	if (!isnull)
		check_stored(expression, walk);
	ReleaseSysCache(tuple);
}

static void
check_indexes(Relation relation, Walk *walk)
{
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(relation))
	{
		check_attribute(INDEXRELID, lfirst_oid(lc), Anum_pg_index_indexprs, walk);
		check_attribute(INDEXRELID, lfirst_oid(lc), Anum_pg_index_indpred, walk);
	}
	foreach(lc, RelationGetStatExtList(relation))
		check_attribute(STATEXTOID, lfirst_oid(lc), Anum_pg_statistic_ext_stxexprs, walk);
	if (relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		check_attribute(PARTRELID, RelationGetRelid(relation), Anum_pg_partitioned_table_partexprs, walk);
}

static void
check_constraints(Relation relation, Walk *walk)
{
	TupleConstr *constraints = RelationGetDescr(relation)->constr;

	for (int i = 0; constraints && i < constraints->num_check; i++)
		(void) walk_node(stringToNode(constraints->check[i].ccbin), walk);
}

/* Where it is only read, nothing looks at them but for a virtual generated column. */
static void
check_defaults(Relation relation, Walk *walk)
{
	TupleDesc	desc = RelationGetDescr(relation);

	for (int i = 0; desc->constr && i < desc->constr->num_defval; i++)
	{
		const AttrDefault *value = &desc->constr->defval[i];

		if (walk->table == NULL || TupleDescAttr(desc, value->adnum - 1)->attgenerated == 'v')
			(void) walk_node(stringToNode(value->adbin), walk);
	}
}

/* Their functions are checked when they fire; conditions, before that, are nobody's. */
static void
check_triggers(Form_pg_class relation)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relation->oid));
	scan = systable_beginscan(triggers, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		Walk		walk = {NameStr(relation->relname), NameStr(trigger->tgname), relation->relowner};
		bool		isnull;
		Datum		condition = heap_getattr(tuple, Anum_pg_trigger_tgqual, RelationGetDescr(triggers), &isnull);

		if (trigger->tgenabled != TRIGGER_DISABLED && !isnull)
			check_stored(condition, &walk);
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
}

static void
check_server(Oid table)
{
	ForeignServer *server = GetForeignServer(GetForeignTable(table)->serverid);

	(void) see(ForeignServerRelationId, FOREIGNSERVEROID, server->serverid, false);
	if (!trust_owner(server->owner))
		refuse_owner("server", server->servername, server->owner);
}

/* False: a trusted owner's, that needs no more than this, and no lock. */
static bool
needs_look(Oid child, bool written)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(child));
	Form_pg_class form;
	bool		needs;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	needs = !trust_owner(form->relowner) || form->relkind == RELKIND_FOREIGN_TABLE;
	if (!needs && written && form->relhastriggers)
		check_triggers(form);
	ReleaseSysCache(tuple);
	return needs;
}

/* Partitions too. Who writes to one partition doesn't wait for what is done to the others. */
static void
check_children(Relation relation, bool written)
{
	ListCell   *lc;

	if (!relation->rd_rel->relhassubclass)
		return;
	foreach(lc, find_all_inheritors(RelationGetRelid(relation), NoLock, NULL))
	{
		Oid			child = lfirst_oid(lc);

		(void) see(RelationRelationId, -1, child, written);
		if (needs_look(child, written))
			check_relation(child, written);
	}
}

static const char *
kind_name(char relkind)
{
	return relkind == RELKIND_VIEW ? "view" : relkind == RELKIND_FOREIGN_TABLE ? "foreign table" : "table";
}

/* One that is only read runs nothing of its owner's but what planning looks at. */
static void
check_open_relation(Relation relation, bool written)
{
	char		relkind = relation->rd_rel->relkind;
	Walk		walk = {0};

	if (!trust_owner(relation->rd_rel->relowner))
	{
		if (written || relkind == RELKIND_VIEW || relkind == RELKIND_FOREIGN_TABLE)
			refuse_owner(kind_name(relkind), RelationGetRelationName(relation), relation->rd_rel->relowner);
		walk.table = RelationGetRelationName(relation);
		walk.owner = relation->rd_rel->relowner;
	}
	if (relkind == RELKIND_FOREIGN_TABLE)
		check_server(RelationGetRelid(relation));
	check_indexes(relation, &walk);
	check_constraints(relation, &walk);
	check_defaults(relation, &walk);
	if (written && relation->rd_rel->relhastriggers)
		check_triggers(relation->rd_rel);
	check_children(relation, written);
}

static void
check_relation(Oid relation, bool written)
{
	Seen	   *seen = see(RelationRelationId, -1, relation, written);
	Relation	open;

	if (!enter(seen))
		return;
	open = try_relation_open(relation, AccessShareLock);
	if (open)
	{
		check_open_relation(open, written);
		relation_close(open, AccessShareLock);
	}
	seen->done = true;
}

void
guard_check_relation(Oid relation, bool written)
{
	begin_walk();
	check_relation(relation, written);
}
