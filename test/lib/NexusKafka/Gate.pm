# TCP connections that a test can cut: ports of 127.0.0.1 that lead to others.
#
#   my $gate = NexusKafka::Gate->new($from_port => $to_port, …);
#   $gate->set(silent => $from_port);     # as if the cable were cut: nothing comes or goes
#   $gate->set(refused => $from_port);    # connections end, and new ones are refused
#   $gate->set(open => $from_port);
package NexusKafka::Gate;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;

sub new
{
	my ($class, %routes) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @routes = map { "$_:$routes{$_}" } sort keys %routes;
	my $self = bless { dir => $dir }, $class;

	$self->set(open => sort keys %routes);
	$self->{run} = IPC::Run::start([ $^X, dirname(abs_path(__FILE__)) . '/gate.pl', $dir, @routes ], '<', \undef);
	return $self;
}

sub set
{
	my ($self, $how, @ports) = @_;

	foreach my $port (@ports)
	{
		append_to_file("$self->{dir}/new", $how);
		rename "$self->{dir}/new", "$self->{dir}/$port" or die "rename: $!";
	}
	return;
}

1;
