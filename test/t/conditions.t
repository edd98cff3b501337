# Each condition that needs no Kafka, set and cleared by the real thing (NexusKafka::Conditions;
# those that need one: kafka/t/conditions.t). The suite's lint holds that none is missing.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Conditions;
use NexusKafka::ConnectionFile;
use Test::More;

# Slots for the launcher, the broker, the supervisor, the relay, two pipelines and four workers more.
my $node = NexusKafka::Cluster->make('conditions', embedded => 1, allows_streaming => 1, conf => { max_worker_processes => 10,
	max_logical_replication_workers => 0, max_parallel_workers => 0, 'nexus_kafka.max_jobs' => 32 });
my $session;
my $writer;

$node->create_extension('postgres');
sql(<<'END_SQL');
CREATE ROLE maker;
CREATE TABLE taken (value text);
GRANT INSERT ON taken TO maker;
GRANT EXECUTE ON FUNCTION nexus_messages() TO maker;
SELECT nexus_create_pipeline('p', 'p', 'INSERT INTO taken SELECT value ->> ''v'' FROM nexus_messages()', '{"run_as": "maker"}');
END_SQL
runs_ok($node, 'postgres');
my ($address) = map { /broker is running: on (127\.0\.0\.1:\d+), keeps its messages until/ } log_lines($node, qr/nexus_kafka broker/);
ok($address, 'the embedded broker runs, with a remark');
my $conditions = NexusKafka::Conditions->watch($node);

