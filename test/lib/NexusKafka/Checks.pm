# Checks that the tests share: that a database's workers do their job, how long a
# thing takes, an error's SQLSTATE, and that the server didn't crash.
package NexusKafka::Checks;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

our @EXPORT = qw(works_ok runs_ok quick_ok sqlstate_of sqlstates_of sqlstate_is log_lines no_crash_ok);

# A session goes the whole way: produced, published, ingested, a row. That takes
# milliseconds, or a second where a worker is about to be started again; longer than
# this, and somebody was not told but only noticed when a timer ran out.
my $way_timeout = 15;

sub works_ok
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $id = $node->produce($db);
	$node->wait_for_query($db, "SELECT count(*) FROM prospect_tracking WHERE message_id = '$id'", 1,
		timeout => $way_timeout);
	return pass($name);
}

# The relay and the prospect pipeline say that they run.
sub runs_ok
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->poll_status($db, 'outbox', 'outbox', 'running');
	$node->poll_status($db, 'pipeline', 'prospect_tracking', 'running');
	return pass($name // "everything in $db runs");
}

# The code takes less than so many seconds. The bound is generous, for a busy
# machine; the time itself is reported for people.
sub quick_ok
{
	my ($what, $bound, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $start = time;
	$code->();
	my $seconds = time - $start;
	diag(sprintf('%s: %.2f s', $what, $seconds));
	return cmp_ok($seconds, '<', $bound, "$what takes less than $bound s");
}

# '00000' if the statement passes.
sub sqlstate_of
{
	my ($node, $db, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	return $err =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5})/ ? $1 : $rc == 0 ? '00000' : "psql: $rc $err";
}

# Of each statement in turn, in one session that begins with $before.
sub sqlstates_of
{
	my ($node, $db, $before, @statements) = @_;
	my $script = join "\n", "$before;", map { "\\warn next\n$_;" } @statements;
	my (undef, undef, $err) = $node->psql($db, $script, on_error_stop => 0, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	my (undef, @answers) = split /^next$/m, $err, -1;

	return map { /(?:ERROR|FATAL):\s+([0-9A-Z]{5})/ ? $1 : '00000' } @answers;
}

sub sqlstate_is
{
	my ($node, $db, $sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sqlstate_of($node, $db, $sql), $expected, $name);
}

sub log_lines
{
	my ($node, $pattern) = @_;

	return grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
}

# The last check of every test that has a server. A server process may have died
# only by the test's own hand: "kills" is how often it killed one with signal 9.
sub no_crash_ok
{
	my ($node, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $kills = $opt{kills} // 0;

	my @restarts = log_lines($node, qr/terminating any other active server processes/);
	my @deaths = log_lines($node,
		qr/was terminated by signal|exited with exit code (?![01]\b)|PANIC: |TRAP: |AddressSanitizer|free\(\)|malloc\(\)/);
	my @own = grep { /was terminated by signal 9/ } @deaths;
	my $clean = @deaths == @own && @own <= $kills && @restarts <= $kills;

	ok($clean, 'no process of the server crashed' . ($kills ? ', but for those that were killed' : ''));
	diag(join "\n", "$kills kills, but the log has:", @deaths, @restarts) unless $clean;
	return $clean;
}

1;
