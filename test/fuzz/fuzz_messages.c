/*
 * fuzz_messages.c
 *		A message as nexus_messages() and nexus_raw_messages() show it: what can't be
 *		decoded raises what makes it a dead letter, and the worker is told which it is.
 *
 * Input: eight bytes of timestamp, a byte, so many bytes of key (255: it has none), the
 * value (nothing left: it has none).
 */
#include "harness.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "exact_palloc.h"
#include "ingest/ingest.h"

#define NO_KEY	255

typedef struct Decoding
{
	Batch	   *batch;
	bool		raw;
	Datum		values[MESSAGE_COLUMNS];
	bool		nulls[MESSAGE_COLUMNS];
} Decoding;

static void
decode(void *arg)
{
	Decoding   *d = arg;
	int			i = 0;

	expect(message_decode_next(message_decoder_create(d->raw, true), d->batch, &i, d->values, d->nulls) && i == 1,
		   "the message isn't shown");
}

static void
try_decode(void *arg)
{
	message_try_decode(arg);
}

static void
expect_bytes(Datum shown, bool is_null, const void *data, size_t size)
{
	bytea	   *bytes;

	expect(is_null == (data == NULL), "null where it isn't, or the reverse");
	if (is_null)
		return;
	bytes = DatumGetByteaPP(shown);
	expect(VARSIZE_ANY_EXHDR(bytes) == size && memcmp(VARDATA_ANY(bytes), data, size) == 0, "other bytes than came");
}

static void
fill_message(KafkaMessage *message, const uint8 *data, size_t size)
{
	uint8		key_len = NO_KEY;

	memset(message, 0, sizeof(*message));
	message->topic = "t";
	memcpy(&message->timestamp_ms, data, Min(size, sizeof(message->timestamp_ms)));
	data += Min(size, sizeof(message->timestamp_ms));
	size -= Min(size, sizeof(message->timestamp_ms));
	if (size > 0)
	{
		key_len = *data++;
		size--;
	}
	if (key_len != NO_KEY)
	{
		message->key_len = Min(key_len, size);
		message->key = exact_copy(data, message->key_len, false);
		data += message->key_len;
		size -= message->key_len;
	}
	if (size > 0)
	{
		message->value_len = size;
		message->value = exact_copy(data, size, false);
	}
}

static void
expect_timestamp(Datum shown, bool is_null)
{
	if (!is_null)
		expect(IS_VALID_TIMESTAMP(DatumGetTimestampTz(shown)), "no timestamp of PostgreSQL's");
}

void
fuzz_messages(const uint8 *data, size_t size)
{
	KafkaMessage message;
	ErrorData  *dead = NULL;
	Batch		batch = {.messages = &message,.dead = &dead,.n = 1,.hi = 1,.undecodable = -1};
	Decoding	raw = {.batch = &batch,.raw = true};
	Decoding	decoded = {.batch = &batch};
	bool		passed;

	fill_message(&message, data, size);
	expect(passes(decode, &raw, nothing), "raw bytes need no decoding");
	expect_bytes(raw.values[4], raw.nulls[4], message.key, message.key_len);
	expect_bytes(raw.values[5], raw.nulls[5], message.value, message.value_len);
	expect_timestamp(raw.values[3], raw.nulls[3]);

	passed = passes(decode, &decoded, error_of_data);
	expect(batch.undecodable == (passed ? -1 : 0), "the worker isn't told which can't be decoded");
	if (!passed)
		return;
	expect(passes(try_decode, &message, error_of_data), "shown, and yet it can't be decoded");
	expect(decoded.nulls[5] == (message.value == NULL), "a value, or none");
	expect_bytes(decoded.values[4], decoded.nulls[4], message.key, message.key_len);
	if (!decoded.nulls[5])
		expect_sound(DatumGetJsonbP(decoded.values[5]));
}
