/*
 * guard.h
 *		While a statement has the rights of a superuser, or of a role that is as good as
 *		one, nothing that belongs to anybody else runs or is planned.
 *
 * hooks.c	on and off, and the places where PostgreSQL asks
 * walk.c	what a query, a relation or a type would run: is it all of trusted owners?
 * trust.c	which owners are trusted, and what is said of the others
 */
#ifndef NEXUS_GUARD_H
#define NEXUS_GUARD_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "utils/rel.h"

#include "compat.h"

/* ---- hooks.c ---- */

/* Whom it guards; role and powers are trust.c's. */
typedef struct Guard
{
	bool		on;
	Oid			role;
	int			powers;
} Guard;

/*
 * From before the statement is prepared until its transaction has ended. Does nothing for
 * a role without such rights. With replan, what is cached of plans is made anew: something
 * else ran in this process before, with no guard. A guarded statement may make a pipeline,
 * the statement of which is planned then: guard_end() goes back to what guard_begin() found.
 */
extern Guard guard_begin(Oid role, bool replan);
extern void guard_end(const Guard *before);

/* ---- walk.c: each raises (42501) where something isn't of a trusted owner ---- */
typedef struct GuardedFunction
{
	bool		is_volatile;
	bool		reads_anything; /* isn't volatile, but runs queries with the caller's rights */
	bool		is_fixed;		/* C: a pointer to it calls the same code, whoever owns it now */
	bool		is_sql;
} GuardedFunction;

extern GuardedFunction guard_check_function(Oid function);
extern void guard_check_call(Oid function);
extern void guard_check_expression(Node *expression);
extern void guard_check_query(Query *query);
extern void guard_check_plan(const PlannedStmt *plan);
extern void guard_check_relation(Oid relation, bool written);
extern void guard_watch_changes(void);

/* ---- trust.c ---- */

/* Whose rights the statement has. False: there is nothing to guard. */
extern bool trust_begin(Oid role);
extern void trust_save(Guard *guard);
extern void trust_restore(const Guard *guard);
extern bool trust_owner(Oid owner);
extern uint64 trust_generation(void);	/* another one: roles were changed */

pg_noreturn extern void refuse_owner(const char *kind, const char *name, Oid owner);
pg_noreturn extern void refuse_condition(const char *trigger, const char *table, Oid owner, const char *function);
pg_noreturn extern void refuse_unknown_call(const char *function);
pg_noreturn extern void refuse_held_cursor(const char *cursor);

#endif							/* NEXUS_GUARD_H */
