# Chance that can be had again: each test says its seed, and takes one from the
# environment (NEXUS_TEST_SEED).
#
# A generator of its own, as others call rand() too.
package NexusKafka::Chance;

use strict;
use warnings;

use Exporter qw(import);
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(chance one_of);

my $state = $ENV{NEXUS_TEST_SEED} // (time * 1000) % 1_000_000;
diag("seed $state (NEXUS_TEST_SEED)");

# A whole number from 0 to below.
sub chance
{
	my ($below) = @_;

	$state = ($state * 1103515245 + 12345) % 2**31;
	return int($state / 2**31 * $below);
}

sub one_of { return $_[chance(scalar @_)] }

1;
