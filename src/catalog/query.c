/*
 * query.c
 *		The extension's own queries: on its own tables, with their owner's rights.
 *
 * The tables are the extension's members, known by OID. A query is written with names,
 * and PostgreSQL looks these up whenever it analyzes the query, at first or again after
 * an invalidation; by then the schema's name may be another schema's. So what each
 * analysis has found is compared with the members before anything is rewritten or
 * planned (check_analyzed, by PostgreSQL's hook): planning runs functions of indexes.
 * From there on the plan has OIDs only.
 *
 * A query is prepared, planned and run with the rights of the tables' owner, whoever
 * calls: in a worker too, or who owns a table would get a worker's rights by a trigger,
 * rule or index. It is a security-restricted operation, so nothing of it is left for the
 * commit, where the rights are others again (deferred triggers, cursors WITH HOLD), and
 * what it sets doesn't outlive it. All tables have one owner, or nothing runs; and code
 * that others have put on them, where triggers.c was not there to refuse it, is refused.
 * All that is looked at while the locks are held, so it can't change before the query
 * has run.
 *
 * Names are qualified, those of types too, and types exact: no planted operator or type
 * may change what a statement means.
 */
#include "nexus_kafka.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/tables.h"

static const char *const member_names[CATALOG_MEMBERS] = {
	[CATALOG_IDENTITY] = "nexus_identity",
	[CATALOG_PIPELINES] = "nexus_pipelines",
	[CATALOG_OFFSETS] = "nexus_offsets",
	[CATALOG_DEAD_LETTERS] = "nexus_dead_letters",
	[CATALOG_OUTBOX] = "nexus_outbox",
	[CATALOG_NAMED_IDS] = "nexus_outbox_named_id",
	[CATALOG_TOPIC_RIGHTS] = "nexus_topic_rights",
};

/* What pg_depend says. Out of date (known false) after an invalidation of any of it. */
static struct
{
	bool		known;
	Oid			schema;
	char		schema_name[NAMEDATALEN];
	uint32		schema_hash;	/* in the cache of namespaces */
	uint32		generation;		/* counts the names: a plan of another is prepared anew */
	Oid			owner;
	Oid			oids[CATALOG_MEMBERS];
	bool		checked[CATALOG_MEMBERS];	/* owner and triggers, with the lock held */
} members;

/* Whose analysis is to be looked at; a stale one does no harm. */
static CatalogQuery *analyzed = NULL;
static post_parse_analyze_hook_type next_analyze_hook = NULL;

/* ---- the members ---- */

static void
forget_relation(Datum arg, Oid relation)
{
	if (relation == InvalidOid)
		members.known = false;
	for (int i = 0; i < CATALOG_MEMBERS && members.known; i++)
		if (members.oids[i] == relation)
			members.known = false;
}

static void
forget_schema(Datum arg, int cache, uint32 hash)
{
	if (hash == 0 || hash == members.schema_hash)
		members.known = false;
}

static void
note_member(Oid relation, Oid *owners)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_class) GETSTRUCT(tuple);
	for (int i = 0; i < CATALOG_MEMBERS; i++)
	{
		if (strcmp(NameStr(form->relname), member_names[i]) != 0 ||
			form->relkind != (i == CATALOG_NAMED_IDS ? RELKIND_SEQUENCE : RELKIND_RELATION))
			continue;
		members.oids[i] = relation;
		owners[i] = form->relowner;
		members.schema = form->relnamespace;
	}
	ReleaseSysCache(tuple);
}

static void
find_members(Oid extension, Oid *owners)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->classid == RelationRelationId && form->deptype == DEPENDENCY_EXTENSION)
			note_member(form->objid, owners);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
}

