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

	if (relay->flush.ticket == 0 && asked > pg_atomic_read_u64(&MyJob->answered))
		relay->flush.new_ticket = asked;
}

/* A request begins, in the transaction that reads: what is there now, is what it waits for. */
void
flush_begin(Relay *relay)
{
	if (relay->flush.new_ticket == 0)
		return;
	relay->flush.ticket = relay->flush.new_ticket;
	relay->flush.new_ticket = 0;
	relay->flush.mark = catalog_outbox_last_given_id(MyJob->name);
	relay->flush.unsettled = in_flight_rows_up_to(relay->flush.mark);
	relay_read_all(relay);
	gaps_look_at_all();
	window_look_at_all();
}

void
flush_count(Relay *relay, int64 id)
{
	if (id <= relay->flush.mark)
		relay->flush.unsettled++;
}

void
flush_count_done(Relay *relay, int64 id)
{
	if (id <= relay->flush.mark)
		relay->flush.unsettled--;
}

void
flush_answer(Relay *relay)
{
	if (relay->flush.ticket == 0 || relay->flush.unsettled > 0 || relay->settled.refused != NIL || gaps_hold_back(relay->flush.mark) ||
		window_holds_back(&relay->window, relay->flush.mark) ||
		(relay->reader.last_id < relay->flush.mark && !relay->reader.caught_up))
		return;
	job_answer(MyJob, relay->flush.ticket);
	relay->flush.ticket = 0;
	relay->flush.mark = 0;
	flush_note_request(relay);
}
