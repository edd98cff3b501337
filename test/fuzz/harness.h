/*
 * harness.h
 *		What the targets that run in a backend share; harness.c runs them.
 */
#ifndef FUZZ_HARNESS_H
#define FUZZ_HARNESS_H

#include "postgres.h"

#include "utils/jsonb.h"

/* ---- targets: each handles one input, in a memory context that is reset afterwards ---- */

extern void fuzz_contract(const uint8 *data, size_t size);
extern void fuzz_headers(const uint8 *data, size_t size);
extern void fuzz_messages(const uint8 *data, size_t size);

/* ---- findings ---- */

/* What doesn't hold is a finding: the input is kept, and the process ends. */
#define expect(holds, ...) \
	do { if (!(holds)) finding(__VA_ARGS__); } while (0)

pg_attribute_noreturn() extern void finding(const char *text,...) pg_attribute_printf(1, 2);

/* Runs body(arg); false if it raised what it may. Anything else that it raises is a finding. */
extern bool passes(void (*body) (void *), void *arg, bool (*may_raise) (int sqlstate));

extern bool nothing(int sqlstate);

extern bool too_deep(int sqlstate);

/* What makes a message a dead letter. */
extern bool error_of_data(int sqlstate);

/* ---- bytes as PostgreSQL's values, and back ---- */

/* A copy with nothing behind it that may be read, but for a zero byte if terminated. */
extern char *exact_copy(const void *data, size_t size, bool terminated);

/* Raises as jsonb's input does, where it isn't UTF-8 too. */
extern Jsonb *jsonb_of_text(const char *text, size_t size);
extern char *text_of_jsonb(Jsonb *jsonb);
extern bool same_jsonb(Jsonb *a, Jsonb *b);

/* It can be walked, printed, and read again as the same. */
extern void expect_sound(Jsonb *jsonb);

#endif							/* FUZZ_HARNESS_H */
