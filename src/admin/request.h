/*
 * request.h
 *		Asking a worker for something and waiting for it (nexus_flush, nexus_consume).
 */
#ifndef NEXUS_REQUEST_H
#define NEXUS_REQUEST_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "worker/worker.h"

/* When the timeout, which must not be negative, ends; raises 22023. */
extern TimestampTz request_deadline(Interval *timeout);

/* Raises 55000 where no worker can run at all: not preloaded, a standby. */
extern void request_check_possible(const char *function);

/* How many workers the pipeline has; raises 42704 if there is no such pipeline. */
extern int	request_check_pipeline(FunctionCallInfo fcinfo, const char *name);

/* Asks the job's worker; false if the time passed, or nobody does the job any more. */
extern bool request_and_wait(Job *job, TimestampTz deadline);

/* False if the job can't go on without a person, so that waiting is vain. */
extern bool request_is_hopeless(Job *job);

#endif							/* NEXUS_REQUEST_H */
