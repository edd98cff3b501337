# What test/run adds to prove: the logs of a file that failed are shown on the spot,
# and under CI=true a skipped test is a failed one.
package NexusKafka::Harness;

use strict;
use warnings;

use parent 'TAP::Harness';

use File::Basename qw(fileparse);

my $lines_shown = 150;

sub new
{
	my ($class, @args) = @_;
	my $self = $class->SUPER::new(@args);

	$self->callback(after_test => sub {
			my ($test, $parser) = @_;
			_refuse_skips($parser) if $ENV{CI};
			_show_logs($test->[0]) if $parser->has_problems;
		});
	return $self;
}

sub _refuse_skips
{
	my ($parser) = @_;
	my $skipped = defined $parser->skip_all ? 'the whole file' : join ', ', $parser->skipped;

	push @{ $parser->{parse_errors} }, "Under CI nothing may be skipped, but was: $skipped"
	  if $skipped ne '';
	return;
}

sub _show_logs
{
	my ($file) = @_;
	my $name = (fileparse($file, qr/\.[^.]*/))[0];

	for my $log (glob "$ENV{TESTDIR}/tmp_check/log/{regress_log_$name,${name}_*}")
	{
		open my $handle, '<', $log or next;
		my @lines = <$handle>;
		splice @lines, 0, -$lines_shown if @lines > $lines_shown;
		print "---- the last lines of $log\n", @lines;
	}
	return;
}

1;
