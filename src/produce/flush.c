/*
 * flush.c
 *		nexus_flush as the relay serves it: one request at a time, answered when
 *		everything that was in the outbox at its beginning is settled.
 */
#include "nexus_kafka.h"

#include "produce/produce.h"

void
flush_note_request(Relay *relay)
{
	uint64		asked = pg_atomic_read_u64(&MyJob->asked);

	if (relay->ticket == 0 && asked > pg_atomic_read_u64(&MyJob->answered))
	{
		relay->new_ticket = asked;
		relay->read_wanted = true;
	}
}

/* A request begins, in the transaction that reads: what is there now, is what it waits for. */
void
flush_begin(Relay *relay)
{
	if (relay->new_ticket == 0)
		return;
	relay->ticket = relay->new_ticket;
	relay->new_ticket = 0;
	relay->flush_mark = catalog_outbox_last_id(MyJob->name);
	relay->unsettled = relay->in_flight + relay->nsettled + list_length(relay->refused);
	relay->caught_up = false;
	gaps_look_at_all();
}

void
flush_count(Relay *relay, int64 id)
{
	if (id <= relay->flush_mark)
		relay->unsettled++;
}

void
flush_settle(Relay *relay, int64 id)
{
	if (id <= relay->flush_mark)
		relay->unsettled--;
}

void
flush_answer(Relay *relay)
{
	if (relay->ticket == 0 || relay->unsettled > 0 || gaps_hold_back(relay->flush_mark) ||
		(relay->last_id < relay->flush_mark && !relay->caught_up))
		return;
	job_answer(MyJob, relay->ticket);
	relay->ticket = 0;
	relay->flush_mark = 0;
	flush_note_request(relay);
}
