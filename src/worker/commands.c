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
 * refused stops nothing.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "compat.h"
#include "worker/worker.h"

static ProcessUtility_hook_type previous_utility_hook = NULL;

static bool
has_jobs(Oid database)
{
	bool		any = false;

	LWLockAcquire(nexus_shared->lock, LW_SHARED);
	for (int i = 0; i < nexus_max_jobs && !any; i++)
		any = nexus_shared->jobs[i].in_use && nexus_shared->jobs[i].database == database;
	LWLockRelease(nexus_shared->lock);
	return any;
}

static const char *
template_of(CreatedbStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, "template") == 0 && option->arg)
			return defGetString(option);
	}
	return "template1";
}

static bool
is_template_database(Oid database)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* The database that the command needs empty, if the caller may run it. */
static Oid
database_to_empty(Node *parsetree)
{
	const char *name = NULL;
	bool		owner_only = true;
	Oid			database;

	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) parsetree)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) parsetree)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) parsetree)->subname;
			break;
		case T_AlterDatabaseStmt:
			{
				ListCell   *lc;

				foreach(lc, ((AlterDatabaseStmt *) parsetree)->options)
					if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
						name = ((AlterDatabaseStmt *) parsetree)->dbname;
				break;
			}
		case T_CreatedbStmt:
			name = template_of((CreatedbStmt *) parsetree);
			owner_only = false;
			break;
		default:
			break;
	}
	if (name == NULL || !IsTransactionState())
		return InvalidOid;
	database = get_database_oid(name, true);
	if (!OidIsValid(database) || !has_jobs(database))
		return InvalidOid;
	if (object_ownercheck(DatabaseRelationId, database, GetUserId()) ||
		(!owner_only && is_template_database(database)))
		return database;
	return InvalidOid;
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

/* Commands after which a supervisor has to look again. */
static void
wake_after(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_CreateExtensionStmt:
		case T_AlterExtensionStmt:
			wake_launcher_at_commit(MyDatabaseId);
			wake_supervisor_at_commit();
			break;
		case T_DropStmt:		/* a schema, say, with all that is in it */
		case T_DropOwnedStmt:
		case T_AlterRoleStmt:
			wake_supervisor_at_commit();
			break;
		case T_CreatedbStmt:
			wake_launcher_at_commit(get_database_oid(((CreatedbStmt *) parsetree)->dbname, true));
			break;
		case T_TransactionStmt:
			/* what the prepared transaction had produced is committed now, by somebody else */
			if (((TransactionStmt *) parsetree)->kind == TRANS_STMT_COMMIT_PREPARED)
			{
				wake_relays();
				wake_supervisor();
			}
			break;
		default:
			break;
	}
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
	Oid			database = drops_extension(parsetree) ? MyDatabaseId : database_to_empty(parsetree);

	if (OidIsValid(database))
		hold_until_transaction_end(database, "");
	run_utility(pstmt, query, readonly, context, params, env, dest, qc);
	wake_after(parsetree);
}

void
commands_install_hook(void)
{
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
