/* Unit tests of kafka/properties.c: files, the two formats, what is refused, and that no value is told. */
#include <librdkafka/rdkafka.h>

#include "kafka/kafka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tap.h"

static KafkaProperties p;
static KafkaFailure failure;

static bool
parse_section(const char *section, const char *text)
{
	char	   *copy = strdup(text);
	bool		result;

	memset(&failure, 0, sizeof(failure));
	result = kafka_properties_parse("f", section, copy, &p, &failure);
	free(copy);
	return result;
}

static bool
parse(const char *text)
{
	return parse_section("", text);
}

static void
has(const char *name, const char *value, const char *what)
{
	const char *got = kafka_properties_get(&p, name);

	ok(got && strcmp(got, value) == 0, what);
}

static void
section_refuses(const char *section, const char *text, const char *with, const char *what)
{
	ok(!parse_section(section, text), what);
	if (strstr(failure.text, with) == NULL)
		printf("# got: %s\n", failure.text);
	ok(strstr(failure.text, with) != NULL, with);
	ok(strstr(failure.text, "hush") == NULL, "and no value is told");
}

static void
refuses(const char *text, const char *with, const char *what)
{
	section_refuses("", text, with, what);
}

static void
test_properties(void)
{
	ok(parse("# a comment\n! another\n\n"
			 "bootstrap.servers=a:9092,b:9092\r\n"
			 "  sasl.username :  key \n"
			 "sasl.password = pa=ss:#word \n"
			 "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN"), "properties");
	has("bootstrap.servers", "a:9092,b:9092", "a list");
	has("sasl.username", "key", "a colon, blanks");
	has("sasl.password", "pa=ss:#word", "signs in a value are the value's");
	ok(kafka_properties_get(&p, "ssl.ca.location") == NULL, "what isn't there isn't set");
	kafka_properties_free(&p);

	ok(parse("client.id=a\nclient.id=b\n"), "a name twice");
	has("client.id", "b", "the later one counts");
	kafka_properties_free(&p);
	ok(parse(""), "an empty file");
	kafka_properties_free(&p);
}

static void
test_environment(void)
{
	ok(parse("# app\nNODE_ENV=production\nDATABASE_URL=\"postgres://u:p@h/d?x=1\"\n"
			 "export CONFLUENT_BOOTSTRAP_SERVER='pkc-1.europe.confluent.cloud:9092'  # europe\n"
			 "CONFLUENT_API_KEY=ABC123 # the key\n"
			 "CONFLUENT_API_SECRET=\"s#cr'et+/=\"\n"
			 "PRIVATE_KEY=\"-----BEGIN\nplugin.library.paths=x\n-----END\"\n"), ".env");
	has("bootstrap.servers", "pkc-1.europe.confluent.cloud:9092", "quotes, export, a comment");
	has("sasl.username", "ABC123", "a comment after a value without quotes");
	has("sasl.password", "s#cr'et+/=", "signs within quotes");
	has("security.protocol", "SASL_SSL", "means SASL_SSL");
	has("sasl.mechanism", "PLAIN", "with PLAIN");
	kafka_properties_free(&p);

	refuses("CONFLUENT_API_KEY=hush\n", "CONFLUENT_API_SECRET is missing", "half of a pair");
	refuses("\nCONFLUENT_API_SECRET=\"hush\n", "line 2: CONFLUENT_API_SECRET has a quote that isn't closed", "an open quote");
	ok(parse("CONFLUENT_API_KEY=k\nCONFLUENT_API_SECRET=s\nssl.ca.location=/ca.pem\n"), "both formats in one file");
	has("ssl.ca.location", "/ca.pem", "each by its own rules");
	kafka_properties_free(&p);
}

static void
test_refused(void)
{
	refuses("\n\nplugin.library.paths=hush\n", "line 3: plugin.library.paths can't be set: it loads code", "what loads code");
	refuses("ssl.engine.location=hush\n", "loads code", "an engine");
	refuses("ssl.providers=hush\n", "loads code", "providers");
	refuses("sasl.kerberos.kinit.cmd=hush\n", "runs commands", "what runs commands");
	refuses("group.id=hush\n", "option group_id", "what the extension sets");
	refuses("enable.auto.commit=hush\n", "offsets are the database's", "what the extension depends on");
	refuses("sasl.jaas.config=hush;\n", "sasl.username and sasl.password", "the Java client's names, with ours");
	refuses("enable.ssl.certificate.verification=false\n", "ssl.ca.location", "no verification");
	refuses("sasl.pasword=hush\n", "unknown property sasl.pasword", "a mistyped name");
	refuses("security.protocol=hush\n", "line 1: librdkafka refuses the value of security.protocol", "a bad value");
	refuses("socket.timeout.ms=hush\n", "socket.timeout.ms", "a bad number");
	refuses("hush\n", "expected name = value", "no name");
	refuses("ssl.key.password=hush\\\n", "continued", "a continued line");
}