static void
check_members(const Oid *owners)
{
	for (int i = 0; i < CATALOG_MEMBERS; i++)
	{
		if (!OidIsValid(members.oids[i]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("extension %s has no \"%s\" any more", NEXUS_EXTENSION, member_names[i])));
		if (get_rel_namespace(members.oids[i]) != members.schema)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the tables of extension %s are in different schemas", NEXUS_EXTENSION)));
		if (owners[i] != owners[0])
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the tables of extension %s belong to different roles", NEXUS_EXTENSION),
					 errdetail("\"%s\" belongs to \"%s\", \"%s\" to \"%s\".",
							   member_names[0], GetUserNameFromId(owners[0], false),
							   member_names[i], GetUserNameFromId(owners[i], false)),
					 errhint("Give them all to one of the roles, with ALTER TABLE and ALTER SEQUENCE … OWNER TO.")));
	}
}

static void
note_schema_name(void)
{
	char	   *name = get_namespace_name(members.schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("the schema of extension %s is gone", NEXUS_EXTENSION)));
	members.schema_hash = GetSysCacheHashValue1(NAMESPACEOID, ObjectIdGetDatum(members.schema));
	if (strcmp(name, members.schema_name) != 0)
	{
		strlcpy(members.schema_name, name, NAMEDATALEN);
		members.generation++;
	}
	pfree(name);
}

static void check_analyzed(ParseState *pstate, Query *query, JumbleState *jumble);

static void
watch(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterRelcacheCallback(forget_relation, 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_schema, 0);
	next_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = check_analyzed;
	watching = true;
}

bool
catalog_locate(void)
{
	Oid			owners[CATALOG_MEMBERS] = {InvalidOid};

	watch();
	while (!members.known)
	{
		Oid			extension = get_extension_oid(NEXUS_EXTENSION, true);

		if (!OidIsValid(extension))
			return false;
		memset(members.oids, 0, sizeof(members.oids));
		memset(members.checked, 0, sizeof(members.checked));
		members.known = true;	/* an invalidation from here on says otherwise */
		PG_TRY();
		{
			find_members(extension, owners);
			check_members(owners);
			note_schema_name();
		}
		PG_CATCH();
		{
			members.known = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
		members.owner = owners[0];
	}
	return true;
}

static void
require_extension(void)
{
	if (!catalog_locate())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension %s is not installed in this database any more", NEXUS_EXTENSION)));
}

Oid
catalog_schema(void)
{
	require_extension();
	return members.schema;
}

Oid
catalog_owner(void)
{
	require_extension();
	return members.owner;
}

Oid
catalog_member(CatalogMember member)
{
	require_extension();
	return members.oids[member];
}

/* ---- what stands on a table ---- */

static void
check_trigger(const Trigger *trigger, CatalogMember member)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(trigger->tgfoid));
	Oid			owner;

	if (trigger->tgqual)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table \"%s\" has a WHEN clause", trigger->tgname, member_names[member]),
				 errdetail("It would have the rights of the table's owner \"%s\", and it isn't known who wrote it.",
						   GetUserNameFromId(members.owner, false)),
				 errhint("Drop the trigger, or put the condition into its function.")));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", trigger->tgfoid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	if (owner != members.owner && !superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of table \"%s\" runs a function of role \"%s\"", trigger->tgname,
						member_names[member], GetUserNameFromId(owner, false)),
				 errdetail("It would have the rights of the table's owner \"%s\".",
						   GetUserNameFromId(members.owner, false)),
				 errhint("Drop the trigger, and revoke the right TRIGGER on the table.")));
}

/* The caller has locked it. */
static void
check_member(CatalogMember member)
{
	Relation	relation = relation_open(members.oids[member], NoLock);

	for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++)
		check_trigger(&relation->trigdesc->triggers[i], member);
	relation_close(relation, NoLock);
	members.checked[member] = true;
}

/* ---- what an analysis has found ---- */

static bool
refuse_function(Oid function, void *arg)
{
	return function >= FirstNormalObjectId;
}

