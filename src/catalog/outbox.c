/*
 * outbox.c
 *		nexus_outbox: written by nexus_produce, read and emptied by the relays.
 *
 * The ids of the default connection's rows and those of all others come from two
 * sequences, and have ranges of their own: so the rows of a connection are no gaps in
 * the default one's ids (gaps.c), and are not read for nothing. The other connections
 * share a range, and an index by connection and id.
 */
#include "nexus_kafka.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "catalog/tables.h"

#define FIRST_NAMED_ID	"1152921504606846976"	/* 2^60, as in the install script */
#define SHORTEST_RUN	16		/* of ids, that is worth a statement of its own */

/* The types are said: whatever the columns' owner makes of them, a datum is what it is read as. */
#define OUTBOX_COLUMNS \
	"o.id::pg_catalog.int8, o.xmin, o.topic::pg_catalog.text, o.partition::pg_catalog.int4, o.key::pg_catalog.bytea," \
	" o.value::pg_catalog.bytea, o.headers::pg_catalog.jsonb, o.message_id::pg_catalog.text"

void
catalog_outbox_add(const char *connection, text *topic, int32 partition, struct varlena *key, struct varlena *value,
				   Jsonb *headers, const char *message_id)
{
	static CatalogQuery of_default = {
		"INSERT INTO @nexus_outbox (topic, partition, key, value, headers, message_id)"
		" VALUES ($1, $2, $3, $4, $5, $6)",
		6, {TEXTOID, INT4OID, BYTEAOID, BYTEAOID, JSONBOID, TEXTOID}
	};
	static CatalogQuery of_named = {
		"INSERT INTO @nexus_outbox (topic, partition, key, value, headers, message_id, connection, id)"
		" OVERRIDING SYSTEM VALUE"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.nextval($8))",
		8, {TEXTOID, INT4OID, BYTEAOID, BYTEAOID, JSONBOID, TEXTOID, TEXTOID, REGCLASSOID}
	};
	char		nulls[] = "        ";
	Datum		values[8] = {
		PointerGetDatum(topic), Int32GetDatum(partition), PointerGetDatum(key), PointerGetDatum(value),
		PointerGetDatum(headers), CStringGetTextDatum(message_id)
	};

	if (connection[0])
	{
		values[6] = CStringGetTextDatum(connection);
		values[7] = ObjectIdGetDatum(catalog_member(CATALOG_NAMED_IDS));
	}
	nulls[1] = partition < 0 ? 'n' : ' ';
	nulls[2] = key ? ' ' : 'n';
	nulls[3] = value ? ' ' : 'n';
	nulls[4] = headers ? ' ' : 'n';
	catalog_run(connection[0] ? &of_named : &of_default, values, nulls, false, SPI_OK_INSERT);
}

static void
read_row(HeapTuple tuple, TupleDesc desc, OutboxRow *row)
{
	bool		isnull;
	Datum		value;

	row->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	row->xmin = DatumGetTransactionId(SPI_getbinval(tuple, desc, 2, &isnull));
	row->topic = TextDatumGetCString(SPI_getbinval(tuple, desc, 3, &isnull));
	value = SPI_getbinval(tuple, desc, 4, &isnull);
	row->partition = isnull ? -1 : DatumGetInt32(value);
	value = SPI_getbinval(tuple, desc, 5, &isnull);
	row->key = isnull ? NULL : DatumGetByteaPP(value);
	value = SPI_getbinval(tuple, desc, 6, &isnull);
	row->value = isnull ? NULL : DatumGetByteaPP(value);
	value = SPI_getbinval(tuple, desc, 7, &isnull);
	row->headers = isnull ? NULL : DatumGetJsonbP(value);
	row->message_id = TextDatumGetCString(SPI_getbinval(tuple, desc, 8, &isnull));
}

static bool
hand_over(uint64 n, int limit, OutboxReader reader, void *arg)
{
	SPITupleTable *table = SPI_tuptable;
	bool		all = n < limit;

	for (uint64 i = 0; i < n; i++)
	{
		OutboxRow	row;

		read_row(table->vals[i], table->tupdesc, &row);
		if (!reader(&row, arg))
		{
			all = false;
			break;
		}
	}
	SPI_freetuptable(table);
	return all;
}

bool
catalog_outbox_read_after(const char *connection, int64 after, int limit, OutboxReader reader, void *arg)
{
	static CatalogQuery of_default = {
		"SELECT " OUTBOX_COLUMNS " FROM @nexus_outbox o WHERE o.id OPERATOR(pg_catalog.>) $1"
		" AND o.id OPERATOR(pg_catalog.<) " FIRST_NAMED_ID " AND o.connection IS NULL ORDER BY o.id LIMIT $2",
		2, {INT8OID, INT8OID}
	};
	static CatalogQuery of_named = {
		"SELECT " OUTBOX_COLUMNS " FROM @nexus_outbox o WHERE o.id OPERATOR(pg_catalog.>) $1"
		" AND o.connection OPERATOR(pg_catalog.=) $3 ORDER BY o.connection, o.id LIMIT $2",
		3, {INT8OID, INT8OID, TEXTOID}
	};
	Datum		values[3] = {Int64GetDatum(after), Int64GetDatum(limit), CStringGetTextDatum(connection)};

	return hand_over(catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT),
					 limit, reader, arg);
}

static Datum
int8_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

