/*
 * exact_palloc.h
 *		Included before the sources under test: what they allocate is malloc'd, so that
 *		AddressSanitizer sees where it ends. A block of a memory context has many chunks
 *		side by side, and one that runs into the next goes unseen.
 *
 * Only for sources that give no such memory to PostgreSQL to free or to enlarge.
 */
#ifndef FUZZ_EXACT_PALLOC_H
#define FUZZ_EXACT_PALLOC_H

#include "postgres.h"

extern void *exact_palloc(Size size);
extern void *exact_repalloc(void *chunk, Size size);

/* Frees all of it. */
extern void exact_reset(void);

#define palloc(size)				exact_palloc(size)
#define repalloc_huge(chunk, size)	exact_repalloc(chunk, size)

#endif							/* FUZZ_EXACT_PALLOC_H */
