/*
 * tap.h
 *		The few lines of TAP that the unit tests need.
 */
#ifndef NEXUS_TAP_H
#define NEXUS_TAP_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int	tap_count = 0;
static int	tap_failed = 0;

static inline bool
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++tap_count, name);
	fflush(stdout);
	if (!passed)
		tap_failed++;
	return passed;
}

static inline bool
is_int(long got, long expected, const char *name)
{
	if (got != expected)
		printf("# got %ld, expected %ld\n", got, expected);
	return ok(got == expected, name);
}

static inline bool
is_string(const char *got, const char *expected, const char *name)
{
	if (strcmp(got, expected) != 0)
		printf("# got \"%s\", expected \"%s\"\n", got, expected);
	return ok(strcmp(got, expected) == 0, name);
}

static inline int
done_testing(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed ? 1 : 0;
}

#endif							/* NEXUS_TAP_H */
