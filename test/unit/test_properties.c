/*
 * Unit tests of kafka/properties.c: files, the two formats, what is refused, and that
 * nothing of the file is told. hush stands for a secret, wherever it has got to.
 */
#include "kafka/internal.h"

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
	ok(strstr(failure.text, "hush") == NULL && strstr(failure.text, "HUSH") == NULL, "and nothing of the file is told");
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
	refuses("HUSH=\"x\n", "line 1: a variable has a quote that isn't closed", "an open quote of what may be no name");
	refuses("CONFLUENT_BOOTSTRAP_SERVER=\"a:1\nCONFLUENT_API_SECRET=hush\nURL=\"x\n", "line 3: the value of bootstrap.servers has a line end",
			"a quote that was forgotten, and one further on closes it");
	refuses("CONFLUENT_API_KEY=\nCONFLUENT_API_SECRET=hush\n", "line 1: sasl.username has no value", "a variable without a value");
	ok(parse("CONFLUENT_API_KEY=k\nCONFLUENT_API_SECRET=s\nssl.ca.location=/ca.pem\n"), "both formats in one file");
	has("ssl.ca.location", "/ca.pem", "each by its own rules");
	kafka_properties_free(&p);
}

static void
test_refused(void)
{
	refuses("\n\nplugin.library.paths=hush\n", "line 3: plugin.library.paths can't be set: it loads code", "what loads code");
	refuses("ssl.engine.location=hush\n", "ssl.engine.* can't be set: it loads code", "an engine");
	refuses("ssl.providers=hush\n", "loads code", "providers");
	refuses("sasl.kerberos.kinit.cmd=hush\n", "runs commands", "what runs commands");
	refuses("group.id=hush\n", "option group_id", "what the extension sets");
	refuses("enable.auto.commit=hush\n", "offsets are the database's", "what the extension depends on");
	refuses("sasl.jaas.config=hush;\n", "sasl.username and sasl.password", "the Java client's names, with ours");
	refuses("enable.ssl.certificate.verification=false\n", "ssl.ca.location", "no verification");
	refuses("sasl.pasword=hush\n", "unknown property (did you mean sasl.password?)", "a mistyped name");
	refuses("Bootstrap_Servers=hush\n", "(did you mean bootstrap.servers?)", "capitals, and another sign between");
	refuses("shush=hush\n", "unknown property; docs/reference.md", "a name that is near to none");
	refuses("security.protocol=hush\n", "line 1: librdkafka refuses the value of security.protocol", "a bad value");
	refuses("socket.timeout.ms=hush\n", "socket.timeout.ms", "a bad number");
	refuses("hush\n", "expected name = value", "no name");
	refuses("ssl.key.password=hush\\\n", "continued", "a continued line");
}

/* A secret where it isn't expected. */
static void
test_misplaced(void)
{
	refuses("client.id=a\nsasl.password =\nhush\n", "line 2: sasl.password has no value; it must stand on the same line",
			"a value in the next line");
	refuses("hush=\n", "line 1: unknown property; docs", "what looks like a name");
	refuses("hush\n", "line 1: expected name = value", "what has no sign of equality");
	refuses("export hush=1\n", "line 1: expected name = value", "export");
	refuses("key.hush=1\n", "key.* can't be set", "what begins as a name does");
	refuses("[hush]\n[hush]\n", "line 2: a section of this name is there already", "in brackets, twice");
	refuses("[hush\n", "a section is [name]", "in half of them");
	refuses("sasl.mechanism=hush\n", "line 1: the value of sasl.mechanism must be PLAIN, SCRAM", "a value that librdkafka tells");
	refuses("sasl.mechanisms=GSSAPI\n", "must be PLAIN, SCRAM", "a mechanism that runs commands");
	refuses("security.protocol=sasl_ssl\n", "needs sasl.mechanism: PLAIN, SCRAM", "which is librdkafka's default");
	refuses("bootstrap.servers=app:hush@a:9092\n", "must be host:port", "a user among the hosts");
	refuses("bootstrap.servers=a:9092, b:9092 sasl.password=hush\n", "must be host:port", "two properties in a line");
	refuses("bootstrap.servers=a:9092 hush\n", "must be host:port", "and half of one");
	refuses("sasl.oauthbearer.token.endpoint.url=https://app:hush@b/token\n", "must not have a user in it", "a user in a URL");
	refuses("bootstrap.servers=a:9092\rsasl.password=hush\r", "line end or another control character", "line ends of another system");
	ok(parse("sasl.password=\xc3\x85\n"), "a letter of which a byte would be a control character or a blank elsewhere");
	has("sasl.password", "\xc3\x85", "is the value's");
	kafka_properties_free(&p);
	refuses("\xff\xfeh\x01u\x01s\x01h=\n", "line 1: expected name = value", "another encoding");
	refuses("\xef\xbb\xbfhush=1\n", "line 1: unknown property", "after a byte order mark");

	ok(parse("\xef\xbb\xbf" "client.id=a\nbootstrap.servers = a:9092 , SASL_SSL://[::1]:9092\n"), "a byte order mark");
	has("client.id", "a", "is not the first name's");
	has("bootstrap.servers", "a:9092 , SASL_SSL://[::1]:9092", "hosts in all ways that librdkafka knows");
	kafka_properties_free(&p);
}

