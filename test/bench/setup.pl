#!/usr/bin/perl
# The broker and the server of the benchmark, by the modules of the tests. Says where
# they are, as JSON, then obeys lines of its standard input and answers each with "done":
#   topic NAME PARTITIONS      made on the broker
#   cluster NAME MS            the server uses a cluster of three brokers, which has that
#                              topic, by SASL_SSL, and is so far off each way
#   far NAME MS                likewise another broker, without TLS
#   single                     it uses the broker again
# All end with the input.
use strict;
use warnings;

# PostgreSQL::Test::Utils sends both outputs into a log of its own.
my ($answers, $errors);
BEGIN
{
	open($answers, '>&', \*STDOUT) or die "dup: $!";
	open($errors, '>&', \*STDERR) or die "dup: $!";
}

use FindBin;
use IO::Handle;
use JSON::PP;
use NexusKafka::Broker;
use NexusKafka::BrokerCluster;
use NexusKafka::Cluster;

# What a server that does such work would have. Checkpoints are asked for before
# each measurement, and shall not come by themselves within one.
my %settings = (
	shared_buffers => '1GB',
	max_wal_size => '8GB',
	checkpoint_timeout => '1h',
	wal_level => 'replica',
	synchronous_commit => 'on');

open(STDERR, '>&', $errors) or die "dup: $!";
my $kafka = NexusKafka::Broker->new(flags => []);
my $node = NexusKafka::Cluster->make('bench', bootstrap => $kafka->bootstrap, fsync => 1, conf => \%settings);

$answers->autoflush(1);
print $answers encode_json({
	bootstrap => $kafka->bootstrap,
	host => $node->host,
	port => $node->port,
	user => scalar getpwuid($>) }) . "\n";

my ($cluster, $far, @ways);
my %commands = (
	topic => sub { $kafka->create_topic(@_) },
	cluster => sub {
		my ($topic, $ms) = @_;

		# as in earnest, not as in tests
		$cluster = NexusKafka::BrokerCluster->new(heap => '512m', flags => [], node_conf => sub {
			my ($node) = @_;

			return 'advertised.listeners' => join ',', 'PLAINTEXT://' . $node->bootstrap,
			  'SASL_SSL://localhost:' . way_to($node->sasl_bootstrap, $ms);
		});
		$cluster->create_topic($topic, 1);
		$node->reconfigure('nexus_kafka.config_file' => $node->sasl_ssl_file($cluster));
	},
	far => sub {
		my ($topic, $ms) = @_;

		$far = NexusKafka::Broker->new(start => 0, flags => []);
		my $port = way_to($far->bootstrap, $ms);
		$far->configure('advertised.listeners' => "PLAINTEXT://127.0.0.1:$port");
		$far->start;
		$far->create_topic($topic);
		$node->reconfigure('nexus_kafka.bootstrap_servers' => "127.0.0.1:$port");
	},
	single => sub {
		$node->reconfigure(
			'nexus_kafka.config_file' => '',
			'nexus_kafka.bootstrap_servers' => $kafka->bootstrap);
		$_->kill9 for $cluster ? $cluster->nodes : (), $far // ();
		kill('KILL', $_->{pid}) for @ways;
		($cluster, $far, @ways) = ();
	});

# The port by which a broker is reached so much later.
sub way_to
{
	my ($bootstrap, $ms) = @_;
	my ($to_port) = $bootstrap =~ /(\d+)$/;
	return $to_port if !$ms;

	my $port = NexusKafka::Broker::free_port();
	my $pid = open(my $output, '-|', 'setpriv', '--pdeathsig', 'KILL', "$FindBin::RealBin/far.py", $port, $to_port, $ms)
	  or die "far.py: $!";
	push @ways, { pid => $pid, output => $output };
	readline($output) // die 'far.py does not listen';
	return $port;
}

while (defined(my $line = readline(STDIN)))
{
	my ($command, @args) = split ' ', $line;
	$commands{$command}->(@args);
	print $answers "done\n";
}
$node->stop('fast');
$kafka->stop;

# Without a plan there is nothing that Test::More could complain of.
Test::More->builder->no_ending(1);
