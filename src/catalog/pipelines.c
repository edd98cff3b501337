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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"
#include "compat.h"

#define PIPELINE_COLUMNS \
	"name, topic, statement, run_as::pg_catalog.text, search_path, start, workers, batch_messages, batch_bytes, on_error," \
	" max_dead_letters, group_id, on_demand, connection, paused, created_at, started_at," \
	" resumes, tableoid, ctid, run_as_oid"

static char *
column_text(HeapTuple tuple, int column)
{
	return SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);
}

/* none if it is NULL */
static Datum
column(HeapTuple tuple, int number, Datum none)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, SPI_tuptable->tupdesc, number, &isnull);

	return isnull ? none : value;
}

/* What decides how a worker runs: another one, another worker. */
static uint32
definition_hash(const Pipeline *p)
{
	char	   *all = psprintf("%s\n%s\n%s\n%u\n%s\n%s\n%d\n%d\n%d\n%d\n%d\n%s\n%d\n%s\n" INT64_FORMAT, p->topic, p->statement,
							   p->run_as, p->role, p->search_path, p->start, p->workers, p->batch_messages,
							   p->batch_bytes, p->stop_on_error, p->max_dead_letters,
							   p->group_id ? p->group_id : "", p->on_demand,
							   p->connection ? p->connection : "", p->resumes);
	uint32		hash = hash_bytes((unsigned char *) all, strlen(all));

	pfree(all);
	return hash;
}

/*
 * Whatever stands there: the table's owner may have dropped its constraints. What can't
 * run is found by definition_check() (worker/definition.c).
 */
