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
#include "access/detoast.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "catalog/tables.h"

#define FIRST_NAMED_ID	"1152921504606846976"	/* 2^60, as in the install script */
#define LONGEST_TEXT	2000	/* of a topic or a message id */
#define SHORTEST_RUN	16		/* of ids, that is worth a statement of its own */

/* As read_row() makes it of the message id. */
#define HASH_OF_ROW \
	"pg_catalog.hashtextextended(message_id::pg_catalog.text COLLATE pg_catalog.\"C\", 0)"

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

#define OUTBOX_COLUMN_COUNT	8

/* NULL: none, or none that can be of use. */
static char *
short_text(Datum value, bool isnull)
{
	if (isnull || toast_raw_datum_size(value) > LONGEST_TEXT)
		return NULL;
	return TextDatumGetCString(value);
}

/* A large value isn't read before somebody wants it. */
static Datum
note_large(OutboxRow *row, Datum value, bool isnull)
{
	if (isnull)
		return (Datum) 0;
	row->size += toast_raw_datum_size(value) - VARHDRSZ;
	return value;
}

static void
read_row(HeapTuple tuple, TupleDesc desc, OutboxRow *row)
{
	Datum		values[OUTBOX_COLUMN_COUNT];
	bool		nulls[OUTBOX_COLUMN_COUNT];

	Assert(desc->natts == OUTBOX_COLUMN_COUNT);
	heap_deform_tuple(tuple, desc, values, nulls);
	memset(row, 0, sizeof(*row));
	row->id = DatumGetInt64(values[0]);
	row->xmin = DatumGetTransactionId(values[1]);
	row->topic = short_text(values[2], nulls[2]);
	row->partition = nulls[3] ? -1 : DatumGetInt32(values[3]);
	if (!nulls[3] && row->partition == -1)
		row->partition = PG_INT32_MIN;	/* which is as wrong, and not "by the key" */
	row->stored_key = note_large(row, values[4], nulls[4]);
	row->stored_value = note_large(row, values[5], nulls[5]);
	row->stored_headers = note_large(row, values[6], nulls[6]);
	row->message_id = short_text(values[7], nulls[7]);
	if (row->message_id)
		row->identity = hash_bytes_extended((unsigned char *) row->message_id, strlen(row->message_id), 0);
}

void
catalog_outbox_load(OutboxRow *row)
{
	if (row->stored_key)
		row->key = DatumGetByteaPCopy(row->stored_key);
	if (row->stored_value)
		row->value = DatumGetByteaPCopy(row->stored_value);
	if (row->stored_headers)
		row->headers = DatumGetJsonbP(row->stored_headers);
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

bool
catalog_outbox_read_topic(const char *connection, const char *topic, int64 first, int64 last, int limit,
						  OutboxReader reader, void *arg)
{
	static CatalogQuery of_default = {
		"SELECT " OUTBOX_COLUMNS " FROM @nexus_outbox o WHERE o.id OPERATOR(pg_catalog.>=) $1"
		" AND o.id OPERATOR(pg_catalog.<=) $2 AND o.topic OPERATOR(pg_catalog.=) $4 AND o.connection IS NULL"
		" ORDER BY o.id LIMIT $3",
		4, {INT8OID, INT8OID, INT8OID, TEXTOID}
	};
	static CatalogQuery of_named = {
		"SELECT " OUTBOX_COLUMNS " FROM @nexus_outbox o WHERE o.id OPERATOR(pg_catalog.>=) $1"
		" AND o.id OPERATOR(pg_catalog.<=) $2 AND o.topic OPERATOR(pg_catalog.=) $4"
		" AND o.connection OPERATOR(pg_catalog.=) $5 ORDER BY o.connection, o.id LIMIT $3",
		5, {INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID}
	};
	Datum		values[5] = {
		Int64GetDatum(first), Int64GetDatum(last), Int64GetDatum(limit), CStringGetTextDatum(topic),
		CStringGetTextDatum(connection)
	};

	return hand_over(catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT),
					 limit, reader, arg);
}

static Datum
hashes_of(const OutboxKey *keys, int n)
{
	int64	   *hashes = palloc(n * sizeof(int64));
	Datum		array;

	for (int i = 0; i < n; i++)
		hashes[i] = (int64) keys[i].identity;
	array = int8_array(hashes, n);
	pfree(hashes);
	return array;
}

static void
delete_run(const OutboxKey *keys, int n)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.>=) $1 AND id OPERATOR(pg_catalog.<=) $2"
		" AND " HASH_OF_ROW " OPERATOR(pg_catalog.=)"
		" ($3)[(id::pg_catalog.int8 OPERATOR(pg_catalog.-) $1 OPERATOR(pg_catalog.+) 1)::pg_catalog.int4]",
		3, {INT8OID, INT8OID, INT8ARRAYOID}
	};
	Datum		values[3] = {Int64GetDatum(keys[0].id), Int64GetDatum(keys[n - 1].id), hashes_of(keys, n)};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

/* The bucket is the id's place in the array, which ascends. */
static void
delete_each(const OutboxKey *keys, int n)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.=) ANY ($1)"
		" AND " HASH_OF_ROW " OPERATOR(pg_catalog.=) ($2)[pg_catalog.width_bucket(id::pg_catalog.int8, $1)]",
		2, {INT8ARRAYOID, INT8ARRAYOID}
	};
	int64	   *ids = palloc(n * sizeof(int64));
	Datum		values[2];

	for (int i = 0; i < n; i++)
		ids[i] = keys[i].id;
	values[0] = int8_array(ids, n);
	values[1] = hashes_of(keys, n);
	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
	pfree(ids);
}

