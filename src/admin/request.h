/*
 * request.h
 *		Asking a worker for something and waiting for it (nexus_flush, nexus_consume).
 */
#ifndef NEXUS_REQUEST_H
#define NEXUS_REQUEST_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "catalog/tables.h"
#include "worker/worker.h"

#define HALTED_REASON	"this database was restored from a dump or copied from another: nexus_resume() makes it run"

/* Restored from a dump, or copied: nothing runs here (HALTED_REASON). */
extern bool request_database_is_halted(void);

/* Asks the job's worker; false if the time passed, or nobody does the job any more. */
extern bool request_and_wait(Job *job, MonoTime deadline);

#endif							/* NEXUS_REQUEST_H */
