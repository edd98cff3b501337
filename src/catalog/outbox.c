/*
 * outbox.c
 *		nexus_outbox: written by nexus_produce, read and emptied by the relay.
 */
#include "nexus_kafka.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "catalog/tables.h"

#define SHORTEST_RUN	16		/* of ids, that is worth a statement of its own */

#define OUTBOX_COLUMNS "o.id, o.xmin, o.topic, o.partition, o.key, o.value, o.headers, o.message_id"

void
catalog_outbox_add(text *topic, int32 partition, struct varlena *key, struct varlena *value,
				   Jsonb *headers, const char *message_id)
{
	static CatalogQuery query = {
		"INSERT INTO @nexus_outbox (topic, partition, key, value, headers, message_id)"
		" VALUES ($1, $2, $3, $4, $5, $6)",
		6, {TEXTOID, INT4OID, BYTEAOID, BYTEAOID, JSONBOID, TEXTOID}
	};
	char		nulls[] = "      ";
	Datum		values[6] = {
		PointerGetDatum(topic), Int32GetDatum(partition), PointerGetDatum(key), PointerGetDatum(value),
		PointerGetDatum(headers), CStringGetTextDatum(message_id)
	};

	nulls[1] = partition < 0 ? 'n' : ' ';
	nulls[2] = key ? ' ' : 'n';
	nulls[3] = value ? ' ' : 'n';
	nulls[4] = headers ? ' ' : 'n';
	catalog_run(&query, values, nulls, false, SPI_OK_INSERT);
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
catalog_outbox_read_after(int64 after, int limit, OutboxReader reader, void *arg)
{
	static CatalogQuery query = {
		"SELECT " OUTBOX_COLUMNS " FROM @nexus_outbox o WHERE o.id OPERATOR(pg_catalog.>) $1 ORDER BY o.id LIMIT $2",
		2, {INT8OID, INT8OID}
	};
	Datum		values[2] = {Int64GetDatum(after), Int64GetDatum(limit)};

	return hand_over(catalog_run(&query, values, NULL, true, SPI_OK_SELECT), limit, reader, arg);
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
catalog_outbox_read_ranges(const int64 *firsts, const int64 *lasts, int n, int limit,
						   OutboxReader reader, void *arg)
{
	static CatalogQuery query = {
		"SELECT " OUTBOX_COLUMNS " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS r (first, last)"
		" CROSS JOIN LATERAL (SELECT p.xmin, p.* FROM @nexus_outbox p"
		" WHERE p.id OPERATOR(pg_catalog.>=) r.first AND p.id OPERATOR(pg_catalog.<=) r.last"
		" ORDER BY p.id LIMIT $3) o ORDER BY o.id LIMIT $3",
		3, {INT8ARRAYOID, INT8ARRAYOID, INT8OID}
	};
	Datum		values[3] = {int8_array(firsts, n), int8_array(lasts, n), Int64GetDatum(limit)};

	return hand_over(catalog_run(&query, values, NULL, true, SPI_OK_SELECT), limit, reader, arg);
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

/* 0 if it is empty. */
int64
catalog_outbox_last_id(void)
{
	static CatalogQuery query = {"SELECT id FROM @nexus_outbox ORDER BY id DESC LIMIT 1", 0};
	bool		isnull;

	if (catalog_run(&query, NULL, NULL, true, SPI_OK_SELECT) == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

void
catalog_outbox_bury(int64 id, const char *error_name, const char *message)
{
	static CatalogQuery query = {
		"WITH gone AS (DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *)"
		" INSERT INTO @nexus_dead_letters"
		" (origin, topic, partition, \"timestamp\", key, value, headers, message_id, sqlstate, message)"
		" SELECT 'outbox', topic, partition, created_at, key, value, headers, message_id, $2, $3 FROM gone",
		3, {INT8OID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {Int64GetDatum(id), CStringGetTextDatum(error_name), CStringGetTextDatum(message)};

	catalog_run(&query, values, NULL, false, SPI_OK_INSERT);
}
