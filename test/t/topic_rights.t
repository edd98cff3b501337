# nexus_topic_rights: who may produce to which topics, by which role, and what becomes
# of it when roles are renamed, dropped, dumped and restored.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = NexusKafka::Cluster->make('topic_rights', embedded => 1);

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

# May the role produce there? By all functions alike.
sub may
{
	my ($role, $topic, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @calls = map { my $function = $_; map { "$function('$topic', '1'::$_)" } qw(text jsonb bytea) }
	  qw(nexus_produce nexus_produce_now);
	my @states = sqlstates_of($node, 'postgres', "SET ROLE $role", map { "SELECT $_" } @calls);

	return is("@states", join(' ', ($expected ? '00000' : '42501') x @calls), $name);
}

$node->create_extension('postgres');
sql('CREATE ROLE shop', 'CREATE ROLE clerk', 'CREATE ROLE guest NOINHERIT', 'CREATE ROLE boss SUPERUSER',
	'GRANT shop TO clerk, guest',
	q(DO $$
		DECLARE f regprocedure;
		BEGIN
			FOR f IN SELECT oid FROM pg_proc WHERE proname IN ('nexus_produce', 'nexus_produce_now') LOOP
				EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO shop, clerk, guest', f);
			END LOOP;
		END $$));

# Without a row, with one, with that of a group.
may('shop', 'orders', 0, 'EXECUTE alone is not enough');
my ($rc, $out, $err) = $node->psql('postgres', q(SET ROLE shop; SELECT nexus_produce('orders', '1'::jsonb)));
like($err, qr/permission denied to produce to topic "orders".*role "shop".*HINT: +(INSERT INTO public\.nexus_topic_rights .*)/s,
	'the error says what to do');
$err =~ /HINT: +(.*)/ and sql($1);
may('shop', 'orders', 1, 'and that does it');
may('shop', 'orders2', 0, 'for that topic only');
may('shop', 'order', 0, 'not for the beginning of its name');
may('clerk', 'orders', 1, 'a member has the rights of its group');
may('guest', 'orders', 0, 'not one that does not inherit them');
may('boss', 'anything', 1, 'a superuser needs none');
sql(q(INSERT INTO nexus_topic_rights VALUES ('shop', 'shop.*')));
may('shop', 'shop.returns', 1, 'the beginning of names');
may('shop', 'shop', 0, 'has to be there');
may('shop', 'my.shop.returns', 0, 'at the beginning');
may('shop', 'shopX', 0, 'and a dot is a dot');
sql(q(INSERT INTO nexus_topic_rights VALUES ('clerk', '*')));
may('clerk', 'anything', 1, 'an asterisk is all');
may('shop', 'anything', 0, 'and a member\'s right is not the group\'s');
# A right is one of a connection.
my $other = q(SET ROLE shop; SELECT nexus_produce('orders', '1'::jsonb, connection => 'other'));
sqlstate_is($node, 'postgres', $other, '42501', 'the right to a topic is one of the default connection');
($rc, $out, $err) = $node->psql('postgres', $other);
like($err, qr/to topic "orders" of connection "other".*HINT: +(INSERT INTO public\.nexus_topic_rights .*)/s, 'the error says so');
$err =~ /HINT: +(.*)/ and sql($1);
sqlstate_is($node, 'postgres', "BEGIN; $other; ROLLBACK", '00000', 'or of the one that it names');
sql(q(INSERT INTO nexus_topic_rights VALUES ('shop', 'everywhere', '*')));
sqlstate_is($node, 'postgres', qq(BEGIN; SET ROLE shop; SELECT nexus_produce('everywhere', '1'::jsonb, connection => $_); ROLLBACK),
	'00000', "an asterisk is all connections: $_") for qw('other' 'another' NULL);
sql(q(DELETE FROM nexus_topic_rights WHERE connection <> ''));
for my $bad ('', '*a', 'a*b', '**', 'a b', '%', '^a', 'x' x 250)
{
	sqlstate_is($node, 'postgres', "INSERT INTO nexus_topic_rights VALUES ('shop', '$bad')", '23514', "'$bad' is no topic");
}
sqlstate_is($node, 'postgres', "INSERT INTO nexus_topic_rights VALUES ('shop', 'x', '$_')", '23514', "'$_' is no connection")
  for 'a*', '**', 'a b', 'a.b', 'x' x 64;
sqlstate_is($node, 'postgres', q(INSERT INTO nexus_topic_rights VALUES ('-', '*')), '23514', 'nobody is no role');
sqlstate_is($node, 'postgres', q(INSERT INTO nexus_topic_rights VALUES ('who', '*')), '42704', 'a role has to be there');

# The current user counts.
sql(q(CREATE FUNCTION for_shop(topic text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER
	RETURN nexus_produce(topic, '1'::jsonb)), 'ALTER FUNCTION for_shop(text) OWNER TO shop');
sqlstate_is($node, 'postgres', q(SET ROLE clerk; SELECT for_shop('orders')), '00000', 'SECURITY DEFINER: the right of its owner');
sqlstate_is($node, 'postgres', q(SET ROLE clerk; SELECT for_shop('anything')), '42501', 'and no other');
sqlstate_is($node, 'postgres', q(SET ROLE shop; SET search_path = nowhere; SELECT public.nexus_produce('orders', '1'::jsonb)), '00000',
	'under any search_path');
sqlstate_is($node, 'postgres', q(BEGIN READ ONLY; SET ROLE shop; SELECT nexus_produce_now('orders', '1'::jsonb)), '00000',
	'nexus_produce_now in a read-only transaction');

# In a pipeline's statement it is the pipeline's role.
sql('GRANT EXECUTE ON FUNCTION nexus_messages(), nexus_create_pipeline(text, text, text, jsonb) TO shop');
sql('SET ROLE shop', q(SELECT nexus_create_pipeline('derive', 'orders',
	$$SELECT nexus_produce(value #>> '{}', '1'::jsonb) FROM nexus_messages() WHERE value #>> '{}' <> '1'$$)));
# Alone it could be the statement's fault: the one behind it, which passes, is the evidence.
sql(map { qq(SELECT nexus_produce('orders', '"$_"'::jsonb, partition => 0)) } qw(forbidden shop.derived));
$node->wait_rows('postgres', q(nexus_dead_letters WHERE pipeline = 'derive' AND sqlstate = '42501'), 1);
is(sql(q(SELECT convert_from(value, 'UTF8') FROM nexus_dead_letters)), '"forbidden"', 'a pipeline produces where its role may');
sql('SELECT nexus_flush()');
is(sql(q(SELECT string_agg(DISTINCT topic, ',') FROM nexus_topics() WHERE topic IN ('forbidden', 'shop.derived'))),
	'shop.derived', 'and nowhere else');
sql(q(SELECT nexus_drop_pipeline('derive')));

# Another owner of the extension's tables, of all of them, is the owner.
sql('CREATE ROLE keeper', 'CREATE ROLE helper', 'GRANT keeper TO helper');
$node->safe_psql('postgres', 'CREATE DATABASE kept');
$node->safe_psql('kept', 'CREATE EXTENSION nexus_kafka; ALTER SEQUENCE nexus_outbox_named_id OWNER TO keeper; ' .
	join(' ', map { "ALTER TABLE $_ OWNER TO keeper;" }
		qw(nexus_identity nexus_pipelines nexus_offsets nexus_dead_letters nexus_outbox nexus_topic_rights)) . '
	GRANT EXECUTE ON FUNCTION nexus_produce(text, jsonb, text, jsonb, integer, text) TO keeper, helper, shop');
sqlstate_is($node, 'kept', "SET ROLE $_; SELECT nexus_produce('anything', '1'::jsonb)", '00000', "$_ owns the tables, and may to all")
  for qw(keeper helper);
sqlstate_is($node, 'kept', q(SET ROLE shop; SELECT nexus_produce('anything', '1'::jsonb)), '42501', 'nobody else');

# Renamed, dropped, made again.
sql('ALTER ROLE shop RENAME TO store');
may('store', 'orders', 1, 'a role that is renamed keeps its rights');
sql('CREATE ROLE passing', q(INSERT INTO nexus_topic_rights VALUES ('passing', '*')), 'DROP ROLE passing', 'CREATE ROLE passing',
	'GRANT EXECUTE ON FUNCTION nexus_produce(text, jsonb, text, jsonb, integer, text) TO passing');
sqlstate_is($node, 'postgres', q(SET ROLE passing; SELECT nexus_produce('orders', '1'::jsonb)), '42501',
	'a role has no rights of one that had its name before');

# A dump has them by name, and leaves out what belongs to nobody.
sql(q(INSERT INTO nexus_topic_rights VALUES ('store', 'orders', 'other')));
my $rights = 'SELECT * FROM nexus_topic_rights WHERE role IN (SELECT oid FROM pg_roles) ORDER BY role::text, topic, connection';
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump ], 'restored');
is($node->safe_psql('restored', $rights), sql($rights), 'the same rights');
is($node->safe_psql('restored', 'SELECT count(*) FROM nexus_topic_rights'), 4, 'and no others');
sqlstate_is($node, 'restored', q(SET ROLE store; SELECT nexus_produce('orders', '1'::jsonb)), '00000', 'they work');
sqlstate_is($node, 'restored', q(SET ROLE store; SELECT nexus_produce('anything', '1'::jsonb)), '42501', 'as they did');

no_crash_ok($node);
done_testing();
