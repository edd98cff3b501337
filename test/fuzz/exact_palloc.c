/*
 * exact_palloc.c
 *		See exact_palloc.h.
 */
#include "exact_palloc.h"

#include "utils/memutils.h"

static void **chunks;
static int	nchunks;
static int	maxchunks;

static void *
must_have(void *memory)
{
	if (memory == NULL)
		abort();
	return memory;
}

void *
exact_palloc(Size size)
{
	/* as PostgreSQL's own would raise */
	if (!AllocSizeIsValid(size))
		elog(ERROR, "invalid memory alloc request size %zu", size);
	if (nchunks == maxchunks)
	{
		maxchunks = maxchunks ? maxchunks * 2 : 64;
		chunks = must_have(realloc(chunks, maxchunks * sizeof(void *)));
	}
	return chunks[nchunks++] = must_have(malloc(size));
}

void *
exact_repalloc(void *chunk, Size size)
{
	int			i = nchunks - 1;

	while (i > 0 && chunks[i] != chunk)
		i--;
	return chunks[i] = must_have(realloc(chunk, size));
}

void
exact_reset(void)
{
	while (nchunks > 0)
		free(chunks[--nchunks]);
}
