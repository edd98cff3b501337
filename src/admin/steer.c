/*
 * steer.c
 *		nexus_pause() and nexus_resume().
 */
#include "nexus_kafka.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "admin/request.h"
#include "catalog/tables.h"

PG_FUNCTION_INFO_V1(nexus_pause);
PG_FUNCTION_INFO_V1(nexus_resume_pipeline);
PG_FUNCTION_INFO_V1(nexus_resume_database);

static void
no_such_pipeline(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no pipeline \"%s\"", name),
			 errhint("nexus_pipelines has their names.")));
}

void
request_check_pipeline(FunctionCallInfo fcinfo, const char *name)
{
	CatalogRights rights;
	bool		exists;

	SPI_connect();
	catalog_use_schema(get_func_namespace(fcinfo->flinfo->fn_oid));
	rights = catalog_assume_owner();
	exists = catalog_pipeline(name, CurrentMemoryContext) != NULL;
	catalog_resume_caller(rights);
	SPI_finish();
	if (!exists)
		no_such_pipeline(name);
}

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	CatalogRights rights;
	bool		exists;

	SPI_connect();
	catalog_use_schema(get_func_namespace(fcinfo->flinfo->fn_oid));
	rights = catalog_assume_owner();
	exists = catalog_set_paused(name, paused);
	catalog_resume_caller(rights);
	SPI_finish();
	if (!exists)
		no_such_pipeline(name);
	wake_supervisor_at_commit();
	if (!paused)
		resume_at_commit(job_lookup(JOB_INGEST, MyDatabaseId, name));
}

Datum
nexus_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
nexus_resume_pipeline(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

Datum
nexus_resume_database(PG_FUNCTION_ARGS)
{
	CatalogRights rights;

	SPI_connect();
	catalog_use_schema(get_func_namespace(fcinfo->flinfo->fn_oid));
	rights = catalog_assume_owner();
	catalog_take_identity();
	catalog_resume_caller(rights);
	SPI_finish();
	wake_supervisor_at_commit();
	wake_launcher_at_commit(MyDatabaseId);
	PG_RETURN_VOID();
}
