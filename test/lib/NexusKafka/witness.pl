# Writes what states servers show, a line each, until a file says stop (NexusKafka::Witness):
# monotonic time, log or status, pid (of who wrote the line of the log), kind, name, state, reason,
# with tabs between.
#
#   witness.pl CONNECTION-STRING LOG-PATTERN STOP-FILE
use strict;
use warnings;

use IO::Handle;
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

my ($connection, $pattern, $stop) = @ARGV;
my $parent = getppid();
my %kinds = (relay => 'outbox', ingest => 'pipeline', supervisor => 'supervisor');
my $query = q(SELECT concat_ws(E'\t', kind, name, state, reason) FROM nexus_status);
my (%log, $psql, $asked);

$| = 1;
open(STDERR, '>', '/dev/null') or die $!;    # a server that is away is the test's intent

until (-e $stop || getppid() != $parent)
{
	read_log($_) for glob $pattern;
	ask();
	sleep 0.05;
}
read_log($_) for glob $pattern;

sub note_state
{
	my ($from, @what) = @_;

	print join("\t", sprintf('%.3f', clock_gettime(CLOCK_MONOTONIC)), $from, @what), "\n";
	return;
}

sub read_log
{
	my ($path) = @_;

	$log{$path} //= { handle => do { open(my $handle, '<', $path) or return; $handle }, part => '' };
	my $log = $log{$path};
	while (sysread($log->{handle}, $log->{part}, 65536, length $log->{part}))
	{
		while ($log->{part} =~ s/^(.*)\n//)
		{
			$1 =~ /\[(\d+)\].* LOG:  nexus_kafka (\w+)(?: (\S+))? of database \S+ is (\w+)(?:: (.*))?$/
			  and note_state('log', $1, $kinds{$2} // $2, $3 // $kinds{$2} // $2, $4, $5 // '');
		}
	}
	return;
}

# One psql at a time, which may take long while somebody holds a lock.
sub ask
{
	my $now = clock_gettime(CLOCK_MONOTONIC);

	if ($psql)
	{
		my $got = sysread($psql->{out}, $psql->{text}, 65536, length $psql->{text});
		return if !defined $got || $got;
		close $psql->{out};
		note_state('status', '', $_) for split /\n/, $psql->{text};
		undef $psql;
	}
	return if $now < ($asked // 0) + 0.5;
	$asked = $now;
	open(my $out, '-|', 'psql', '-XAtq', '-d', "$connection connect_timeout=5", '-c', $query) or return;
	$out->blocking(0);
	$psql = { out => $out, text => '' };
	return;
}