static void
tells_nothing(const char *name, const char *value)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		why[256] = "";

	ok(!kafka_config_set(conf, name, value, why, sizeof(why)), "librdkafka refuses a value");
	ok(strstr(why, name) && !strstr(why, "hush"), "which isn't told, but the name is");
	rd_kafka_conf_destroy(conf);
}

/* Where librdkafka would say the value, or it has none of that name. */
static void
test_librdkafka(void)
{
	static const char *const names[] = {"security.protocol", "socket.timeout.ms", "socket.keepalive.enable",
	"compression.codec", "client.dns.lookup", "no.such.property"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		tells_nothing(names[i], "hush");
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
	const char *file = "bootstrap.servers=a:1\nclient.id=one\n\n[analytics]\nbootstrap.servers=b:1\nclient.rack=b # b\n"
		"# its own\n  [eu-1_x]  \nCONFLUENT_BOOTSTRAP_SERVER='c:1' # c\nCONFLUENT_API_KEY=k\nCONFLUENT_API_SECRET=s\n";

	ok(parse(file) && p.found, "what is before the first section is the default connection");
	has("bootstrap.servers", "a:1", "with its properties");
	ok(p.n == 2, "and no others");
	ok(p.nsections == 2 && strcmp(p.sections[0], "analytics") == 0 && strcmp(p.sections[1], "eu-1_x") == 0,
	   "the sections' names, in order");
	kafka_properties_free(&p);

	ok(parse_section("analytics", file) && p.found, "a section");
	has("bootstrap.servers", "b:1", "has its own properties");
	has("client.rack", "b # b", "by the rules of properties");
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

	refuses("[a]\nbootstrap.servers=b\n\n[a]\n", "line 4: a section of this name is there already", "a section twice");
	section_refuses(NULL, "[a]\n[a]\n", "line 2: a section of this name is there already", "whatever is read");
	refuses("[]\n", "line 1: a section is [name]", "a section without a name");
	refuses("[a b]\n", "line 1: a section is [name]", "a blank in a name");
	refuses("[a\n", "line 1: a section is [name]", "no bracket at the end");
	refuses("[\n", "line 1: a section is [name]", "a bracket only");
	refuses("[a] # hush\n", "line 1: a section is [name]", "something behind it");
	refuses("[0123456789012345678901234567890123456789012345678901234567890123]\n", "at most 63", "a name that is too long");
	section_refuses("b", "[a]\nX=\"hush\n[b]\nbootstrap.servers=b\n", "line 2: a variable has a quote that isn't closed",
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

static const char *
fault_of(uid_t owner, mode_t mode)
{
	struct stat st = {.st_uid = owner,.st_mode = mode};
	const char *fault = kafka_secret_file_fault(&st);

	return fault ? fault : "";
}

/* As PostgreSQL has it for the server's own key. */
static void
test_rule(void)
{
	uid_t		we = geteuid();
	uid_t		root = 0;

	ok(strcmp(fault_of(we, S_IFREG | 0600), "") == 0, "ours, 0600");
	ok(strcmp(fault_of(we, S_IFREG | 0400), "") == 0, "ours, 0400");
	ok(strstr(fault_of(we, S_IFREG | 0640), "chmod 600") != NULL, "ours, and a group may read it");
	ok(strstr(fault_of(we, S_IFREG | 0604), "chmod 600") != NULL, "ours, and all may");
	ok(strstr(fault_of(we, S_IFREG | 0610), "chmod 600") != NULL, "ours, and a group may run it");
	ok(strstr(fault_of(we + 4711, S_IFREG | 0600), "must belong") != NULL, "a stranger's");
	ok(strcmp(fault_of(root, S_IFREG | 0600), "") == 0, "root's, 0600");
	if (we != root)
	{
		ok(strcmp(fault_of(root, S_IFREG | 0640), "") == 0, "root's, and a group may read it");
		ok(strcmp(fault_of(root, S_IFREG | 0440), "") == 0, "root's, as Kubernetes mounts it");
		ok(strstr(fault_of(root, S_IFREG | 0660), "chmod 640") != NULL, "root's, and a group may write it");
		ok(strstr(fault_of(root, S_IFREG | 0644), "chmod 640") != NULL, "root's, and all may read it");
	}
	ok(strstr(fault_of(we, S_IFDIR | 0700), "not a regular file") != NULL, "a directory");
	ok(strstr(fault_of(we, S_IFIFO | 0600), "not a regular file") != NULL, "a pipe");
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

/* Those with a private key are kept as the file itself is; a certificate is no secret. */
static void
test_keys(void)
{
	static const char *const keys[] = {"ssl.key.location", "ssl.keystore.location"};
	char		dir[] = "/tmp/nexus_keys.XXXXXX";
	char		file[64];
	char		link[64];
	char		text[256];

	ok(mkdtemp(dir) != NULL, "a directory");
	snprintf(file, sizeof(file), "%s/key.pem", dir);
	snprintf(link, sizeof(link), "%s/link.pem", dir);
	write_text(file, "a key");
	ok(symlink(file, link) == 0, "a symbolic link");
	for (int i = 0; i < 2; i++)
	{
		snprintf(text, sizeof(text), "%s=/nowhere/hush\n%s=%s\n", keys[i], keys[i], link);
		chmod(file, 0600);
		ok(parse(text), "a key that only its owner may read");
		kafka_properties_free(&p);
		chmod(file, 0640);
		refuses(text, keys[i], "a key that a group may read");
		refuses(text, "names a file that may be read by others than its owner: chmod 600", "through a link");
	}
	snprintf(text, sizeof(text), "ssl.certificate.location=%s\nssl.ca.location=%s\n", file, file);
	chmod(file, 0644);
	ok(parse(text), "a certificate and a CA that all may read");
	kafka_properties_free(&p);
	snprintf(text, sizeof(text), "[a]\nbootstrap.servers=b\nssl.key.location=%s\n", file);
	ok(parse(text), "a key of another section");
	kafka_properties_free(&p);
	ok(parse("ssl.key.location=/nowhere/key.pem\n"), "a key that isn't there is librdkafka's to complain of");
	kafka_properties_free(&p);
	unlink(file);
	mkfifo(file, 0600);
	snprintf(text, sizeof(text), "ssl.key.location=%s\n", file);
	refuses(text, "ssl.key.location names a file that is not a regular file", "a pipe");
	snprintf(text, sizeof(text), "ssl.ca.location=%s\n", file);
	refuses(text, "ssl.ca.location names a file that is neither a regular file nor a directory", "also for a CA");
	unlink(link);
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
	test_misplaced();
	test_librdkafka();
	test_sections();
	test_files();
	test_rule();
	test_named_files();
	test_keys();
	test_oauthbearer();
	return done_testing();
}
