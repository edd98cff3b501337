# The workers come back: each one after SIGTERM and after pg_terminate_backend, and
# all of them after a crash of one of them, which restarts the whole server.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = NexusKafka::Cluster->make('recovery', embedded => 1, restart_after_crash => 1);
$node->create_extension('postgres');
works_ok($node, 'postgres', 'a session becomes a row');

# The launcher belongs to no database.
my %database = (supervisor => 'postgres', relay => 'postgres', ingest => 'postgres');

# The embedded broker is no session, so it is looked for where it announces itself.
sub broker_pid
{
	my ($last) = reverse log_lines($node, qr/LOG:  nexus_kafka broker is running/);
	return $last =~ /\[(\d+)\]/ ? $1 : die "no pid in: $last";
}

# Ends a worker, and returns when another one is there in its place.
sub end_worker
{
	my ($kind, $end) = @_;
	my $pid = $kind eq 'broker' ? broker_pid() : $node->worker_pid($kind, $database{$kind});

	$end->($pid);
	if ($kind eq 'broker')
	{
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
		while (broker_pid() == $pid)
		{
			die "no new embedded broker" if time > $deadline;
			sleep 0.05;
		}
	}
	else
	{
		$node->worker_pid($kind, $database{$kind}, not => $pid);
	}
	return;
}

my @kinds = qw(ingest relay supervisor launcher broker);
foreach my $kind (@kinds)
{
	end_worker($kind, sub { kill('TERM', $_[0]) });
	works_ok($node, 'postgres', "after SIGTERM to the $kind a session becomes a row");
}
end_worker('relay', sub { $node->safe_psql('postgres', "SELECT pg_terminate_backend($_[0])") });
works_ok($node, 'postgres', 'after pg_terminate_backend too');

# One that is told to end, again and again, is no worker in trouble.
end_worker('supervisor', sub { kill('TERM', $_[0]) }) for 1 .. 6;
works_ok($node, 'postgres', 'after six more of the supervisor the back-off has not grown');
is($node->crashes, 0, 'the server did not restart its processes for any of them');

foreach my $kind (@kinds)
{
	end_worker($kind, sub { kill('KILL', $_[0]) });
	works_ok($node, 'postgres', "after kill -9 of the $kind a session becomes a row");
}
is($node->crashes, scalar @kinds, 'those did make it restart them');

no_crash_ok($node, kills => scalar @kinds);
done_testing();
