/*
 * guarded_palloc.c
 *		What guarded_palloc.h puts in the place of palloc and its like. Preloaded into the
 *		server, which has the functions that these call.
 *
 * The zone behind a chunk is poisoned until the chunk is freed by one of ours, or its context
 * is reset. A chunk must be one that PostgreSQL can free, so nothing lies before it. What
 * PostgreSQL frees of ours would leave a zone poisoned: it does that to none so far.
 */
#include "postgres.h"

#include <sanitizer/asan_interface.h>

#include "utils/memutils.h"

#define ZONE		16
#define WITH_ZONE(size)	(MAXALIGN(size) + ZONE)

typedef struct Guard
{
	MemoryContextCallback callback;
	char	   *zone;
	Size		size;
} Guard;

extern void *guarded_palloc(Size size);
extern void *guarded_palloc0(Size size);
extern void *guarded_palloc_extended(Size size, int flags);
extern void *guarded_repalloc(void *chunk, Size size);
extern void *guarded_repalloc_huge(void *chunk, Size size);
extern void guarded_pfree(void *chunk);
extern char *guarded_pstrdup(const char *text);
extern char *guarded_pnstrdup(const char *text, Size len);
extern void *guarded_MemoryContextAlloc(MemoryContext context, Size size);
extern void *guarded_MemoryContextAllocZero(MemoryContext context, Size size);
extern char *guarded_MemoryContextStrdup(MemoryContext context, const char *text);

static void
open_zone(void *arg)
{
	Guard	   *guard = arg;

	__asan_unpoison_memory_region(guard->zone, guard->size);
}

static void *
guard(void *chunk, Size size)
{
	MemoryContext context;
	Guard	   *guard;

	if (chunk == NULL)
		return NULL;
	context = GetMemoryChunkContext(chunk);
	guard = MemoryContextAlloc(context, sizeof(Guard));
	guard->zone = (char *) chunk + size;
	guard->size = WITH_ZONE(size) - size;
	__asan_poison_memory_region(guard->zone, guard->size);
	guard->callback.func = open_zone;
	guard->callback.arg = guard;
	MemoryContextRegisterResetCallback(context, &guard->callback);
	return chunk;
}

/* Its guard stays until the context is reset; what it opens then goes with the context. */
static void
unguard(void *chunk)
{
	__asan_unpoison_memory_region(chunk, GetMemoryChunkSpace(chunk) - sizeof(uint64));
}

static void
check_size(Size size, int flags)
{
	if (!AllocSizeIsValid(size) && !(flags & MCXT_ALLOC_HUGE))
		elog(ERROR, "invalid memory alloc request size %zu", size);
}

/* In the current context if none is given. */
static void *
allocate(MemoryContext context, Size size, int flags)
{
	check_size(size, flags);
	flags |= MCXT_ALLOC_HUGE;
	return guard(context ? MemoryContextAllocExtended(context, WITH_ZONE(size), flags)
				 : palloc_extended(WITH_ZONE(size), flags), size);
}

static char *
copy(MemoryContext context, const char *text, Size len)
{
	char	   *copy = allocate(context, len + 1, 0);

	memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

void *
guarded_palloc(Size size)
{
	return allocate(NULL, size, 0);
}

void *
guarded_palloc0(Size size)
{
	return allocate(NULL, size, MCXT_ALLOC_ZERO);
}

void *
guarded_palloc_extended(Size size, int flags)
{
	return allocate(NULL, size, flags);
}

void *
guarded_repalloc_huge(void *chunk, Size size)
{
	unguard(chunk);
	return guard(repalloc_huge(chunk, WITH_ZONE(size)), size);
}

void *
guarded_repalloc(void *chunk, Size size)
{
	check_size(size, 0);
	return guarded_repalloc_huge(chunk, size);
}

void
guarded_pfree(void *chunk)
{
	unguard(chunk);
	pfree(chunk);
}

char *
guarded_pstrdup(const char *text)
{
	return copy(NULL, text, strlen(text));
}

char *
guarded_pnstrdup(const char *text, Size len)
{
	return copy(NULL, text, strnlen(text, len));
}

void *
guarded_MemoryContextAlloc(MemoryContext context, Size size)
{
	return allocate(context, size, 0);
}

void *
guarded_MemoryContextAllocZero(MemoryContext context, Size size)
{
	return allocate(context, size, MCXT_ALLOC_ZERO);
}

char *
guarded_MemoryContextStrdup(MemoryContext context, const char *text)
{
	return copy(context, text, strlen(text));
}
