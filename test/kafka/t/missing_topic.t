# A list of topics of which one isn't there yet: the others are read, by one worker, and
# the status names what is missing.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($_, 1) for qw(nexus-prospect-ingestion here);
my $node = NexusKafka::Cluster->make('missing', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END_SQL');
CREATE TABLE taken (pipeline text, topic text);
SELECT nexus_create_pipeline('list', 'here,later', 'INSERT INTO taken SELECT ''list'', topic FROM nexus_messages()');
SELECT nexus_produce('here', '1');
END_SQL
$node->wait_rows('postgres', 'taken', 1);
my $status = $node->status('postgres', 'pipeline', 'list');
is("$status->{state}: $status->{reason}", 'running: topic "later" does not exist on the broker',
	'one topic of a list is missing');

# Each of these looks for its topic each second, as "list" does.
foreach my $n (1 .. 3)
{
	$node->safe_psql('postgres', "SELECT nexus_create_pipeline('clock$n', 'clock$n',
		'INSERT INTO taken SELECT ''clock'', topic FROM nexus_messages()')");
	$node->poll_status('postgres', 'pipeline', "clock$n", 'waiting');
	$kafka->create_topic("clock$n", 1);
	$node->poll_status('postgres', 'pipeline', "clock$n", 'running');
}
is($node->status('postgres', 'pipeline', 'list')->{pid}, $status->{pid}, 'one worker reads the others meanwhile');

$kafka->create_topic('later', 1);
$node->safe_psql('postgres', q(SELECT nexus_produce(t, '1'::text) FROM (VALUES ('here'), ('later')) x (t)));
$node->wait_rows('postgres', 'taken', 3);
is($node->safe_psql('postgres', q(SELECT string_agg(topic, ' ' ORDER BY topic) FROM taken)), 'here here later',
	'as soon as it is there it is read too');
$node->wait_for_query('postgres', q(SELECT reason IS NULL FROM nexus_status WHERE name = 'list'));
no_crash_ok($node);
done_testing();
