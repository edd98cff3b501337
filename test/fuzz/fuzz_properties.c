/*
 * fuzz_properties.c
 *		A connection's file: it is refused, with an error that repeats nothing of it, or a
 *		client's configuration can be made of it.
 *
 * Input: the file's text. An error must be made of what the sources and librdkafka have to
 * say, which is known before: names of properties among it, and nothing else.
 */
#include "kafka/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET		"hu$h"		/* no part of a name */
#define LONGEST_REST	3		/* of an error, that nobody has said: signs between two words */

/* All strings of the sources: formats, whose words stand between conversions, and names. */
static const char *const vocabulary[] = {
#include "build/vocabulary.h"
};

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

/* ---- where the words of an error come from ---- */

/* said: for each byte, whether it belongs to a text that is known. */
static void
mark(const char *text, bool *said, const char *known, size_t len)
{
	char		copy[512];

	if (len <= LONGEST_REST || len >= sizeof(copy))
		return;
	memcpy(copy, known, len);
	copy[len] = '\0';
	for (const char *at = strstr(text, copy); at; at = strstr(at + 1, copy))
		memset(said + (at - text), true, len);
}

/* What stands between a format's conversions (of which all have one letter). */
static void
mark_format(const char *text, bool *said, const char *format)
{
	while (*format)
	{
		size_t		len = strcspn(format, "%");

		mark(text, said, format, len);
		format += len;
		if (*format)
			format += format[1] ? 2 : 1;
	}
}

/* Why librdkafka was built without something: the end of what it says of the value that it knows. */
static void
mark_reason(const char *text, bool *said)
{
	static char reason[512];
	const char *end;

	if (reason[0] == '\0')
	{
		rd_kafka_conf_t *conf = rd_kafka_conf_new();

		if (rd_kafka_conf_set(conf, "sasl.oauthbearer.method", "oidc", reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
			strcpy(reason, ": none");
		rd_kafka_conf_destroy(conf);
	}
	end = strrchr(reason, ':');
	mark(text, said, end, strlen(end));
}

static void
expect_known_words(const char *text)
{
	bool		said[sizeof(failure.text)] = {false};
	size_t		rest = 0;

	for (size_t i = 0; i < sizeof(vocabulary) / sizeof(vocabulary[0]); i++)
		mark_format(text, said, vocabulary[i]);
	mark_reason(text, said);
	mark(text, said, rd_kafka_version_str(), strlen(rd_kafka_version_str()));
	for (size_t i = strncmp(text, "f, line ", 8) == 0 ? 8 + strspn(text + 8, "0123456789") : 1; text[i]; i++)
	{
		rest = said[i] ? 0 : rest + 1;
		expect(rest <= LONGEST_REST, "an error repeats the file");
	}
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
	expect_known_words(failure.text);
	expect(properties.n == 0 && properties.settings == NULL && properties.nsections == 0, "refused, and properties are left");
}

static void
parse_all(const char *text)
{
	static const char *const sections[] = {NULL, "", "a"};

	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
		parse(sections[i], text);
}

/* Each value goes into the next line, so that it stands where a name is expected. */
static char *
with_values_below(const char *text, size_t size)
{
	char	   *copy = malloc(2 * size + 1);
	char	   *to = copy;

	for (size_t i = 0; i < size; i++)
	{
		*to++ = text[i];
		if (text[i] == '=' || text[i] == ':')
			*to++ = '\n';
	}
	*to = '\0';
	return copy;
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
	text = with_values_below((const char *) data, size);
	parse_all(text);
	free(text);
	return 0;
}
