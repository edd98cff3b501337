# Notes every state that servers show, in their logs and in nexus_status, from a process of
# its own: so it sees what passes while the test waits for something.
#
#   my $witness = NexusKafka::Witness->start($connection_string, 'pattern of log files');
#   …
#   foreach ($witness->end) { "$_->{time}: $_->{kind} $_->{name} $_->{state} $_->{reason}" }
package NexusKafka::Witness;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT = qw(now);

# Seconds by the clock that the states are noted by.
sub now { return clock_gettime(CLOCK_MONOTONIC) }

sub start
{
	my ($class, $connection, $logs) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $run = IPC::Run::start([ $^X, dirname(abs_path(__FILE__)) . '/witness.pl', $connection, $logs, "$dir/stop" ],
		'<', \undef, '>', "$dir/seen");

	return bless { dir => $dir, run => $run }, $class;
}

sub end
{
	my ($self) = @_;

	append_to_file("$self->{dir}/stop", '');
	$self->{run}->finish or die 'the witness failed';
	return $self->seen;
}

# What it has noted so far.
sub seen
{
	my ($self) = @_;

	return map {
		my %one;
		@one{qw(time from pid kind name state reason)} = split /\t/, $_, 7;
		$one{reason} //= '';
		\%one;
	} slurp_file("$self->{dir}/seen") =~ /^(.*)\n/mg;
}

1;