$conditions->come_and_go_ok(
	{ condition => 'PAUSED', of => [ pipeline => 'p' ],
		set => sub { sql(q(SELECT nexus_pause('p'))) }, shows => [ 'paused', qr/^nexus_pause\(\) was called/ ],
		clear => sub { sql(q(SELECT nexus_resume('p'))) } },

	{ condition => 'NOT_NEEDED', of => [ pipeline => 'p' ],
		set => sub { alter('"on_demand": true') }, shows => [ 'on_demand', qr/^nexus_consume\(\) makes it run/ ],
		clear => sub { alter('"on_demand": false') } },

	{ condition => 'NO_ROOM', of => [ pipeline => 'crowded' ], logs => [ supervisor => 'supervisor' ], before => 'none',
		set => sub {
			create("many' || n || '", '{"on_demand": true}', 'generate_series(1, 32) n');
			create('crowded');
		},
		shows => [ 'no_worker', qr/^no room for one more worker: raise nexus_kafka\.max_jobs \(now 32\)/ ],
		clear => sub { drop('^many') } },

	{ condition => 'NO_SLOT', of => [ pipeline => 'late' ], before => 'none',
		prepare => sub { drop('crowded'); create('greedy', '{"workers": 8}') },
		set => sub { create('late') }, shows => [ 'no_worker', qr/^no free background worker slot: raise max_worker_processes \(now 10\)/ ],
		clear => sub { drop('greedy') } },

	{ condition => 'STOPPED', of => [ pipeline => 'p' ],
		prepare => sub { drop('late'); alter('"on_error": "stop"') },
		set => sub { sql(q(SELECT nexus_produce('p', 'no json'::text))) },
		shows => [ 'stopped', qr/^offset \d+ of partition \d+ of topic "p": .*SQLSTATE 22P02/ ],
		clear => sub { alter('"on_error": "dead_letter"') } },

	{ condition => 'BAD_DEFINITION', of => [ pipeline => 'p' ],
		set => sub { sql('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC', 'SELECT nexus_resume()') },
		shows => [ 'failing', qr/^role "maker" may not connect to this database/ ],
		clear => sub { sql('GRANT CONNECT ON DATABASE postgres TO PUBLIC', 'SELECT nexus_resume()') } },

	# what is to be done with the pipeline can't be known
	{ condition => 'TABLES_UNREADABLE', of => [ pipeline => 'unread' ], logs => [ supervisor => 'supervisor' ], before => 'none',
		set => sub { sql('BEGIN', create_sql('unread'), 'ALTER TABLE nexus_pipelines RENAME run_as TO away', 'COMMIT', 'SELECT nexus_resume()') },
		shows => [ 'failing', qr/^column .*run_as.* does not exist/ ],
		clear => sub { sql('ALTER TABLE nexus_pipelines RENAME away TO run_as', 'SELECT nexus_resume()') } },

	{ condition => 'KEEPS_ENDING', of => [ pipeline => 'p' ],
		prepare => sub { drop('unread') },
		set => sub {
			sql('ALTER TABLE nexus_offsets RENAME "offset" TO away',
				q(SELECT pg_terminate_backend(pid) FROM nexus_status WHERE name = 'p'));
		},
		shows => [ 'waiting', qr/^the worker keeps ending/ ],
		clear => sub { sql('ALTER TABLE nexus_offsets RENAME away TO "offset"') } },

	{ condition => 'STARTING', about => 'while a change of the pipeline is open', of => [ pipeline => 'p' ],
		set => sub {
			$session = $node->background_psql('postgres');
			$session->query_safe('BEGIN');
			$session->query_safe(q(SELECT nexus_alter_pipeline('p', options => '{"batch_messages": 7}')));
		},
		shows => [ 'starting', qr/^a transaction that changes the pipeline has not ended/ ],
		clear => sub { $session->query_safe('COMMIT') } },

	{ condition => 'STATEMENT_FAILS', of => [ pipeline => 'p' ],
		set => sub { sql('ALTER TABLE taken RENAME TO away'); produce() },
		shows => [ 'failing', qr/^relation "taken" does not exist \(SQLSTATE 42P01\)/ ],
		clear => sub { sql('ALTER TABLE away RENAME TO taken') } },

	{ condition => 'BLOCKED', of => [ pipeline => 'p' ],
		set => sub { $session->query_safe('BEGIN; LOCK TABLE taken'); produce() },
		shows => [ 'waiting', qr/^waits for a lock on public\.taken that process \d+ has/ ],
		clear => sub { $session->query_safe('COMMIT') } },

	{ condition => 'BLOCKED', about => 'of the outbox', of => [ outbox => 'outbox' ],
		set => \&lock_outbox, shows => [ 'waiting', qr/^waits for a lock on public\.nexus_outbox that process \d+ has/ ],
		clear => sub { $session->query_safe('COMMIT') } },

	{ condition => 'TRANSACTION_FAILS', of => [ pipeline => 'p' ],
		prepare => sub { impatient('ingest', 'relay') },
		set => sub { $session->query_safe('BEGIN; LOCK TABLE taken'); produce() },
		shows => [ 'waiting', qr/lock timeout \(SQLSTATE 55P03\)/ ],
		clear => sub { $session->query_safe('COMMIT') } },

	{ condition => 'TRANSACTION_FAILS', about => 'of the outbox', of => [ outbox => 'outbox' ],
		set => \&lock_outbox, shows => [ 'waiting', qr/lock timeout \(SQLSTATE 55P03\)/ ],
		clear => sub { $session->query_safe('COMMIT') } },

	# a standby that isn't there
	{ condition => 'NOT_REPLICATED', of => [ outbox => 'outbox' ],
		set => sub {
			$node->reconfigure(synchronous_standby_names => 'nobody');
			$node->wait_for_query('postgres', "SET synchronous_commit = local; SELECT nexus_produce('p', '{}'::jsonb) IS NULL;
				SELECT state FROM nexus_status WHERE kind = 'outbox'", "f\nwaiting");
		},
		shows => [ 'waiting', qr/^messages wait until a synchronous standby has them/ ],
		clear => sub { $node->reconfigure(synchronous_standby_names => '') } });

$conditions->end;
$session->quit;

# ---- a client of the embedded broker, which has a file

my $client = NexusKafka::Cluster->make('conditions_client', start => 0);
my $file = NexusKafka::ConnectionFile->new($client);
my $bootstrap = "bootstrap.servers=$address\n";
my ($limited, $limit);

$file->write("$bootstrap\[other]\n$bootstrap");
$client->start;
$client->create_extension('postgres');
runs_ok($client, 'postgres');
$conditions = NexusKafka::Conditions->watch($client);

$conditions->come_and_go_ok(
	{ condition => 'NOT_NEEDED', about => 'of a connection', of => [ outbox => 'third' ], before => 'none',
		set => sub { $file->reload_with("$bootstrap\[other]\n$bootstrap\[third]\n$bootstrap") },
		shows => [ 'on_demand', qr/^nothing was produced to it yet/ ],
		clear => sub { $client->safe_psql('postgres', q(SELECT nexus_produce('t', 'x'::text, connection => 'third'))) } },

	{ condition => 'BAD_SECTION', of => [ outbox => 'other' ], before => 'on_demand',
		set => sub { $file->reload_with("$bootstrap\[other]\nno.such.property=1\n") },
		shows => [ 'not_configured', qr/^nexus_kafka\.config_file: .* line 3: unknown property/ ],
		clear => sub { $file->reload_with("$bootstrap\[other]\n$bootstrap") }, then => [ 'on_demand', qr/^nothing was produced/ ] },

	(map { {
		condition => 'NOT_CONFIGURED', about => "of the $_->[0]", of => $_,
		set => sub { $file->reload_with("# nothing\n") },
		shows => [ 'not_configured', qr/^neither nexus_kafka\.bootstrap_servers nor bootstrap\.servers in nexus_kafka\.config_file is set/ ],
		clear => sub { $file->reload_with($bootstrap) } } } [ outbox => 'outbox' ], [ pipeline => 'prospect_tracking' ]),

	# its process may have no more threads
	{ condition => 'NO_CLIENT', of => [ outbox => 'outbox' ], before => 'not_configured',
		prepare => sub {
			$file->reload_with("# nothing\n");
			$client->poll_status('postgres', 'outbox', 'outbox', 'not_configured');
			$limited = $client->worker_pid('relay', 'postgres');
			($limit) = `prlimit --pid $limited --nproc --noheadings --raw --output SOFT` =~ /(\w+)/ or die 'no limit';
		},
		set => sub { system("prlimit --pid $limited --nproc=0:") == 0 or die 'prlimit'; $file->reload_with($bootstrap) },
		shows => [ 'waiting', qr/thread/ ],
		clear => sub { system("prlimit --pid $limited --nproc=$limit:") == 0 or die 'prlimit' } });

$conditions->end;
no_crash_ok($_) for $node, $client;
done_testing();

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }
sub alter { return sql("SELECT nexus_alter_pipeline('p', options => '{$_[0]}')") }
sub drop { return sql("SELECT nexus_drop_pipeline(name) FROM nexus_pipelines WHERE name ~ '$_[0]'") }
sub create { return sql(create_sql(@_)) }

