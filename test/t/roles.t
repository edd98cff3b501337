# The roles of docs/rights.md: its own grants are carried out, and each
# role can do what it is for and nothing else. Nobody gets anything by being there.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = NexusKafka::Cluster->make('roles', embedded => 1);
my $prospect = q('{"messages": [{"role": "user", "content": "secret words"}], "fingerprint": "f", "sessionId": "s"}');
my @roles = qw(app shop maker monitor operator);

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

# Default privileges of the one who creates the extension, as hosted databases have them, give nothing of it.
sql('CREATE ROLE nobody', 'CREATE ROLE overseer IN ROLE pg_monitor', 'CREATE ROLE reader',
	map({ "CREATE ROLE $_" } @roles),
	map({ "ALTER DEFAULT PRIVILEGES GRANT ALL ON $_ TO PUBLIC, nobody" } qw(TABLES FUNCTIONS SEQUENCES)));
$node->create_extension('postgres');
sql(map { "ALTER DEFAULT PRIVILEGES REVOKE ALL ON $_ FROM PUBLIC, nobody" } qw(TABLES FUNCTIONS SEQUENCES));
sql('REVOKE ALL ON prospect_tracking FROM PUBLIC, nobody', 'GRANT ALL ON prospect_tracking TO reader');

is(sql(<<'END'), '', 'nobody but the owner has a right on anything of the extension');
SELECT string_agg(o.name || ' ' || a.grantee || ' ' || a.privilege_type, ', ')
FROM pg_depend d
CROSS JOIN LATERAL (
  SELECT p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
  FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
  UNION ALL
  SELECT c.oid::regclass::text, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner))
  FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid) o (name, owner, acl)
CROSS JOIN LATERAL aclexplode(o.acl) a
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'nexus_kafka') AND d.deptype = 'e'
  AND a.grantee <> o.owner
END
cmp_ok(sql('SELECT count(*) FROM pg_proc WHERE proname ~ \'^nexus_\''), '>', 20, 'there are functions');

my ($section) = slurp_file('docs/rights.md') =~ /^## Grants\n(.*?)^## /ms;
my @examples = $section =~ /^```sql\n(.*?)^```/msg;
sql(grep { !/run_as/ } @examples);
cmp_ok(scalar @examples, '>', 5, 'docs/rights.md has grants');

# What there is to see and to steer: a pipeline with a dead letter.
sql('CREATE TABLE numbers (n integer)',
	q(SELECT nexus_create_pipeline('numbers', 'numbers', 'INSERT INTO numbers SELECT value::text::integer FROM nexus_messages()')));
sql(q(SELECT nexus_produce('numbers', '"secret words"'::jsonb), nexus_produce('numbers', '1'::jsonb)));
$node->wait_rows('postgres', 'nexus_dead_letters', 1);
$node->wait_rows('postgres', 'numbers', 1);

