/*
 * query.c
 *		Prepared statements in the extension's schema, kept for the process.
 *
 * Names are qualified, those of types too, and types exact: a backend prepares them
 * under its user's search_path, and with the rights of the tables' owner. No planted
 * operator or type may change what a statement means.
 */
#include "nexus_kafka.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "catalog/tables.h"

static char *schema_name = NULL;
static Oid	schema_oid = InvalidOid;
static uint32 schema_generation = 0;

/*
 * Looks at the schema's name each time: it may have been renamed, and somebody
 * else may own a schema of the old name now.
 */
void
catalog_use_schema(Oid schema)
{
	char	   *name = get_namespace_name(schema);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("the schema of extension %s is gone", NEXUS_EXTENSION)));
	if (schema != schema_oid || strcmp(name, schema_name) != 0)
	{
		if (schema_name)
			pfree(schema_name);
		schema_name = MemoryContextStrdup(TopMemoryContext, name);
		schema_oid = schema;
		schema_generation++;
	}
	pfree(name);
}

Oid
catalog_schema(void)
{
	return schema_oid;
}

bool
catalog_locate(void)
{
	static CatalogQuery query = {
		"SELECT extnamespace FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) '" NEXUS_EXTENSION "'", 0
	};
	bool		isnull;

	if (catalog_run(&query, NULL, NULL, true, SPI_OK_SELECT) == 0)
		return false;
	catalog_use_schema(DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	return true;
}

static char *
expand(const char *sql)
{
	StringInfoData text;

	initStringInfo(&text);
	for (; *sql; sql++)
	{
		if (*sql == '@')
			appendStringInfo(&text, "%s.", quote_identifier(schema_name));
		else
			appendStringInfoChar(&text, *sql);
	}
	return text.data;
}

static void
prepare(CatalogQuery *query)
{
	SPIPlanPtr	plan;

	if (OidIsValid(schema_oid))
		catalog_use_schema(schema_oid);
	if (query->plan && query->generation == schema_generation)
		return;
	if (query->plan)
		SPI_freeplan(query->plan);
	query->plan = NULL;
	plan = SPI_prepare(expand(query->sql), query->nargs, query->argtypes);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", query->sql, SPI_result_code_string(SPI_result));
	query->plan = plan;
	query->generation = schema_generation;
}

uint64
catalog_run(CatalogQuery *query, Datum *values, const char *nulls, bool read_only, int expected)
{
	int			rc;

	prepare(query);
	rc = SPI_execute_plan(query->plan, values, nulls, read_only, 0);
	if (rc != expected)
		elog(ERROR, "\"%s\" gave %s", query->sql, SPI_result_code_string(rc));
	return SPI_processed;
}

static Oid
owner_of_tables(void)
{
	Oid			relid = get_relname_relid("nexus_outbox", schema_oid);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension %s is not installed in this schema any more", NEXUS_EXTENSION)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

CatalogRights
catalog_assume_owner(void)
{
	CatalogRights rights;

	GetUserIdAndSecContext(&rights.user, &rights.context);
	SetUserIdAndSecContext(owner_of_tables(), rights.context | SECURITY_LOCAL_USERID_CHANGE);
	return rights;
}

void
catalog_resume_caller(CatalogRights rights)
{
	SetUserIdAndSecContext(rights.user, rights.context);
}
