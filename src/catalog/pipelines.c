/*
 * pipelines.c
 *		nexus_pipelines, and nexus_identity: to whom the set-up belongs.
 */
#include "nexus_kafka.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "catalog/tables.h"

#define PIPELINE_COLUMNS \
	"name, topic, statement, run_as::text, search_path, batch_messages, batch_bytes, paused"

static char *
column_text(HeapTuple tuple, int column)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);
}

static Datum
column(HeapTuple tuple, int number)
{
	bool		isnull;

	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, number, &isnull);
}

static Pipeline *
make_pipeline(HeapTuple tuple, MemoryContext context)
{
	MemoryContext before = MemoryContextSwitchTo(context);
	Pipeline   *p = palloc0(sizeof(Pipeline));
	char	   *all;

	strlcpy(p->name, column_text(tuple, 1), NAMEDATALEN);
	p->topic = column_text(tuple, 2);
	p->statement = column_text(tuple, 3);
	p->run_as = column_text(tuple, 4);
	p->search_path = column_text(tuple, 5);
	p->batch_messages = DatumGetInt32(column(tuple, 6));
	p->batch_bytes = DatumGetInt32(column(tuple, 7));
	p->paused = DatumGetBool(column(tuple, 8));

	all = psprintf("%s\n%s\n%s\n%s\n%d\n%d", p->topic, p->statement, p->run_as, p->search_path,
				   p->batch_messages, p->batch_bytes);
	p->definition = hash_bytes((unsigned char *) all, strlen(all));
	pfree(all);
	MemoryContextSwitchTo(before);
	return p;
}

List *
catalog_pipelines(MemoryContext context)
{
	static CatalogQuery query = {"SELECT " PIPELINE_COLUMNS " FROM @nexus_pipelines ORDER BY name", 0};
	uint64		n = catalog_run(&query, NULL, NULL, true, SPI_OK_SELECT);
	List	   *pipelines = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		Pipeline   *pipeline = make_pipeline(SPI_tuptable->vals[i], context);
		MemoryContext before = MemoryContextSwitchTo(context);

		pipelines = lappend(pipelines, pipeline);
		MemoryContextSwitchTo(before);
	}
	return pipelines;
}

Pipeline *
catalog_pipeline(const char *name, MemoryContext context)
{
	static CatalogQuery query = {
		"SELECT " PIPELINE_COLUMNS " FROM @nexus_pipelines WHERE name OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(name)};

	if (catalog_run(&query, values, NULL, true, SPI_OK_SELECT) == 0)
		return NULL;
	return make_pipeline(SPI_tuptable->vals[0], context);
}

/* False if there is none of that name. */
bool
catalog_set_paused(const char *name, bool paused)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET paused = $2 WHERE name OPERATOR(pg_catalog.=) $1", 2, {TEXTOID, BOOLOID}
	};
	Datum		values[2] = {CStringGetTextDatum(name), BoolGetDatum(paused)};

	return catalog_run(&query, values, NULL, false, SPI_OK_UPDATE) > 0;
}

static void
identity_values(Datum *values)
{
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	values[2] = ObjectIdGetDatum(get_extension_oid(NEXUS_EXTENSION, false));
}

bool
catalog_identity_is_ours(void)
{
	static CatalogQuery query = {
		"SELECT 1 FROM @nexus_identity WHERE system_identifier OPERATOR(pg_catalog.=) $1"
		" AND database_oid OPERATOR(pg_catalog.=) $2 AND extension_oid OPERATOR(pg_catalog.=) $3",
		3, {INT8OID, OIDOID, OIDOID}
	};
	Datum		values[3];

	identity_values(values);
	return catalog_run(&query, values, NULL, true, SPI_OK_SELECT) > 0;
}

void
catalog_take_identity(void)
{
	static CatalogQuery query = {
		"INSERT INTO @nexus_identity (system_identifier, database_oid, extension_oid) VALUES ($1, $2, $3)"
		" ON CONFLICT (singleton) DO UPDATE SET system_identifier = $1, database_oid = $2, extension_oid = $3",
		3, {INT8OID, OIDOID, OIDOID}
	};
	Datum		values[3];

	identity_values(values);
	catalog_run(&query, values, NULL, false, SPI_OK_INSERT);
}
