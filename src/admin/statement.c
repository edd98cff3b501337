/*
 * statement.c
 *		Is a statement one that can take messages in?
 *
 * PostgreSQL prepares it, so a mistake is reported when the pipeline is made, with
 * its position. It must read the messages, by a function of ours or by a function
 * of the user's, whose inside can't be seen: one that reads none would move the
 * offsets and lose what it was given.
 */
#include "nexus_kafka.h"

#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

#include "admin/pipeline.h"
#include "compat.h"

typedef struct Search
{
	bool		reads_messages;
	bool		calls_others;
} Search;

static bool
note_function(Oid function, void *arg)
{
	Search	   *search = arg;
	char	   *name;

	if (function < FirstNormalObjectId)
		return false;
	if (getExtensionOfObject(ProcedureRelationId, function) != get_extension_oid(NEXUS_EXTENSION, false))
	{
		search->calls_others = true;
		return false;
	}
	name = get_func_name(function);
	if (strcmp(name, "nexus_messages") == 0 || strcmp(name, "nexus_raw_messages") == 0)
	{
		search->reads_messages = true;
		if (object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\", as which the statement is to run, may not execute %s()",
							GetUserNameFromId(GetUserId(), false), name),
					 errhint("GRANT EXECUTE ON FUNCTION %s() TO %s", name,
							 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	}
	return false;
}

static bool
search_node(Node *node, Search *search)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, note_function, search);
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, search_node, search, 0);
	return expression_tree_walker(node, search_node, search);
}

static void
refuse_kind(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("a pipeline's statement is one INSERT, UPDATE, DELETE, MERGE, SELECT, CALL or DO")));
}

static void
search_utility(Node *utility, Search *search)
{
	switch (nodeTag(utility))
	{
		case T_CallStmt:
			(void) search_node((Node *) ((CallStmt *) utility)->funcexpr, search);
			break;
		case T_DoStmt:
			search->calls_others = true;	/* its text is the language's */
			break;
		default:
			refuse_kind();
	}
}

static void
search_statement(SPIPlanPtr plan, Search *search)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	ListCell   *lc;

	if (list_length(sources) != 1)
		refuse_kind();
	source = linitial(sources);
	foreach(lc, source->query_list)
	{
		Query	   *query = lfirst_node(Query, lc);

		if (query->commandType == CMD_UTILITY)
			search_utility(query->utilityStmt, search);
		else
			(void) search_node((Node *) query, search);
	}
}

/* What fails whatever the messages are, as 1 / 0, fails here. */
static void
make_plan(SPIPlanPtr plan)
{
	CachedPlan *made = SPI_plan_get_cached_plan(plan);

	if (made)
		ReleaseCachedPlan(made, NULL);
}

void
statement_check(const char *statement)
{
	Search		search = {0};
	SPIPlanPtr	plan = SPI_prepare(statement, 0, NULL);

	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the statement could not be prepared: %s", SPI_result_code_string(SPI_result))));
	search_statement(plan, &search);
	if (!search.reads_messages && !search.calls_others)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the statement reads no messages"),
				 errdetail("It calls neither nexus_messages() nor nexus_raw_messages(), nor a function that could."),
				 errhint("For example: INSERT INTO t SELECT value FROM nexus_messages()")));
	make_plan(plan);
	SPI_freeplan(plan);
}
