/*
 * synchronous.c
 *		Is what was committed where a failover finds it?
 *
 * A client's commit waits for the synchronous standbys before others see its rows. The
 * workers' own commits don't (synchronous_commit is off there, or it would be a wait in
 * each batch), nor does one whose session has turned it off or whose wait was cancelled.
 * So before anything leaves the database for good, a message or an answer, this is asked.
 *
 * SyncRepWaitForLSN() would not do: cancelled, it returns without the standbys having
 * anything. So the walsenders' note of what is confirmed is read, and whoever has to wait
 * does something else meanwhile.
 */
#include "nexus_kafka.h"

#include "access/xlog.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"

#include "worker/worker.h"

XLogRecPtr
commits_seen(void)
{
	return GetFlushRecPtr(NULL);
}

static bool
standbys_are_waited_for(void)
{
	return max_wal_senders > 0 && SyncRepStandbyNames && SyncRepStandbyNames[0];
}

bool
commit_is_safe(XLogRecPtr lsn)
{
	XLogRecPtr	confirmed;

	XLogFlush(lsn);
	if (!standbys_are_waited_for())
		return true;
	LWLockAcquire(SyncRepLock, LW_SHARED);
	confirmed = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return lsn <= confirmed;
}
