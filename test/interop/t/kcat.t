# kcat, which is librdkafka's own command line, at the other end.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../lib";

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $topic = 'nexus-prospect-ingestion';
my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($topic);
$kafka->create_topic('anything');

my $node = NexusKafka::Cluster->make('kcat', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');

kcat_to_rows();
nexus_produce_to_kcat();
session_to_kcat();

no_crash_ok($node);
done_testing();

# The id is the key; without one, the payload's messageId; without that, the place.
sub kcat_to_rows
{
	my $session = '"sessionId":"s","messages":[{"role":"user","content":"Hola"}]';

	$kafka->produce($topic, ["{$session}"], key => 'by-key', headers => { 'content-type' => 'application/json' });
	$kafka->produce($topic, [ qq({$session,"messageId":"by-payload"}), "{$session}" ]);
	quick_ok('from the start of the worker to the first rows', 10,
		sub { $node->wait_rows('postgres', 'prospect_tracking', 3) });
	is($node->safe_psql('postgres', 'SELECT message_id FROM prospect_tracking ORDER BY "offset"'),
		"by-key\nby-payload\n$topic/0/2", 'what kcat sent is in the table, under the right ids');
	return;
}

sub nexus_produce_to_kcat
{
	my $ids = $node->safe_psql('postgres', <<'END');
SELECT nexus_produce('anything', 'a value', 'a key', '{"a":"1","b":["2","3"]}') ->> 'messageId';
SELECT nexus_produce('anything', NULL::text, 'tombstone') ->> 'messageId';
SELECT nexus_produce('anything', '{"n": 1}'::jsonb) ->> 'messageId';
END
	my @ids = split /\n/, $ids;
	ok($node->safe_psql('postgres', "SELECT nexus_flush('60 s')") eq 't', 'the broker has all of it');

	my %read;
	for my $line (split /\n/, $kafka->kcat('-C', '-t', 'anything', '-o', 'beginning', '-e', '-q', '-f', "%o|%K|%k|%S|%s|%h\n"))
	{
		my ($rest, $headers) = $line =~ /^(.*)\|(.*)$/;
		$read{$rest} = join ',', sort split /,/, $headers;
	}
	is_deeply(\%read, {
			'0|5|a key|7|a value' => "a=1,b=2,b=3,nexus-message-id=$ids[0]",
			'1|9|tombstone|-1|' => "nexus-message-id=$ids[1]",
			'2|-1||8|{"n": 1}' => "nexus-message-id=$ids[2]" },
		'kcat reads keys, values, the tombstone and headers');
	return;
}

sub session_to_kcat
{
	my $id = $node->produce('postgres', { sessionId => 'to-kcat' });
	$node->wait_rows('postgres', 'prospect_tracking', 4);

	my $line = $kafka->kcat('-C', '-t', $topic, '-o', '3', '-c', '1', '-q', '-f', '%k|%h|%s');
	like($line, qr/^$id\|[^|]*\bnexus-message-id=$id\b[^|]*\|\{.*"sessionId": ?"to-kcat"/, 'kcat reads a session');
	return;
}
