# Whatever stands in nexus_outbox, in a database of any encoding: what can be sent is sent,
# what can't is a dead letter, and the rows behind it go on.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use Test::More;

my $node = NexusKafka::Cluster->make('outbox_rows', embedded => 1);
my %encodings = (latin1 => 'LATIN1', sql_ascii => 'SQL_ASCII', utf8 => 'UTF8');

foreach my $db (sort keys %encodings)
{
	$node->safe_psql('postgres',
		"CREATE DATABASE $db ENCODING '$encodings{$db}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	$node->create_extension($db);
	$node->safe_psql($db, <<"END");
CREATE TABLE taken (value text, header text, key text);
SELECT nexus_create_pipeline('taken', topic => 'taken_$db',
	statement => \$\$INSERT INTO taken SELECT value #>> '{}', headers->>'h', key FROM nexus_messages()\$\$);
SELECT nexus_produce('taken_$db', '"plain"'::jsonb, headers => '{"h":"ascii"}');
END
	$node->wait_rows($db, "taken WHERE header = 'ascii'", 1);
	pass("$db: a message is published");
}

# ---- text that isn't ASCII

$node->safe_psql('latin1', q(SELECT nexus_produce('taken_latin1', to_jsonb('caf' || chr(233)), 'k' || chr(233),
	jsonb_build_object('h', 'na' || chr(239) || 've'))));
$node->wait_rows('latin1', "taken WHERE value = 'caf' || chr(233) AND key = 'k' || chr(233) AND header = 'na' || chr(239) || 've'", 1);
pass('LATIN1: value, key and header arrive as they were');
like($node->safe_psql('latin1', q(SELECT nexus_produce_now('taken_latin1', '1', headers => jsonb_build_object('h', chr(233))))),
	qr/published/, 'nexus_produce_now too');
$node->wait_rows('latin1', q(taken WHERE header = chr(233)), 1);
$node->safe_psql('utf8', q(SELECT nexus_produce('taken_latin1', '1', headers => jsonb_build_object('h', chr(8364)))));
$node->wait_rows('latin1', q(taken WHERE header = '\xe282ac'), 1);
pass('LATIN1: a header that has no such letters is shown in hexadecimal digits');
$node->safe_psql('sql_ascii', q(SELECT nexus_produce('taken_sql_ascii', '1', headers => jsonb_build_object('h', E'na\xc3\xafve'))));
$node->wait_rows('sql_ascii', q(taken WHERE header = E'na\xc3\xafve'), 1);
pass('SQL_ASCII: UTF-8 stays as it is');

sqlstate_is($node, 'sql_ascii',
	q(SELECT nexus_produce('taken_sql_ascii', '1', headers => jsonb_build_object('h', E'\xff'))),
	'22021', 'SQL_ASCII: bytes that are no UTF-8 are refused at the call');
sqlstate_is($node, 'sql_ascii',
	q(SELECT nexus_produce_now('taken_sql_ascii', '1', headers => jsonb_build_object('h', E'\xff'))),
	'22021', 'and by nexus_produce_now');

# ---- what only INSERT can put there

$node->safe_psql('postgres', q(CREATE ROLE scribe LOGIN IN ROLE pg_write_all_data, pg_read_all_data));

# Writes it as that role can, and wakes the relay, which an INSERT doesn't.
sub write_row
{
	my ($db, $columns, $values) = @_;

	$node->safe_psql($db, "SET ROLE scribe; INSERT INTO nexus_outbox ($columns) OVERRIDING SYSTEM VALUE VALUES $values");
	$node->safe_psql($db, "SELECT nexus_produce('taken_$db', '\"wake\"'::jsonb)");
	return;
}

# name => columns, values, SQLSTATE
my %impossible = (
	'a scalar for headers' => [ 'headers', q('"x"'), '22023' ],
	'null for headers' => [ 'headers', q('null'), '22023' ],
	'an array for headers' => [ 'headers', q('["x"]'), '22023' ],
	'a header that is an object' => [ 'headers', q('{"a":{"b":"c"}}'), '22023' ],
	'a header that is a number' => [ 'headers', q('{"a":1}'), '22023' ],
	'an array in an array' => [ 'headers', q('{"a":[["b"]]}'), '22023' ],
	'a negative partition' => [ 'partition', '-1', '22023' ],
	'the most negative partition' => [ 'partition', '-2147483648', '22023' ],
	'a value that is too large' => [ 'value', q(convert_to(repeat('x', 3000000), 'UTF8')), '54000' ],
	'a key that is too large' => [ 'key', q(convert_to(repeat('x', 30000000), 'UTF8')), '54000' ],
	'headers that are too large' => [ 'headers', q(jsonb_build_object('a', repeat('x', 1000000))), '54000' ],
	'headers of nothing' => [ 'headers', q((SELECT jsonb_build_object('a', jsonb_agg(NULL::text)) FROM generate_series(1, 500000))), '54000' ]);

foreach my $db (sort keys %encodings)
{
	foreach my $name (sort keys %impossible)
	{
		my ($column, $value, $sqlstate) = @{ $impossible{$name} };
		write_row($db, "topic, message_id, $column", "('taken_$db', '$name', $value)");
		$node->wait_rows($db, "nexus_dead_letters WHERE message_id = '$name' AND sqlstate = '$sqlstate'", 1);
		pass("$db: $name is a dead letter with $sqlstate");
	}
	foreach my $topic (q(''), q('.'), q('not a topic'), q(repeat('x', 250)), q(repeat('x', 300000)))
	{
		my $id = "topic $topic";
		$id =~ s/'//g;
		write_row($db, 'topic, message_id', "($topic, '$id')");
		$node->wait_rows($db, "nexus_dead_letters WHERE message_id = '$id' AND sqlstate = '22023'", 1);
	}
	pass("$db: so are names that no topic has");
	write_row($db, 'topic, message_id', q(('t', repeat('x', 5000))));
	$node->wait_rows($db, q(nexus_dead_letters WHERE length(message_id) = 5000), 1);
	write_row($db, 'id, topic, message_id, value, headers',
		qq((1152921504606846975, 'taken_$db', 'far', '"far"', '{"h":[]}')));
	$node->wait_rows($db, q(taken WHERE value = 'far'), 1);
	$node->safe_psql($db, "SELECT nexus_produce('taken_$db', '\"behind\"'::jsonb)");
	$node->wait_rows($db, q(taken WHERE value = 'behind'), 1);
	pass("$db: the rows behind are published, whatever id one had");
	$node->wait_rows($db, 'nexus_outbox', 0);
}
write_row('sql_ascii', 'topic, message_id, headers',
	q(('taken_sql_ascii', 'bytes', jsonb_build_object(E'\xff', 'x')), ('taken_sql_ascii', E'id\xff', NULL)));
$node->wait_rows('sql_ascii', q(nexus_dead_letters WHERE sqlstate = '22021'), 2);
pass('bytes that are no UTF-8 are dead letters');

# ---- a size that was allowed once

sqlstate_is($node, 'utf8', q(SELECT nexus_produce('taken_utf8', '1',
	headers => (SELECT jsonb_build_object('a', jsonb_agg(NULL::text)) FROM generate_series(1, 100000)))), '54000',
	'headers without text count in the size of a message');
$node->reconfigure('nexus_kafka.max_message_bytes' => '100000000B');
# In another partition: the embedded broker forgets such a message at once, and what came in a batch with it.
$node->safe_psql('utf8', q(SELECT nexus_produce('taken_utf8', to_jsonb(repeat('x', 40000000)), partition => 0)));
$node->safe_psql('utf8', q(SELECT nexus_produce('taken_utf8', '"after"'::jsonb, partition => 1)));
$node->wait_rows('utf8', q(taken WHERE value = 'after'), 1);
$node->wait_rows('utf8', 'nexus_outbox', 0);
pass('a message of 40 MB holds up nothing');
$node->safe_psql('utf8', q(BEGIN; SELECT nexus_produce('taken_utf8', to_jsonb(repeat('x', 2000000))), pg_sleep(0);
	COMMIT));
$node->wait_rows('utf8', 'nexus_outbox', 0);

no_crash_ok($node);
done_testing();
