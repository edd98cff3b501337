/*
 * offsets.c
 *		nexus_offsets: where each pipeline goes on reading.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "storage/itemptr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/tables.h"

List *
catalog_offsets(const char *pipeline, MemoryContext context)
{
	static CatalogQuery query = {
		"SELECT COALESCE(topic, ''), partition, \"offset\", cluster_id, start_time, last_offset, last_hash FROM @nexus_offsets"
		" WHERE pipeline OPERATOR(pg_catalog.=) $1 ORDER BY topic, partition",
		1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(pipeline)};
	uint64		n = catalog_run(&query, values, NULL, true, SPI_OK_SELECT);
	MemoryContext before = MemoryContextSwitchTo(context);
	List	   *offsets = NIL;

	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		PartitionOffset *offset = palloc0(sizeof(PartitionOffset));
		bool		isnull;

		offset->topic = SPI_getvalue(tuple, desc, 1);
		offset->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
		offset->offset = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		offset->cluster_id = SPI_getvalue(tuple, desc, 4);
		offset->start_time = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 5, &isnull));
		offset->last_offset = DatumGetInt64(SPI_getbinval(tuple, desc, 6, &isnull));
		if (isnull)
			offset->last_offset = -1;
		offset->last_hash = DatumGetInt64(SPI_getbinval(tuple, desc, 7, &isnull));
		offsets = lappend(offsets, offset);
	}
	MemoryContextSwitchTo(before);
	return offsets;
}

void
catalog_offset_add(const char *pipeline, const PartitionOffset *offset)
{
	static CatalogQuery query = {
		"INSERT INTO @nexus_offsets (pipeline, topic, partition, \"offset\", start_time, cluster_id)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
		6, {TEXTOID, TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID}
	};
	Datum		values[6] = {
		CStringGetTextDatum(pipeline), CStringGetTextDatum(offset->topic), Int32GetDatum(offset->partition),
		Int64GetDatum(offset->offset), TimestampTzGetDatum(offset->start_time), 0
	};
	char		nulls[] = "      ";

	nulls[4] = offset->offset == OFFSET_BY_TIME ? ' ' : 'n';
	if (offset->cluster_id)
		values[5] = CStringGetTextDatum(offset->cluster_id);
	else
		nulls[5] = 'n';
	catalog_run(&query, values, nulls, false, SPI_OK_INSERT);
}

uint64
catalog_offsets_set(const char *pipeline, const char *topic, int32 partition, int64 offset, TimestampTz start_time)
{
	static CatalogQuery query = {
		"UPDATE @nexus_offsets SET \"offset\" = $4, start_time = $5, last_offset = NULL, last_hash = NULL,"
		" cluster_id = NULL, updated_at = pg_catalog.now()"
		" WHERE pipeline OPERATOR(pg_catalog.=) $1 AND ($2 IS NULL OR topic OPERATOR(pg_catalog.=) $2)"
		" AND ($3 OPERATOR(pg_catalog.<) 0 OR partition OPERATOR(pg_catalog.=) $3)",
		5, {TEXTOID, TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID}
	};
	Datum		values[5] = {
		CStringGetTextDatum(pipeline), 0, Int32GetDatum(partition), Int64GetDatum(offset),
		TimestampTzGetDatum(start_time)
	};
	char		nulls[] = "     ";

	if (topic)
		values[1] = CStringGetTextDatum(topic);
	else
		nulls[1] = 'n';
	nulls[4] = offset == OFFSET_BY_TIME ? ' ' : 'n';
	return catalog_run(&query, values, nulls, false, SPI_OK_UPDATE);
}

/* Everything anew: the partitions are found again, and read from their beginning. */
void
catalog_offsets_forget(const char *pipeline)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_offsets WHERE pipeline OPERATOR(pg_catalog.=) $1", 1, {TEXTOID}
	};
	Datum		values[1] = {CStringGetTextDatum(pipeline)};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

void
catalog_offset_forget(const char *pipeline, const PartitionOffset *offset)
{
	static CatalogQuery query = {
		"DELETE FROM @nexus_offsets WHERE pipeline OPERATOR(pg_catalog.=) $1 AND topic OPERATOR(pg_catalog.=) $2"
		" AND partition OPERATOR(pg_catalog.=) $3",
		3, {TEXTOID, TEXTOID, INT4OID}
	};
	Datum		values[3] = {
		CStringGetTextDatum(pipeline), CStringGetTextDatum(offset->topic), Int32GetDatum(offset->partition)
	};

	catalog_run(&query, values, NULL, false, SPI_OK_DELETE);
}

