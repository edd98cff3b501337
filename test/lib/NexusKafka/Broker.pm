# A real Apache Kafka for tests: one KRaft node, broker and controller in one process,
# in a temporary directory of its own, on free ports.
#
#   my $kafka = NexusKafka::Broker->new;      # configured, formatted and started
#   $kafka->create_topic('orders', 2, 'max.message.bytes' => 1000);
#   … $kafka->bootstrap …
#   $kafka->stop; $kafka->start;              # the same ports and data
#
# It ends with the process that made it, however that ends. Several nodes that are one
# cluster: NexusKafka::BrokerCluster.
package NexusKafka::Broker;

use strict;
use warnings;

use Carp qw(croak);
use File::Basename qw(basename dirname);
use File::Copy qw(copy);
use File::Temp ();
use IO::Socket::INET;
use IPC::Run ();
use MIME::Base64 qw(encode_base64url);
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

my $recipe = dirname(__FILE__) . '/../../kafka';
my $start_timeout = 120;
my $stop_timeout = 60;

# User and password of the SASL_SSL listener.
use constant { SASL_USERNAME => 'key', SASL_PASSWORD => 'hidden-8c41f07e' };

# What compiles less; most brokers here live for half a minute.
my @soon_up = ('-XX:TieredStopAtLevel=1');

my @brokers;

# Options: conf => { property => value, … }, heap ('512m'), flags => [ of the JVM, … ] (by default such
# that it is soon up; []: such that it is fast in the long run), start => 0. Of a node among
# others: node_id (1), voters (itself), controller_port, and the first of them as "join",
# whose cluster id and certificate it has too.
sub new
{
	my ($class, %opt) = @_;
	my $dir = File::Temp->newdir('nexus_kafka_broker.XXXXXX', TMPDIR => 1);
	my $controller_port = $opt{controller_port} // free_port();
	my $node_id = $opt{node_id} // 1;
	my $self = bless {
		dir => $dir,
		log_file => _log_file($dir),
		flags => [ '-Xmx' . ($opt{heap} // '512m'), @{ $opt{flags} // \@soon_up } ],
		conf => $opt{conf} // {},
		node_id => $node_id,
		voters => $opt{voters} // "$node_id\@127.0.0.1:$controller_port",
		cluster_id => $opt{join} ? $opt{join}{cluster_id} : _cluster_id(),
		port => free_port(),
		sasl_port => free_port(),
		mtls_port => free_port(),
		controller_port => $controller_port,
		classpath => _run("$recipe/fetch") . '/*' }, $class;

	push @brokers, $self;
	$opt{join} ? $self->_copy_certificate($opt{join}) : $self->_make_certificate;
	$self->_write_properties;
	$self->java('kafka.tools.StorageTool', 'format', '-t', $self->{cluster_id}, '-c', "$dir/server.properties");
	$self->start if $opt{start} // 1;
	return $self;
}

sub bootstrap { return "127.0.0.1:$_[0]{port}" }
sub sasl_bootstrap { return "localhost:$_[0]{sasl_port}" }

# A listener that asks for the client's certificate: its own (ca_file, key_file) is trusted.
sub mtls_bootstrap { return "localhost:$_[0]{mtls_port}" }

# The certificate to trust for sasl_bootstrap (librdkafka's ssl.ca.location).
sub ca_file { return "$_[0]{dir}/certificate.pem" }
sub key_file { return "$_[0]{dir}/key.pem" }

# What a client's file of properties has to say to use sasl_bootstrap.
sub sasl_properties
{
	my ($self) = @_;

	return join "\n", 'bootstrap.servers=' . $self->sasl_bootstrap, 'security.protocol=SASL_SSL',
		'sasl.mechanism=PLAIN', 'sasl.username=' . SASL_USERNAME, 'sasl.password=' . SASL_PASSWORD,
		'ssl.ca.location=' . $self->ca_file, '';
}

sub add_flags { my ($self, @flags) = @_; return push @{ $self->{flags} }, @flags }

sub log_file { return $_[0]{log_file} }
sub pid { return $_[0]{pid} }
sub node_id { return $_[0]{node_id} }

# Starts it and waits until it serves clients.
sub start
{
	my ($self) = @_;

	$self->launch;
	return $self->wait_until_ready;
}

sub launch
{
	my ($self) = @_;
	croak 'the broker runs already' if $self->{pid};

	my @command = ('setpriv', '--pdeathsig', 'KILL',
		$self->_java(@{ $self->{flags} }), 'kafka.Kafka', "$self->{dir}/server.properties");
	$self->{pid} = fork() // die "fork: $!";
	if (!$self->{pid})
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $self->log_file);
		open(STDERR, '>&', \*STDOUT);
		exec(@command) or POSIX::_exit(127);
	}
	return;
}

