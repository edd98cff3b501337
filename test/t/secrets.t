# A secret in the connection's file that stands where none is expected, and a key that others
# may read: refused, with file and line, and no view, log or error repeats what stands there.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use NexusKafka::Secrets;
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Test::More;

# As a name, a variable or a host could be spelled.
my %secrets = ('secret' => 'hush-5d1f', 'secret in capitals' => 'HUSH5D1F');
my ($secret, $capitals) = @secrets{ 'secret', 'secret in capitals' };
my $broker = 'bootstrap.servers=127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . "\n";

my $node = NexusKafka::Cluster->make('secrets', start => 0, conf => { log_min_messages => 'debug5' });
my $file = NexusKafka::ConnectionFile->new($node);

sub last_error_ok
{
	my ($text, $error, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$file->reload_with($text);
	$node->wait_for_query('postgres', "SELECT count(*) = 2 FROM nexus_status WHERE last_error ~ \$\$$error\$\$");
	return pass("$what: $error");
}

$file->write($broker);
$node->start;
$node->create_extension('postgres');
$file->state_ok('unreachable', 'onnection refused', 'nobody is there, as librdkafka\'s lines in the log say too');

# ---- while running

my @bad = (
	[ "sasl.password =\n$secret\n", 'line 2: sasl\.password has no value', 'a password in the next line' ],
	[ "$secret=\n", 'line 2: unknown property; docs', 'one that ends as base64 does' ],
	[ "sasl.pasword=$secret\n", 'line 2: unknown property \(did you mean sasl\.password\?\)', 'a mistyped name' ],
	[ "key.$secret=1\n", 'line 2: key\.\* can\'t be set', 'one that begins as a name does' ],
	[ "$secret\n", 'line 2: expected name = value', 'one alone' ],
	[ "[$secret]\n[$secret]\n", 'line 3: a section of this name is there already', 'one in brackets, twice' ],
	[ "$capitals=\"x\n", 'line 2: a variable has a quote that isn\'t closed', 'one in capitals' ],
	[ "CONFLUENT_BOOTSTRAP_SERVER=\"a:1\nCONFLUENT_API_SECRET=$secret\nURL=\"x\n", 'line 4: the value of bootstrap\.servers has a line end',
		'a forgotten quote that another one closes' ],
	[ "bootstrap.servers=a:1\rsasl.password=$secret\r", 'line 2: the value of bootstrap\.servers has a line end', 'line ends of another system' ],
	[ "bootstrap.servers=app:$secret\@a:1\n", 'line 2: the value of bootstrap\.servers must be host:port', 'a user among the hosts' ],
	[ "security.protocol=SASL_SSL\nsasl.mechanism=$secret\n", 'line 3: the value of sasl\.mechanism must be', 'a value that librdkafka tells' ],
	[ "security.protocol=$secret\n", 'line 2: librdkafka refuses the value of security\.protocol', 'another one' ]);
last_error_ok($broker . $_->[0], $_->[1], $_->[2]) for @bad;

# ---- in a section

$file->reload_with("$broker\[analytics]\n$broker" . "sasl.password=\n$secret\n");
$node->wait_for_query('postgres', q(SELECT reason ~ 'line 4: sasl\.password has no value' FROM nexus_status WHERE name = 'analytics'));
pass('in a section: its row of nexus_status says so');

# ---- a key

my $key = PostgreSQL::Test::Utils::tempdir() . '/key.pem';
append_to_file($key, "$secret\n");
chmod 0640, $key;
last_error_ok("${broker}ssl.key.location=$key\n", 'ssl\.key\.location names a file that may be read by others', 'a key that a group may read');
last_error_ok("${broker}ssl.keystore.location=$key\n", 'ssl\.keystore\.location names a file that may be read by others', 'a keystore');
chmod 0600, $key;
last_error_ok("${broker}security.protocol=SSL\nssl.key.location=$key\n", '^ssl\.key\.location failed', 'its owner only: librdkafka reads it');

# ---- at the start

for my $bad (@bad[ 0, 1, 6, 7 ])
{
	$file->write($broker . $bad->[0]);
	$node->restart;
	$file->state_ok('not_configured', $bad->[1] =~ s/'/./r, "$bad->[2], at the start");
}

$file->reload_with($broker);
$file->state_ok('unreachable', 'onnection refused', 'mended');
secrets_nowhere_ok($node, \%secrets);
no_crash_ok($node);
done_testing();