my %action = (
	'produces prospects' => "SELECT nexus_produce($prospect)",
	'produces prospects at once' => "SELECT nexus_produce_now($prospect)",
	'produces to its topics' => q(SELECT nexus_produce('orders', '1'::jsonb), nexus_produce('shop.returns', '1'::jsonb)),
	'produces to its topics at once' => q(SELECT nexus_produce_now('orders', '1'::jsonb)),
	'produces to other topics' => q(SELECT nexus_produce('numbers', '1'::jsonb)),
	'flushes' => 'SELECT nexus_flush()',
	'makes a pipeline' => q(SELECT nexus_create_pipeline('own', 'own', 'SELECT count(*) FROM nexus_messages()')),
	'drops its pipeline' => q(SELECT nexus_drop_pipeline('own')),
	'changes the pipeline of another' => q(SELECT nexus_alter_pipeline('numbers', options => '{"workers": 2}')),
	'drops the pipeline of another' => q(SELECT nexus_drop_pipeline('numbers')),
	'looks at the status' => 'SELECT * FROM nexus_status, nexus_health()',
	'looks at the partitions' => 'SELECT * FROM nexus_partitions',
	'looks at topics' => 'SELECT * FROM nexus_topics()',
	'makes a topic' => q(SELECT nexus_create_topic('made')),
	'pauses, seeks, resumes' => q(BEGIN; SELECT nexus_pause('numbers'); SELECT nexus_seek('numbers', 0, 'numbers', 9);
		SELECT nexus_seek('numbers', 'latest', 'numbers', 9); SELECT nexus_resume('numbers'); ROLLBACK),
	'pauses' => q(SELECT nexus_pause('numbers')),
	'resumes' => q(SELECT nexus_resume('numbers')),
	'consumes' => q(SELECT nexus_consume('numbers')),
	'replays' => q(SELECT nexus_replay('numbers')),
	'reads dead letters' => 'SELECT * FROM nexus_dead_letters',
	'deletes dead letters' => 'DELETE FROM nexus_dead_letters WHERE id = -1',
	'changes dead letters' => q(UPDATE nexus_dead_letters SET pipeline = 'other'),
	'wakes a restored database' => 'SELECT nexus_resume()',
	'reads the outbox' => 'SELECT * FROM nexus_outbox',
	'writes the outbox' => q(INSERT INTO nexus_outbox (topic, message_id) VALUES ('t', 'm')),
	'reads pipelines' => 'SELECT * FROM nexus_pipelines',
	'writes pipelines' => q(UPDATE nexus_pipelines SET statement = 'SELECT 1'),
	'moves offsets' => 'UPDATE nexus_offsets SET "offset" = 0',
	'reads identity' => 'SELECT * FROM nexus_identity',
	'reads the rights to topics' => 'SELECT * FROM nexus_topic_rights',
	'gives itself a topic' => q(INSERT INTO nexus_topic_rights VALUES ('nobody', '*')),
	'reads the messages outside of a pipeline' => 'SELECT * FROM nexus_messages()',
	'reads the prospects' => 'SELECT * FROM prospect_tracking');

my @looks = ('looks at the status', 'looks at the partitions', 'looks at topics');
my %may = (
	app => [ 'produces prospects', 'produces prospects at once', 'flushes' ],
	shop => [ 'produces to its topics', 'produces to its topics at once' ],
	maker => [ 'makes a pipeline', 'drops its pipeline' ],
	monitor => \@looks,
	operator => [ @looks, 'makes a topic', 'pauses, seeks, resumes', 'pauses', 'resumes', 'consumes', 'replays',
		'reads dead letters', 'deletes dead letters' ],
	reader => ['reads the prospects']);

# Which of the actions have that SQLSTATE, in one session of the role.
sub with_sqlstate
{
	my ($role, $sqlstate, @whats) = @_;
	my @states = sqlstates_of($node, 'postgres', "SET ROLE $role", @action{@whats});

	return join ', ', map { $states[$_] eq $sqlstate ? $whats[$_] : () } 0 .. $#whats;
}

for my $role (@roles, qw(nobody overseer reader))
{
	my @does = @{ $may{$role} // [] };
	my %does = map { $_ => 1 } @does;
	my @rest = grep { !$does{$_} } sort keys %action;
	my @elsewhere = $role eq 'maker' ? 'reads the messages outside of a pipeline' : ();

	is(with_sqlstate($role, '00000', @does), join(', ', @does), "$role: what it is for") if @does;
	is(with_sqlstate($role, '55000', @elsewhere), join(', ', @elsewhere), "$role: there are none") if @elsewhere;
	@rest = grep { $_ ne ($elsewhere[0] // '') } @rest;
	is(with_sqlstate($role, '42501', @rest), join(', ', @rest), "$role: nothing else");
}

# The monitor sees what is wrong, and of the message what the error quotes.
my $seen = sql('SET ROLE monitor', 'SELECT * FROM nexus_status, nexus_partitions, nexus_health()');
like($seen, qr/invalid input syntax/, 'the monitor sees errors');
unlike(sql('SET ROLE monitor', q(SELECT to_jsonb(s) - 'last_error' FROM nexus_status s), 'SELECT * FROM nexus_partitions, nexus_health()'),
	qr/secret words/, 'and no message, but for what an error quotes');

# The operator repairs, to the end.
sql('ALTER TABLE numbers ALTER n TYPE text',
	q(SELECT nexus_alter_pipeline('numbers', statement => 'INSERT INTO numbers SELECT value #>> ''{}'' FROM nexus_messages()')));
is(sql('SET ROLE operator', q(SELECT * FROM nexus_replay('numbers'))), '1|0', 'the operator replays');
is(sql('SELECT n FROM numbers ORDER BY n COLLATE "C"'), "1\nsecret words", 'and it is there');

no_crash_ok($node);
done_testing();
