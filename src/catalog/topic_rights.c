/*
 * topic_rights.c
 *		nexus_topic_rights: which roles may produce to which topics.
 *
 * A topic is a name, or the beginning of names and an asterisk, and one of a
 * connection; an asterisk is all of these. Roles are kept by their oid, so that a
 * renamed one keeps its rights, and one that is made later under the name of a
 * dropped one has none.
 */
#include "nexus_kafka.h"

#include "catalog/pg_type.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "catalog/tables.h"

bool
catalog_may_produce(Oid role, const char *topic, const char *connection)
{
	static CatalogQuery query = {
		"SELECT role FROM @nexus_topic_rights WHERE (topic OPERATOR(pg_catalog.=) $1"
		" OR (pg_catalog.right(topic, 1) OPERATOR(pg_catalog.=) '*'"
		" AND pg_catalog.starts_with($1, pg_catalog.left(topic, -1))))"
		" AND connection OPERATOR(pg_catalog.=) ANY (ARRAY[$2, '*'])",
		2, {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {CStringGetTextDatum(topic), CStringGetTextDatum(connection)};
	uint64		n;

	if (has_privs_of_role(role, catalog_owner()))
		return true;
	n = catalog_run(&query, values, NULL, true, SPI_OK_SELECT);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		allowed = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (has_privs_of_role(role, DatumGetObjectId(allowed)))
			return true;
	}
	return false;
}
