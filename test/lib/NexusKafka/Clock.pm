# A server's time of day, which a test can set while the server runs (clock.c does it).
#
#   my $clock = NexusKafka::Clock->new;
#   my $node = NexusKafka::Cluster->make('main', clock => $clock);
#   $clock->set(-3600);       # an hour back
#   $clock->set(0);           # the true time again
package NexusKafka::Clock;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;

sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { library => "$dir/clock.so", file => "$dir/shift" }, $class;

	IPC::Run::run([ 'cc', '-O2', '-Wall', '-Werror', '-shared', '-fPIC', '-o', $self->{library},
			dirname(abs_path(__FILE__)) . '/clock.c', '-ldl' ]) or die 'clock.c does not compile';
	append_to_file($self->{file}, pack('q', 0));
	return $self;
}

# What a process needs in its environment to go by this clock.
sub environment
{
	my ($self) = @_;

	return (NEXUS_TEST_CLOCK => $self->{file}, LD_PRELOAD => join ':', grep { $_ } $ENV{LD_PRELOAD}, $self->{library});
}

# So many seconds before (negative) or after the true time; at once.
sub set
{
	my ($self, $seconds) = @_;

	open(my $file, '+<', $self->{file}) or die "$self->{file}: $!";
	syswrite($file, pack('q', $seconds * 1_000_000)) == 8 or die "$self->{file}: $!";
	return;
}

1;
