# pg_regress and pg_isolation_regress as TAP: one test for each of theirs, and the
# differences shown where one failed.
package NexusKafka::PgRegress;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(run_installcheck);

# $kind: REGRESS or ISOLATION, the Makefile's variables that list the tests.
sub run_installcheck
{
	my ($kind) = @_;
	my $other = $kind eq 'REGRESS' ? 'ISOLATION' : 'REGRESS';
	my $output_dir = $kind eq 'REGRESS' ? '.' : 'output_iso';
	my $node = NexusKafka::Cluster->make(lc $kind, embedded => 1);

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	my $passed = IPC::Run::run([ 'make', '-s', 'installcheck', "$other=" ], '>&', \my $output);
	print $output;

	for (split /\n/, $output)
	{
		ok($+{result} !~ /^(not ok|FAILED)/, "$kind $+{name}")
		  if /^(?<result>(?:not )?ok) \d+\s+[-+] (?<name>\S+)/                  # 16 and later
		  || /^(?:test|    )\s+(?<name>\S+)\s+\.\.\. (?<result>ok|FAILED)/;    # 15
	}
	ok($passed, 'make installcheck');
	diag(slurp_file("$output_dir/regression.diffs")) if -s "$output_dir/regression.diffs";
	done_testing();
	return;
}

1;
