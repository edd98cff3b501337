# What test/run adds to prove: the logs of a file that failed are shown on the spot;
# under CI=true a skipped test is a failed one, and so is, under test/sanitize/run, a file
# during which a sanitizer reported something.
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
			_refuse_reports($parser) if $ENV{SANITIZER_REPORTS};
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

# Each is shown once, with the file during which it came.
sub _refuse_reports
{
	my ($parser) = @_;

	for my $report (glob "$ENV{SANITIZER_REPORTS}/*")
	{
		open my $handle, '<', $report or die "$report: $!";
		print "---- $report\n", <$handle>;
		unlink $report or die "$report: $!";
		push @{ $parser->{parse_errors} }, 'A sanitizer reported something';
	}
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
