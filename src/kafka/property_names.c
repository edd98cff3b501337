/*
 * property_names.c
 *		Which properties a connection's file may set, which it may not and why, and which
 *		one was meant.
 *
 * Only what is in the table gets in: no property that loads code, runs commands, or undoes
 * what the extension depends on. Names are told from here and never from the file, in which
 * a password may stand where a name is expected.
 */
#include "kafka/internal.h"

#include <string.h>
#include <strings.h>

#define LONGEST_NAME	64		/* that is compared; none in the table is longer */

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

static const KafkaRefusedProperty refused[] = {
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

const char *
kafka_property_allowed(const char *name)
{
	for (size_t i = 0; i < lengthof(allowed); i++)
		if (strcmp(allowed[i], name) == 0)
			return allowed[i];
	return NULL;
}

static bool
is_refused(const KafkaRefusedProperty *r, const char *name)
{
	size_t		len = strlen(r->name);

	return r->name[len - 1] == '*' ? strncmp(name, r->name, len - 1) == 0 : strcmp(name, r->name) == 0;
}

const KafkaRefusedProperty *
kafka_property_refused(const char *name)
{
	for (size_t i = 0; i < lengthof(refused); i++)
		if (is_refused(&refused[i], name))
			return &refused[i];
	return NULL;
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static int
least(int a, int b, int c)
{
	int			ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Letters to insert, delete or replace, capitals being the same, to come from one to the other. */
static int
edits_between(const char *a, const char *b)
{
	int			row[LONGEST_NAME + 1];
	int			length = strlen(b);

	for (int j = 0; j <= length; j++)
		row[j] = j;
	for (int i = 0; a[i]; i++)
	{
		int			diagonal = row[0];

		row[0] = i + 1;
		for (int j = 0; j < length; j++)
		{
			int			replaced = diagonal + (lower(a[i]) != lower(b[j]));

			diagonal = row[j + 1];
			row[j + 1] = least(row[j] + 1, diagonal + 1, replaced);
		}
	}
	return row[length];
}

/* One edit in five letters: what is further off is no slip of the pen, and may be no name. */
const char *
kafka_property_meant(const char *name)
{
	const char *nearest = NULL;
	int			fewest = LONGEST_NAME;

	if (strlen(name) > LONGEST_NAME)
		return NULL;
	for (size_t i = 0; i < lengthof(allowed); i++)
	{
		int			edits = edits_between(name, allowed[i]);

		if (edits < fewest && edits <= (int) strlen(allowed[i]) / 5)
		{
			nearest = allowed[i];
			fewest = edits;
		}
	}
	return nearest;
}
