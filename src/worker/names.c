/*
 * names.c
 *		Sets of names, for the time of a transaction; and how a name looks in a log line.
 */
#include "nexus_kafka.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "worker/worker.h"

/* It lives as long as the transaction: who keeps it sets it to NULL at its end. */
void
name_set_add(HTAB **set, const char *name)
{
	HASHCTL		control = {.keysize = NAMEDATALEN, .entrysize = NAMEDATALEN, .hcxt = TopTransactionContext};
	char		key[NAMEDATALEN];

	if (*set == NULL)
		*set = hash_create("nexus_kafka names", 16, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	strlcpy(key, name, NAMEDATALEN);
	(void) hash_search(*set, key, HASH_ENTER, NULL);
}

bool
name_set_has(HTAB *set, const char *name)
{
	return set && hash_search(set, name, HASH_FIND, NULL) != NULL;
}

/*
 * In a line of the log, and wherever else a text is one line, a control character
 * could begin another one, or hide what stands before it.
 */
void
make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text < ' ' || *text == '\177')
			*text = ' ';
}