sub create_sql
{
	my ($name, $options, $times) = @_;

	return sprintf q(SELECT nexus_create_pipeline('%s', 'q', 'SELECT FROM nexus_messages()', '%s') FROM %s), $name, $options // '{}',
	  $times // '(SELECT) x';
}

sub produce { return sql(q(SELECT nexus_produce('p', '{"v": "x"}'::jsonb))) }

# A lock that is waited for when a row is committed comes before the relay's, which reads the row
# and can't delete it.
sub lock_outbox
{
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$writer //= $node->background_psql('postgres');
	$writer->query_safe('BEGIN');
	$writer->query_safe(q(SELECT nexus_produce('p', '{"v": "x"}'::jsonb)));
	$session->query_until(qr/^begun$/m, "SET lock_timeout = 0;\nBEGIN;\n\\echo begun\nLOCK TABLE nexus_outbox IN SHARE MODE;\n");
	$node->wait_for_query('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted", 1);
	return $writer->query_safe('COMMIT');
}

# Workers that wait for no lock.
sub impatient
{
	my @kinds = @_;
	my %pid = map { $_ => [ $node->worker_pids($_, 'postgres') ] } @kinds;

	sql(q(ALTER DATABASE postgres SET lock_timeout = '100ms'));
	sql("SELECT pg_terminate_backend($_)") for map { @$_ } values %pid;
	foreach my $kind (@kinds)
	{
		my $old = join ', ', @{ $pid{$kind} };
		$node->wait_for_query('postgres', "SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'nexus_kafka $kind' AND pid NOT IN ($old)", scalar @{ $pid{$kind} });
	}
	return;
}
