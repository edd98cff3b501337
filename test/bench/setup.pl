#!/usr/bin/perl
# The broker and the server of the benchmark, by the modules of the tests. Says where
# they are, as JSON, then obeys lines of its standard input and answers each with "done":
#   topic NAME PARTITIONS      made on the broker
#   cluster NAME PARTITIONS    the server uses a cluster of three brokers, which has that
#                              topic, by SASL_SSL
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

my $cluster;
my %commands = (
	topic => sub { $kafka->create_topic(@_) },
	cluster => sub {
		$cluster = NexusKafka::BrokerCluster->new;
		$cluster->create_topic(@_);
		$node->reconfigure('nexus_kafka.config_file' => $node->sasl_ssl_file($cluster));
	},
	single => sub {
		$node->reconfigure('nexus_kafka.config_file' => '');
		$_->kill9 for $cluster->nodes;
	});

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
