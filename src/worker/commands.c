/*
 * commands.c
 *		What PostgreSQL's own commands mean for the workers.
 *
 * DROP DATABASE, ALTER DATABASE … RENAME and SET TABLESPACE, and CREATE
 * DATABASE with it as the template fail while anybody is connected. DROP
 * EXTENSION could meet a worker's locks in the other order. So these commands
 * first put a hold on the database (hold.c). When the transaction has ended, the
 * launcher looks into the database again.
 *
 * Only for who may run the command at all: a command that is going to be
 * refused stops nothing. And a worker is woken, or started, for what has changed
 * by a command, not for its kind: anybody may run a command that changes nothing here.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_tablespace.h"
#include "catalog/pg_trigger.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "catalog/tables.h"
#include "compat.h"
#include "worker/worker.h"

static ProcessUtility_hook_type previous_utility_hook = NULL;
static object_access_hook_type previous_access_hook = NULL;

static bool
has_jobs(Oid database)
{
	bool		any = false;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (Job *job = job_next(NULL); job && !any; job = job_next(job))
		any = job->database == database;
	LWLockRelease(nexus_shared->lock);
	return any;
}

/* NULL if it isn't among them. */
static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

bool
database_is_template(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* ---- before a command: which database has to be empty for it ---- */

static bool
owns_database(Oid database)
{
	return object_ownercheck(DatabaseRelationId, database, GetUserId());
}

static bool
may_put_into(const char *tablespace)
{
	Oid			oid = get_tablespace_oid(tablespace, true);

	return OidIsValid(oid) && object_aclcheck(TableSpaceRelationId, oid, GetUserId(), ACL_CREATE) == ACLCHECK_OK;
}

/* Nobody may with the one that he is in. */
static bool
may_drop_or_move(Node *parsetree, Oid database)
{
	DefElem    *tablespace;

	if (database == MyDatabaseId || !owns_database(database))
		return false;
	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			return !database_is_template(database);
		case T_RenameStmt:
			return have_createdb_privilege() && !OidIsValid(get_database_oid(((RenameStmt *) parsetree)->newname, true));
		case T_AlterDatabaseStmt:
			tablespace = find_option(((AlterDatabaseStmt *) parsetree)->options, "tablespace");
			return may_put_into(defGetString(tablespace));
		default:
			return false;
	}
}

static bool
may_copy(CreatedbStmt *stmt, Oid template)
{
	return have_createdb_privilege() && (owns_database(template) || database_is_template(template)) &&
		!OidIsValid(get_database_oid(stmt->dbname, true));
}

/* NULL: the command needs no database empty. *alone: it can't be in a transaction block. */
static const char *
database_named(Node *parsetree, bool *alone)
{
	DefElem    *template;

	*alone = true;
	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) parsetree)->dbname;
		case T_RenameStmt:
			*alone = false;
			return ((RenameStmt *) parsetree)->renameType == OBJECT_DATABASE ? ((RenameStmt *) parsetree)->subname : NULL;
		case T_AlterDatabaseStmt:
			return find_option(((AlterDatabaseStmt *) parsetree)->options, "tablespace")
				? ((AlterDatabaseStmt *) parsetree)->dbname : NULL;
		case T_CreatedbStmt:
			template = find_option(((CreatedbStmt *) parsetree)->options, "template");
			return template && template->arg ? defGetString(template) : "template1";
		default:
			return NULL;
	}
}

/* The database that the command needs empty, if the caller may run it. */
static Oid
database_to_empty(Node *parsetree, bool top_level)
{
	bool		alone;
	bool		allowed;
	const char *name = database_named(parsetree, &alone);
	Oid			database;

	if (name == NULL || !IsTransactionState() || (alone && IsInTransactionBlock(top_level)))
		return InvalidOid;
	database = get_database_oid(name, true);
	if (!OidIsValid(database) || !has_jobs(database))
		return InvalidOid;
	allowed = IsA(parsetree, CreatedbStmt) ? may_copy((CreatedbStmt *) parsetree, database)
		: may_drop_or_move(parsetree, database);
	return allowed ? database : InvalidOid;
}

static bool
drops_extension(Node *parsetree)
{
	DropStmt   *stmt = (DropStmt *) parsetree;
	ListCell   *lc;
	Oid			extension;

	if (!IsA(parsetree, DropStmt) || stmt->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, stmt->objects)
	{
		if (strcmp(strVal(lfirst(lc)), NEXUS_EXTENSION) != 0)
			continue;
		extension = get_extension_oid(NEXUS_EXTENSION, true);
		return OidIsValid(extension) && object_ownercheck(ExtensionRelationId, extension, GetUserId());
	}
	return false;
}

