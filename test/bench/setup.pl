#!/usr/bin/perl
# The broker and the server of the benchmark, by the modules of the tests. Says where
# they are, as JSON, then obeys lines of its standard input ("topic NAME PARTITIONS")
# and answers each with "done". Both end with the input.
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

while (defined(my $line = readline(STDIN)))
{
	my (undef, $topic, $partitions) = split ' ', $line;
	$kafka->create_topic($topic, $partitions);
	print $answers "done\n";
}
$node->stop('fast');
$kafka->stop;

# Without a plan there is nothing that Test::More could complain of.
Test::More->builder->no_ending(1);
