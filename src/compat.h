/*
 * compat.h
 *		The only place with tests of PostgreSQL's version: newer names for older servers.
 */
#ifndef NEXUS_COMPAT_H
#define NEXUS_COMPAT_H

#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_tablespace.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/memutils.h"

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

#if PG_VERSION_NUM < 160000
static inline bool
object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	if (classid == DatabaseRelationId)
		return pg_database_ownercheck(objectid, roleid);
	if (classid == RelationRelationId)
		return pg_class_ownercheck(objectid, roleid);
	Assert(classid == ExtensionRelationId);
	return pg_extension_ownercheck(objectid, roleid);
}

static inline AclResult
object_aclcheck(Oid classid, Oid objectid, Oid roleid, AclMode mode)
{
	if (classid == TableSpaceRelationId)
		return pg_tablespace_aclcheck(objectid, roleid, mode);
	if (classid == DatabaseRelationId)
		return pg_database_aclcheck(objectid, roleid, mode);
	Assert(classid == ProcedureRelationId);
	return pg_proc_aclcheck(objectid, roleid, mode);
}
#endif

#define NEXUS_HAS_TRANSACTION_TIMEOUT	(PG_VERSION_NUM >= 170000)

/* Before, a role with CREATEROLE could give itself any other, but a superuser. */
#define NEXUS_CREATEROLE_GRANTS_ANY	(PG_VERSION_NUM < 160000)

/* Since it has variants with bounds, the generated name of the one without says that it has no arguments. */
#if PG_VERSION_NUM >= 170000
#define F_RANDOM	F_RANDOM_
#endif

/* Transactions before it have no commit record to look up any more. */
#if PG_VERSION_NUM >= 170000
#define NexusOldestClogXid	(TransamVariables->oldestClogXid)
#else
#define NexusOldestClogXid	(ShmemVariableCache->oldestClogXid)
#endif

static inline WaitEventSet *
nexus_create_wait_event_set(int nevents)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, nevents);
#else
	return CreateWaitEventSet(TopMemoryContext, nevents);
#endif
}

#endif							/* NEXUS_COMPAT_H */