static Pipeline *
make_pipeline(HeapTuple tuple, MemoryContext context)
{
	MemoryContext before = MemoryContextSwitchTo(context);
	Pipeline   *p = palloc0(sizeof(Pipeline));
	char	   *name = column_text(tuple, 1);
	char	   *on_error = column_text(tuple, 10);

	p->name_is_cut = strlcpy(p->name, name ? name : "", NAMEDATALEN) >= NAMEDATALEN;
	p->topic = column_text(tuple, 2);
	p->statement = column_text(tuple, 3);
	p->run_as = column_text(tuple, 4);
	p->search_path = column_text(tuple, 5);
	p->start = column_text(tuple, 6);
	p->workers = DatumGetInt32(column(tuple, 7, 0));
	p->batch_messages = DatumGetInt32(column(tuple, 8, 0));
	p->batch_bytes = DatumGetInt32(column(tuple, 9, 0));
	p->stop_on_error = on_error && strcmp(on_error, "stop") == 0;
	p->max_dead_letters = DatumGetInt32(column(tuple, 11, 0));
	p->group_id = column_text(tuple, 12);
	p->on_demand = DatumGetBool(column(tuple, 13, 0));
	p->connection = column_text(tuple, 14);
	p->paused = DatumGetBool(column(tuple, 15, 0));
	p->created_at = DatumGetTimestampTz(column(tuple, 16, 0));
	p->started = column(tuple, 17, 0) != 0;
	p->resumes = DatumGetInt64(column(tuple, 18, 0));
	p->held = catalog_row_is_held(DatumGetObjectId(column(tuple, 19, 0)), (ItemPointer) DatumGetPointer(column(tuple, 20, 0)));
	p->role = DatumGetObjectId(column(tuple, 21, InvalidOid));
	p->definition = definition_hash(p);
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

Pipeline *
catalog_pipeline_lock(const char *name, MemoryContext context)
{
	static CatalogQuery query = {
		"SELECT " PIPELINE_COLUMNS " FROM @nexus_pipelines WHERE name OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(name)};

	if (catalog_run(&query, values, NULL, false, SPI_OK_SELECT) == 0)
		return NULL;
	return make_pipeline(SPI_tuptable->vals[0], context);
}

#define WRITTEN_COLUMNS	15

static void
written_values(const Pipeline *p, Datum *values, char *nulls)
{
	memset(nulls, ' ', WRITTEN_COLUMNS);
	nulls[WRITTEN_COLUMNS] = '\0';
	values[0] = CStringGetTextDatum(p->name);
	values[1] = CStringGetTextDatum(p->topic);
	values[2] = CStringGetTextDatum(p->statement);
	values[3] = CStringGetTextDatum(p->search_path);
	values[4] = CStringGetTextDatum(p->start);
	values[5] = Int32GetDatum(p->workers);
	values[6] = Int32GetDatum(p->batch_messages);
	values[7] = Int32GetDatum(p->batch_bytes);
	values[8] = CStringGetTextDatum(p->stop_on_error ? "stop" : "dead_letter");
	values[9] = Int32GetDatum(p->max_dead_letters);
	nulls[9] = p->max_dead_letters == 0 ? 'n' : ' ';
	values[10] = p->group_id ? CStringGetTextDatum(p->group_id) : 0;
	nulls[10] = p->group_id ? ' ' : 'n';
	values[11] = BoolGetDatum(p->on_demand);
	values[12] = CStringGetTextDatum(p->run_as);
	values[13] = p->connection ? CStringGetTextDatum(p->connection) : 0;
	nulls[13] = p->connection ? ' ' : 'n';
	values[14] = ObjectIdGetDatum(p->role);
	nulls[14] = OidIsValid(p->role) ? ' ' : 'n';
}

#define WRITTEN_TYPES \
	TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, INT4OID, INT4OID, TEXTOID, INT4OID, TEXTOID, BOOLOID, \
	TEXTOID, TEXTOID, OIDOID

bool
catalog_pipeline_add(const Pipeline *pipeline)
{
	static CatalogQuery query = {
		"INSERT INTO @nexus_pipelines (name, topic, statement, search_path, start, workers, batch_messages,"
		" batch_bytes, on_error, max_dead_letters, group_id, on_demand, run_as, connection, run_as_oid)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING",
		WRITTEN_COLUMNS, {WRITTEN_TYPES}
	};
	Datum		values[WRITTEN_COLUMNS];
	char		nulls[WRITTEN_COLUMNS + 1];

	written_values(pipeline, values, nulls);
	return catalog_run(&query, values, nulls, false, SPI_OK_INSERT) > 0;
}

void
catalog_pipeline_change(const Pipeline *pipeline)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET topic = $2, statement = $3, search_path = $4, start = $5, workers = $6,"
		" batch_messages = $7, batch_bytes = $8, on_error = $9, max_dead_letters = $10, group_id = $11,"
		" on_demand = $12, run_as = $13, connection = $14, run_as_oid = $15 WHERE name OPERATOR(pg_catalog.=) $1",
		WRITTEN_COLUMNS, {WRITTEN_TYPES}
	};
	Datum		values[WRITTEN_COLUMNS];
	char		nulls[WRITTEN_COLUMNS + 1];

	written_values(pipeline, values, nulls);
	catalog_run(&query, values, nulls, false, SPI_OK_UPDATE);
}

void
catalog_pipeline_remove(const char *name)
{
	static CatalogQuery query = {"DELETE FROM @nexus_pipelines WHERE name OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}};
	Datum		values[1] = {CStringGetTextDatum(name)};

	catalog_offsets_forget(name);
	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

/* False if there is none of that name. reason NULL: it was asked for. */
bool
catalog_set_paused(const char *name, bool paused, const char *reason)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET paused = $2, paused_reason = $3, resumes = resumes"
		" OPERATOR(pg_catalog.+) CASE WHEN $2 THEN 0 ELSE 1 END WHERE name OPERATOR(pg_catalog.=) $1",
		3, {TEXTOID, BOOLOID, TEXTOID}
	};
	Datum		values[3] = {CStringGetTextDatum(name), BoolGetDatum(paused), 0};

	if (reason)
		values[2] = CStringGetTextDatum(reason);
	return catalog_run(&query, values, reason ? NULL : "  n", false, SPI_OK_UPDATE) > 0;
}

