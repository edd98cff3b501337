/*
 * asking.c
 *		May a backend ask a worker for something, and until when does it wait?
 */
#include "nexus_kafka.h"

#include "access/xlog.h"

#include "worker/worker.h"

MonoTime
worker_deadline(Interval *timeout)
{
	int64		ms = timeout->time / 1000 +
		(timeout->day + (int64) timeout->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000;

	if (ms < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return mono_now() + Min(ms, INT64CONST(86400000) * 365) * 1000;
}

void
worker_check_possible(const char *function)
{
	if (nexus_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() needs nexus_kafka's workers, and they don't run", function),
				 errdetail("nexus_kafka is not in shared_preload_libraries."),
				 errhint("Add nexus_kafka to shared_preload_libraries and restart the server.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s() can't be used on a standby", function),
				 errhint("Call it on the primary, where nexus_kafka's workers run.")));
}
