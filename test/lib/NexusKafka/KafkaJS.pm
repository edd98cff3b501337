# KafkaJS as the other end: the scripts of test/interop, as functions.
#
#   my @sent = kafkajs_produce($kafka, 'topic', { sessionId => 's', … }, …);
#   my @read = kafkajs_consume($kafka, 'topic', 3);
package NexusKafka::KafkaJS;

use strict;
use warnings;

use Carp qw(croak);
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(kafkajs_produce kafkajs_consume kafkajs_start kafkajs_stop kafkajs_partitions);

my $scripts = dirname(__FILE__) . '/../../interop';
my $json = JSON::PP->new->canonical->utf8;

# Sends the bodies as the old route did; answers, for each, its key and its value as
# a text.
sub kafkajs_produce
{
	my ($kafka, $topic, @bodies) = @_;
	my $input = join '', map { $json->encode($_) . "\n" } @bodies;

	return map { $json->decode($_) } _node($input, 'produce.js', $kafka->bootstrap, $topic);
}

# The first messages of the topic, so many, that the old consumer's group hasn't had
# yet: partition, offset, key, value and headers, as bytes.
sub kafkajs_consume
{
	my ($kafka, $topic, $count) = @_;

	return map { _bytes($json->decode($_)) } _node('', 'consume.js', $kafka->bootstrap, $topic, $count);
}

# Starts the old consumer, which writes the keys that it has processed to the file;
# kafkajs_stop() has it leave its group in an orderly way.
sub kafkajs_start
{
	my ($kafka, $topic, $file) = @_;

	return IPC::Run::start([ 'node', "$scripts/group.js", $kafka->bootstrap, $topic, $file ]);
}

sub kafkajs_stop
{
	my ($run) = @_;

	$run->signal('TERM');
	$run->finish or croak 'node group.js failed';
	return;
}

# The partition of each key, among so many.
sub kafkajs_partitions
{
	my ($partitions, @keys) = @_;

	return _node(join('', map { unpack('H*', $_) . "\n" } @keys), 'partitions.js', $partitions);
}

sub _bytes
{
	my ($message) = @_;
	my $headers = $message->{headers};

	$message->{$_} = _unhex($message->{$_}) for qw(key value);
	$headers->{$_} = _unhex($headers->{$_}) for keys %$headers;
	return $message;
}

sub _unhex
{
	my ($hex) = @_;

	return [ map { _unhex($_) } @$hex ] if ref $hex;
	return defined $hex ? pack('H*', $hex) : undef;
}

# Runs a script; answers the lines that it printed.
sub _node
{
	my ($input, $script, @args) = @_;
	my ($out, $err);
	my $timeout = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);

	IPC::Run::run([ 'node', "$scripts/$script", @args ], '<', \$input, '>', \$out, '2>', \$err, $timeout)
	  or croak "node $script @args failed:\n$out$err";
	return split /\n/, $out;
}

1;
