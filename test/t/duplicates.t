# The same id with the same content is a duplicate and skipped; with other content it
# is a dead letter: never dropped silently, never a second row.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('duplicates', embedded => 1);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

# SQL that publishes a session of that text under the id, as a producer's retry would.
sub publish
{
	my ($id, $text, $metadata) = @_;
	my $value = sprintf '{"sessionId":"s","fingerprint":"fp","messages":[{"role":"user","content":"%s"}],"metadata":{"url":"%s"}}',
	  $text, $metadata // 'unknown';
	return "SELECT nexus_produce('nexus-prospect-ingestion', '$value'::text, '$id');\n";
}

sub published_ok
{
	my ($sql, $rows, $dead, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->safe_psql('postgres', $sql);
	like($node->safe_psql('postgres', "SELECT nexus_consume(timeout => '60 s')"), qr/"success"/, "$name: consumed");
	is($node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM prospect_tracking) || ' rows, '
		|| (SELECT count(*) FROM nexus_dead_letters) || ' dead')), "$rows rows, $dead dead", $name);
	$node->safe_psql('postgres', 'TRUNCATE prospect_tracking, nexus_dead_letters');
	return;
}

published_ok('BEGIN;' . publish('a', 'Hola') . publish('a', 'Hola') . publish('b', 'Hola') . 'COMMIT;',
	2, 0, 'same id, same content, at once');
$node->safe_psql('postgres', publish('c', 'Hola') . 'SELECT nexus_consume()');
published_ok(publish('c', 'Hola') . publish('d', 'Hola'), 2, 0, 'same id, same content, later');
published_ok(publish('e', 'Hola') . publish('e', 'Hola', 'elsewhere'), 1, 0, 'other metadata is still the same content');

$node->safe_psql('postgres', publish('f', 'Hola') . 'SELECT nexus_consume()');
$node->safe_psql('postgres', publish('f', 'Adiós') . publish('g', 'Hola'));
$node->wait_rows('postgres', q(nexus_dead_letters WHERE key = 'f' AND sqlstate = '23505'
	AND convert_from(value, 'UTF8') LIKE '%Adiós%'), 1);
pass('same id, other content, later: a dead letter with that content');
is($node->safe_psql('postgres', q(SELECT messages -> 0 ->> 'content' FROM prospect_tracking WHERE message_id = 'f')),
	'Hola', 'the row is as it was');
published_ok('BEGIN;' . publish('h', 'Hola') . publish('h', 'Adiós') . publish('i', 'Hola') . 'COMMIT;',
	4, 2, 'same id, other content, at once: the first is the row');

no_crash_ok($node);
done_testing();
