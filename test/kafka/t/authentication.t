# SCRAM and OAUTHBEARER. Debian 12's librdkafka can do neither with Kafka 4, and says so;
# with a newer one both work, passwords and tokens change while it runs, and no secret
# shows up anywhere.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use NexusKafka::Secrets;
use NexusKafka::TokenEndpoint;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my %secrets = ('first password' => 'hidden-first-21', 'second password' => 'hidden-second-22',
	'wrong password' => 'hidden-wrong-23', 'client secret' => 'hidden-client-24');
my $tokens = NexusKafka::TokenEndpoint->new;
my $listener = 'listener.name.sasl_ssl.oauthbearer.sasl';
my $kafka = NexusKafka::Broker->new(
	flags => [ '-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://' . $tokens->jwks_file ],
	conf => {
		'sasl.enabled.mechanisms' => 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
		"$listener.jaas.config" => 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;',
		"$listener.server.callback.handler.class" =>
		  'org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler',
		"$listener.oauthbearer.jwks.endpoint.url" => 'file://' . $tokens->jwks_file,
		"$listener.oauthbearer.expected.audience" => 'kafka' });
$kafka->create_topic('nexus-prospect-ingestion', 1);
my @mechanisms = qw(SCRAM-SHA-256 SCRAM-SHA-512);
$kafka->set_scram_password($_, lc $_, $secrets{'first password'}) for @mechanisms;

my $node = NexusKafka::Cluster->make('authentication', start => 0, conf => { log_min_messages => 'debug5' });
my $file = NexusKafka::ConnectionFile->new($node);

sub connection
{
	my (@lines) = @_;

	return join "\n", 'bootstrap.servers=' . $kafka->sasl_bootstrap, 'security.protocol=SASL_SSL',
	  'ssl.ca.location=' . $kafka->ca_file, @lines, '';
}

sub scram
{
	my ($mechanism, $password) = @_;

	return connection("sasl.mechanism=$mechanism", 'sasl.username=' . lc $mechanism, "sasl.password=$secrets{$password}");
}

sub oauth
{
	return connection('sasl.mechanism=OAUTHBEARER', 'sasl.oauthbearer.method=oidc', 'sasl.oauthbearer.client.id=nexus',
		"sasl.oauthbearer.client.secret=$secrets{'client secret'}", 'sasl.oauthbearer.token.endpoint.url=' . $tokens->url);
}

# ---- what is built against

my ($major, $minor, $patch) = split /\./, `pkg-config --modversion rdkafka`;
my $is_old = $major * 10000 + $minor * 100 + $patch < 20601;

$file->write(scram('SCRAM-SHA-256', 'first password'));
$node->start;
$node->create_extension('postgres');
if ($is_old)
{
	$file->state_ok('unreachable', 'librdkafka is too old: Kafka 4 refuses SCRAM', 'SCRAM with an old librdkafka');
	$file->reload_with(oauth());
	$node->wait_for_query('postgres', q(SELECT count(*) = 2 FROM nexus_status
		WHERE last_error ~ 'line 5: this librdkafka .* is built without what sasl.oauthbearer.method needs'));
	pass('OIDC with a librdkafka that lacks it: the file\'s line, and what is missing');
}
else
{
	runs_ok($node, 'postgres', 'SCRAM');
}

# ---- a newer one

my $recipe = 'test/kafka/fetch-librdkafka';
chomp(my $library = `$recipe`);
$node->stop;
$ENV{LD_LIBRARY_PATH} = join ':', $library, $ENV{LD_LIBRARY_PATH} // ();
$file->write(scram('SCRAM-SHA-256', 'first password'));
$node->start;
runs_ok($node, 'postgres', 'SCRAM with a newer librdkafka');
like(slurp_file('/proc/' . $node->worker_pid('relay', 'postgres') . '/maps'), qr/\Q$library\E/, 'it is the newer one');

for my $mechanism (@mechanisms)
{
	$file->reload_with(scram($mechanism, 'wrong password'));
	$file->state_ok('unreachable', 'uthentication failed .* invalid credentials', "$mechanism, a wrong password");
	$file->reload_with(scram($mechanism, 'first password'));
	$file->arrives_ok("$mechanism, the right one");
	$kafka->set_scram_password($mechanism, lc $mechanism, $secrets{'second password'});
	$file->arrives_ok("$mechanism, another password at the broker: the connection that is there goes on");
	$node->restart;
	$file->state_ok('unreachable', 'invalid credentials', "$mechanism, and no new one comes about");
	$file->reload_with(scram($mechanism, 'second password'));
	$file->arrives_ok("$mechanism, the other password in the file too");
}

# ---- OAUTHBEARER

$file->reload_with(connection('sasl.mechanism=OAUTHBEARER'));
$node->wait_for_query('postgres', q(SELECT count(*) = 2 FROM nexus_status
	WHERE last_error ~ 'OAUTHBEARER needs sasl.oauthbearer.method=oidc'));
$file->arrives_ok('OAUTHBEARER without a method: the old connection goes on, and the reason is told');

$file->reload_with(oauth());
runs_ok($node, 'postgres', 'OIDC');
$file->arrives_ok('messages arrive');
$tokens->wait_for_more(4);
$file->arrives_ok('and after the tokens were renewed');

$tokens->mode('refuse');
$node->restart;
$file->state_ok('unreachable', 'Failed to acquire .* token.*invalid_client', 'the endpoint refuses');
$tokens->mode('forged');
$file->state_ok('unreachable', 'does not accept the token', 'it hands out what the broker doesn\'t accept');
$tokens->mode('good');
runs_ok($node, 'postgres', 'mended there');
$file->arrives_ok('messages arrive');

# librdkafka waits for the answer in a thread of its own
$tokens->mode('silent');
$node->restart;
$file->state_ok('unreachable', '', 'a silent endpoint');
quick_ok('DROP EXTENSION while it is silent', 8, sub { $node->safe_psql('postgres', 'DROP EXTENSION nexus_kafka') });
quick_ok('a shutdown while it is silent', 8, sub { $node->restart });

$node->create_extension('postgres');
secrets_nowhere_ok($node, \%secrets);
no_crash_ok($node);
done_testing();
