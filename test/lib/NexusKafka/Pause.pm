# Holds one process of a server up between two of its steps (pause.c does it): where it
# compares a name with itself, as a relay does with its connection's.
#
#   my $pause = NexusKafka::Pause->new('archive');
#   my $node = NexusKafka::Cluster->make('main', start => 0);
#   $pause->start($node);
#   $pause->begin($pid);      # from now on a second for each comparison
#   $pause->end;
package NexusKafka::Pause;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;

sub new
{
	my ($class, $name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { name => $name, library => "$dir/pause.so", file => "$dir/pid" }, $class;

	IPC::Run::run([ 'cc', '-O2', '-fno-builtin', '-Wall', '-Werror', '-shared', '-fPIC', '-o', $self->{library},
			dirname(abs_path(__FILE__)) . '/pause.c' ]) or die 'pause.c does not compile';
	return $self;
}

sub start
{
	my ($self, $node) = @_;

	local $ENV{NEXUS_TEST_PAUSE} = $self->{file};
	local $ENV{NEXUS_TEST_PAUSE_NAME} = $self->{name};
	local $ENV{LD_PRELOAD} = join ':', grep { $_ } $ENV{LD_PRELOAD}, $self->{library};
	return $node->start;
}

sub begin
{
	my ($self, $pid) = @_;

	append_to_file("$self->{file}.new", $pid);
	rename "$self->{file}.new", $self->{file} or die "rename: $!";
	return;
}

sub end
{
	my ($self) = @_;

	unlink $self->{file} or die "unlink: $!";
	return;
}

1;
