# Commands of roles that may not do what they try, or that do something else: no worker is
# stopped, started or woken for them. And what a name can't do to the log.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = NexusKafka::Cluster->make('bystander', embedded => 1, conf => { log_min_messages => 'debug1' });

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub starts { return scalar log_lines($node, qr/\bregistering background worker "nexus_kafka supervisor"/) }

# ---- commands that are going to be refused

sql('CREATE ROLE mallory', 'CREATE DATABASE t OWNER mallory');
$node->create_extension('t');
runs_ok($node, 't');
my $pids = join ' ', map { $node->worker_pids($_, 't') } qw(supervisor relay ingest);
for my $command ('CREATE DATABASE x TEMPLATE t', 'ALTER DATABASE t RENAME TO u', 'ALTER DATABASE t SET TABLESPACE pg_default')
{
	sqlstate_is($node, 'postgres', "SET ROLE mallory; $command", '42501', "$command by its owner, who may not make databases");
}
sqlstate_is($node, 't', 'DROP DATABASE t', '55006', 'DROP DATABASE of the one that one is in');
sqlstate_is($node, 'postgres', 'BEGIN; DROP DATABASE t', '25001', 'or in a transaction');
sqlstate_is($node, 'postgres', 'CREATE DATABASE postgres TEMPLATE t', '42P04', 'CREATE DATABASE of one that is there');
is(join(' ', map { $node->worker_pids($_, 't') } qw(supervisor relay ingest)), $pids, 'no worker was stopped for any of it');

# ---- commands that are about something else

$node->create_extension('postgres');
runs_ok($node, 'postgres');
my $starts = starts();
sql('CREATE DATABASE plain');
sleep 0.05 until starts() > $starts;
$node->wait_no_worker('supervisor', 'plain');
$starts = starts();
$node->safe_psql('plain', 'CREATE EXTENSION hstore; DROP EXTENSION hstore;') for 1 .. 10;
$node->safe_psql('plain', 'ALTER DATABASE plain CONNECTION LIMIT 10');
sql('CREATE DATABASE last');
$node->create_extension('last');
runs_ok($node, 'last');
cmp_ok(starts() - $starts, '<=', 2, 'a CREATE EXTENSION of another extension starts nobody; that of ours and CREATE DATABASE do');

sub looks
{
	return sql(q(SELECT seq_scan + idx_scan FROM pg_stat_all_tables WHERE relid = 'nexus_pipelines'::regclass));
}

sub one_look_more
{
	my $before = looks();

	sql(q(SELECT nexus_create_pipeline('look', 'look', 'SELECT * FROM nexus_messages()')));
	$node->poll_status('postgres', 'pipeline', 'look', 'running');
	sql(q(SELECT nexus_drop_pipeline('look')));
	$node->wait_for_query('postgres',
		"SELECT seq_scan + idx_scan > $before FROM pg_stat_all_tables WHERE relid = 'nexus_pipelines'::regclass");
	return;
}

sql('CREATE ROLE bob', 'GRANT CREATE ON SCHEMA public TO bob');
one_look_more();
my $looks = looks();
sql('SET ROLE bob', map { ('CREATE TABLE unrelated ()', 'DROP TABLE unrelated', 'DROP OWNED BY bob') } 1 .. 200);
one_look_more();
cmp_ok(looks() - $looks, '<', 100, 'DROP of unrelated things has the supervisor look at nothing');

# ---- a database that is closed for a while, and one that is a template

sql('ALTER DATABASE last ALLOW_CONNECTIONS false', q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'last'));
$node->wait_no_worker($_, 'last') for qw(supervisor relay ingest);
pass('a database that nobody may connect to has no workers');
sql('ALTER DATABASE last ALLOW_CONNECTIONS true');
works_ok($node, 'last', 'and has them again when it is opened');
$node->create_extension('template1');
my $template = $node->poll_status('template1', 'outbox', 'outbox', 'paused');
like($template->{reason}, qr/template/, 'nothing runs in a template database, and its status says so');
sql('CREATE DATABASE copied');
$node->safe_psql('template1', 'DROP EXTENSION nexus_kafka');
is($node->status('copied', 'outbox', 'outbox')->{state}, 'paused', 'a copy of it is paused');
$node->safe_psql('copied', 'SELECT nexus_resume()');
works_ok($node, 'copied', 'until somebody resumes it');

# ---- names

sql(q(CREATE DATABASE U&"two\000alines"));
my $lines = "two\nlines";
$node->create_extension($lines);
works_ok($node, $lines, 'a database whose name has a newline works');
my @lines = log_lines($node, qr/nexus_kafka relay of database two/);
like($lines[0], qr/nexus_kafka relay of database two lines is running/, 'its name is in one line of the log');
is(scalar(log_lines($node, qr/^\s*lines is/)), 0, 'and begins no other');

no_crash_ok($node);
done_testing();
