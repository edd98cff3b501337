/*
 * pause.c
 *		Holds a process up between two of its steps, for all processes that load this
 *		before libc: where it finds by strcmp that a string is NEXUS_TEST_PAUSE_NAME.
 *
 * The file NEXUS_TEST_PAUSE has the process's id. While it is there each such comparison
 * takes a second longer.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *name;
static const char *path;

__attribute__((constructor)) static void
read_environment(void)
{
	const char *wanted = getenv("NEXUS_TEST_PAUSE_NAME");
	const char *file = getenv("NEXUS_TEST_PAUSE");

	/* a server's process writes its title over its environment */
	name = wanted ? strdup(wanted) : NULL;
	path = file ? strdup(file) : NULL;
}

static int
compare(const char *a, const char *b)
{
	while (*a && *a == *b)
	{
		a++;
		b++;
	}
	return (unsigned char) *a - (unsigned char) *b;
}

static void
pause_if_wanted(void)
{
	FILE	   *file = fopen(path, "re");
	int			pid = 0;

	if (file == NULL)
		return;
	if (fscanf(file, "%d", &pid) == 1 && pid == (int) getpid())
		sleep(1);
	fclose(file);
}

int
strcmp(const char *a, const char *b)
{
	int			result = compare(a, b);

	if (result == 0 && name && path && compare(a, name) == 0)
		pause_if_wanted();
	return result;
}
