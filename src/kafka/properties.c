/*
 * properties.c
 *		A file with the connection's properties: client.properties with librdkafka's
 *		names, or the .env file of an application.
 *
 * A line whose name is written in capitals is an environment variable, read by
 * dotenv's rules (export, quotes, comments). Three of them mean something here:
 * CONFLUENT_BOOTSTRAP_SERVER, CONFLUENT_API_KEY and CONFLUENT_API_SECRET, which make
 * it SASL_SSL with PLAIN; the others are the application's. All other lines are
 * properties (name = value; # begins a comment line).
 *
 * What stands before the first line [name] is the default connection; each such line
 * begins another one, a section, which inherits nothing. A reader takes one of them.
 * A mistake in another's lines doesn't concern it; what leaves unclear where sections
 * begin and end does.
 *
 * What may be set is in a table (property_names.c). An error names file and line, and
 * repeats nothing that stands there: what looks like a name may be a password, of a value
 * that began in the line before, say. Names are told by the tables' own copies. A value
 * that librdkafka or a worker's state may tell must look like what it is meant to be.
 */
#include "kafka/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST_FILE	(1024 * 1024)
#define CLOSE_TIMEOUT_MS	500
#define BYTE_ORDER_MARK	"\xef\xbb\xbf"	/* editors of Windows write it before UTF-8 */

static const char *const variables[] = {
	"CONFLUENT_BOOTSTRAP_SERVER", "CONFLUENT_API_KEY", "CONFLUENT_API_SECRET",
};

