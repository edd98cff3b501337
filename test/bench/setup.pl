#!/usr/bin/perl
# The broker and the server of the benchmark, by the modules of the tests. Says where
# they are, as JSON, then obeys lines of its standard input and answers each with "done":
#   topic NAME PARTITIONS      made on the broker
#   cluster NAME PARTITIONS    the server uses a cluster of three brokers, which has that
#                              topic, by SASL_SSL
#   far NAME MS                it uses another broker, which has that topic, and is so far
#                              off each way
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
my $kafka = NexusKafka::Broker->new;
my $node = NexusKafka::Cluster->make('bench', bootstrap => $kafka->bootstrap, fsync => 1, conf => \%settings);

$answers->autoflush(1);
print $answers encode_json({
	bootstrap => $kafka->bootstrap,
	host => $node->host,
	port => $node->port,
	user => scalar getpwuid($>) }) . "\n";

my ($cluster, $far, $way);
my %commands = (
	topic => sub { $kafka->create_topic(@_) },
	cluster => sub {
		$cluster = NexusKafka::BrokerCluster->new;
		$cluster->create_topic(@_);
		$node->reconfigure('nexus_kafka.config_file' => $node->sasl_ssl_file($cluster));
	},
	far => sub {
		my ($topic, $ms) = @_;
		my $port = NexusKafka::Broker::free_port();

		$far = NexusKafka::Broker->new(start => 0,
			conf => { 'advertised.listeners' => "PLAINTEXT://127.0.0.1:$port" });
		$way = start_way($port, $far->bootstrap, $ms);
		$far->start;
		$far->create_topic($topic);
		$node->reconfigure('nexus_kafka.bootstrap_servers' => "127.0.0.1:$port");
	},
	single => sub {
		$node->reconfigure(
			'nexus_kafka.config_file' => '',
			'nexus_kafka.bootstrap_servers' => $kafka->bootstrap);
		$_->kill9 for $cluster ? $cluster->nodes : (), $far // ();
		kill('KILL', $way->{pid}) if $way;
		($cluster, $far, $way) = ();
	});

# The far broker's proxy: its process, which ends with this one, and its output.
sub start_way
{
	my ($port, $bootstrap, $ms) = @_;
	my ($to_port) = $bootstrap =~ /(\d+)$/;

	my $pid = open(my $output, '-|', 'setpriv', '--pdeathsig', 'KILL', "$FindBin::RealBin/far.py", $port, $to_port, $ms)
	  or die "far.py: $!";
	readline($output) // die 'far.py does not listen';
	return { pid => $pid, output => $output };
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
