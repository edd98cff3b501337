/*
 * triage.c
 *		What kind of error it is, by its SQLSTATE (design: ingest).
 */
#include "nexus_kafka.h"

#include "ingest/ingest.h"

typedef struct ClassKind
{
	char		class[3];
	ErrorKind	kind;
} ClassKind;

static const ClassKind known_classes[] = {
	{"21", ERROR_OF_DATA},		/* cardinality violation */
	{"22", ERROR_OF_DATA},		/* data exception */
	{"23", ERROR_OF_DATA},		/* integrity constraint violation */
	{"27", ERROR_OF_DATA},		/* triggered data change violation */
	{"2F", ERROR_OF_DATA},		/* SQL routine exception */
	{"38", ERROR_OF_DATA},		/* external routine exception */
	{"39", ERROR_OF_DATA},		/* external routine invocation exception */
	{"44", ERROR_OF_DATA},		/* WITH CHECK OPTION violation */
	{"54", ERROR_OF_DATA},		/* program limit exceeded */
	{"P0", ERROR_OF_DATA},		/* PL/pgSQL: raised by the user's code */
	{"08", ERROR_OF_ENVIRONMENT},	/* connection exception */
	{"40", ERROR_OF_ENVIRONMENT},	/* transaction rollback */
	{"53", ERROR_OF_ENVIRONMENT},	/* insufficient resources */
	{"55", ERROR_OF_ENVIRONMENT},	/* object not in prerequisite state */
	{"57", ERROR_OF_ENVIRONMENT},	/* operator intervention */
	{"58", ERROR_OF_ENVIRONMENT},	/* system error */
};

ErrorKind
triage(int sqlstate)
{
	const char *text = unpack_sql_state(sqlstate);

	for (int i = 0; i < lengthof(known_classes); i++)
		if (strncmp(text, known_classes[i].class, 2) == 0)
			return known_classes[i].kind;
	return ERROR_AMBIGUOUS;
}