void
catalog_pipeline_started(const char *name)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET started_at = pg_catalog.clock_timestamp() WHERE name OPERATOR(pg_catalog.=) $1",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(name)};

	catalog_run(&query, values, NULL, false, SPI_OK_UPDATE);
}

/* Pauses the pipeline if it has as many dead letters as it may have. */
bool
catalog_pause_if_full(const char *name)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET paused = true, paused_reason ="
		" 'it has ' OPERATOR(pg_catalog.||) max_dead_letters OPERATOR(pg_catalog.||) ' dead letters or more (max_dead_letters): look at"
		" nexus_dead_letters, replay or delete them, then nexus_resume(pipeline)'"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND max_dead_letters OPERATOR(pg_catalog.<=)"
		" (SELECT pg_catalog.count(*) FROM @nexus_dead_letters WHERE pipeline OPERATOR(pg_catalog.=) $1)",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(name)};

	return catalog_run(&query, values, NULL, false, SPI_OK_UPDATE) > 0;
}

/* ---- the role ---- */

static bool
role_exists(Oid role)
{
	return OidIsValid(role) && SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role));
}

/*
 * The oid is kept beside the name: one that is made later under the name of a dropped
 * role is not the pipeline's. PostgreSQL can't be told that a row depends on a role; what
 * keeps a role from being dropped is what it needs to run a pipeline, EXECUTE on
 * nexus_messages() and the rights on what the statement writes to.
 *
 * The owner of the tables, who can write a row, must have the rights of the role: so by
 * writing one nobody gets a right. A superuser's are inherited by nobody.
 */
char *
catalog_role_mistake(const Pipeline *p)
{
	Oid			owner = catalog_owner();
	const char *mended = "nexus_alter_pipeline() with the option run_as names one";

	if (!role_exists(p->role))
		return OidIsValid(get_role_oid(p->run_as, true))
			? psprintf("the role \"%s\" is not the one that the pipeline had: %s", p->run_as, mended)
			: psprintf("role \"%s\" does not exist: %s", p->run_as, mended);
	if (!superuser_arg(owner) && (superuser_arg(p->role) || !has_privs_of_role(owner, p->role)))
		return psprintf("it runs as role \"%s\", but the extension's tables belong to \"%s\", who hasn't the rights of that role",
						GetUserNameFromId(p->role, true), GetUserNameFromId(owner, true));
	if (object_aclcheck(DatabaseRelationId, MyDatabaseId, p->role, ACL_CONNECT) != ACLCHECK_OK)
		return psprintf("role \"%s\" may not connect to this database", GetUserNameFromId(p->role, true));
	return NULL;
}

Oid
catalog_pipeline_role(const Pipeline *pipeline)
{
	char	   *mistake = catalog_role_mistake(pipeline);

	if (mistake)
		ereport(ERROR,
				(errcode(role_exists(pipeline->role) ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s", mistake)));
	return pipeline->role;
}

static void
set_role(const Pipeline *pipeline, Oid role)
{
	static CatalogQuery query = {
		"UPDATE @nexus_pipelines SET run_as_oid = $2 WHERE name OPERATOR(pg_catalog.=) $1", 2, {TEXTOID, OIDOID}
	};
	Datum		values[2] = {CStringGetTextDatum(pipeline->name), ObjectIdGetDatum(role)};

	catalog_run(&query, values, OidIsValid(role) ? NULL : " n", false, SPI_OK_UPDATE);
}

/* By their names, in a database that came from elsewhere: there they have other oids. */
static void
find_roles_anew(void)
{
	ListCell   *lc;

	foreach(lc, catalog_pipelines(CurrentMemoryContext))
	{
		const Pipeline *pipeline = lfirst(lc);

		set_role(pipeline, pipeline->run_as ? get_role_oid(pipeline->run_as, true) : InvalidOid);
	}
}

/* ---- the identity ---- */

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

	if (!catalog_identity_is_ours())
		find_roles_anew();
	identity_values(values);
	catalog_run(&query, values, NULL, false, SPI_OK_INSERT);
}
