# Connections with a name, the sections of nexus_kafka.config_file: what is refused,
# what waits and says why, and what each change of the file does. The embedded broker
# stands for all of them. (Two clusters: test/kafka/t/clusters.t.)
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = NexusKafka::Cluster->make('connections', embedded => 1, start => 0,
	conf => { max_prepared_transactions => 2 });
my $file = $node->data_dir . '/kafka.properties';

sub write_file
{
	my ($text) = @_;

	open(my $handle, '>', "$file.new") or die "$file.new: $!";
	print $handle $text;
	close $handle;
	chmod 0600, "$file.new";
	rename "$file.new", $file or die "rename: $!";
	return;
}

sub reload_with
{
	write_file(@_);
	$node->reload;
	return;
}

sub sql { return $node->safe_psql('postgres', @_) }

sub relays { return map { $node->status('postgres', 'outbox', $_)->{pid} } @_ }

# That of the outbox, or pipeline, has the state and a reason that matches.
sub state_ok
{
	my ($kind, $name, $state, $reason, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres',
		"SELECT state = '$state' AND COALESCE(reason, '') ~ '$reason' FROM nexus_status WHERE kind = '$kind' AND name = '$name'");
	return pass("$what: $state");
}

write_file("[analytics]\nbootstrap.servers=127.0.0.1:1\n[archive]\nbootstrap.servers=127.0.0.1:1\n");
$node->configure('nexus_kafka.config_file' => $file);
$node->start;
$node->create_extension('postgres');
runs_ok($node, 'postgres', 'the default connection runs');
sql('CREATE TABLE arrived (topic text, value text)');

# ---- a relay each, from when it is needed on

state_ok('outbox', $_, 'on_demand', 'nothing was produced', "nothing for $_ yet") for qw(analytics archive);
is(scalar($node->worker_pids('relay')), 1, 'only the default relay has a process');
sql(q(SELECT nexus_create_pipeline('events', 'events', 'INSERT INTO arrived SELECT topic, value #>> ''{}'' FROM nexus_messages()',
	'{"connection": "analytics"}')));
sql(q(SELECT nexus_produce('events', '"first"'::jsonb, connection => 'analytics')));
$node->wait_rows('postgres', "arrived WHERE value = 'first'", 1);
pass('a message of a named connection arrives at a pipeline of that connection');
state_ok('outbox', 'analytics', 'running', '^$', 'its relay was started for it');
state_ok('outbox', 'archive', 'on_demand', '', 'and no other');
is(sql(q(SELECT connection FROM nexus_status WHERE name = 'events')), 'analytics', 'nexus_status has the connection');

like(sql(q(SELECT nexus_produce_now('events', '"now"'::jsonb, connection => 'archive'))), qr/"offset"/,
	'nexus_produce_now starts a relay too, and has its answer');
is(sql(q(SELECT count(*) FROM nexus_topics(connection => 'archive') WHERE topic = 'events')) > 0, 1, 'nexus_topics by a connection');
sql(q(SELECT nexus_create_topic('made', connection => 'archive')));
$node->wait_rows('postgres', "arrived WHERE value = 'now'", 1);
is(sql('SELECT nexus_consume(\'events\') ->> \'status\''), 'success', 'nexus_consume of a pipeline of a connection');

# ---- transactions: ids are given at the call, seen at the commit, and shared by the connections

my $late = $node->background_psql('postgres');
$late->query_safe(q(BEGIN; SELECT nexus_produce('events', '"late"'::jsonb, connection => c), nexus_produce('events', '"late"'::jsonb)
	FROM unnest(ARRAY['analytics', 'archive']) c));
sql(q(DO $$
	BEGIN
		FOR n IN 1 .. 300 LOOP
			PERFORM nexus_produce('events', to_jsonb(n), connection => c) FROM unnest(ARRAY['analytics', 'archive', NULL]) c;
			IF n % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
		END LOOP;
	END $$));
is(sql('SELECT nexus_flush()'), 't', 'nexus_flush waits for all');
is(sql('SELECT count(*) FROM nexus_outbox'), 0, 'nothing that was committed is left');
$late->query_safe('COMMIT');
$late->quit;
$node->wait_rows('postgres', "arrived WHERE value = 'late'", 4);
$node->wait_rows('postgres', "arrived WHERE value ~ '^[0-9]'", 600);
is(sql(q(SELECT count(*) FROM arrived WHERE value::integer % 3 = 0 AND value ~ '^[0-9]')), 0, 'nothing that was rolled back arrived');
is(sql(q(SELECT count(DISTINCT value) FROM arrived WHERE value ~ '^[0-9]')), 200, 'all that was committed did');

sql(q(BEGIN; SELECT nexus_produce('events', '"prepared"'::jsonb, connection => 'archive'); PREPARE TRANSACTION 'p'));
sql(q(COMMIT PREPARED 'p'));
$node->wait_rows('postgres', "arrived WHERE value = 'prepared'", 1);
pass('a prepared transaction too');

# ---- refused at the call

