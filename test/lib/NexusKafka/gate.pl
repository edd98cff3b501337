# Passes TCP connections on, as files say (NexusKafka::Gate), until its parent ends.
#
#   gate.pl DIRECTORY FROM:TO…
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX qw(EAGAIN EINTR);

my ($dir, @routes) = @ARGV;
my $parent = getppid();
my %gate = map { my ($from, $to) = split /:/; $from => { from => $from, to => $to, how => '' } } @routes;
my %end;    # by file number: { socket, other, gate, waiting => what is to be written to it }

$SIG{PIPE} = 'IGNORE';
while (getppid() == $parent)
{
	heed($_) for values %gate;
	my @open = grep { $_->{gate}{how} eq 'open' } values %end;
	my @listeners = map { $_->{listener} // () } grep { $_->{how} eq 'open' } values %gate;
	my $reads = IO::Select->new(@listeners, map { $_->{socket} } grep { $_->{other}{waiting} eq '' } @open);
	my $writes = IO::Select->new(map { $_->{socket} } grep { $_->{waiting} ne '' } @open);
	my ($readable, $writable) = IO::Select->select($reads, $writes, undef, 0.05);

	foreach my $socket (@{ $writable // [] })
	{
		my $end = $end{ fileno($socket) // -1 } or next;
		flush_end($end);
	}
	foreach my $socket (@{ $readable // [] })
	{
		my $number = fileno($socket) // next;
		$end{$number} ? pass_on($end{$number}) : take_in($socket);
	}
}

sub heed
{
	my ($gate) = @_;

	open(my $file, '<', "$dir/$gate->{from}") or die "$gate->{from}: $!";
	my $how = <$file>;
	return if $how eq $gate->{how};
	$gate->{how} = $how;
	if ($how eq 'refused')
	{
		close delete $gate->{listener} if $gate->{listener};
		my @ends = grep { $_->{gate} == $gate } values %end;
		drop($_) for @ends;
		return;
	}
	$gate->{listener} //= IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $gate->{from},
		ReuseAddr => 1) // die "port $gate->{from}: $!";
	return;
}

sub take_in
{
	my ($listener) = @_;
	my ($gate) = grep { $_->{listener} && $_->{listener} == $listener } values %gate;
	my $near = $listener->accept or return;
	my $far = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gate->{to}) or return;
	my @ends = map { { socket => $_, gate => $gate, waiting => '' } } $near, $far;

	$ends[$_]{other} = $ends[ 1 - $_ ] for 0, 1;
	foreach my $end (@ends)
	{
		$end->{socket}->blocking(0);
		setsockopt($end->{socket}, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1);
		$end{ fileno $end->{socket} } = $end;
	}
	return;
}

sub pass_on
{
	my ($end) = @_;
	my $got = sysread($end->{socket}, $end->{other}{waiting}, 65536);

	return if !defined $got && ($! == EAGAIN || $! == EINTR);
	return drop($end) unless $got;
	return flush_end($end->{other});
}

sub flush_end
{
	my ($end) = @_;
	my $sent = syswrite($end->{socket}, $end->{waiting});

	return if !defined $sent && ($! == EAGAIN || $! == EINTR);
	return drop($end) unless defined $sent;
	substr($end->{waiting}, 0, $sent) = '';
	return;
}

sub drop
{
	my ($end) = @_;

	foreach my $one ($end, $end->{other})
	{
		my $number = fileno($one->{socket}) // next;
		delete $end{$number};
		close $one->{socket};
	}
	return;
}
