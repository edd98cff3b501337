# Certificates and the password change while messages flow: at the broker by a restart,
# in the server's files under the same names by a reload. What has expired, or doesn't
# fit, is a state with its reason, and nothing is lost or comes twice.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Certificates;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use NexusKafka::Load;
use NexusKafka::Secrets;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my %secrets = ('first password' => 'hidden-first-41', 'second password' => 'hidden-second-42',
	'key password' => 'hidden-key-43');
my $old_ca = NexusKafka::Certificates->new;
my $new_ca = NexusKafka::Certificates->new;
my $dir = PostgreSQL::Test::Utils::tempdir();

# The broker trusts clients of both, as one does while a CA is changed.
NexusKafka::ConnectionFile::replace_file("$dir/both.pem", slurp_file($old_ca->ca_file) . slurp_file($new_ca->ca_file));

my $kafka = NexusKafka::Broker->new(conf => {
	'ssl.keystore.location' => $old_ca->issue('localhost')->{keystore},
	'listener.name.sasl_ssl.ssl.client.auth' => 'required',
	'listener.name.sasl_ssl.ssl.truststore.type' => 'PEM',
	'listener.name.sasl_ssl.ssl.truststore.location' => "$dir/both.pem",
	NexusKafka::Broker->plain_password($secrets{'first password'}) });
$kafka->create_topic('nexus-prospect-ingestion', 1);

my $node = NexusKafka::Cluster->make('certificates', start => 0, conf => { log_min_messages => 'debug5' });
my $file = NexusKafka::ConnectionFile->new($node);

# Under the names that the file has.
sub renew
{
	my (%files) = @_;

	for my $name (keys %files)
	{
		NexusKafka::ConnectionFile::replace_file("$dir/$name.pem", slurp_file($files{$name}));
	}
	return;
}

sub renew_client
{
	my ($issued) = @_;

	return renew(certificate => $issued->{certificate}, key => $issued->{key});
}

sub client
{
	my ($ca, %opt) = @_;

	return $ca->issue('client', password => $secrets{'key password'}, %opt);
}

sub properties
{
	my ($password) = @_;

	return join "\n", 'bootstrap.servers=' . $kafka->sasl_bootstrap, 'security.protocol=SASL_SSL', 'sasl.mechanism=PLAIN',
	  'sasl.username=key', "sasl.password=$secrets{$password}", "ssl.ca.location=$dir/ca.pem",
	  "ssl.certificate.location=$dir/certificate.pem", "ssl.key.location=$dir/key.pem",
	  "ssl.key.password=$secrets{'key password'}", '';
}

my %pids;

sub note_pids { %pids = map { $_ => $node->worker_pid($_, 'postgres') } qw(relay ingest) }

sub are_new_ok
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->worker_pid($_, 'postgres', not => $pids{$_}) for qw(relay ingest);
	return runs_ok($node, 'postgres', $name);
}

my $client = client($old_ca);
renew(ca => $old_ca->ca_file);
renew_client($client);
$file->write(properties('first password'));
$node->start;
$node->create_extension('postgres');
$file->arrives_ok('a client\'s certificate with a key that has a password, and SASL');
my $load = clients_start($node, 'postgres');

# ---- the client's certificate, under the same name

note_pids();
$node->reload;
$file->arrives_ok('a reload');
is($node->worker_pid($_, 'postgres'), $pids{$_}, "the $_ goes on where nothing has changed") for qw(relay ingest);
renew_client(client($old_ca));
$node->reload;
are_new_ok('renewed: the workers connect anew with it');

note_pids();
renew(key => $client->{key});    # of another certificate
$node->reload;
$node->wait_for_query('postgres', q(SELECT count(*) = 2 FROM nexus_status WHERE last_error ~ 'ssl.key.location|key values'));
$file->arrives_ok('a key that doesn\'t fit: the old connection goes on');
is($node->worker_pid($_, 'postgres'), $pids{$_}, "in the same $_") for qw(relay ingest);
ok(scalar(log_lines($node, qr/nexus_kafka $_.* keeps its connection/)) == 1, "the log of the $_ says so once") for qw(relay ingest);

renew_client(client($old_ca, days => -1));
$node->reload;
$file->state_ok('unreachable', 'refuses our certificate.*expired', 'expired');
renew_client(client($new_ca));
$node->reload;
runs_ok($node, 'postgres', 'renewed, by another CA');

# ---- the broker's

$kafka->restart_with('ssl.keystore.location' => $old_ca->issue('localhost', days => -1)->{keystore});
$file->state_ok('unreachable', 'certificate is not accepted: it has expired', 'the broker\'s has expired');
$kafka->restart_with('ssl.keystore.location' => $new_ca->issue('localhost')->{keystore}, $kafka->plain_password($secrets{'second password'}));
$file->state_ok('unreachable', 'certificate is not accepted', 'the broker has one of another CA');

# ---- that CA, and then the password

renew(ca => $new_ca->ca_file);
$node->reload;
$file->state_ok('unreachable', 'uthentication failed: Invalid username or password', 'its CA, but the password is another now too');
$file->reload_with(properties('second password'));
runs_ok($node, 'postgres', 'mended');

exactly_once_ok($node, 'postgres', clients_stop($load));
my @changes = log_lines($node, qr/LOG: .*nexus_kafka (?:relay|ingest)\b.* is unreachable/);
cmp_ok(scalar @changes, '<=', 20, 'a line a change in the log, no more: ' . @changes);
secrets_nowhere_ok($node, \%secrets);
no_crash_ok($node);
done_testing();