bool
catalog_outbox_read_ranges(const char *connection, const int64 *firsts, const int64 *lasts, int n, int limit,
						   OutboxReader reader, void *arg)
{
	static CatalogQuery of_default = {
		"SELECT " OUTBOX_COLUMNS " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS r (first, last)"
		" CROSS JOIN LATERAL (SELECT p.xmin, p.* FROM @nexus_outbox p"
		" WHERE p.id OPERATOR(pg_catalog.>=) r.first AND p.id OPERATOR(pg_catalog.<=) r.last"
		" AND p.connection IS NULL ORDER BY p.id LIMIT $3) o ORDER BY o.id LIMIT $3",
		3, {INT8ARRAYOID, INT8ARRAYOID, INT8OID}
	};
	static CatalogQuery of_named = {
		"SELECT " OUTBOX_COLUMNS " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS r (first, last)"
		" CROSS JOIN LATERAL (SELECT p.xmin, p.* FROM @nexus_outbox p"
		" WHERE p.id OPERATOR(pg_catalog.>=) r.first AND p.id OPERATOR(pg_catalog.<=) r.last"
		" AND p.connection OPERATOR(pg_catalog.=) $4"
		" ORDER BY p.connection, p.id LIMIT $3) o ORDER BY o.id LIMIT $3",
		4, {INT8ARRAYOID, INT8ARRAYOID, INT8OID, TEXTOID}
	};
	Datum		values[4] = {
		int8_array(firsts, n), int8_array(lasts, n), Int64GetDatum(limit), CStringGetTextDatum(connection)
	};

	return hand_over(catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT),
					 limit, reader, arg);
}

static void
delete_range(int64 first, int64 last)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.>=) $1 AND id OPERATOR(pg_catalog.<=) $2",
		2, {INT8OID, INT8OID}
	};
	Datum		values[2] = {Int64GetDatum(first), Int64GetDatum(last)};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

static void
delete_each(const int64 *ids, int n)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.=) ANY ($1)", 1, {INT8ARRAYOID}
	};
	Datum		values[1] = {int8_array(ids, n)};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

static int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * Sorts the ids. A run of consecutive ones is deleted by one scan of the index.
 * Each id of a run is one of the ids, so no row goes that isn't to go.
 */
void
catalog_outbox_delete(int64 *ids, int n)
{
	int64	   *singles = palloc(n * sizeof(int64));
	int			nsingles = 0;
	int			run;

	qsort(ids, n, sizeof(int64), compare_ids);
	for (int i = 0; i < n; i += run)
	{
		for (run = 1; i + run < n && ids[i + run] == ids[i] + run; run++)
			;
		if (run >= SHORTEST_RUN)
			delete_range(ids[i], ids[i + run - 1]);
		else
			for (int j = 0; j < run; j++)
				singles[nsingles++] = ids[i + j];
	}
	if (nsingles > 0)
		delete_each(singles, nsingles);
	pfree(singles);
}

/* 0 if there is none. */
int64
catalog_outbox_last_id(const char *connection)
{
	static CatalogQuery of_default = {
		"SELECT id FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.<) " FIRST_NAMED_ID " AND connection IS NULL"
		" ORDER BY id DESC LIMIT 1", 0
	};
	static CatalogQuery of_named = {
		"SELECT id FROM @nexus_outbox WHERE connection OPERATOR(pg_catalog.=) $1"
		" ORDER BY connection DESC, id DESC LIMIT 1",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(connection)};
	bool		isnull;

	if (catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT) == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

int64
catalog_outbox_id_before_all(const char *connection)
{
	return connection[0] ? strtoll(FIRST_NAMED_ID, NULL, 10) - 1 : 0;
}

/* From one to the next by the index, however many rows each has. */
List *
catalog_outbox_connections(MemoryContext context)
{
	static CatalogQuery query = {
		"WITH RECURSIVE c (connection) AS ("
		"(SELECT o.connection FROM @nexus_outbox o WHERE o.connection IS NOT NULL ORDER BY o.connection LIMIT 1)"
		" UNION ALL SELECT (SELECT o.connection FROM @nexus_outbox o"
		" WHERE o.connection OPERATOR(pg_catalog.>) c.connection ORDER BY o.connection LIMIT 1)"
		" FROM c WHERE c.connection IS NOT NULL)"
		" SELECT c.connection FROM c WHERE c.connection IS NOT NULL", 0
	};
	uint64		n = catalog_run(&query, NULL, NULL, true, SPI_OK_SELECT);
	MemoryContext before = MemoryContextSwitchTo(context);
	List	   *names = NIL;

	for (uint64 i = 0; i < n; i++)
		names = lappend(names, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	MemoryContextSwitchTo(before);
	return names;
}

void
catalog_outbox_bury(int64 id, const char *error_name, const char *message)
{
	static CatalogQuery query = {
		"WITH gone AS (DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *)"
		" INSERT INTO @nexus_dead_letters"
		" (origin, connection, topic, partition, \"timestamp\", key, value, headers, message_id, sqlstate, message)"
		" SELECT 'outbox', connection, topic, partition, created_at, key, value, headers, message_id, $2, $3 FROM gone",
		3, {INT8OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {Int64GetDatum(id), CStringGetTextDatum(error_name), CStringGetTextDatum(message)};

	catalog_run(&query, values, NULL, false, SPI_OK_INSERT);
}
