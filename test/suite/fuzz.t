# The corpus of each fuzzing target, once, under the sanitizers: what was found stays mended.
use strict;
use warnings;

use Test::More;

my @targets = map { s{.*/}{}r } glob 'test/fuzz/corpus/*';

cmp_ok(scalar @targets, '>', 1, 'there are targets');
for my $target (@targets)
{
	my @inputs = glob "test/fuzz/corpus/$target/*";
	my $output = `test/fuzz/build/$target @inputs 2>&1`;
	my $status = $?;
	my $executed = () = $output =~ /^Executed /mg;

	is($status, 0, "$target: nothing is found");
	is($executed, scalar @inputs, "$target: each input was run");
	diag($output) if $status;
}
isnt(system('test/fuzz/build/headers no_such_file > /dev/null 2>&1'), 0, 'a failure inside the backend is told');

done_testing();
