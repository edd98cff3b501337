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
 * What may be set is in a table, so that no property gets in that loads code, runs
 * commands, or undoes what the extension depends on. An error names file and line,
 * and never a value.
 */
#include "kafka/internal.h"

#include <ctype.h>
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

static const char *const allowed[] = {
	"bootstrap.servers", "client.id", "client.rack", "client.dns.lookup", "broker.address.family",
	"security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password",
	"sasl.oauthbearer.method", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret",
	"sasl.oauthbearer.scope", "sasl.oauthbearer.extensions", "sasl.oauthbearer.token.endpoint.url",
	"https.ca.location", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
	"ssl.key.password", "ssl.keystore.location", "ssl.keystore.password", "ssl.crl.location",
	"ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list", "ssl.endpoint.identification.algorithm",
	"socket.timeout.ms", "socket.connection.setup.timeout.ms", "socket.keepalive.enable",
	"connections.max.idle.ms", "reconnect.backoff.ms", "reconnect.backoff.max.ms", "metadata.max.age.ms",
	"topic.metadata.refresh.interval.ms", "request.timeout.ms", "compression.type", "compression.codec",
	"compression.level", "fetch.min.bytes", "fetch.wait.max.ms",
};

typedef struct Refused
{
	const char *name;			/* or, with a * at its end, the beginning of names */
	const char *why;
} Refused;

static const Refused refused[] = {
	{"plugin.library.paths", "it loads code into the server"},
	{"ssl.engine.*", "it loads code into the server"},
	{"ssl.providers", "it loads code into the server"},
	{"sasl.kerberos.*", "it runs commands in the server"},
	{"sasl.jaas.config", "it is the Java client's: write sasl.username and sasl.password"},
	{"ssl.truststore.*", "it is the Java client's: write ssl.ca.location, a PEM file"},
	{"ssl.ca.pem", "a value has no line ends: write ssl.ca.location, a file"},
	{"ssl.certificate.pem", "a value has no line ends: write ssl.certificate.location, a file"},
	{"ssl.key.pem", "a value has no line ends: write ssl.key.location, a file"},
	{"ssl.keystore.type", "it is the Java client's: ssl.keystore.location is a PKCS#12 file"},
	{"enable.ssl.certificate.verification", "without it anybody can pose as the broker: trust its CA by ssl.ca.location"},
	{"sasl.oauthbearer.config", "unsecured tokens prove nothing: use sasl.oauthbearer.method=oidc"},
	{"enable.sasl.oauthbearer.unsecure.jwt", "unsecured tokens prove nothing: use sasl.oauthbearer.method=oidc"},
	{"enable.auto.*", "offsets are the database's"},
	{"auto.offset.reset", "a pipeline's option start says where to begin"},
	{"group.id", "a pipeline's option group_id sets it"},
	{"group.*", "no group is joined: the database says who reads what"},
	{"isolation.level", "only committed messages are read"},
	{"enable.idempotence", "it is always on"},
	{"acks", "a message counts as published when all in-sync replicas have it"},
	{"request.required.acks", "a message counts as published when all in-sync replicas have it"},
	{"transactional.id", "the outbox is the transaction"},
	{"queue.*", "the extension bounds its memory"},
	{"queued.*", "the extension bounds its memory"},
	{"fetch.max.bytes", "the extension bounds its memory"},
	{"fetch.message.max.bytes", "the extension bounds its memory"},
	{"max.partition.fetch.bytes", "the extension bounds its memory"},
	{"key.*", "it is the Java client's; values are read and written as they are"},
	{"value.*", "it is the Java client's; values are read and written as they are"},
};

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

static bool
is_refused(const Refused *r, const char *name)
{
	size_t		len = strlen(r->name);

	return r->name[len - 1] == '*' ? strncmp(name, r->name, len - 1) == 0 : strcmp(name, r->name) == 0;
}

static bool
check_name(Reader *reader, const char *name)
{
	for (size_t i = 0; i < lengthof(allowed); i++)
		if (strcmp(allowed[i], name) == 0)
			return true;
	for (size_t i = 0; i < lengthof(refused); i++)
		if (is_refused(&refused[i], name))
			return complain(reader, "%s can't be set: %s", name, refused[i].why);
	return complain(reader, "unknown property %s; docs/reference.md lists those that may be set", name);
}

/*
 * What librdkafka was built without, if that is why it refuses a property or one of the
 * values that it knows; NULL: the value is bad, and the text may have it.
 */
static const char *
built_without(const char *text)
{
	const char *why = strrchr(text, ':');

	if (strncmp(text, "Unsupported value \"", 19) != 0 &&
		(strncmp(text, "Configuration property \"", 24) != 0 || strstr(text, "\" not supported in this build: ") == NULL))
		return NULL;
	return why ? why + 2 : NULL;
}

