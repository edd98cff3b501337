/*
 * guarded_palloc.h
 *		Included before each source under the sanitizers: behind each chunk that it gets from
 *		a memory context lies a zone that it may not touch (guarded_palloc.c). A block of a
 *		memory context has many chunks side by side, and one that runs into the next would go
 *		unseen.
 *
 * PostgreSQL's own headers declare the functions by these names then.
 */
#ifndef GUARDED_PALLOC_H
#define GUARDED_PALLOC_H

#define palloc					guarded_palloc
#define palloc0					guarded_palloc0
#define palloc_extended			guarded_palloc_extended
#define repalloc				guarded_repalloc
#define repalloc_huge			guarded_repalloc_huge
#define pfree					guarded_pfree
#define pstrdup					guarded_pstrdup
#define pnstrdup				guarded_pnstrdup
#define MemoryContextAlloc		guarded_MemoryContextAlloc
#define MemoryContextAllocZero	guarded_MemoryContextAllocZero
#define MemoryContextStrdup		guarded_MemoryContextStrdup

#endif							/* GUARDED_PALLOC_H */