/* ---- after it: what has changed ---- */

/* What workers run by, and a command may change. */
typedef struct Circumstances
{
	Oid			extension;		/* InvalidOid: it isn't in this database, or the command doesn't make one */
	Oid			database;		/* that the command makes or changes; InvalidOid: none */
	bool		open;			/* workers may be in it */
} Circumstances;

static bool
is_open(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		open = HeapTupleIsValid(tuple) && database_may_have_workers((Form_pg_database) GETSTRUCT(tuple));

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return open;
}

static Circumstances
look_around(Node *parsetree)
{
	Circumstances now = {InvalidOid, InvalidOid, false};

	if (!IsTransactionState())
		return now;
	if (IsA(parsetree, CreateExtensionStmt))
		now.extension = get_extension_oid(NEXUS_EXTENSION, true);
	else if (IsA(parsetree, AlterDatabaseStmt))
		now.database = get_database_oid(((AlterDatabaseStmt *) parsetree)->dbname, true);
	else if (IsA(parsetree, CreatedbStmt))
		now.database = get_database_oid(((CreatedbStmt *) parsetree)->dbname, true);
	now.open = OidIsValid(now.database) && is_open(now.database);
	return now;
}

/* What was produced, paused or made in it is committed now, by somebody else. */
static void
note_end_of_prepared(void)
{
	wake_supervisor();			/* it may have been the extension's end */
	if (!OidIsValid(get_extension_oid(NEXUS_EXTENSION, true)))
		return;
	wake_relays();
	if (job_lookup(JOB_SUPERVISOR, MyDatabaseId, "", 0) == NULL)
		wake_launcher(MyDatabaseId);
}

static void
wake_after(Node *parsetree, Circumstances before)
{
	Circumstances now = before;

	switch (nodeTag(parsetree))
	{
		case T_CreateExtensionStmt:
		case T_AlterDatabaseStmt:
		case T_CreatedbStmt:
			CommandCounterIncrement();
			now = look_around(parsetree);
			if (now.extension != before.extension)
			{
				wake_supervisor_at_commit();	/* one that is leaving still */
				wake_launcher_at_commit(MyDatabaseId);
			}
			if (now.open && !before.open)
				wake_launcher_at_commit(now.database);
			break;
		case T_AlterExtensionStmt:
			if (strcmp(((AlterExtensionStmt *) parsetree)->extname, NEXUS_EXTENSION) == 0)
				wake_supervisor_at_commit();
			break;
		case T_TransactionStmt:
			if (((TransactionStmt *) parsetree)->kind == TRANS_STMT_COMMIT_PREPARED ||
				((TransactionStmt *) parsetree)->kind == TRANS_STMT_ROLLBACK_PREPARED)
				note_end_of_prepared();
			break;
		default:
			break;
	}
}

/* However the extension is dropped: by its name, with its schema, with its owner. */
static void
note_drop(Oid extension)
{
	const char *name = get_extension_name(extension);

	if (name && strcmp(name, NEXUS_EXTENSION) == 0)
		wake_supervisor_at_commit();
}

static void
note_access(ObjectAccessType access, Oid class, Oid object, int column, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, class, object, column, arg);
	if (access == OAT_DROP && class == ExtensionRelationId)
		note_drop(object);
	if (access == OAT_POST_CREATE && class == TriggerRelationId && !((ObjectAccessPostCreate *) arg)->is_internal)
		catalog_check_new_trigger(object);
}

static void
run_utility(PlannedStmt *pstmt, const char *query, bool readonly, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_utility_hook)
		previous_utility_hook(pstmt, query, readonly, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, readonly, context, params, env, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *query, bool readonly, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *parsetree = pstmt->utilityStmt;
	bool		top_level = context == PROCESS_UTILITY_TOPLEVEL;
	Oid			database = drops_extension(parsetree) ? MyDatabaseId : database_to_empty(parsetree, top_level);
	Circumstances before = look_around(parsetree);

	if (OidIsValid(database))
		hold_database(database);
	run_utility(pstmt, query, readonly, context, params, env, dest, qc);
	wake_after(parsetree, before);
}

void
commands_install_hooks(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	previous_access_hook = object_access_hook;
	object_access_hook = note_access;
}
