# A wrong or missing setting is a state with its reason, never a crash loop, and is
# mended without a restart.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $node = NexusKafka::Cluster->make('settings');
$node->create_extension('postgres');

# Both lines of nexus_status come to the state, with a reason that has the text.
sub state_ok
{
	my ($state, $text, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres', "SELECT bool_and(state = '$state' AND reason LIKE '%$text%') FROM nexus_status");
	pass("$name: $state, and the reason says \"$text\"");
	diag("$state: " . $node->status('postgres', 'pipeline', 'prospect_tracking')->{reason});
	return;
}

state_ok('not_configured', 'nexus_kafka.bootstrap_servers', 'no bootstrap_servers');
my $id = $node->produce('postgres');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_outbox'), 1, 'nexus_produce works all the same');
like($node->safe_psql('postgres', 'SELECT nexus_health()'), qr/"status": "unhealthy"/, 'nexus_health says unhealthy');

my $closed = PostgreSQL::Test::Cluster::get_free_port();
$node->reconfigure('nexus_kafka.bootstrap_servers' => "127.0.0.1:$closed");
state_ok('unreachable', "127.0.0.1:$closed% failed: Connection refused", 'nobody listens');

my $silent = silent_port();
$node->reconfigure('nexus_kafka.bootstrap_servers' => '127.0.0.1:' . $silent->sockport);
state_ok('unreachable', 'accepts connections but does not answer', 'a port that never answers');

$node->reconfigure('nexus_kafka.bootstrap_servers' => 'not a host:xx');
state_ok('unreachable', 'Failed to resolve%not a host', 'not a host at all');

# What is no text in the database's encoding, here a word in LATIN1 and half a character
# of UTF-8, could be neither converted for a client nor dumped.
$node->reconfigure('nexus_kafka.bootstrap_servers' => "k\xfcche.invalid:1,ca\xc3.invalid:1");
$node->wait_for_query('postgres', <<'END');
SELECT count(reason) > 1 AND bool_and(reason LIKE '%k?che.invalid:1,ca?.invalid:1%'
	AND convert_from(convert_to(concat(reason, last_error), 'UTF8'), 'UTF8') ~ 'resolve')
FROM nexus_status
END
pass('bytes of another encoding are question marks in nexus_status');
like($node->safe_psql('postgres', 'SELECT nexus_health()::text::jsonb'), qr/unhealthy/, 'and nexus_health is JSON');

$node->reconfigure('nexus_kafka.bootstrap_servers' => '');
state_ok('not_configured', 'nexus_kafka.bootstrap_servers', 'bootstrap_servers emptied');

$node->reconfigure('nexus_kafka.embedded_broker' => 'on');
runs_ok($node, 'postgres', 'a reload with a right setting is enough');
$node->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
pass('what was produced meanwhile arrives');

# A bad configuration is tried with back-off: so many processes can't have started.
cmp_ok(scalar(log_lines($node, qr/nexus_kafka .*(?:exited with exit code|started)/)), '<', 50, 'no crash loop');

no_crash_ok($node);
done_testing();
