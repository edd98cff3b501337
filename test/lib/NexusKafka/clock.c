/*
 * clock.c
 *		The time of day as a test wants it, for all processes that load this before libc.
 *
 * Microseconds in a file are added to the time of day. The monotonic clock stays true, as
 * it does when somebody sets a real clock; a wait until a time of day (librdkafka's are
 * such) lasts as long as it would then: longer when the clock is set back meanwhile.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 50000000		/* of a wait, after which the file is read again */

static const volatile int64_t *shift;

__attribute__((constructor)) static void
map_shift(void)
{
	const char *path = getenv("NEXUS_TEST_CLOCK");
	int			fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map = fd >= 0 ? mmap(NULL, sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (map != MAP_FAILED)
		shift = map;
}

static void
add_ns(struct timespec *ts, int64_t ns)
{
	int64_t		whole = ts->tv_nsec + ns % 1000000000;

	ts->tv_sec += ns / 1000000000 + (whole >= 1000000000) - (whole < 0);
	ts->tv_nsec = (whole + 1000000000) % 1000000000;
}

static int
earlier(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = syscall(SYS_clock_gettime, clock, ts);

	if (result == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		add_ns(ts, *shift * 1000);
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *to)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (to)
		*to = ts.tv_sec;
	return ts.tv_sec;
}

int
timespec_get(struct timespec *ts, int base)
{
	return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, ts) == 0 ? base : 0;
}

int
cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
	static int	(*wait) (cnd_t *, mtx_t *, const struct timespec *);

	if (wait == NULL)
		*(void **) &wait = dlsym(RTLD_NEXT, "cnd_timedwait");
	for (;;)
	{
		struct timespec now;
		struct timespec slice;
		int			result;

		clock_gettime(CLOCK_REALTIME, &now);
		slice = now;
		add_ns(&slice, SLICE_NS);
		if (earlier(until, &slice))
			slice = *until;
		if (shift)
			add_ns(&slice, -*shift * 1000);
		result = wait(condition, mutex, &slice);
		if (result != thrd_timedout)
			return result;
		clock_gettime(CLOCK_REALTIME, &now);
		if (!earlier(&now, until))
			return result;
	}
}
