/*
 * dead_letters.c
 *		nexus_dead_letters: messages that could not be taken in, whole, with the error.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"

static Datum
text_or_null(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
error_values(const ErrorData *error, Datum *values, char *nulls)
{
	values[0] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[1] = text_or_null(error->message ? error->message : "", &nulls[1]);
	values[2] = text_or_null(error->detail, &nulls[2]);
	values[3] = text_or_null(error->hint, &nulls[3]);
	values[4] = text_or_null(error->context, &nulls[4]);
}

void
catalog_dead_letter_add(const DeadLetter *letter)
{
	static CatalogQuery query = {
		"INSERT INTO @nexus_dead_letters (origin, pipeline, topic, partition, \"offset\", \"timestamp\","
		" key, value, headers, sqlstate, message, detail, hint, context)"
		" VALUES ('pipeline', $1, $2, $3, $4, $5, $6, $7, $8,"
		" $9, $10, $11, $12, $13)",
		13, {TEXTOID, TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID, JSONBOID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID}
	};
	char		nulls[] = "             ";
	Datum		values[13];

	values[0] = CStringGetTextDatum(letter->pipeline);
	values[1] = CStringGetTextDatum(letter->topic);
	values[2] = Int32GetDatum(letter->partition);
	values[3] = Int64GetDatum(letter->offset);
	values[4] = TimestampTzGetDatum(letter->timestamp);
	nulls[4] = letter->has_timestamp ? ' ' : 'n';
	values[5] = PointerGetDatum(letter->key);
	nulls[5] = letter->key ? ' ' : 'n';
	values[6] = PointerGetDatum(letter->value);
	nulls[6] = letter->value ? ' ' : 'n';
	values[7] = PointerGetDatum(letter->headers);
	nulls[7] = letter->headers ? ' ' : 'n';
	error_values(letter->error, values + 8, nulls + 8);
	catalog_run(&query, values, nulls, false, SPI_OK_INSERT);
}

/* ---- those that are there ---- */

static Datum
id_array(const int64 *ids, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* NULL for NULL; a copy in the current context */
static struct varlena *
column_bytes(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, column, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_COPY(value);
}

/* The types are said, as in outbox.c. */
List *
catalog_dead_letters(const DeadLetterRange *range, int max, int max_bytes, MemoryContext context)
{
	static CatalogQuery query = {
		"SELECT id, COALESCE(topic, ''), partition, \"offset\", \"timestamp\", key::pg_catalog.bytea, value::pg_catalog.bytea,"
		" headers::pg_catalog.jsonb FROM ("
		" SELECT d.*, pg_catalog.sum(COALESCE(pg_catalog.octet_length(key), 0) OPERATOR(pg_catalog.+)"
		" COALESCE(pg_catalog.octet_length(value), 0)) OVER (ORDER BY id) AS bytes,"
		" pg_catalog.row_number() OVER (ORDER BY id) AS n FROM ("
		"  SELECT * FROM @nexus_dead_letters WHERE origin OPERATOR(pg_catalog.=) 'pipeline'"
		"  AND pipeline OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.>) $2 AND id OPERATOR(pg_catalog.<=) $3"
		"  AND ($4 IS NULL OR id OPERATOR(pg_catalog.=) ANY ($4)) ORDER BY id LIMIT $5) d) x"
		" WHERE bytes OPERATOR(pg_catalog.<=) $6 OR n OPERATOR(pg_catalog.=) 1 ORDER BY id",
		6, {TEXTOID, INT8OID, INT8OID, INT8ARRAYOID, INT4OID, INT4OID}
	};
	Datum		values[6] = {
		CStringGetTextDatum(range->pipeline), Int64GetDatum(range->after), Int64GetDatum(range->upto),
		0, Int32GetDatum(max), Int32GetDatum(max_bytes)
	};
	uint64		n;
	List	   *letters = NIL;
	MemoryContext before;

	if (range->nids >= 0)
		values[3] = id_array(range->ids, range->nids);
	n = catalog_run(&query, values, range->nids >= 0 ? NULL : "   n  ", true, SPI_OK_SELECT);
	before = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		DeadLetter *letter = palloc0(sizeof(DeadLetter));
		bool		isnull;

		letter->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		letter->topic = SPI_getvalue(tuple, desc, 2);
		letter->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
		letter->offset = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
		letter->timestamp = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));
		letter->has_timestamp = !isnull;
		letter->key = column_bytes(tuple, desc, 6);
		letter->value = column_bytes(tuple, desc, 7);
		letter->headers = (Jsonb *) column_bytes(tuple, desc, 8);
		letters = lappend(letters, letter);
	}
	MemoryContextSwitchTo(before);
	return letters;
}

int64
catalog_dead_letter_last_id(void)
{
	static CatalogQuery query = {"SELECT COALESCE(pg_catalog.max(id), 0) FROM @nexus_dead_letters", 0};
	bool		isnull;

	catalog_run(&query, NULL, NULL, true, SPI_OK_SELECT);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Returns how many of them are there still. */
uint64
catalog_dead_letters_lock(const int64 *ids, int n)
{
	static CatalogQuery query = {
		"SELECT 1 FROM @nexus_dead_letters WHERE id OPERATOR(pg_catalog.=) ANY ($1) ORDER BY id FOR UPDATE",
		1, {INT8ARRAYOID}
	};
	Datum		values[1] = {id_array(ids, n)};

	return catalog_run(&query, values, NULL, false, SPI_OK_SELECT);
}

void
catalog_dead_letters_remove(const int64 *ids, int n)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_dead_letters WHERE id OPERATOR(pg_catalog.=) ANY ($1)", 1, {INT8ARRAYOID}
	};
	Datum		values[1] = {id_array(ids, n)};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

/* It has been tried again, and has another error. */
void
catalog_dead_letter_renew(int64 id, const ErrorData *error)
{
	static CatalogQuery query = {
		"UPDATE @nexus_dead_letters SET sqlstate = $1, message = $2, detail = $3, hint = $4, context = $5,"
		" failed_at = pg_catalog.clock_timestamp() WHERE id OPERATOR(pg_catalog.=) $6",
		6, {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[6];
	char		nulls[] = "      ";

	error_values(error, values, nulls);
	values[5] = Int64GetDatum(id);
	catalog_run(&query, values, nulls, false, SPI_OK_UPDATE);
}
