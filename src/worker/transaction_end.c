/*
 * transaction_end.c
 *		What a backend still owes the workers when its transaction ends.
 *
 * One callback, registered once a process at the first use, and one order:
 *
 *	holds end (hold.c)		the workers may come back
 *	wakes (wake.c)			those that got work are told, if it was committed
 *	resumes (resume.c)		what nexus_resume() was called for is waited for, likewise
 *
 * It runs after the commit: the transaction is over for everybody else, interrupts
 * are held off, and nothing may raise. So it does no work that grows with what the
 * transaction did, but with what there is: jobs and databases.
 */
#include "nexus_kafka.h"

#include "access/xact.h"

#include "worker/worker.h"

static void
at_transaction_end(XactEvent event, void *arg)
{
	bool		committed = event == XACT_EVENT_COMMIT;

	if (!committed && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	holds_end();
	wakes_end(committed);
	resumes_end(committed);
}

bool
transaction_end_register(void)
{
	static bool registered = false;

	if (nexus_shared == NULL)
		return false;
	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	return registered = true;
}