static void
free_setting(KafkaSetting *setting)
{
	if (setting->value)
		explicit_bzero((char *) setting->value, strlen(setting->value));
	free((char *) setting->value);
	free((char *) setting->name);
}

/* The later of two lines of the same name counts. */
static bool
set_property(Reader *reader, const char *name, const char *value)
{
	KafkaProperties *p = reader->properties;
	KafkaSetting *settings;
	KafkaSetting copy;
	char		text[512];		/* librdkafka's may have the value in it */
	rd_kafka_conf_res_t result = rd_kafka_conf_set(reader->scratch, name, value, text, sizeof(text));

	if (result == RD_KAFKA_CONF_INVALID && built_without(text))
		return complain(reader, "this librdkafka (%s) is built without what %s needs: %s", rd_kafka_version_str(),
						name, built_without(text));
	explicit_bzero(text, sizeof(text));
	if (result == RD_KAFKA_CONF_UNKNOWN)
		return complain(reader, "this librdkafka (%s) does not have %s", rd_kafka_version_str(), name);
	if (result != RD_KAFKA_CONF_OK)
		return complain(reader, "librdkafka refuses the value of %s", name);

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

static char *
trim(char *text)
{
	char	   *end;

	while (isspace((unsigned char) *text))
		text++;
	end = text + strlen(text);
	while (end > text && isspace((unsigned char) end[-1]))
		end--;
	*end = '\0';
	return text;
}

static bool
read_property(Reader *reader, char *line)
{
	size_t		len = strcspn(line, "=:");
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
	return check_name(reader, name) && set_property(reader, name, value);
}

/* ---- environment variables ---- */

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

	return len > 0 && !isdigit((unsigned char) line[0]) && line[len + space] == '=' ? len : 0;
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
			return complain(reader, "section [%s] is there twice", name);
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
		if (strncmp(begin, "export", 6) == 0 && isspace((unsigned char) begin[6]) && begin[6] != '\n')
			begin += 6 + strspn(begin + 6, " \t");
		if ((len = variable_name(begin)) > 0)
		{
			value = dotenv_value(reader, begin + len + strcspn(begin + len, "=") + 1, &text);
			begin[len] = '\0';
			if (value == NULL)
			{
				reader->line = first;
				return complain(reader, "%s has a quote that isn't closed", begin);
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

/* OAUTHBEARER without a method waits for a token that nobody fetches. */
static bool
check_oauthbearer(Reader *reader)
{
	const char *mechanism = kafka_properties_get(reader->properties, "sasl.mechanism");
	const char *method = kafka_properties_get(reader->properties, "sasl.oauthbearer.method");

	if (mechanism == NULL)
		mechanism = kafka_properties_get(reader->properties, "sasl.mechanisms");
	if (mechanism == NULL || strcasecmp(mechanism, "OAUTHBEARER") != 0 || (method && strcasecmp(method, "oidc") == 0))
		return true;
	return complain(reader, "sasl.mechanism OAUTHBEARER needs sasl.oauthbearer.method=oidc");
}

static bool
finish(Reader *reader)
{
	reader->line = 0;
	if (!check_oauthbearer(reader))
		return false;
	if (reader->properties->found && reader->wanted[0] &&
		kafka_properties_get(reader->properties, "bootstrap.servers") == NULL)
		return complain(reader, "section [%s] has no bootstrap.servers", reader->wanted);
	if (!reader->has_key && !reader->has_secret)
		return true;
	if (!reader->has_key || !reader->has_secret)
		return complain(reader, "%s is missing", reader->has_key ? "CONFLUENT_API_SECRET" : "CONFLUENT_API_KEY");
	return set_property(reader, "security.protocol", "SASL_SSL") && set_property(reader, "sasl.mechanism", "PLAIN");
}

/* Its owner's only, or what it hides isn't hidden. */
static char *
load(Reader *reader, size_t *size)
{
	int			fd = open(reader->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char	   *text = NULL;
	ssize_t		got;

	if (fd < 0 || fstat(fd, &st) != 0)
		complain(reader, "%s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		complain(reader, "not a regular file");
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		complain(reader, "must belong to the user that the server runs as, or to root");
	else if (st.st_mode & (S_IRWXG | S_IRWXO))
		complain(reader, "may be read by others than its owner: chmod 600");
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
	ok = read_text(&reader, text) && finish(&reader);
	rd_kafka_conf_destroy(reader.scratch);
	if (ok)						/* the reading has changed the text, always in the same way */
		properties->hash = kafka_hash(KAFKA_HASH_SEED, text + reader.begin, reader.end - reader.begin) ^
			kafka_files_hash(properties);
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
