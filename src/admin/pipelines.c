/*
 * pipelines.c
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
#include "regex/regex.h"
#include "catalog/pg_collation.h"
#include "catalog/namespace.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "admin/pipeline.h"
#include "admin/request.h"
#include "compat.h"
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

static void
check_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a pipeline's name has 1 to %d bytes", NAMEDATALEN - 1)));
}

static void
check_pattern(const char *pattern)
{
	/* raises 2201B if it isn't one */
	(void) RE_compile_and_execute(cstring_to_text(pattern), "", 0, REG_ADVANCED, C_COLLATION_OID, 0, NULL);
}

static void
check_topic(const char *topic)
{
	const char *name = topic;

	if (topic[0] == '^')
	{
		check_pattern(topic);
		return;
	}
	for (;;)
	{
		size_t		len = strcspn(name, ",");

		if (!kafka_topic_is_valid(name, len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" is not a topic", topic),
					 errhint("A topic has 1 to 249 letters, digits, dots, underscores and hyphens; several have commas between them; a regular expression begins with ^.")));
		if (name[len] == '\0')
			return;
		name += len + 1;
	}
}

/* A superuser's rights are not inherited. */
static bool
has_rights_of(Oid role)
{
	return superuser() || (has_privs_of_role(GetUserId(), role) && !superuser_arg(role));
}

static void
check_owner(const Pipeline *pipeline)
{
	Oid			role = get_role_oid(pipeline->run_as, true);

	/* one whose role is gone is the superuser's */
	if (OidIsValid(role) ? !has_rights_of(role) : !superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of role \"%s\" to change pipeline \"%s\"", pipeline->run_as,
						pipeline->name)));
}

static void
check_run_as(const Pipeline *pipeline)
{
	if (!has_rights_of(get_role_oid(pipeline->run_as, false)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the rights of role \"%s\" to let a pipeline run as it", pipeline->run_as)));
}

/*
 * Prepared as it will be in the worker: as that role, whose rights the caller has, and
 * under that search_path. Planning runs functions: what they set must not stay in the
 * caller's session.
 */
static void
check_statement(const Pipeline *pipeline)
{
	Oid			user;
	int			context;
	int			settings = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(get_role_oid(pipeline->run_as, false), context | SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", pipeline->search_path,
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	statement_check(pipeline->statement);
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

	check_name(name);
	strlcpy(pipeline.name, name, NAMEDATALEN);
	pipeline.topic = required_argument(fcinfo, 1, "topic");
	pipeline.statement = required_argument(fcinfo, 2, "statement");
	pipeline.run_as = GetUserNameFromId(GetUserId(), false);
	pipeline.search_path = pstrdup(namespace_search_path);
	pipeline_set_defaults(&pipeline);
	if (!PG_ARGISNULL(3))
		pipeline_set_options(&pipeline, PG_GETARG_JSONB_P(3));
	check_topic(pipeline.topic);
	check_run_as(&pipeline);
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

	check_owner(pipeline);
	if (!PG_ARGISNULL(1))
		pipeline->topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
	{
		pipeline->statement = text_to_cstring(PG_GETARG_TEXT_PP(2));
		pipeline->search_path = pstrdup(namespace_search_path);
	}
	if (!PG_ARGISNULL(3))
		pipeline_set_options(pipeline, PG_GETARG_JSONB_P(3));
	check_topic(pipeline->topic);
	if (strcmp(run_as, pipeline->run_as) != 0)
		check_run_as(pipeline);
	if (!PG_ARGISNULL(2) || strcmp(run_as, pipeline->run_as) != 0)
		check_statement(pipeline);
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
