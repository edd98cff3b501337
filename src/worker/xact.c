/*
 * xact.c
 *		A worker's transaction, with its error caught.
 *
 * Nothing here waits for the network, and nothing of Kafka runs inside one.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

#define SECURE_SEARCH_PATH "pg_catalog, pg_temp"

void
worker_secure_search_path(void)
{
	if (strcmp(namespace_search_path, SECURE_SEARCH_PATH) != 0)
		SetConfigOption("search_path", SECURE_SEARCH_PATH, PGC_SUSET, PGC_S_SESSION);
}

/*
 * A transaction block, as a client's BEGIN makes one: distributed PostgreSQL
 * commits single statements outside of a block on their own. Its kind is ours, not
 * what ALTER DATABASE or a pipeline's deferred trigger has set as the default.
 */
static void
begin_block(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	BeginTransactionBlock();
	CommitTransactionCommand();
	StartTransactionCommand();
	XactReadOnly = false;
	XactDeferrable = false;
	XactIsoLevel = XACT_READ_COMMITTED;
}

static void
commit_block(void)
{
	EndTransactionBlock(false);
	CommitTransactionCommand();
}

bool
worker_transaction(XactBody body, void *arg, MemoryContext context, ErrorData **error)
{
	volatile bool ok = false;
	MemoryContext before = CurrentMemoryContext;

	blocked_watch_begin();
	PG_TRY();
	{
		worker_secure_search_path();
		begin_block();
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		body(arg);
		SPI_finish();
		PopActiveSnapshot();
		commit_block();
		ok = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();
	blocked_watch_end();

	MemoryContextSwitchTo(before);
	return ok;
}
