/*
 * row_lock.c
 *		Has another transaction locked a row, or changed it since it was read?
 *
 * Looks only: it neither waits nor locks, so it writes nothing. Where the tables are made
 * by another access method than heap (default_table_access_method), it knows of no lock.
 */
#include "nexus_kafka.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog/tables.h"

bool
catalog_row_is_held(Oid table, ItemPointer row)
{
	Relation	relation = table_open(table, AccessShareLock);
	HeapTupleData tuple = {.t_self = *row};
	Buffer		buffer;
	bool		is_heap = relation->rd_tableam == GetHeapamTableAmRoutine();
	bool		held = is_heap;

	if (is_heap && heap_fetch(relation, SnapshotAny, &tuple, &buffer, false))
	{
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		held = HeapTupleSatisfiesUpdate(&tuple, GetCurrentCommandId(false), buffer) != TM_Ok;
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		ReleaseBuffer(buffer);
	}
	table_close(relation, AccessShareLock);
	return held;
}
