/*
 * clock.h
 *		The clock that deadlines go by: monotonic, so nobody's setting of the time moves them.
 *
 * Timestamps (TimestampTz) are for people and for Kafka's messages only. A MonoTime is of
 * this process and machine: it is neither stored nor shown. 0 is before all of them, and
 * stands for "none" where a field says so.
 */
#ifndef NEXUS_CLOCK_H
#define NEXUS_CLOCK_H

#include "postgres.h"

#include <time.h>

typedef int64 MonoTime;			/* microseconds */

static inline MonoTime
mono_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (MonoTime) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline MonoTime
mono_after_ms(MonoTime time, int64 ms)
{
	return time + ms * 1000;
}

static inline MonoTime
mono_in_ms(int64 ms)
{
	return mono_after_ms(mono_now(), ms);
}

/* Rounded up, so that who sleeps so long doesn't wake too early; 0 where it has passed. */
static inline long
mono_ms_between(MonoTime now, MonoTime when)
{
	return when <= now ? 0 : (long) Min((when - now + 999) / 1000, PG_INT32_MAX);
}

static inline long
mono_ms_until(MonoTime when)
{
	return mono_ms_between(mono_now(), when);
}

#endif							/* NEXUS_CLOCK_H */