static uint64_t
section_hash(const char *section, const char *text)
{
	uint64_t	hash;

	ok(parse_section(section, text), "parsed for its hash");
	hash = p.hash;
	kafka_properties_free(&p);
	return hash;
}

static void
test_sections(void)
{
	const char *file = "bootstrap.servers=a:1\nclient.id=one\n\n[analytics]\nbootstrap.servers=b:1 # b\n"
		"# its own\n  [eu-1_x]  \nCONFLUENT_BOOTSTRAP_SERVER='c:1' # c\nCONFLUENT_API_KEY=k\nCONFLUENT_API_SECRET=s\n";

	ok(parse(file) && p.found, "what is before the first section is the default connection");
	has("bootstrap.servers", "a:1", "with its properties");
	ok(p.n == 2, "and no others");
	ok(p.nsections == 2 && strcmp(p.sections[0], "analytics") == 0 && strcmp(p.sections[1], "eu-1_x") == 0,
	   "the sections' names, in order");
	kafka_properties_free(&p);

	ok(parse_section("analytics", file) && p.found, "a section");
	has("bootstrap.servers", "b:1 # b", "has its own properties");
	ok(kafka_properties_get(&p, "client.id") == NULL, "and inherits none");
	kafka_properties_free(&p);
	ok(parse_section("eu-1_x", file) && p.found, "a section by the names of .env");
	has("bootstrap.servers", "c:1", "read by dotenv's rules");
	has("security.protocol", "SASL_SSL", "which mean SASL_SSL for it");
	kafka_properties_free(&p);
	ok(parse_section("analytic", file) && !p.found && p.n == 0, "one that isn't there");
	kafka_properties_free(&p);
	ok(parse_section(NULL, file) && p.nsections == 2 && p.n == 0, "the names only");
	kafka_properties_free(&p);

	ok(parse("[a]\nbootstrap.servers=b\n[b]\nplugin.library.paths=hush\n"), "a mistake in a section isn't another's");
	kafka_properties_free(&p);
	ok(parse_section("a", "sasl.pasword=x\n[a]\nbootstrap.servers=b\n[b]\nplugin.library.paths=hush\n"), "nor of one in the middle");
	kafka_properties_free(&p);
	section_refuses("b", "[a]\nbootstrap.servers=b\n[b]\nplugin.library.paths=hush\n", "line 4: plugin.library.paths", "but its own");
	section_refuses("a", "bootstrap.servers=b\n[a]\nclient.id=hush\n", "section [a] has no bootstrap.servers", "no brokers");
	section_refuses("a", "[a]\nbootstrap.servers=b\nCONFLUENT_API_KEY=hush\n[b]\nCONFLUENT_API_SECRET=x\n", "CONFLUENT_API_SECRET is missing",
					"half of a pair in a section");
	ok(parse_section("b", "CONFLUENT_API_KEY=x\n[b]\nbootstrap.servers=b\n"), "half of a pair elsewhere");
	kafka_properties_free(&p);

	refuses("[a]\nbootstrap.servers=b\n\n[a]\n", "line 4: section [a] is there twice", "a section twice");
	section_refuses(NULL, "[a]\n[a]\n", "line 2: section [a] is there twice", "whatever is read");
	refuses("[]\n", "line 1: a section is [name]", "a section without a name");
	refuses("[a b]\n", "line 1: a section is [name]", "a blank in a name");
	refuses("[a\n", "line 1: a section is [name]", "no bracket at the end");
	refuses("[\n", "line 1: a section is [name]", "a bracket only");
	refuses("[a] # hush\n", "line 1: a section is [name]", "something behind it");
	refuses("[0123456789012345678901234567890123456789012345678901234567890123]\n", "at most 63", "a name that is too long");
	section_refuses("b", "[a]\nX=\"hush\n[b]\nbootstrap.servers=b\n", "line 2: X has a quote that isn't closed",
					"a quote that would swallow other sections");

	ok(section_hash("", file) == section_hash("", "bootstrap.servers=a:1\nclient.id=one\n\n[analytics]\nbootstrap.servers=b:2\n"),
	   "a change elsewhere doesn't change a connection's hash");
	ok(section_hash("analytics", "[analytics]\nbootstrap.servers=b:1\n") != section_hash("analytics", "[analytics]\nbootstrap.servers=b:2\n"),
	   "a change of its own does");
	ok(section_hash("a", "[a]\nbootstrap.servers=b:1\n# 1\n") != section_hash("a", "[a]\nbootstrap.servers=b:1\n# 2\n"),
	   "so does one of a comment");
}