static void
note_relation(CatalogQuery *query, const RangeTblEntry *rte)
{
	for (int i = 0; i < CATALOG_MEMBERS; i++)
	{
		if (rte->relid != members.oids[i])
			continue;
		query->locks[i] = Max(query->locks[i], rte->rellockmode);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("relation \"%s\" in schema \"%s\" does not belong to extension %s", get_rel_name(rte->relid),
					members.schema_name, NEXUS_EXTENSION),
			 errdetail("A schema has got the name that the extension's schema had.")));
}

static bool
check_node(Node *node, CatalogQuery *query)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, refuse_function, NULL))
		elog(ERROR, "\"%s\" calls a function that is not PostgreSQL's own", query->sql);
	if (IsA(node, RangeTblEntry))
	{
		if (((RangeTblEntry *) node)->rtekind == RTE_RELATION)
			note_relation(query, (RangeTblEntry *) node);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, check_node, query, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, check_node, query);
}

static void
check_analyzed(ParseState *pstate, Query *query, JumbleState *jumble)
{
	if (analyzed && strcmp(pstate->p_sourcetext, analyzed->text) == 0)
	{
		memset(analyzed->locks, 0, sizeof(analyzed->locks));
		(void) check_node((Node *) query, analyzed);
		analyzed->checks++;
	}
	if (next_analyze_hook)
		next_analyze_hook(pstate, query, jumble);
}

/* ---- plans ---- */

static char *
expand(const char *sql)
{
	const char *schema = quote_identifier(members.schema_name);
	StringInfoData text;

	initStringInfo(&text);
	for (; *sql; sql++)
	{
		if (*sql == '@')
			appendStringInfo(&text, "%s.", schema);
		else
			appendStringInfoChar(&text, *sql);
	}
	return text.data;
}

/* A plan of another schema's name is left as it is, and its text: it may be running, further down. */
static void
prepare(CatalogQuery *query)
{
	uint32		checks = query->checks;
	SPIPlanPtr	plan;

	if (query->plan && query->generation == members.generation)
		return;
	query->plan = NULL;
	query->text = MemoryContextStrdup(TopMemoryContext, expand(query->sql));
	analyzed = query;
	plan = SPI_prepare(query->text, query->nargs, query->argtypes);
	if (plan == NULL || query->checks == checks || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", query->sql, SPI_result_code_string(SPI_result));
	query->plan = plan;
	query->generation = members.generation;
}

/* A lock may have waited while what it is for changed. */
static void
lock_members(const CatalogQuery *query)
{
	for (int i = 0; i < CATALOG_MEMBERS && members.known; i++)
		if (query->locks[i] != NoLock)
			LockRelationOid(members.oids[i], query->locks[i]);
	for (int i = 0; i < CATALOG_MEMBERS && members.known; i++)
		if (query->locks[i] != NoLock && !members.checked[i])
			check_member(i);
}

/* With the tables locked, and what is known of them true until the transaction ends. */
static void
make_ready(CatalogQuery *query, int context)
{
	do
	{
		require_extension();
		SetUserIdAndSecContext(members.owner,
							   context | SECURITY_RESTRICTED_OPERATION | SECURITY_LOCAL_USERID_CHANGE);
		prepare(query);
		lock_members(query);
	} while (!members.known);
}

uint64
catalog_run(CatalogQuery *query, Datum *values, const char *nulls, bool read_only, int expected)
{
	CatalogQuery *caller = analyzed;	/* a trigger may run a query within another */
	int			settings = NewGUCNestLevel();
	Oid			user;
	int			context;
	int			rc;

	GetUserIdAndSecContext(&user, &context);
	make_ready(query, context);
	if (query->no_seqscan)
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	analyzed = query;
	rc = SPI_execute_plan(query->plan, values, nulls, read_only, 0);
	analyzed = caller;
	AtEOXact_GUC(false, settings);
	SetUserIdAndSecContext(user, context);
	if (rc != expected)
		elog(ERROR, "\"%s\" gave %s", query->sql, SPI_result_code_string(rc));
	return SPI_processed;
}
