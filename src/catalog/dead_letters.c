/*
 * dead_letters.c
 *		nexus_dead_letters: messages that could not be taken in, whole, with the error.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"

static Datum
text_or_null(const char *text, char *null)
{
	*null = text ? ' ' : 'n';
	return text ? CStringGetTextDatum(text) : (Datum) 0;
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
	const ErrorData *error = letter->error;
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
	values[8] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[9] = text_or_null(error->message ? error->message : "", &nulls[9]);
	values[10] = text_or_null(error->detail, &nulls[10]);
	values[11] = text_or_null(error->hint, &nulls[11]);
	values[12] = text_or_null(error->context, &nulls[12]);
	catalog_run(&query, values, nulls, false, SPI_OK_INSERT);
}