static void
test_files(void)
{
	char		path[] = "/tmp/nexus_properties.XXXXXX";
	int			fd = mkstemp(path);
	const char	text[] = "client.id=x\n";

	ok(write(fd, text, strlen(text)) == (ssize_t) strlen(text), "a file");
	ok(kafka_properties_read(path, "", &p, &failure), "is read");
	has("client.id", "x", "and understood");
	kafka_properties_free(&p);
	fchmod(fd, 0640);
	ok(!kafka_properties_read(path, "", &p, &failure) && strstr(failure.text, "chmod 600"), "readable by a group: refused");
	fchmod(fd, 0604);
	ok(!kafka_properties_read(path, "", &p, &failure) && strstr(failure.text, "chmod 600"), "readable by all: refused");
	unlink(path);
	close(fd);
	ok(!kafka_properties_read(path, "", &p, &failure) && strstr(failure.text, "No such file"), "none there: refused");
	mkfifo(path, 0600);
	ok(!kafka_properties_read(path, "", &p, &failure) && strstr(failure.text, "not a regular file"), "a pipe: refused, without waiting");
	unlink(path);
	ok(!kafka_properties_read("/tmp", "", &p, &failure) && strstr(failure.text, "not a regular file"), "a directory: refused");
}

static void
write_text(const char *path, const char *text)
{
	FILE	   *file = fopen(path, "w");

	fputs(text, file);
	fclose(file);
}

static uint64_t
hash_of(const char *text)
{
	uint64_t	hash;

	ok(parse(text), "a file that names others");
	hash = p.hash;
	kafka_properties_free(&p);
	return hash;
}

/* What is in the files that are named counts; what isn't read from them doesn't. */
static void
test_named_files(void)
{
	char		dir[] = "/tmp/nexus_named.XXXXXX";
	char		file[64];
	char		named_file[128];
	char		named_dir[128];
	uint64_t	before;

	ok(mkdtemp(dir) != NULL, "a directory");
	snprintf(file, sizeof(file), "%s/ca.pem", dir);
	snprintf(named_file, sizeof(named_file), "ssl.ca.location=%s\n", file);
	snprintf(named_dir, sizeof(named_dir), "ssl.ca.location=%s\n", dir);
	before = hash_of(named_file);
	write_text(file, "one");
	ok(hash_of(named_file) != before, "a file that was not there before");
	before = hash_of(named_file);
	write_text(file, "one");
	ok(hash_of(named_file) == before, "the same, written anew: nothing has changed");
	write_text(file, "two");
	ok(hash_of(named_file) != before, "other content of the same length");
	before = hash_of(named_dir);
	ok(hash_of(named_dir) == before, "a directory");
	write_text(file, "three");
	ok(hash_of(named_dir) != before, "of which a file has changed");
	unlink(file);
	rmdir(dir);
}

/* With OIDC or without, as librdkafka was built. */
static void
test_oauthbearer(void)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		ignored[256];
	bool		has_oidc = rd_kafka_conf_set(conf, "sasl.oauthbearer.method", "oidc", ignored, sizeof(ignored)) == RD_KAFKA_CONF_OK;

	rd_kafka_conf_destroy(conf);
	refuses("sasl.mechanism=OAUTHBEARER\n", "needs sasl.oauthbearer.method=oidc", "OAUTHBEARER without a method");
	if (has_oidc)
	{
		ok(parse("sasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n"), "OIDC");
		kafka_properties_free(&p);
	}
	else
		refuses("sasl.oauthbearer.client.secret=hush\n",
				"is built without what sasl.oauthbearer.client.secret needs: OAuth/OIDC depends on libcurl", "no OIDC");
}

int
main(void)
{
	test_properties();
	test_environment();
	test_refused();
	test_sections();
	test_files();
	test_named_files();
	test_oauthbearer();
	return done_testing();
}