my %refused = (
	q(nexus_produce('t', 'v'::text, connection => 'a b')) => '22023',
	q(nexus_produce('t', 'v'::text, connection => '')) => '22023',
	q(nexus_produce('t', 'v'::text, connection => repeat('x', 64))) => '22023',
	q(nexus_produce_now('t', 'v'::bytea, connection => 'a.b')) => '22023',
	q(nexus_produce_now('t', '1'::jsonb, connection => 'nowhere')) => '08006',
	q(nexus_create_topic('t', connection => 'nowhere')) => '08006',
	q(nexus_create_topic('t', connection => '[a]')) => '22023',
	q(nexus_create_pipeline('p', 't', 'SELECT nexus_messages()', '{"connection": "a b"}')) => '22023');
sqlstate_is($node, 'postgres', "SELECT $_", $refused{$_}, "$_ is refused") for sort keys %refused;
sqlstate_is($node, 'postgres', q(SELECT * FROM nexus_topics(connection => 'nowhere')), '08006', 'nexus_topics of no connection');

# ---- what isn't in the file waits

sql(q(SELECT nexus_produce('events', '"waited"'::jsonb, connection => 'later')));
state_ok('outbox', 'later', 'not_configured', 'no section', 'a connection that is not in the file');
is($node->status('postgres', 'outbox', 'later')->{lag}, 1, 'its row is counted');
is($node->status('postgres', 'outbox', 'outbox')->{lag}, 0, 'and not as another\'s');
is(sql(q(SELECT nexus_flush('100 ms'))), 'f', 'nexus_flush does not say that it is published');
works_ok($node, 'postgres', 'the others go on');
my @pids = relays(qw(outbox analytics archive));
my $sections = "[analytics]\nbootstrap.servers=127.0.0.1:1\n[archive]\nbootstrap.servers=127.0.0.1:1\n";
reload_with("$sections\[later]\nbootstrap.servers=127.0.0.1:1\n");
$node->wait_rows('postgres', "arrived WHERE value = 'waited'", 1);
pass('with its section in the file it goes on by itself');
is_deeply([ relays(qw(outbox analytics archive)) ], \@pids, 'and no other relay was started anew');

reload_with("[analytics]\nbootstrap.servers=127.0.0.1:1\n[analytics]\n");
works_ok($node, 'postgres', 'a file that can not be read changes nothing');
sql(q(SELECT nexus_produce('events', '"still"'::jsonb, connection => 'later')));
$node->wait_rows('postgres', "arrived WHERE value = 'still'", 1);
pass('not for the connections that were there');
reload_with($sections);
$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_status WHERE name = 'later'), 0);
pass('without its section a connection is gone');

# ---- without the embedded broker: a section is a place of its own

my $by_port = 'bootstrap.servers=127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port() . "\n";
my $other = $by_port . "client.id=other\n";
reload_with("[analytics]\n$by_port\[archive]\n$by_port");
$node->reconfigure('nexus_kafka.embedded_broker' => 'off');
state_ok('outbox', 'outbox', 'not_configured', 'neither nexus_kafka.bootstrap_servers', 'no default connection');
state_ok('outbox', 'analytics', 'unreachable', 'refused', 'its own address');
state_ok('pipeline', 'events', 'unreachable', 'refused', 'of the pipeline too');
sql(q(SELECT nexus_alter_pipeline('events', options => '{"connection": "later"}')));
state_ok('pipeline', 'events', 'not_configured', 'connection "later".*no such section', 'an unknown connection');
reload_with("[analytics]\n$by_port\[archive]\n$by_port\[later]\n$by_port");
state_ok('pipeline', 'events', 'unreachable', 'refused', 'it goes on when the file has it');

my ($analytics, $archive) = relays(qw(analytics archive));
reload_with("[analytics]\n$other\[archive]\n$by_port\[later]\n$by_port");
$node->wait_for_query('postgres', qq(SELECT pid <> $analytics FROM nexus_status WHERE name = 'analytics' AND pid IS NOT NULL));
is((relays('archive'))[0], $archive, 'a change of a section starts the workers of that one anew, and no others');

($analytics) = relays('analytics');
reload_with("[analytics]\n${other}sasl.pasword=x\n[archive]\n$other\[later]\n$by_port\[unused]\ngroup.id=x\n");
$node->wait_for_query('postgres', q(SELECT last_error ~ 'line 4: unknown property' FROM nexus_status WHERE name = 'analytics'));
$node->wait_for_query('postgres', qq(SELECT pid <> $archive FROM nexus_status WHERE name = 'archive' AND pid IS NOT NULL));
is((relays('analytics'))[0], $analytics, 'a mistake in a section: its old connection goes on, and the others take theirs up');
state_ok('outbox', 'unused', 'not_configured', 'line \d+: group.id', 'a mistake in a section that nobody uses yet');

is(sql(q(SELECT nexus_health() -> 'outbox' ->> 'state')), 'not_configured', 'nexus_health: outbox is the default one');
no_crash_ok($node);
done_testing();