/* Offsets that didn't know their cluster learn it. */
void
catalog_offsets_name_cluster(const char *pipeline, const char *cluster_id)
{
	static CatalogQuery query = {
		"UPDATE @nexus_offsets SET cluster_id = $2 WHERE pipeline OPERATOR(pg_catalog.=) $1 AND cluster_id IS NULL",
		2, {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {CStringGetTextDatum(pipeline), CStringGetTextDatum(cluster_id)};

	catalog_run(&query, values, NULL, false, SPI_OK_UPDATE);
}

static void
move_values(const char *pipeline, const OffsetMove *move, Datum *values, char *nulls)
{
	values[0] = CStringGetTextDatum(pipeline);
	values[1] = CStringGetTextDatum(move->topic);
	values[2] = Int32GetDatum(move->partition);
	values[3] = Int64GetDatum(move->from);
	values[4] = Int64GetDatum(move->to);
	values[5] = Int64GetDatum(move->last_offset);
	values[6] = Int64GetDatum(move->last_hash);
	nulls[5] = nulls[6] = move->last_offset < 0 ? 'n' : ' ';
}

static bool
note_place(const OffsetMove *move, uint64 rows)
{
	bool		isnull;
	ItemPointer tid;

	if (rows == 0)
		return false;
	tid = (ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (move->place)
		*move->place = ItemPointerGetBlockNumber(tid);
	return true;
}

#define MOVE \
	"UPDATE @nexus_offsets SET \"offset\" = $5, start_time = NULL, updated_at = pg_catalog.now()," \
	" last_offset = COALESCE($6, last_offset), last_hash = COALESCE($7, last_hash)" \
	" WHERE \"offset\" OPERATOR(pg_catalog.=) $4 "

static bool
move_by_key(const char *pipeline, const OffsetMove *move)
{
	static CatalogQuery query = {
		MOVE "AND pipeline OPERATOR(pg_catalog.=) $1 AND topic OPERATOR(pg_catalog.=) $2"
		" AND partition OPERATOR(pg_catalog.=) $3 RETURNING ctid",
		7, {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID}
	};
	Datum		values[7];
	char		nulls[] = "       ";

	move_values(pipeline, move, values, nulls);
	return note_place(move, catalog_run(&query, values, nulls, false, SPI_OK_UPDATE_RETURNING));
}

/*
 * In the block that had the row's last version. By its key the row is found through all
 * versions that it has had since the oldest snapshot of anybody, as nothing of them can
 * be removed; and a block by itself is pruned when it is read, which a single tid is not.
 * Whatever the place says, the key and the offset decide; the key is written so that its
 * index is no choice.
 */
static bool
move_in_place(const char *pipeline, const OffsetMove *move)
{
	static CatalogQuery query = {
		MOVE "AND ctid OPERATOR(pg_catalog.>=) $8 AND ctid OPERATOR(pg_catalog.<) $9"
		" AND (pipeline OPERATOR(pg_catalog.||) '') OPERATOR(pg_catalog.=) $1"
		" AND (topic OPERATOR(pg_catalog.||) '') OPERATOR(pg_catalog.=) $2"
		" AND (partition OPERATOR(pg_catalog.+) 0) OPERATOR(pg_catalog.=) $3 RETURNING ctid",
		9, {TEXTOID, TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID, INT8OID, TIDOID, TIDOID},
		.no_seqscan = true
	};
	Datum		values[9];
	char		nulls[] = "         ";
	ItemPointerData first;
	ItemPointerData end;

	ItemPointerSet(&first, *move->place, 0);
	ItemPointerSet(&end, *move->place + 1, 0);
	move_values(pipeline, move, values, nulls);
	values[7] = PointerGetDatum(&first);
	values[8] = PointerGetDatum(&end);
	return note_place(move, catalog_run(&query, values, nulls, false, SPI_OK_UPDATE_RETURNING));
}

/* One partition at a time, by far the most frequent case: without arrays to make and unnest. */
bool
catalog_offsets_move(const char *pipeline, const OffsetMove *moves, int nmoves)
{
	for (int i = 0; i < nmoves; i++)
	{
		const OffsetMove *move = &moves[i];
		bool		placed = move->place && BlockNumberIsValid(*move->place);

		/* it may have moved: by nexus_seek, VACUUM FULL, or a transaction that was rolled back */
		if (!(placed && move_in_place(pipeline, move)) && !move_by_key(pipeline, move))
			return false;
	}
	return true;
}
