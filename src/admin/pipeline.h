/*
 * pipeline.h
 *		Making and changing pipelines: what the files of it share.
 *
 * pipeline_functions.c	nexus_create_pipeline(), nexus_alter_pipeline(), nexus_drop_pipeline()
 * options.c	the table of options
 * statement.c	is the statement one that can take messages in?
 * steer.c		nexus_pause(), nexus_resume(), nexus_seek()
 */
#ifndef NEXUS_PIPELINE_H
#define NEXUS_PIPELINE_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

#include "catalog/tables.h"
#include "compat.h"

/* ---- pipeline_functions.c ---- */

/* Raise 42704 if there is none of that name. Locked: its row, until the transaction ends. */
extern Pipeline *pipeline_find(const char *name);
extern Pipeline *pipeline_lock(const char *name);

/* ---- options.c ---- */
extern void pipeline_set_defaults(Pipeline *pipeline);

/* Raises 22023 for an option that isn't one, with a list of those that are, or for a bad value. */
extern void pipeline_set_options(Pipeline *pipeline, Jsonb *given);

/* ---- statement.c ---- */

/* Raises what PostgreSQL says of it, with the position; 42601 if it can't be a pipeline's statement. */
extern void statement_check(const char *statement);

#endif							/* NEXUS_PIPELINE_H */
