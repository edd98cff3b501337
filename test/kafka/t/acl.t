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
		"SELECT state = '$state' AND coalesce(reason, '') ~* '$reason' FROM nexus_status WHERE kind = '$kind' AND name <> 'group'");
	note($node->safe_psql('postgres', "SELECT state, reason, last_error_sqlstate FROM nexus_status WHERE kind = '$kind'"));
	return pass($name);
}

my @prospects = ('--topic', 'nexus-prospect-ingestion');

state_ok('pipeline', 'waiting', 'not allow', 'no right to the topic');
state_ok('outbox', 'waiting', 'does not allow it.*cluster authorization', 'no right to write anything (idempotent write)');
like($node->safe_psql('postgres', 'SELECT nexus_health()'), qr/"authenticated": true/, 'authenticated it is');
my $relay = $node->worker_pid('relay', 'postgres');
$relay = $node->worker_pid('relay', 'postgres', not => $relay) for 1 .. 2;
state_ok('outbox', 'waiting', 'does not allow it', 'asked again, and again');
is(scalar(log_lines($node, qr/nexus_kafka relay .* is waiting/)), 1, 'the log has that once')
  or diag(join "\n", log_lines($node, qr/nexus_kafka relay/));
my $pid = $node->worker_pid('ingest', 'postgres');

acl('add', @prospects, '--operation', 'Write');
$node->produce('postgres', { sessionId => 's-1' });
$node->wait_for_query('postgres', 'SELECT count(*) = 0 FROM nexus_outbox');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'the right to write: published');
state_ok('outbox', 'running', '', 'and the relay says that it runs');
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

# ---- the consumer group, and the cluster

$node->safe_psql('postgres', <<'END');
CREATE TABLE taken (n int);
SELECT nexus_create_pipeline('group', topic => 'nexus-prospect-ingestion', options => '{"start": "group:old"}',
  statement => 'INSERT INTO taken SELECT 1 FROM nexus_messages()');
END
$node->wait_for_query('postgres', q(SELECT state = 'waiting' AND reason ~ 'Group authorization failed' FROM nexus_status WHERE name = 'group'));
pass('no right to the group that a pipeline is to begin at');
acl('add', '--group', 'old', '--operation', 'Read');
$node->wait_for_query('postgres', q(SELECT state = 'stopped' AND reason ~ 'has committed no offset' FROM nexus_status WHERE name = 'group'));
pass('the right to it: the pipeline has been told what the group has committed');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('third')), '42501', 'no right to make topics');
acl('add', '--cluster', '--operation', 'Create');
sqlstate_is($node, 'postgres', q(SELECT nexus_create_topic('third')), '00000', 'the right to');

# ---- a right that goes and comes

acl('remove', @prospects, '--operation', 'Read');
state_ok('pipeline', 'waiting', 'authorization', 'the right is taken away');
$node->produce('postgres', { sessionId => 's-2' });
acl('add', @prospects, '--operation', 'Read');
state_ok('pipeline', 'running', '', 'and given again');
$node->wait_rows('postgres', 'prospect_tracking', 2);

my @lines = log_lines($node, qr/LOG: .*nexus_kafka ingest prospect_tracking/);
cmp_ok(scalar @lines, '<=', 6, 'the log has a line a change, no more') or diag(join "\n", @lines);
no_crash_ok($node);
done_testing();
