# The file of nexus_kafka.config_file of a node: written, reloaded, and what comes of it.
#
#   my $file = NexusKafka::ConnectionFile->new($node);    # before the node's start
#   $file->write("bootstrap.servers=…\n");
#   $file->reload_with("…");
#   $file->state_ok('unreachable', 'certificate', 'a wrong CA');
#   $file->arrives_ok('mended');
package NexusKafka::ConnectionFile;

use strict;
use warnings;

use Test::More;

sub new
{
	my ($class, $node) = @_;
	my $self = bless { node => $node, path => $node->data_dir . '/kafka.env', sent => 0 }, $class;

	$node->configure('nexus_kafka.config_file' => $self->{path});
	return $self;
}

sub path { return $_[0]{path} }

# Readable by its owner only, if no other mode is given; in one step, as an operator should.
sub write
{
	my ($self, $text, $mode) = @_;

	replace_file($self->{path}, $text, $mode);
	return;
}

sub reload_with
{
	my ($self, @file) = @_;

	$self->write(@file);
	$self->{node}->reload;
	return;
}

# A session goes the whole way.
sub arrives_ok
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = $self->{node}->produce('postgres', { sessionId => 's-' . ++$self->{sent} });

	$self->{node}->wait_rows('postgres', "prospect_tracking WHERE message_id = '$id'", 1);
	return pass($name);
}

# Both the outbox and the pipeline come to the state, with a reason that matches.
sub state_ok
{
	my ($self, $state, $reason, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	for my $kind (qw(outbox pipeline))
	{
		$self->{node}->wait_for_query('postgres',
			"SELECT CASE WHEN state = '$state' AND reason ~ '$reason' THEN 't' ELSE concat(state, ': ', reason) END
			FROM nexus_status WHERE kind = '$kind'");
		pass("$name: the $kind says so");
		note($self->{node}->safe_psql('postgres', "SELECT state, reason FROM nexus_status WHERE kind = '$kind'"));
	}
	return;
}

sub replace_file
{
	my ($path, $text, $mode) = @_;

	open(my $handle, '>', "$path.new") or die "$path.new: $!";
	print $handle $text;
	close $handle;
	chmod $mode // 0600, "$path.new";
	rename "$path.new", $path or die "rename: $!";
	return;
}

1;
