/*
 * produce.c
 *		nexus_produce: a message into the outbox, in the caller's transaction.
 *
 * The caller needs no rights on the outbox: the row is written with those of its
 * owner.
 */
#include "nexus_kafka.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "produce/produce.h"

PG_FUNCTION_INFO_V1(nexus_produce_prospect);
PG_FUNCTION_INFO_V1(nexus_produce_text);
PG_FUNCTION_INFO_V1(nexus_produce_jsonb);
PG_FUNCTION_INFO_V1(nexus_produce_bytea);
PG_FUNCTION_INFO_V1(nexus_outbox_keep);

static void
warn_once_if_not_preloaded(void)
{
	static bool warned = false;

	if (nexus_shared || warned)
		return;
	warned = true;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("the message waits in nexus_outbox, and nothing publishes it"),
			 errdetail("nexus_kafka is not in shared_preload_libraries, so its workers don't run."),
			 errhint("Add nexus_kafka to shared_preload_libraries and restart the server.")));
}

static Datum
write_outbox(const Message *message)
{
	PreventCommandIfReadOnly("nexus_produce()");
	warn_once_if_not_preloaded();

	/*
	 * The transaction must have its id before the row gets its own: by that the
	 * relay knows who may yet fill a gap (gaps.c).
	 */
	(void) GetTopTransactionId();

	SPI_connect();
	catalog_outbox_add(message->connection, cstring_to_text(message->topic), message->partition, message->key,
					   message->value, message->headers, message->id);
	SPI_finish();
	wake_relay_at_commit(message->connection);
	return message_answer(message, "published when the transaction commits", NULL);
}

Datum
nexus_produce_prospect(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_prospect(fcinfo, &message);
	return write_outbox(&message);
}

Datum
nexus_produce_text(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_text(fcinfo, 5, &message);
	return write_outbox(&message);
}

Datum
nexus_produce_jsonb(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_jsonb(fcinfo, 5, &message);
	return write_outbox(&message);
}

Datum
nexus_produce_bytea(PG_FUNCTION_ARGS)
{
	Message		message;

	message_of_bytea(fcinfo, 5, &message);
	return write_outbox(&message);
}

/* TRUNCATE waits for nobody's message, and could have ids given anew while their rows are in flight. */
Datum
nexus_outbox_keep(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("nexus_outbox can't be truncated"),
			 errhint("DELETE the rows that are not to be published.")));
	return (Datum) 0;
}
