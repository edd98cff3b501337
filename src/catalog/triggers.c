/*
 * triggers.c
 *		Who may put a trigger on the extension's tables: their owner.
 *
 * Our own queries have the owner's rights (query.c), and so has what a trigger runs in them:
 * its function, with arguments, and its WHEN clause, which may call anything. For PostgreSQL
 * the right TRIGGER is enough to make one, or to replace one of ours, and GRANT ALL gives it.
 * PostgreSQL doesn't keep who made a trigger, so that is asked when one is made.
 */
#include "nexus_kafka.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "catalog/tables.h"
#include "compat.h"

/* InvalidOid: there is no such trigger. Its row was written by this very command. */
static Oid
table_of(Oid trigger)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key[1];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			table = InvalidOid;

	ScanKeyInit(&key[0], Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(trigger));
	scan = systable_beginscan(triggers, TriggerOidIndexId, true, SnapshotSelf, 1, key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		table = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return table;
}

void
catalog_check_new_trigger(Oid trigger)
{
	Oid			table = table_of(trigger);
	Oid			extension = OidIsValid(table) ? getExtensionOfObject(RelationRelationId, table) : InvalidOid;

	if (!OidIsValid(extension) || extension != get_extension_oid(NEXUS_EXTENSION, true) ||
		object_ownercheck(RelationRelationId, table, GetUserId()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of table \"%s\" to make a trigger on it", get_rel_name(table)),
			 errdetail("Extension %s runs it with the rights of the table's owner.", NEXUS_EXTENSION)));
}
