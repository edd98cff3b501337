/*
 * pipeline_functions.c
 *		nexus_create_pipeline(), nexus_alter_pipeline() and nexus_drop_pipeline().
 *
 * A pipeline runs with the rights of the role that made it, or of another that its
 * maker has the rights of (run_as), under the search_path of that moment. Who has the
 * rights of that role may change and drop it. Changes take effect when the transaction
 * commits: the supervisor compares.
 */
#include "nexus_kafka.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "catalog/namespace.h"
#include "commands/dbcommands.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "admin/pipeline.h"
#include "compat.h"
#include "guard/guard.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(nexus_create_pipeline);
PG_FUNCTION_INFO_V1(nexus_alter_pipeline);
PG_FUNCTION_INFO_V1(nexus_drop_pipeline);

/* In the current context, with the rights of the tables' owner. */
static Pipeline *
find(const char *name, Pipeline *(*read) (const char *name, MemoryContext context))
{
	MemoryContext context = CurrentMemoryContext;
	Pipeline   *pipeline;

	SPI_connect();
	pipeline = read(name, context);
	SPI_finish();
	if (pipeline == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no pipeline \"%s\"", name),
				 errhint("nexus_pipelines has their names.")));
	return pipeline;
}

Pipeline *
pipeline_find(const char *name)
{
	return find(name, catalog_pipeline);
}

Pipeline *
pipeline_lock(const char *name)
{
	return find(name, catalog_pipeline_lock);
}

static char *
required_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* ---- checks ---- */

/* A superuser's rights are not inherited. */
static bool
has_rights_of(Oid role)
{
	return superuser() || (has_privs_of_role(GetUserId(), role) && !superuser_arg(role));
}

static void
check_owner(const Pipeline *pipeline)
{
	bool		exists = SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(pipeline->role));

	/* one whose role is gone is the superuser's */
	if (exists ? !has_rights_of(pipeline->role) : !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of role \"%s\" to change pipeline \"%s\"", pipeline->run_as,
						pipeline->name)));
}

static void
check_run_as(const Pipeline *pipeline)
{
	if (!has_rights_of(pipeline->role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of role \"%s\" to let a pipeline run as it", pipeline->run_as)));
	(void) catalog_pipeline_role(pipeline);
}

/*
 * The offsets are committed to a consumer group, and whoever reads in that one goes on
 * from there. One that isn't the pipeline's own is the owner's to give.
 */
static void
check_group(const Pipeline *pipeline)
{
	const char *group = pipeline->group_id ? pipeline->group_id : start_group(pipeline->start);
	char	   *own = psprintf("nexus_kafka-%s-%s", get_database_name(MyDatabaseId), pipeline->name);

	if (group == NULL || strncmp(group, own, strlen(own)) == 0 || has_rights_of(catalog_owner()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to use consumer group \"%s\"", group),
			 errdetail("The pipeline would commit its offsets to that group."),
			 errhint("Use a group whose name begins with \"%s\", or have the owner of the extension's tables make the pipeline, with your role as run_as.",
					 own)));
}

/*
 * Prepared as it will be in the worker: as that role, whose rights the caller has, on
 * guard if they are a superuser's, and under that search_path. Planning runs functions:
 * what they set must not stay in the caller's session.
 */
static void
check_statement(const Pipeline *pipeline)
{
	Guard		before;
	Oid			user;
	int			context;
	int			settings = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(pipeline->role, context | SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", pipeline->search_path,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	before = guard_begin(pipeline->role, true);
	PG_TRY();
	{
		statement_check(pipeline->statement);
	}
	PG_FINALLY();
	{
		guard_end(&before);
	}
	PG_END_TRY();
	SPI_finish();
	AtEOXact_GUC(false, settings);
	SetUserIdAndSecContext(user, context);
}

/* ---- functions ---- */

static void
write_pipeline(const Pipeline *pipeline, bool is_new)
{
	bool		written = true;

	SPI_connect();
	if (is_new)
		written = catalog_pipeline_add(pipeline);
	else
		catalog_pipeline_change(pipeline);
	SPI_finish();
	if (!written)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("pipeline \"%s\" exists already", pipeline->name),
				 errhint("nexus_alter_pipeline() changes it.")));
	wake_supervisor_at_commit();
}

Datum
nexus_create_pipeline(PG_FUNCTION_ARGS)
{
	Pipeline	pipeline = {0};
	char	   *name = required_argument(fcinfo, 0, "name");

	pipeline.name_is_cut = strlcpy(pipeline.name, name, NAMEDATALEN) >= NAMEDATALEN;
	pipeline.topic = required_argument(fcinfo, 1, "topic");
	pipeline.statement = required_argument(fcinfo, 2, "statement");
	pipeline.run_as = GetUserNameFromId(GetUserId(), false);
	pipeline.search_path = pstrdup(namespace_search_path);
	pipeline_set_defaults(&pipeline);
	if (!PG_ARGISNULL(3))
		pipeline_set_options(&pipeline, PG_GETARG_JSONB_P(3));
	pipeline.role = get_role_oid(pipeline.run_as, false);
	definition_check(&pipeline);
	check_run_as(&pipeline);
	check_group(&pipeline);
	check_statement(&pipeline);
	write_pipeline(&pipeline, true);
	PG_RETURN_VOID();
}

Datum
nexus_alter_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = required_argument(fcinfo, 0, "name");
	Pipeline   *pipeline = pipeline_lock(name);
	char	   *start = pipeline->start;
	char	   *run_as = pipeline->run_as;
	Oid			role = pipeline->role;

	check_owner(pipeline);
	pipeline->run_as = NULL;	/* none is given */
	if (!PG_ARGISNULL(1))
		pipeline->topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
	{
		pipeline->statement = text_to_cstring(PG_GETARG_TEXT_PP(2));
		pipeline->search_path = pstrdup(namespace_search_path);
	}
	if (!PG_ARGISNULL(3))
		pipeline_set_options(pipeline, PG_GETARG_JSONB_P(3));
	if (pipeline->run_as)
		pipeline->role = get_role_oid(pipeline->run_as, false);
	else
		pipeline->run_as = run_as;
	definition_check(pipeline);
	if (!PG_ARGISNULL(2) || role != pipeline->role)
	{
		check_run_as(pipeline);
		check_statement(pipeline);
	}
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(3))
		check_group(pipeline);
	if (pipeline->started && strcmp(start, pipeline->start) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pipeline \"%s\" has begun already", pipeline->name),
				 errhint("nexus_seek() moves it elsewhere.")));
	/* a batch that is under way would be taken in as it was before */
	if (!PG_ARGISNULL(1) || !PG_ARGISNULL(2) || !PG_ARGISNULL(3))
		(void) hold_pipeline(pipeline->name);
	write_pipeline(pipeline, false);
	PG_RETURN_VOID();
}

Datum
nexus_drop_pipeline(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Pipeline   *pipeline = pipeline_lock(name);

	check_owner(pipeline);
	(void) hold_pipeline(pipeline->name);
	SPI_connect();
	catalog_pipeline_remove(pipeline->name);
	SPI_finish();
	wake_supervisor_at_commit();
	PG_RETURN_VOID();
}
