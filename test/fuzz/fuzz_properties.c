/*
 * fuzz_properties.c
 *		A connection's file: it is refused, with an error that has no value in it, or a
 *		client's configuration can be made of it.
 *
 * Input: the file's text.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Stands in no property's name, so that an error that has it tells a value. */
#define SECRET		"hu$h"

#define expect(holds, what) \
	do { if (!(holds)) finding(what, &failure); } while (0)

static KafkaFailure failure;

static void
finding(const char *what, const KafkaFailure *last)
{
	fprintf(stderr, "finding: %s (last failure: %s)\n", what, last->text);
	abort();
}

static void
expect_to_be_of_use(const KafkaProperties *properties)
{
	for (int kind = KAFKA_PRODUCER; kind <= KAFKA_CONSUMER; kind++)
	{
		bool		needs_nudge;
		rd_kafka_conf_t *conf = kafka_config_build(kind, properties->settings, properties->n, &needs_nudge, &failure);

		expect(conf != NULL, "what is accepted is of no use");
		rd_kafka_conf_destroy(conf);
	}
	for (size_t i = 0; i < properties->n; i++)
		expect(kafka_properties_get(properties, properties->settings[i].name) != NULL, "a property can't be found");
}

static void
parse(const char *section, const char *text)
{
	KafkaProperties properties;
	char	   *copy = strdup(text);	/* is written over */
	bool		accepted;

	memset(&failure, 0, sizeof(failure));
	accepted = kafka_properties_parse("f", section, copy, &properties, &failure);
	free(copy);
	if (accepted)
	{
		expect_to_be_of_use(&properties);
		kafka_properties_free(&properties);
		return;
	}
	expect(failure.code != 0, "refused, and no failure");
	expect(failure.text[0] == 'f' && (failure.text[1] == ':' || failure.text[1] == ','), "an error without the file's name");
	expect(strstr(failure.text, SECRET) == NULL, "an error tells a value");
	expect(properties.n == 0 && properties.settings == NULL && properties.nsections == 0, "refused, and properties are left");
}

static void
parse_all(const char *text)
{
	static const char *const sections[] = {NULL, "", "a"};

	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
		parse(sections[i], text);
}

/* With the secret in each line's value, or at its end if it has none. */
static char *
with_secrets(const char *text, size_t size)
{
	char	   *copy = malloc(size + (size + 1) * strlen(SECRET) + 1);
	char	   *to = copy;
	bool		placed = false;

	for (size_t i = 0; i <= size; i++)
	{
		bool		ends = i == size || text[i] == '\n';

		if (!placed && ends)
			to = stpcpy(to, SECRET);
		if (i < size)
			*to++ = text[i];
		if (!placed && !ends && (text[i] == '=' || text[i] == ':'))
		{
			to = stpcpy(to, SECRET);
			placed = true;
		}
		if (ends)
			placed = false;
	}
	*to = '\0';
	return copy;
}

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char	   *text;

	if (memchr(data, '\0', size))
		return 0;				/* kafka_properties_read() refuses it */
	text = calloc(1, size + 1);
	memcpy(text, data, size);
	parse_all(text);
	free(text);
	text = with_secrets((const char *) data, size);
	parse_all(text);
	free(text);
	return 0;
}
