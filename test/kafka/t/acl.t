# Authorization on: what isn't allowed is a state with its reason, without a crash or
# a flood of the log, and goes on by itself when it is allowed.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new(conf => {
	'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
	'super.users' => 'User:ANONYMOUS' });
$kafka->create_topic($_, 1) for qw(nexus-prospect-ingestion other);
my $node = NexusKafka::Cluster->make('acl', start => 0);
my $file = $node->data_dir . '/client.properties';
open(my $handle, '>', $file) or die "$file: $!";
print $handle "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=key\n",
  'sasl.password=', NexusKafka::Broker::SASL_PASSWORD, "\nssl.ca.location=", $kafka->ca_file, "\n",
  'bootstrap.servers=', $kafka->sasl_bootstrap, "\n";
close $handle;
chmod 0600, $file;
$node->configure('nexus_kafka.config_file' => $file);
$node->start;
$node->create_extension('postgres');

sub acl
{
	my ($what, @args) = @_;
	return $kafka->java('org.apache.kafka.tools.AclCommand', '--bootstrap-server', $kafka->bootstrap, "--$what", '--force',
		'--allow-principal', 'User:key', @args);
}

sub state_ok
{
	my ($kind, $state, $reason, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres',
		"SELECT state = '$state' AND coalesce(reason, '') ~* '$reason' FROM nexus_status WHERE kind = '$kind'");
	note($node->safe_psql('postgres', "SELECT state, reason, last_error_sqlstate FROM nexus_status WHERE kind = '$kind'"));
	return pass($name);
}

my @prospects = ('--topic', 'nexus-prospect-ingestion');

state_ok('pipeline', 'waiting', 'not allow', 'no right to the topic');
my $pid = $node->worker_pid('ingest', 'postgres');

acl('add', @prospects, '--operation', 'Write');
$node->produce('postgres', { sessionId => 's-1' });
$node->wait_for_query('postgres', 'SELECT count(*) = 0 FROM nexus_outbox');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'the right to write: published');
$node->safe_psql('postgres', q(SELECT nexus_produce('other', 'x')));
$node->wait_for_query('postgres', q(SELECT count(*) = 1 FROM nexus_dead_letters WHERE origin = 'outbox' AND topic = 'other'
	AND sqlstate = 'TOPIC_AUTHORIZATION_FAILED'));
pass('a topic without the right: a dead letter, with Kafka\'s error');
sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('other', 'x')), '42501', 'and an error of nexus_produce_now');
state_ok('pipeline', 'waiting', 'authorization', 'to write is not to read');

acl('add', @prospects, '--operation', 'Read');
state_ok('pipeline', 'running', '', 'the right to read: it goes on by itself');
$node->wait_rows('postgres', 'prospect_tracking', 1);
is($node->worker_pid('ingest', 'postgres'), $pid, 'the process is the same');

acl('remove', @prospects, '--operation', 'Read');
state_ok('pipeline', 'waiting', 'authorization', 'the right is taken away');
$node->produce('postgres', { sessionId => 's-2' });
acl('add', @prospects, '--operation', 'Read');
state_ok('pipeline', 'running', '', 'and given again');
$node->wait_rows('postgres', 'prospect_tracking', 2);

my @lines = log_lines($node, qr/nexus_kafka ingest/);
cmp_ok(scalar @lines, '<', 20, 'the log has a line a change, no more');
no_crash_ok($node);
done_testing();