# An orderly shutdown.
sub stop
{
	my ($self) = @_;

	$self->resume;
	return $self->_end('TERM');
}

sub kill9
{
	my ($self) = @_;

	return $self->_end('KILL');
}

# As a broker that hangs: its ports accept, and nothing answers. Until resume.
sub freeze { return kill 'STOP', $_[0]{pid} // croak 'the broker does not run' }
sub resume { return $_[0]{pid} && kill 'CONT', $_[0]{pid} }

# Other properties, heeded from the next start on.
sub configure
{
	my ($self, %conf) = @_;

	$self->{conf} = { %{ $self->{conf} }, %conf };
	return $self->_write_properties;
}

# One more for PLAINTEXT: where it listens, and what it tells clients about that; from the next start on.
sub add_listener
{
	my ($self, $name, $at, $advertised) = @_;

	push @{ $self->{listeners} }, { name => $name, at => $at, advertised => $advertised };
	return $self->_write_properties;
}

# As configure(), at once.
sub restart_with
{
	my ($self, %conf) = @_;

	$self->stop;
	$self->configure(%conf);
	return $self->start;
}

# Makes a user of a SCRAM mechanism, or gives one another password; at once.
sub set_scram_password
{
	my ($self, $mechanism, $user, $password) = @_;

	return $self->java('kafka.admin.ConfigCommand', '--bootstrap-server', $self->bootstrap, '--alter',
		'--entity-type', 'users', '--entity-name', $user, '--add-config', "$mechanism=[password=$password]");
}

# The line by which the SASL_SSL listener knows its user and this password for PLAIN.
sub plain_password
{
	my ($self, $password) = @_;

	return ('listener.name.sasl_ssl.plain.sasl.jaas.config' => sprintf(
			'org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";', SASL_USERNAME, $password));
}

# Starts again at the address of another broker, which has ended: with its own data.
sub take_place_of
{
	my ($self, $other) = @_;

	$self->stop;
	$self->{$_} = $other->{$_} for qw(port sasl_port);
	$self->_write_properties;
	return $self->start;
}

sub create_topic
{
	my ($self, $name, $partitions, %config) = @_;

	return $self->_admin('create', $name, $partitions // 1, map { "$_=$config{$_}" } sort keys %config);
}

sub delete_topic
{
	my ($self, $name) = @_;

	return $self->_admin('delete', $name);
}

# More partitions for a topic; partitions: how many there are then.
sub grow_topic
{
	my ($self, $name, $partitions) = @_;

	return $self->_admin('grow', $name, $partitions);
}

# Removes the records before the offset, as retention does.
sub trim_topic
{
	my ($self, $name, $partition, $offset) = @_;

	return $self->_admin('trim', $name, $partition, $offset);
}

# Writes messages with such timestamps, in milliseconds, which are their values too.
sub stamp_topic
{
	my ($self, $name, $partition, @times) = @_;

	return $self->_admin('stamp', $name, $partition, @times);
}

# Runs a class of the distribution, a command line tool such as
# org.apache.kafka.tools.ConsoleProducer, and answers its output. An option before
# it: { stdin => $text }.
sub java
{
	my ($self, @args) = @_;
	my $opt = ref $args[0] ? shift @args : {};

	return _run($opt, $self->java_command(@args));
}

# The command line of that, for one that stays.
sub java_command
{
	my ($self, @args) = @_;

	return ($self->_java(@soon_up), @args);
}

# Runs kcat against the broker; options as for java().
sub kcat
{
	my ($self, @args) = @_;
	my $opt = ref $args[0] ? shift @args : {};

	return _run($opt, 'kcat', '-b', $self->bootstrap, @args);
}

# Writes messages, one each. Options: key, partition, headers => { name => value }.
# Nothing is split, so keys and values may hold anything but a NUL byte.
sub produce
{
	my ($self, $topic, $messages, %opt) = @_;

	for my $message (@$messages)
	{
		my $file = File::Temp->new(DIR => $self->{dir});
		print $file $message;
		close $file;
		$self->kcat('-P', '-t', $topic,
			(defined $opt{key} ? ('-k', $opt{key}) : ()),
			(defined $opt{partition} ? ('-p', $opt{partition}) : ()),
			(map { ('-H', "$_=$opt{headers}{$_}") } sort keys %{ $opt{headers} // {} }),
			"$file");
	}
	return;
}

# Kafka's classes as the JVM has them in memory, which _java() begins with if they are there;
# and what has a broker write them when it ends (test/kafka/archive).
sub class_archive { return $_[0]{classpath} =~ s{/\*$}{.jsa}r }
sub archiving_flag { return '-XX:ArchiveClassesAtExit=' . $_[0]->class_archive }

sub _java
{
	my ($self, @flags) = @_;
	my $archive = $self->class_archive;

	return ('java', '-XX:+UseSerialGC', '-XX:-UsePerfData', '-Xlog:cds=off',
		(-e $archive ? "-XX:SharedArchiveFile=$archive" : ()), @flags,
		"-Dlog4j2.configurationFile=$recipe/log4j2.properties", '-cp', $self->{classpath});
}

sub _admin
{
	my ($self, @args) = @_;

	_run('sh', '-c', 'cc -o "$1" "$2" $(pkg-config --cflags --libs rdkafka)', 'sh',
		"$self->{dir}/admin", "$recipe/admin.c")
	  unless -x "$self->{dir}/admin";
	_run("$self->{dir}/admin", $self->bootstrap, @args);
	return;
}

# Runs a command to its end and answers what it printed; dies if it failed.
sub _run
{
	my @command = @_;
	my $opt = ref $command[0] ? shift @command : {};
	my ($out, $err);

	IPC::Run::run(\@command, '<', \($opt->{stdin} // ''), '>', \$out, '2>', \$err)
	  or croak "@command failed:\n$out$err";
	chomp $out;
	return $out;
}

# Among the logs that test/run shows of a failed test, where there are any.
sub _log_file
{
	my ($dir) = @_;
	my $logs = ($ENV{TESTDIR} // '') . '/tmp_check/log';
	return "$dir/kafka.log" unless -d $logs;

	return sprintf '%s/%s_kafka%d.log', $logs, basename($0) =~ s/\.[^.]*$//r, scalar @brokers;
}

# Below the range of ephemeral ports: a client that tries to reach a stopped broker
# would otherwise, now and then, be given the broker's own port as its local one,
# be connected to itself, and keep the broker from starting again.
sub free_port
{
	for (1 .. 1000)
	{
		my $port = 10200 + int(rand(22000));
		return $port if IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port,
			Listen => 1, ReuseAddr => 1);
	}
	die 'no free port found';
}

# Kafka's form of a UUID. It may not begin with a dash.
sub _cluster_id
{
	return encode_base64url(pack('C16', 65, map { int(rand(256)) } 1 .. 15));
}

sub _make_certificate
{
	my ($self) = @_;

	_run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
		'-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
		'-keyout', "$self->{dir}/key.pem", '-out', $self->ca_file);
	_run('sh', '-c', 'cat "$1/key.pem" "$1/certificate.pem" > "$1/keystore.pem"', 'sh', "$self->{dir}");
	return;
}

sub _copy_certificate
{
	my ($self, $other) = @_;

	copy("$other->{dir}/$_", "$self->{dir}/$_") or die "$_: $!" for qw(key.pem certificate.pem keystore.pem);
	return;
}

sub _write_properties
{
	my ($self) = @_;
	my $module = 'org.apache.kafka.common.security';
	my @more = @{ $self->{listeners} // [] };
	my %properties = (
		'process.roles' => 'broker,controller',
		'node.id' => $self->{node_id},
		'controller.quorum.voters' => $self->{voters},
		'listeners' => join(',', 'PLAINTEXT://' . $self->bootstrap,
			"SASL_SSL://127.0.0.1:$self->{sasl_port}", "MTLS://127.0.0.1:$self->{mtls_port}",
			"CONTROLLER://127.0.0.1:$self->{controller_port}", map { "$_->{name}://$_->{at}" } @more),
		'advertised.listeners' =>
		  join(',', 'PLAINTEXT://' . $self->bootstrap, 'SASL_SSL://' . $self->sasl_bootstrap,
			'MTLS://' . $self->mtls_bootstrap, map { "$_->{name}://$_->{advertised}" } @more),
		'controller.listener.names' => 'CONTROLLER',
		'listener.security.protocol.map' => join(',',
			qw(PLAINTEXT:PLAINTEXT SASL_SSL:SASL_SSL MTLS:SSL CONTROLLER:PLAINTEXT), map { "$_->{name}:PLAINTEXT" } @more),
		'inter.broker.listener.name' => 'PLAINTEXT',
		'sasl.enabled.mechanisms' => 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
		$self->plain_password(SASL_PASSWORD),
		(map { ("listener.name.sasl_ssl.$_.sasl.jaas.config" => "$module.scram.ScramLoginModule required;") }
			  qw(scram-sha-256 scram-sha-512)),
		'listener.name.mtls.ssl.client.auth' => 'required',
		'listener.name.mtls.ssl.truststore.type' => 'PEM',
		'listener.name.mtls.ssl.truststore.location' => $self->ca_file,
		'ssl.keystore.type' => 'PEM',
		'ssl.keystore.location' => "$self->{dir}/keystore.pem",
		'log.dirs' => "$self->{dir}/data",
		# after a kill it is let in again when its former self's session has run out
		'broker.session.timeout.ms' => 6000,
		'offsets.topic.replication.factor' => 1,
		'offsets.topic.num.partitions' => 1,
		'transaction.state.log.replication.factor' => 1,
		'transaction.state.log.min.isr' => 1,
		'transaction.state.log.num.partitions' => 1,
		'group.initial.rebalance.delay.ms' => 0,
		'auto.create.topics.enable' => 'false',
		%{ $self->{conf} });

	open(my $file, '>', "$self->{dir}/server.properties") or die "server.properties: $!";
	print $file map { "$_=$properties{$_}\n" } sort keys %properties;
	close($file) or die "server.properties: $!";
	return;
}

sub wait_until_ready
{
	my ($self) = @_;
	my $deadline = time + $start_timeout;

	until (IPC::Run::run([ 'kcat', '-b', $self->bootstrap, '-L', '-m', '1' ], \undef, '>&', \my $output))
	{
		if (waitpid($self->{pid}, WNOHANG) != 0)
		{
			delete $self->{pid};
			croak 'Kafka ended while starting: ' . $self->_log;
		}
		croak 'timed out waiting for Kafka to serve: ' . $self->_log if time > $deadline;
		sleep 0.05;
	}
	return;
}

# Sends the signal and waits for the process to be gone.
sub _end
{
	my ($self, $signal) = @_;
	my $pid = $self->{pid} or return;
	my $deadline = time + $stop_timeout;

	kill $signal, $pid;
	while (waitpid($pid, WNOHANG) == 0)
	{
		croak "timed out waiting for Kafka to end after SIG$signal" if time > $deadline;
		sleep 0.02;
	}
	delete $self->{pid};
	return;
}

sub _log
{
	my ($self) = @_;

	open(my $file, '<', $self->log_file) or return "no log: $!";
	return join '', <$file>;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $@);
	$self->kill9;
	return;
}

END
{
	# take care not to change the script's exit value
	my $exit_code = $?;

	$_->kill9 for @brokers;
	@brokers = ();
	$? = $exit_code;
}

1;