/* Kerberos isn't among them: librdkafka would run kinit. */
static const char *const mechanisms[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"};

#define MECHANISMS	"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"

#define lengthof(a) (sizeof(a) / sizeof((a)[0]))

typedef struct Reader
{
	const char *path;
	int			line;
	const char *wanted;			/* the section that is read, "": the default, NULL: none */
	bool		inside;			/* of it */
	char	   *text;			/* of the file */
	size_t		begin;			/* the wanted section's text, in there */
	size_t		end;
	uint64_t	files_hash;
	KafkaProperties *properties;
	KafkaFailure *failure;
	rd_kafka_conf_t *scratch;	/* what librdkafka thinks of the values */
	bool		has_key;		/* CONFLUENT_API_KEY */
	bool		has_secret;
} Reader;

static bool complain(Reader *reader, const char *text,...) __attribute__((format(printf, 2, 3)));

static bool
complain(Reader *reader, const char *text,...)
{
	char		what[300];
	char		whole[400];
	va_list		args;

	va_start(args, text);
	vsnprintf(what, sizeof(what), text, args);
	va_end(args);
	if (reader->line > 0)
		snprintf(whole, sizeof(whole), "%s, line %d: %s", reader->path, reader->line, what);
	else
		snprintf(whole, sizeof(whole), "%s: %s", reader->path, what);
	kafka_failure_set(reader->failure, RD_KAFKA_RESP_ERR__INVALID_ARG, whole);
	return false;
}

/* ---- properties ---- */

/* The name's own copy; NULL: it may not be set, and that has been told. */
static const char *
known_name(Reader *reader, const char *name)
{
	const char *known = kafka_property_allowed(name);
	const KafkaRefusedProperty *r = known ? NULL : kafka_property_refused(name);
	const char *meant = known || r ? NULL : kafka_property_meant(name);

	if (r)
		complain(reader, "%s can't be set: %s", r->name, r->why);
	else if (meant)
		complain(reader, "unknown property (did you mean %s?); docs/reference.md lists those that may be set", meant);
	else if (known == NULL)
		complain(reader, "unknown property; docs/reference.md lists those that may be set");
	return known;
}

static bool
is_host_list(const char *value)
{
	while (true)
	{
		value += strspn(value, " ");
		value += strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/[]%");
		value += strspn(value, " ");
		if (*value != ',')
			return *value == '\0';
		value++;
	}
}

static bool
is_mechanism(const char *value)
{
	for (size_t i = 0; i < lengthof(mechanisms); i++)
		if (strcmp(mechanisms[i], value) == 0)
			return true;
	return false;
}

/* ASCII's: in other bytes the server's locale may see what isn't there. */
static bool
has_control_character(const char *value)
{
	for (; *value; value++)
		if ((unsigned char) *value < ' ' || *value == 0x7f)
			return true;
	return false;
}

/* What librdkafka doesn't look at, or tells of when it does. */
static bool
check_value(Reader *reader, const char *name, const char *value)
{
	if (value[0] == '\0')
		return complain(reader, "%s has no value; it must stand on the same line", name);
	if (has_control_character(value))
		return complain(reader, "the value of %s has a line end or another control character in it", name);
	if (strcmp(name, "bootstrap.servers") == 0 && !is_host_list(value))
		return complain(reader, "the value of bootstrap.servers must be host:port, or several with commas between them");
	if (strncmp(name, "sasl.mechanism", 14) == 0 && !is_mechanism(value))
		return complain(reader, "the value of %s must be " MECHANISMS, name);
	if (strcmp(name, "sasl.oauthbearer.token.endpoint.url") == 0 && strchr(value, '@'))
		return complain(reader, "the value of %s must not have a user in it: "
						"write sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret", name);
	return true;
}

static void
free_setting(KafkaSetting *setting)
{
	if (setting->value)
		explicit_bzero((char *) setting->value, strlen(setting->value));
	free((char *) setting->value);
	free((char *) setting->name);
}

/* The later of two lines of the same name counts. name: one of the tables'. */
static bool
set_property(Reader *reader, const char *name, const char *value)
{
	KafkaProperties *p = reader->properties;
	KafkaSetting *settings;
	KafkaSetting copy;
	char		why[256];

	if (!check_value(reader, name, value))
		return false;
	if (!kafka_config_set(reader->scratch, name, value, why, sizeof(why)))
		return complain(reader, "%s", why);

	settings = realloc(p->settings, (p->n + 1) * sizeof(KafkaSetting));
	if (settings)
		p->settings = settings;
	copy = (KafkaSetting) {strdup(name), strdup(value)};
	if (settings == NULL || copy.name == NULL || copy.value == NULL)
	{
		free_setting(&copy);
		return complain(reader, "out of memory");
	}
	settings[p->n++] = copy;
	return true;
}

/* Likewise ASCII's: the last byte of a letter is no blank. */
static bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static char *
trim(char *text)
{
	char	   *end;

	while (is_blank(*text))
		text++;
	end = text + strlen(text);
	while (end > text && is_blank(end[-1]))
		end--;
	*end = '\0';
	return text;
}

static bool
read_property(Reader *reader, char *line)
{
	size_t		len = strcspn(line, "=:");
	const char *known;
	char	   *name;
	char	   *value;

	if (line[len] == '\0')
		return complain(reader, "expected name = value");
	line[len] = '\0';
	name = trim(line);
	value = trim(line + len + 1);
	if (name[0] == '\0' || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(name))
		return complain(reader, "expected name = value");
	if (value[0] != '\0' && value[strlen(value) - 1] == '\\')
		return complain(reader, "a value can't be continued on the next line");
	known = known_name(reader, name);
	return known && set_property(reader, known, value);
}

/* ---- environment variables ---- */

/* NULL: the application's. */
static const char *
known_variable(const char *name)
{
	for (size_t i = 0; i < lengthof(variables); i++)
		if (strcmp(variables[i], name) == 0)
			return variables[i];
	return NULL;
}

static bool
read_variable(Reader *reader, const char *name, const char *value)
{
	if (!reader->inside)
		return true;
	if (strcmp(name, "CONFLUENT_BOOTSTRAP_SERVER") == 0)
		return set_property(reader, "bootstrap.servers", value);
	if (strcmp(name, "CONFLUENT_API_KEY") == 0)
	{
		reader->has_key = true;
		return set_property(reader, "sasl.username", value);
	}
	if (strcmp(name, "CONFLUENT_API_SECRET") == 0)
	{
		reader->has_secret = true;
		return set_property(reader, "sasl.password", value);
	}
	return true;				/* the application's */
}

/* The length of the variable's name at the beginning of the line, 0: it is none. */
static size_t
variable_name(const char *line)
{
	size_t		len = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
	size_t		space = strspn(line + len, " \t");

	return len > 0 && !(line[0] >= '0' && line[0] <= '9') && line[len + space] == '=' ? len : 0;
}

/*
 * The value that begins at text, in place. *rest: what comes after its line. A value
 * in quotes may go on over several lines.
 */
static char *
dotenv_value(Reader *reader, char *text, char **rest)
{
	char		quote;
	char	   *from;
	char	   *to;

	while (*text == ' ' || *text == '\t')
		text++;
	quote = *text;
	if (quote != '"' && quote != '\'' && quote != '`')
	{
		size_t		len = strcspn(text, "#\r\n");
		char	   *end = text + len + strcspn(text + len, "\n");

		*rest = *end ? end + 1 : end;
		text[len] = '\0';
		return trim(text);
	}

	to = from = ++text;
	while (*from && *from != quote)
	{
		if (quote == '"' && from[0] == '\\' && (from[1] == 'n' || from[1] == 'r'))
		{
			*to++ = from[1] == 'n' ? '\n' : '\r';
			from += 2;
			continue;
		}
		if (*from == '\n')
			reader->line++;
		*to++ = *from++;
	}
	if (*from == '\0')
		return NULL;
	from += strcspn(from, "\n");
	*rest = *from ? from + 1 : from;
	*to = '\0';
	return text;
}

/* ---- sections ---- */

bool
kafka_section_name_is_valid(const char *name)
{
	size_t		len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

	return len >= 1 && len <= KAFKA_LONGEST_SECTION_NAME && name[len] == '\0';
}

static bool
add_section(Reader *reader, const char *name)
{
	KafkaProperties *p = reader->properties;
	char	  **sections;
	char	   *copy;

	for (size_t i = 0; i < p->nsections; i++)
		if (strcmp(p->sections[i], name) == 0)
			return complain(reader, "a section of this name is there already");
	sections = realloc(p->sections, (p->nsections + 1) * sizeof(char *));
	if (sections)
		p->sections = sections;
	copy = sections ? strdup(name) : NULL;
	if (copy == NULL)
		return complain(reader, "out of memory");
	sections[p->nsections++] = copy;
	return true;
}

/* line: [name], trimmed; what follows it begins at rest. */
static bool
begin_section(Reader *reader, char *line, const char *rest)
{
	size_t		len = strlen(line);

	if (reader->inside)
		reader->end = line - reader->text;
	if (line[len - 1] == ']')
		line[len - 1] = '\0';
	if (line[len - 1] != '\0' || !kafka_section_name_is_valid(line + 1))
		return complain(reader, "a section is [name], of at most %d letters, digits, underscores and hyphens",
						KAFKA_LONGEST_SECTION_NAME);
	if (!add_section(reader, line + 1))
		return false;
	reader->inside = reader->wanted && strcmp(reader->wanted, line + 1) == 0;
	if (reader->inside)
	{
		reader->properties->found = true;
		reader->begin = rest - reader->text;
	}
	return true;
}

/* ---- the file ---- */

static bool
read_line(Reader *reader, char *line, const char *rest)
{
	line = trim(line);
	if (line[0] == '\0' || line[0] == '#' || line[0] == '!')
		return true;
	if (line[0] == '[')
		return begin_section(reader, line, rest);
	return !reader->inside || read_property(reader, line);
}

static bool
read_text(Reader *reader, char *text)
{
	while (*text)
	{
		char	   *line = text;
		char	   *begin;
		char	   *value;
		size_t		len;
		int			first = ++reader->line;

		begin = line + strspn(line, " \t");
		if (strncmp(begin, "export", 6) == 0 && is_blank(begin[6]) && begin[6] != '\n')
			begin += 6 + strspn(begin + 6, " \t");
		if ((len = variable_name(begin)) > 0)
		{
			value = dotenv_value(reader, begin + len + strcspn(begin + len, "=") + 1, &text);
			begin[len] = '\0';
			if (value == NULL)
			{
				reader->line = first;
				return complain(reader, "%s has a quote that isn't closed",
								known_variable(begin) ? known_variable(begin) : "a variable");
			}
			if (!read_variable(reader, begin, value))
				return false;
			continue;
		}
		len = strcspn(line, "\n");
		text = line[len] ? line + len + 1 : line + len;
		line[len] = '\0';
		if (!read_line(reader, line, text))
			return false;
	}
	if (reader->inside)
		reader->end = text - reader->text;
	return true;
}

/*
 * SASL without a mechanism would be Kerberos, and OAUTHBEARER without a method waits for a
 * token that nobody fetches.
 */
static bool
check_sasl(Reader *reader)
{
	const char *protocol = kafka_properties_get(reader->properties, "security.protocol");
	const char *mechanism = kafka_properties_get(reader->properties, "sasl.mechanism");
	const char *method = kafka_properties_get(reader->properties, "sasl.oauthbearer.method");

	if (mechanism == NULL)
		mechanism = kafka_properties_get(reader->properties, "sasl.mechanisms");
	if (mechanism == NULL && protocol && strncasecmp(protocol, "SASL_", 5) == 0)
		return complain(reader, "security.protocol with SASL needs sasl.mechanism: " MECHANISMS);
	if (mechanism && strcmp(mechanism, "OAUTHBEARER") == 0 && !(method && strcasecmp(method, "oidc") == 0))
		return complain(reader, "sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method=oidc");
	return true;
}

static bool
set_confluent(Reader *reader)
{
	if (!reader->has_key && !reader->has_secret)
		return true;
	if (!reader->has_key || !reader->has_secret)
		return complain(reader, "%s is missing", reader->has_key ? "CONFLUENT_API_SECRET" : "CONFLUENT_API_KEY");
	return set_property(reader, "security.protocol", "SASL_SSL") && set_property(reader, "sasl.mechanism", "PLAIN");
}

/* librdkafka opens them once more, by their names, when the client is made: at once after this. */
static bool
check_files(Reader *reader)
{
	const char *property;
	const char *fault = kafka_files_check(reader->properties, &reader->files_hash, &property);

	return fault == NULL || complain(reader, "%s names a file that %s", property, fault);
}

static bool
finish(Reader *reader)
{
	reader->line = 0;
	if (!set_confluent(reader) || !check_sasl(reader))
		return false;
	if (reader->properties->found && reader->wanted[0] &&
		kafka_properties_get(reader->properties, "bootstrap.servers") == NULL)
		return complain(reader, "section [%s] has no bootstrap.servers", reader->wanted);
	return check_files(reader);
}

static char *
load(Reader *reader, size_t *size)
{
	int			fd = open(reader->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	const char *fault;
	char	   *text = NULL;
	ssize_t		got;

	if (fd < 0 || fstat(fd, &st) != 0)
		complain(reader, "%s", strerror(errno));
	else if ((fault = kafka_secret_file_fault(&st)) != NULL)
		complain(reader, "%s", fault);
	else if (st.st_size > LARGEST_FILE)
		complain(reader, "larger than 1 MB");
	else if ((text = calloc(1, st.st_size + 1)) == NULL)
		complain(reader, "out of memory");
	else if ((got = read(fd, text, st.st_size)) < 0)
		complain(reader, "%s", strerror(errno));
	else if (memchr(text, '\0', got))
		complain(reader, "has a zero byte");
	else
	{
		*size = got;
		close(fd);
		return text;
	}
	free(text);
	if (fd >= 0)
		close(fd);
	return NULL;
}

bool
kafka_properties_parse(const char *path, const char *section, char *text, KafkaProperties *properties,
					   KafkaFailure *failure)
{
	Reader		reader = {.path = path,.wanted = section,.text = text,.properties = properties,.failure = failure};
	bool		ok;

	memset(properties, 0, sizeof(*properties));
	reader.inside = properties->found = section && section[0] == '\0';
	reader.scratch = rd_kafka_conf_new();
	if (strncmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
		text += strlen(BYTE_ORDER_MARK);
	ok = read_text(&reader, text) && finish(&reader);
	rd_kafka_conf_destroy(reader.scratch);
	if (ok)						/* the reading has changed the text, always in the same way */
		properties->hash = kafka_hash(KAFKA_HASH_SEED, reader.text + reader.begin, reader.end - reader.begin) ^
			reader.files_hash;
	else
		kafka_properties_free(properties);
	return ok;
}

bool
kafka_properties_read(const char *path, const char *section, KafkaProperties *properties, KafkaFailure *failure)
{
	Reader		reader = {.path = path,.failure = failure};
	size_t		size = 0;
	char	   *text = load(&reader, &size);
	bool		ok;

	memset(properties, 0, sizeof(*properties));
	if (text == NULL)
		return false;
	ok = kafka_properties_parse(path, section, text, properties, failure);
	explicit_bzero(text, size);
	free(text);
	return ok;
}

/* No broker is asked: the handle knows none. */
bool
kafka_properties_try(const KafkaProperties *properties, KafkaFailure *failure, bool *left_over)
{
	KafkaSetting *settings = calloc(properties->n + 1, sizeof(KafkaSetting));
	KafkaClient *client;
	size_t		n = 0;

	*left_over = false;
	if (settings == NULL)
		return true;
	for (size_t i = 0; i < properties->n; i++)
		if (strcmp(properties->settings[i].name, "bootstrap.servers") != 0)
			settings[n++] = properties->settings[i];
	client = kafka_client_open(KAFKA_PRODUCER, settings, n, failure);
	free(settings);
	if (client)
		*left_over = !kafka_client_close(client, CLOSE_TIMEOUT_MS);
	return client != NULL;
}

const char *
kafka_properties_get(const KafkaProperties *properties, const char *name)
{
	for (size_t i = properties->n; i > 0; i--)
		if (strcmp(properties->settings[i - 1].name, name) == 0)
			return properties->settings[i - 1].value;
	return NULL;
}

void
kafka_properties_free(KafkaProperties *properties)
{
	for (size_t i = 0; i < properties->n; i++)
		free_setting(&properties->settings[i]);
	free(properties->settings);
	for (size_t i = 0; i < properties->nsections; i++)
		free(properties->sections[i]);
	free(properties->sections);
	memset(properties, 0, sizeof(*properties));
}