static int
compare_keys(const void *a, const void *b)
{
	int64		x = ((const OutboxKey *) a)->id;
	int64		y = ((const OutboxKey *) b)->id;

	return x < y ? -1 : x > y;
}

/*
 * Sorts the keys. An id alone may be another row's by now, after TRUNCATE … RESTART IDENTITY,
 * say: so a row goes only if its message id is that of the key with its id, by their hashes.
 * A run of consecutive ids is deleted by one scan of the index; each id of it is one of the keys'.
 */
void
catalog_outbox_delete(OutboxKey *keys, int n)
{
	OutboxKey  *singles = palloc(n * sizeof(OutboxKey));
	int			nsingles = 0;
	int			run;

	qsort(keys, n, sizeof(OutboxKey), compare_keys);
	for (int i = 0; i < n; i += run)
	{
		for (run = 1; i + run < n && keys[i + run].id == keys[i].id + run; run++)
			;
		if (run >= SHORTEST_RUN)
			delete_run(&keys[i], run);
		else
			for (int j = 0; j < run; j++)
				singles[nsingles++] = keys[i + j];
	}
	if (nsingles > 0)
		delete_each(singles, nsingles);
	pfree(singles);
}

/* That of the first, or 0. */
int64
catalog_outbox_first_id(const char *connection)
{
	static CatalogQuery of_default = {
		"SELECT id FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.>) 0 AND id OPERATOR(pg_catalog.<) " FIRST_NAMED_ID
		" AND connection IS NULL ORDER BY id LIMIT 1", 0
	};
	static CatalogQuery of_named = {
		"SELECT id FROM @nexus_outbox WHERE connection OPERATOR(pg_catalog.=) $1"
		" AND id OPERATOR(pg_catalog.>=) " FIRST_NAMED_ID " ORDER BY connection, id LIMIT 1",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(connection)};
	bool		isnull;

	if (catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT) == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* By the sequence: the table may have more dead rows at its end than one can walk over. */
int64
catalog_outbox_last_given_id(const char *connection)
{
	static CatalogQuery of_default = {
		"SELECT pg_catalog.pg_sequence_last_value(pg_catalog.pg_get_serial_sequence("
		"$1::pg_catalog.regclass::pg_catalog.text, 'id')::pg_catalog.regclass)", 1, {OIDOID}
	};
	static CatalogQuery of_named = {
		"SELECT pg_catalog.pg_sequence_last_value($1::pg_catalog.regclass)", 1, {OIDOID}
	};
	Datum		values[1] = {ObjectIdGetDatum(catalog_member(connection[0] ? CATALOG_NAMED_IDS : CATALOG_OUTBOX))};
	Datum		last;
	bool		isnull;

	catalog_run(connection[0] ? &of_named : &of_default, values, NULL, true, SPI_OK_SELECT);
	last = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetInt64(last);
}

int64
catalog_outbox_id_before_all(const char *connection)
{
	return connection[0] ? strtoll(FIRST_NAMED_ID, NULL, 10) - 1 : 0;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	const char *x = lfirst(a);
	const char *y = lfirst(b);

	return varstr_cmp(x, strlen(x), y, strlen(y), DEFAULT_COLLATION_OID);
}

/* The first connection with a row that comes after one, and before another; NULL: none. */
static char *
next_connection(const char *after, const char *before)
{
	static CatalogQuery query = {
		"SELECT o.connection FROM @nexus_outbox o WHERE o.connection OPERATOR(pg_catalog.>) $1"
		" ORDER BY o.connection LIMIT 1", 1, {TEXTOID}
	};
	static CatalogQuery bounded = {
		"SELECT o.connection FROM @nexus_outbox o WHERE o.connection OPERATOR(pg_catalog.>) $1"
		" AND o.connection OPERATOR(pg_catalog.<) $2 ORDER BY o.connection LIMIT 1", 2, {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {CStringGetTextDatum(after)};

	if (before)
		values[1] = CStringGetTextDatum(before);
	if (catalog_run(before ? &bounded : &query, values, NULL, true, SPI_OK_SELECT) == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/*
 * From one to the next by the index, however many rows each has. Those that are known are
 * stepped over: what their relays have deleted may stand there still, as dead rows.
 */
List *
catalog_outbox_connections(List *known, MemoryContext context)
{
	const char *after = "";
	const char *found;
	List	   *names = NIL;
	List	   *bounds = list_copy(known);

	list_sort(bounds, compare_names);
	bounds = lappend(bounds, NULL);
	for (int i = 0; i < list_length(bounds); i++)
	{
		const char *before = list_nth(bounds, i);

		while ((found = next_connection(after, before)) != NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			after = pstrdup(found);
			names = lappend(names, unconstify(char *, after));
			MemoryContextSwitchTo(old);
		}
		if (before)
			after = before;
	}
	return names;
}

void
catalog_outbox_dead_letter(OutboxKey key, const char *error_name, const char *message)
{
	static CatalogQuery query = {
		"WITH gone AS (DELETE FROM @nexus_outbox WHERE id OPERATOR(pg_catalog.=) $1"
		" AND ($4 OPERATOR(pg_catalog.=) 0 OR " HASH_OF_ROW " OPERATOR(pg_catalog.=) $4) RETURNING *)"
		" INSERT INTO @nexus_dead_letters"
		" (origin, connection, topic, partition, \"timestamp\", key, value, headers, message_id, sqlstate, message)"
		" SELECT 'outbox', connection, COALESCE(topic, ''), partition, created_at, key, value, headers, message_id, $2, $3"
		" FROM gone",
		4, {INT8OID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[4] = {
		Int64GetDatum(key.id), CStringGetTextDatum(error_name), CStringGetTextDatum(message),
		Int64GetDatum((int64) key.identity)
	};

	catalog_run(&query, values, NULL, false, SPI_OK_INSERT);
}
