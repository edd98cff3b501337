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

/* How many workers the pipeline has; raises 42704 if there is no such pipeline. */
extern int	request_check_pipeline(FunctionCallInfo fcinfo, const char *name);

/* Asks the job's worker; false if the time passed, or nobody does the job any more. */
extern bool request_and_wait(Job *job, TimestampTz deadline);

#endif							/* NEXUS_REQUEST_H */
