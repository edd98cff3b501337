# Large messages: what the setting and the topic allow is published and taken in, whatever its
# size. What a lower setting doesn't allow any more is a dead letter. Neither holds up others.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $kafka = NexusKafka::Broker->new(heap => '1g');
$kafka->create_topic('nexus-prospect-ingestion', 1);
$kafka->create_topic('large', 1, 'max.message.bytes' => 100_000_000);
my $node = NexusKafka::Cluster->make('large', bootstrap => $kafka->bootstrap,
	conf => { 'nexus_kafka.max_message_bytes' => '100000000B' });
$node->create_extension('postgres');
$node->safe_psql('postgres', <<'END');
CREATE TABLE taken (bytes int);
SELECT nexus_create_pipeline('large', 'large', 'INSERT INTO taken SELECT octet_length(value) FROM nexus_raw_messages()');
END
runs_ok($node, 'postgres');

# ---- delivered

$node->safe_psql('postgres', q(SELECT nexus_produce('large', repeat('x', 40000000)), nexus_produce('large', 'behind')));
$node->wait_rows('postgres', 'taken WHERE bytes = 40000000', 1);
$node->wait_rows('postgres', 'taken WHERE bytes = 6', 1);
pass('a message of 40 MB is published and taken in, and what is behind it');
like($node->safe_psql('postgres', q(SELECT nexus_produce_now('large', repeat('x', 40000001), timeout => '60 s'))),
	qr/"published"/, 'nexus_produce_now publishes one too');
$node->wait_rows('postgres', 'taken WHERE bytes = 40000001', 1);

# ---- more than librdkafka's queue takes

$node->safe_psql('postgres', q(SELECT nexus_produce('large', repeat('x', 35000000 + n)) FROM generate_series(1, 8) n));
$node->wait_rows('postgres', 'taken WHERE bytes > 35000000 AND bytes < 36000000', 8);
pass('so are many at once');
is($node->safe_psql('postgres', q(SELECT nexus_flush('60 s'))), 't', 'nothing is refused');

# ---- the setting is lowered while there are such rows

$kafka->stop;
$node->safe_psql('postgres', q(SELECT nexus_produce('large', repeat('x', 40000002)), nexus_produce('large', 'after')));
$node->reconfigure('nexus_kafka.max_message_bytes' => '1000000B');
$kafka->start;
$node->wait_rows('postgres', 'taken WHERE bytes = 5', 1);
$node->wait_rows('postgres', 'nexus_outbox', 0);
is($node->safe_psql('postgres', q(SELECT sqlstate || ' ' || octet_length(value) FROM nexus_dead_letters WHERE origin = 'outbox')),
	'54000 40000002', 'what a lower setting does not allow is a dead letter, whole');
is($node->safe_psql('postgres', 'SELECT count(*) FROM taken WHERE bytes = 40000002'), 0, 'and is not published');

no_crash_ok($node);
done_testing();
