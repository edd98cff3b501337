# A PostgreSQL node with nexus_kafka preloaded, and the waits that the tests share.
#
# A thin layer over PostgreSQL::Test::Cluster: all that one can do works here too.
#
#   my $node = NexusKafka::Cluster->make('main', embedded => 1);
#   $node->create_extension('postgres');
#   my $id = $node->produce('postgres', { sessionId => 's-1' });
#   $node->wait_rows('postgres', 'prospect_tracking', 1);
#
# Every wait here dies at its timeout and says what it saw last, so that a test
# can't go on with something that never came.
package NexusKafka::Cluster;

use strict;
use warnings;

use parent 'PostgreSQL::Test::Cluster';

use Carp qw(croak);
use Cwd qw(abs_path);
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Utils qw(append_to_file slurp_file);
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->canonical->utf8;

# Makes a node, initialized and running. Options:
#   embedded   => 1               with the embedded broker
#   bootstrap  => 'host:port'     with a broker outside
#   sasl_ssl   => $kafka          with its SASL_SSL listeners (NexusKafka::Broker or BrokerCluster)
#   fsync      => 1               for tests of durability (off otherwise, for speed)
#   restart_after_crash => 1      for tests that kill (off otherwise, so that a crash shows)
#   preload    => 0               without shared_preload_libraries
#   conf       => { guc => value, … }
#   start      => 0               initialized only
#   clock      => $clock          its time of day (NexusKafka::Clock)
#   all others go to PostgreSQL::Test::Cluster::init (allows_streaming, extra …)
sub make
{
	my ($class, $name, %opt) = @_;
	my %own = map { $_ => delete $opt{$_} }
	  qw(embedded bootstrap sasl_ssl fsync restart_after_crash preload conf start clock);
	my $node = $class->new($name);
	$node->set_clock($own{clock}) if $own{clock};

	# The same whatever the locale of whoever starts this, or its absence.
	$node->init(%opt, extra => [ '--encoding=UTF8', '--locale=C', @{ $opt{extra} // [] } ]);
	$node->configure(
		(($own{preload} // 1) ? (shared_preload_libraries => 'nexus_kafka') : ()),
		max_worker_processes => 32,
		log_statement => 'none',
		fsync => $own{fsync} ? 'on' : 'off',
		restart_after_crash => $own{restart_after_crash} ? 'on' : 'off',
		($own{embedded} ? ('nexus_kafka.embedded_broker' => 'on') : ()),
		($own{bootstrap} ? ('nexus_kafka.bootstrap_servers' => $own{bootstrap}) : ()),
		%{ $own{conf} // {} });
	$node->configure('nexus_kafka.config_file' => $node->sasl_ssl_file($own{sasl_ssl})) if $own{sasl_ssl};
	$node->start if $own{start} // 1;
	return $node;
}

# A new file for nexus_kafka.config_file, which leads to the SASL_SSL listeners.
sub sasl_ssl_file
{
	my ($self, $kafka) = @_;
	my $file = $self->data_dir . '/kafka.properties';

	unlink $file;
	append_to_file($file, $kafka->sasl_properties);
	chmod 0600, $file;
	return $file;
}

# Sets GUCs in postgresql.conf; the later setting of a name wins.
sub configure
{
	my ($self, %conf) = @_;

	for my $name (sort keys %conf)
	{
		(my $value = $conf{$name}) =~ s/'/''/g;
		$self->append_conf('postgresql.conf', "$name = '$value'");
	}
	return;
}

# As configure(), of a running server.
sub reconfigure
{
	my ($self, %conf) = @_;

	$self->configure(%conf);
	$self->reload;
	return;
}

# From the next start on.
sub set_clock
{
	my ($self, $clock) = @_;

	$self->{_nexus_clock} = $clock;
	return;
}

sub start
{
	my ($self, @args) = @_;
	my %environment = $self->{_nexus_clock} ? $self->{_nexus_clock}->environment : ();

	$self->_end_with_the_test;
	local @ENV{ keys %environment } = values %environment;
	return $self->SUPER::start(@args);
}

# The postmaster is a daemon and would outlive a test that is killed. A small shell
# waits for the end of a pipe whose other end only this process has, and then shuts
# the server down. That a postmaster's working directory is its data directory tells
# it from another process that has got the number of one long gone.
sub _end_with_the_test
{
	my ($self) = @_;
	return if $self->{_nexus_lifeline};

	pipe(my $reader, $self->{_nexus_lifeline}) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	return if $pid;

	open(STDIN, '<&', $reader) or POSIX::_exit(1);
	exec('sh', '-c', <<'END', 'lifeline', abs_path($self->data_dir)) or POSIX::_exit(1);
trap "" INT TERM HUP
read -r _
pid=$(head -n 1 "$1/postmaster.pid" 2>&-) || exit
[ "$(readlink "/proc/$pid/cwd")" = "$1" ] && kill -QUIT "$pid"
END
}

sub create_extension
{
	my ($self, $db, $schema) = @_;

	$self->safe_psql($db, 'CREATE EXTENSION nexus_kafka' . ($schema ? " SCHEMA $schema" : ''));
	return;
}

# Waits until the query answers $expected ('t' if not given). %opt: timeout (seconds).
sub wait_for_query
{
	my ($self, $db, $query, $expected, %opt) = @_;
	my $deadline = time + ($opt{timeout} // $PostgreSQL::Test::Utils::timeout_default);
	$expected //= 't';

	while (1)
	{
		my ($rc, $out, $err) = $self->psql($db, $query);
		return if $rc == 0 && $out eq $expected;
		croak "timed out waiting for the answer '$expected' of\n$query\n"
		  . "last answer: $out\n$err"
		  if time > $deadline;
		sleep 0.05;
	}
}

# The row of nexus_status as a hash. kind: pipeline or outbox.
sub status
{
	my ($self, $db, $kind, $name, %opt) = @_;
	my $schema = $opt{schema} // 'public';
	my $row = $self->safe_psql($db,
		"SELECT to_jsonb(s) FROM $schema.nexus_status s WHERE kind = '$kind' AND name = '$name'");

	return $row eq '' ? undef : $json->decode($row);
}

# Waits until the row of nexus_status shows the state; answers that row.
sub poll_status
{
	my ($self, $db, $kind, $name, $state, %opt) = @_;
	my $deadline = time + ($opt{timeout} // $PostgreSQL::Test::Utils::timeout_default);

	while (1)
	{
		my $row = eval { $self->status($db, $kind, $name, %opt) };
		return $row if $row && $row->{state} eq $state;
		croak "timed out waiting for state '$state' of $kind $name, last seen: "
		  . ($row ? $json->encode($row) : "nothing $@")
		  if time > $deadline;
		sleep 0.05;
	}
}

# Waits until the relation (or a subquery in parentheses with its alias) has
# exactly that many rows.
sub wait_rows
{
	my ($self, $db, $relation, $count, %opt) = @_;

	$self->wait_for_query($db, "SELECT count(*) FROM $relation", $count, %opt);
	return;
}

# The pids of the background workers of a type ('nexus_kafka ingest' or just
# 'ingest'); of one database, or of all.
sub worker_pids
{
	my ($self, $type, $db) = @_;
	my $of_db = defined $db ? "AND datname = '$db'" : '';
	$type =~ s/^(nexus_kafka )?/nexus_kafka /;

	return split /\n/, $self->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' $of_db ORDER BY 1");
}

# The pid of the one worker of that type, waited for. %opt: not (a pid that it
# must not be, to wait for a successor), timeout.
sub worker_pid
{
	my ($self, $type, $db, %opt) = @_;
	my $deadline = time + ($opt{timeout} // $PostgreSQL::Test::Utils::timeout_default);

	while (1)
	{
		my @pids = eval { $self->worker_pids($type, $db) };
		return $pids[0] if @pids == 1 && $pids[0] != ($opt{not} // 0);
		croak "timed out waiting for one worker '$type', last seen: @pids $@"
		  if time > $deadline;
		sleep 0.05;
	}
}

# Waits until there is no such worker.
sub wait_no_worker
{
	my ($self, $type, $db, %opt) = @_;
	my $of_db = defined $db ? "AND datname = '$db'" : '';
	$type =~ s/^(nexus_kafka )?/nexus_kafka /;

	$self->wait_for_query('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = '$type' $of_db", 0, %opt);
	return;
}

# One call of nexus_produce(jsonb), with what the contract requires filled in;
# answers the message id.
sub produce
{
	my ($self, $db, $fields) = @_;
	my $payload = $json->encode({
		messages => [ { role => 'user', content => 'Hola' } ],
		fingerprint => 'fp-test', sessionId => 'session-test', %{ $fields // {} } });
	$payload =~ s/'/''/g;

	return $self->safe_psql($db, "SELECT nexus_produce('$payload'::jsonb) ->> 'messageId'");
}

# SQL that produces the sessions $from … $to (sessionId 's-<n>', fingerprint
# 'fp-<n>'), to be used in scripts of psql and pgbench too.
sub produce_sessions_sql
{
	my ($self, $from, $to) = @_;

	return <<"END";
SELECT count(nexus_produce(jsonb_build_object(
  'messages', jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'message ' || n)),
  'fingerprint', 'fp-' || n, 'sessionId', 's-' || n)))
FROM generate_series($from, $to) n;
END
}

# Produces them in one transaction.
sub produce_sessions
{
	my ($self, $db, $from, $to) = @_;

	return $self->safe_psql($db, $self->produce_sessions_sql($from, $to));
}

# Has all that is in the topic of a pipeline taken in; dies if that is not done.
sub consume
{
	my ($self, $db, $pipeline) = @_;
	my $answer = $self->safe_psql($db, "SELECT nexus_consume('$pipeline', '60 s')");

	$answer =~ /"(success|idle)"/ or croak "nexus_consume('$pipeline') answered $answer";
	return;
}

# Kills the postmaster and starts the server again. A start is refused while the killed
# postmaster is not reaped, and while its orphans hold the shared memory.
sub kill9_and_start
{
	my ($self) = @_;
	my ($pid) = slurp_file($self->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	$self->kill9;
	sleep 0.05 while kill(0, $pid);
	sleep 0.05 until $self->start(fail_ok => 1);
	return;
}

# How often a server process died in a way that makes the postmaster restart all
# others. Needs restart_after_crash to be more than 1.
sub crashes
{
	my ($self) = @_;
	my @crashes = slurp_file($self->logfile) =~ /terminating any other active server processes/g;

	return scalar @crashes;
}

1;
