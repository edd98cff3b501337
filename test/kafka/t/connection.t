# nexus_kafka.config_file against a broker with SASL_SSL: an application's .env file,
# a properties file, what is wrong with either, changes while running, and that the
# secret shows up nowhere.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use NexusKafka::Secrets;
use Test::More;

my $secret = NexusKafka::Broker::SASL_PASSWORD;
my $marked = 'hush-5d1f';    # wrong, and to be found if it is shown anywhere
my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
my $node = NexusKafka::Cluster->make('connection', start => 0,
	conf => { log_min_messages => 'debug5' });
my $file = NexusKafka::ConnectionFile->new($node);

sub env_file
{
	my (%opt) = @_;

	return join "\n", '# of the application', 'NODE_ENV=production',
	  'export CONFLUENT_BOOTSTRAP_SERVER="' . ($opt{server} // $kafka->sasl_bootstrap) . '"',
	  "CONFLUENT_API_KEY='key' # the key",
	  'CONFLUENT_API_SECRET=' . ($opt{secret} // $secret),
	  'ssl.ca.location=' . ($opt{ca} // $kafka->ca_file), '';
}

# ---- the .env file

$file->write(env_file());
$node->start;
$node->create_extension('postgres');
$file->arrives_ok('an .env file as it is, with the CA');

# ---- wrong

$file->reload_with(env_file(secret => $marked));
$file->state_ok('unreachable', 'uthentication', 'a wrong password');
$file->reload_with(env_file());
runs_ok($node, 'postgres', 'the right one again');
$file->arrives_ok('and messages arrive');

my $other_ca = NexusKafka::Broker->new(start => 0);
$file->reload_with(env_file(ca => $other_ca->ca_file));
$file->state_ok('unreachable', 'certificate', 'a CA that didn\'t sign the certificate');
(my $by_address = $kafka->sasl_bootstrap) =~ s/localhost/127.0.0.1/;
$file->reload_with(env_file(server => $by_address));
$file->state_ok('unreachable', '127.0.0.1.*certificate', 'a host name that isn\'t the certificate\'s');
$file->reload_with(env_file());
runs_ok($node, 'postgres', 'mended');

# ---- a file that can't be used, while running

my %pids = map { $_ => $node->worker_pid($_, 'postgres') } qw(relay ingest);
my @bad = (
	[ "plugin.library.paths=/tmp/$marked.so\n", qr/line 1: plugin\.library\.paths can't be set/ ],
	[ env_file() . "sasl.pasword=$marked\n", qr/line 7: unknown property \(did you mean sasl\.password\?\)/ ],
	[ env_file(ca => "/tmp/$marked.pem"), qr/ssl\.ca\.location/ ],
	[ env_file() . "security.protocol=$marked\n", qr/line 7: librdkafka refuses the value of security\.protocol/ ]);
for my $bad (@bad)
{
	my $before = () = log_lines($node, $bad->[1]);
	$file->reload_with($bad->[0]);
	$node->wait_for_query('postgres',
		"SELECT count(*) = 2 FROM nexus_status WHERE last_error ~ 'config_file|ssl.ca.location'");
	$file->arrives_ok('a bad file: the connection goes on');
	ok(scalar(() = log_lines($node, qr/keeps its connection.*$bad->[1]/)) > 0, "the log says why: $bad->[1]")
	  if $bad == $bad[0];
	$file->reload_with(env_file());
}
is($node->worker_pid($_, 'postgres'), $pids{$_}, "the $_ is the same process") for qw(relay ingest);

# ---- a file that can't be used, at the start

for my $bad ([ env_file(), 0640, 'may be read by others' ], [ "sasl.jaas.config=$marked\n", 0600, 'sasl.username' ])
{
	$file->write(@$bad);
	$node->restart;
	$file->state_ok('not_configured', $bad->[2], $bad->[2]);
}
$file->reload_with("bootstrap.servers=" . $kafka->sasl_bootstrap . "\nsecurity.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n" .
	  "sasl.username=key\nsasl.password=$secret\nssl.ca.location=" . $kafka->ca_file . "\n");
runs_ok($node, 'postgres', 'a properties file, after a reload');
$file->arrives_ok('and messages arrive');

# ---- other ways to say who one is

my $mtls = 'bootstrap.servers=' . $kafka->mtls_bootstrap . "\nsecurity.protocol=SSL\nssl.ca.location=" . $kafka->ca_file . "\n";
$file->reload_with($mtls);
$file->state_ok('unreachable', 'wants a certificate of ours', 'a listener that wants a certificate, and none');
$file->reload_with($mtls . 'ssl.certificate.location=' . $kafka->ca_file . "\nssl.key.location=" . $kafka->key_file . "\n");
runs_ok($node, 'postgres', 'mutual TLS');
$file->arrives_ok('mutual TLS: messages arrive');
chmod 0640, $kafka->key_file;
$node->reload;
$node->wait_for_query('postgres', "SELECT count(*) = 2 FROM nexus_status WHERE last_error ~ 'ssl.key.location names a file that may be read'");
$file->arrives_ok('its key may be read by others now: the connection goes on');
chmod 0600, $kafka->key_file;

# ---- the secret

secrets_nowhere_ok($node, { 'password' => $secret, 'wrong password' => $marked });
no_crash_ok($node);
done_testing();
