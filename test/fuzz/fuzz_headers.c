/*
 * fuzz_headers.c
 *		A message's headers to jsonb: never raises, and shows each header.
 *
 * Input: for each header a byte, so many bytes of its name, a byte, so many bytes of
 * its value (255: it has none; 254: all that is left).
 */
#include "harness.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "exact_palloc.h"
#include "fake_kafka.h"
#include "ingest/ingest.h"

#define MOST_HEADERS	64
#define NO_VALUE		255
#define ALL_THE_REST	254

typedef struct Bytes
{
	const uint8 *at;
	size_t		left;
} Bytes;

static size_t
take_length(Bytes *bytes)
{
	if (bytes->left == 0)
		return 0;
	bytes->left--;
	return *bytes->at++;
}

/* Of as many as are there. */
static char *
take(Bytes *bytes, size_t *size, bool terminated)
{
	char	   *taken;

	*size = Min(*size, bytes->left);
	taken = exact_copy(bytes->at, *size, terminated);
	bytes->at += *size;
	bytes->left -= *size;
	return taken;
}

static void
take_header(Bytes *bytes, KafkaHeader *header)
{
	size_t		size = take_length(bytes);

	header->name = take(bytes, &size, true);
	size = take_length(bytes);
	header->value = NULL;
	header->value_len = 0;
	if (size == NO_VALUE)
		return;
	if (size == ALL_THE_REST)
		size = bytes->left;
	header->value = take(bytes, &size, false);
	header->value_len = size;
}

/* Text as it is, all else as \x and hexadecimal digits. */
static char *
shown(const void *data, size_t size, size_t *shown_size)
{
	char	   *text;

	if (pg_verify_mbstr(PG_UTF8, data, size, true))
	{
		*shown_size = size;
		return unconstify(void *, data);
	}
	*shown_size = size * 2 + 2;
	text = palloc(*shown_size);
	memcpy(text, "\\x", 2);
	hex_encode(data, size, text + 2);
	return text;
}

static bool
shows(const JsonbValue *v, const KafkaHeader *header)
{
	size_t		size;
	char	   *text;

	if (header->value == NULL)
		return v->type == jbvNull;
	text = shown(header->value, header->value_len, &size);
	return v->type == jbvString && v->val.string.len == size && memcmp(v->val.string.val, text, size) == 0;
}

static bool
have_same_name(const KafkaHeader *a, const KafkaHeader *b)
{
	size_t		size_a;
	size_t		size_b;
	char	   *text_a = shown(a->name, strlen(a->name), &size_a);
	char	   *text_b = shown(b->name, strlen(b->name), &size_b);

	return size_a == size_b && memcmp(text_a, text_b, size_a) == 0;
}

/* The i-th header, in its place among those of its name. */
static void
expect_header(Jsonb *jsonb, const FakeHeaders *headers, int i)
{
	int			same = 0;
	int			before = 0;
	size_t		size;
	char	   *name = shown(headers->headers[i].name, strlen(headers->headers[i].name), &size);
	JsonbValue *v = getKeyJsonValueFromContainer(&jsonb->root, name, size, NULL);

	for (int j = 0; j < headers->n; j++)
		if (have_same_name(&headers->headers[i], &headers->headers[j]))
		{
			same++;
			before += j < i;
		}
	expect(v != NULL, "header %d has gone", i);
	if (same > 1)
	{
		expect(v->type == jbvBinary && JsonContainerSize(v->val.binary.data) == same,
			   "not all headers of the name of header %d are there", i);
		v = getIthJsonbValueFromContainer(v->val.binary.data, before);
	}
	expect(shows(v, &headers->headers[i]), "header %d is shown as something else", i);
}

void
fuzz_headers(const uint8 *data, size_t size)
{
	Bytes		bytes = {data, size};
	KafkaHeader room[MOST_HEADERS];
	FakeHeaders headers = {room, 0};
	KafkaMessage message = {.topic = "t",.handle = &headers};
	Batch		batch = {.messages = &message,.n = 1};
	Jsonb	   *jsonb;

	while (bytes.left > 0 && headers.n < MOST_HEADERS)
		take_header(&bytes, &room[headers.n++]);
	jsonb = batch_headers(&batch, 0);
	expect((jsonb == NULL) == (headers.n == 0), "NULL stands for no headers, and nothing else");
	if (jsonb == NULL)
		return;
	expect(JB_ROOT_IS_OBJECT(jsonb), "not an object");
	for (int i = 0; i < headers.n; i++)
		expect_header(jsonb, &headers, i);
	expect_sound(jsonb);
}
