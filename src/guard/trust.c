/*
 * trust.c
 *		Which owners are trusted with the rights of a guarded statement.
 *
 * A role that is as good as a superuser has one or more powers by which it can become
 * one. An owner is trusted who has all the powers of the statement's role, or is that
 * role: such an owner gains nothing by code that runs with them. So for a superuser's
 * statement only superusers are; for that of a role that may write the server's files,
 * those who may do so too.
 */
#include "nexus_kafka.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "guard/guard.h"

typedef enum Power
{
	POWER_SUPERUSER = 1 << 0,
	POWER_OVER_SUPERUSER = 1 << 1,	/* a member of one: may alter what is his */
	POWER_EXECUTE_PROGRAM = 1 << 2,
	POWER_WRITE_FILES = 1 << 3,
	POWER_READ_FILES = 1 << 4,	/* those with the passwords and keys, too */
	POWER_GRANT_ROLES = 1 << 5, /* the ones above, to anybody */
	POWER_ALL = (1 << 6) - 1
} Power;

typedef struct RolePowers
{
	Oid			role;			/* hash key */
	int			powers;
} RolePowers;

static HTAB *known_powers = NULL;
static bool roles_changed = false;
static uint64 generation = 0;
static Oid	guarded_role = InvalidOid;
static int	guarded_powers = 0;

static void
note_change(Datum arg, int cache, uint32 hash)
{
	roles_changed = true;
}

static HTAB *
powers_table(void)
{
	if (known_powers == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid), .entrysize = sizeof(RolePowers)};

		known_powers = hash_create("nexus_kafka powers of roles", 32, &control, HASH_ELEM | HASH_BLOBS);
		CacheRegisterSyscacheCallback(AUTHOID, note_change, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_change, (Datum) 0);
	}
	return known_powers;
}

static void
forget_changed(void)
{
	HASH_SEQ_STATUS status;
	RolePowers *entry;

	if (!roles_changed)
		return;
	roles_changed = false;
	generation++;
	hash_seq_init(&status, powers_table());
	while ((entry = hash_seq_search(&status)) != NULL)
		(void) hash_search(powers_table(), &entry->role, HASH_REMOVE, NULL);
}

uint64
trust_generation(void)
{
	forget_changed();
	return generation;
}

/*
 * Membership is what counts, inherited or not: an object may be given to any role that its
 * owner is a member of, and a SECURITY DEFINER function has that role's rights then.
 */
static bool
is_member_of_a_superuser(Oid role)
{
	Relation	roles = table_open(AuthIdRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(roles, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		has = false;

	while (!has && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_authid other = (Form_pg_authid) GETSTRUCT(tuple);

		has = other->rolsuper && is_member_of_role(role, other->oid);
	}
	systable_endscan(scan);
	table_close(roles, AccessShareLock);
	return has;
}

static bool
grants_roles(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		grants = false;

	if (HeapTupleIsValid(tuple))
	{
		grants = NEXUS_CREATEROLE_GRANTS_ANY && ((Form_pg_authid) GETSTRUCT(tuple))->rolcreaterole;
		ReleaseSysCache(tuple);
	}
	return grants;
}

static int
find_powers(Oid role)
{
	int			powers = 0;

	if (superuser_arg(role))
		return POWER_ALL;
	if (is_member_of_a_superuser(role))
		powers |= POWER_OVER_SUPERUSER;
	if (is_member_of_role(role, ROLE_PG_EXECUTE_SERVER_PROGRAM))
		powers |= POWER_EXECUTE_PROGRAM;
	if (is_member_of_role(role, ROLE_PG_WRITE_SERVER_FILES))
		powers |= POWER_WRITE_FILES;
	if (is_member_of_role(role, ROLE_PG_READ_SERVER_FILES))
		powers |= POWER_READ_FILES;
	if (grants_roles(role))
		powers |= POWER_GRANT_ROLES;
	return powers;
}

static int
powers_of(Oid role)
{
	RolePowers *entry;
	int			powers;

	forget_changed();
	entry = hash_search(powers_table(), &role, HASH_FIND, NULL);
	if (entry)
		return entry->powers;
	powers = find_powers(role);
	entry = hash_search(powers_table(), &role, HASH_ENTER, NULL);
	entry->powers = powers;
	return powers;
}

bool
trust_begin(Oid role)
{
	guarded_role = role;
	guarded_powers = powers_of(role);
	return guarded_powers != 0;
}

/* Asks no catalog: it is called in a failed transaction, too. */
void
trust_save(Guard *guard)
{
	guard->role = guarded_role;
	guard->powers = guarded_powers;
}

void
trust_restore(const Guard *guard)
{
	guarded_role = guard->role;
	guarded_powers = guard->powers;
}

bool
trust_owner(Oid owner)
{
	return owner == guarded_role || (guarded_powers & ~powers_of(owner)) == 0;
}

/* ---- what is said of the others ---- */

static char *
whose_rights(void)
{
	const char *name = GetUserNameFromId(guarded_role, true);

	return psprintf(guarded_powers == POWER_ALL ? "superuser \"%s\"" : "\"%s\", who is as good as a superuser",
					name ? name : "?");
}

void
refuse_owner(const char *kind, const char *name, Oid owner)
{
	const char *found = GetUserNameFromId(owner, true);
	const char *owner_name = found ? found : "a role that is gone";

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the pipeline runs as %s, but %s \"%s\" belongs to \"%s\"", whose_rights(), kind, name, owner_name),
			 errdetail("Its owner would get those rights by it."),
			 errhint("Let the pipeline run as its owner, with the option run_as: nexus_alter_pipeline(name, options => '{\"run_as\": \"%s\"}')",
					 owner_name)));
}

/* A trigger has no owner: whoever has the right TRIGGER may have made it. */
void
refuse_condition(const char *trigger, const char *table, Oid owner, const char *function)
{
	const char *owner_name = GetUserNameFromId(owner, true);

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the pipeline runs as %s, but the condition of trigger \"%s\" on table \"%s\" of \"%s\" calls function \"%s\"",
					whose_rights(), trigger, table, owner_name ? owner_name : "?", function),
			 errdetail("The function is volatile or runs queries: whoever may make triggers on the table would get those rights by it."),
			 errhint("Call it in the trigger's function, or let the pipeline run as another role, with the option run_as.")));
}

void
refuse_unknown_call(const char *function)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the pipeline runs as %s, but volatile function \"%s\" is called by something whose owner isn't known",
					whose_rights(), function),
			 errdetail("No query, table or domain calls it that belongs to somebody with those rights."),
			 errhint("Call it in a query of a function, or let the pipeline run as another role, with the option run_as.")));
}

void
refuse_held_cursor(const char *cursor)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the pipeline runs as %s, but cursor \"%s\" of \"%s\" is to outlive the transaction", whose_rights(),
					cursor, GetUserNameFromId(GetUserId(), false)),
			 errdetail("Its query would run with those rights when the transaction commits."),
			 errhint("Declare the cursor without WITH HOLD, or let the pipeline run as another role, with the option run_as.")));
}
