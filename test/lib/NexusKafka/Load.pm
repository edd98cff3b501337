# Load for the tests, and how much of it: sessions, raw messages by kcat, and
# clients that produce and keep a journal of what the server promised them.
package NexusKafka::Load;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(scaled silent_port session_value kcat_start numbers numbers_start numbers_stop
	clients_start clients_stop exactly_once_ok);

# The issue's figure times NEXUS_TEST_SCALE (1: the figure itself). Without that
# variable the default, which is smaller only where the figure would take minutes.
sub scaled
{
	my ($figure, $default) = @_;
	my $scale = $ENV{NEXUS_TEST_SCALE} // '';
	return $default // $figure if $scale eq '';

	my $scaled = int($figure * $scale);
	return $scaled < 1 ? 1 : $scaled;
}

# A port that accepts connections and never answers: the kernel completes them and
# nobody reads. Silent for as long as the caller keeps the socket.
sub silent_port
{
	return IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', Proto => 'tcp')
	  // die "can't listen: $!";
}

# The value of a prospect message as an old producer would publish it, 350 bytes.
sub session_value
{
	my ($id) = @_;
	my $text = 'What does the second plan cost for a team of twelve? ' x 4;

	return qq({"messages":[{"role":"user","content":"$text"}],"fingerprint":"fp-$id","sessionId":"$id",)
	  . qq("metadata":{"url":"unknown","enqueuedAt":"2026-01-01T00:00:00.000Z"}});
}

# Starts kcat, which publishes a session a key, to partition 0; ->finish waits for
# its end.
sub kcat_start
{
	my ($kafka, $topic, @keys) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/sessions';

	append_to_file($file, join '', map { "$_\t" . session_value($_) . "\n" } @keys);
	return IPC::Run::start([ 'kcat', '-P', '-b', $kafka->bootstrap, '-t', $topic, '-p', 0, '-K', "\t" ], '<', $file);
}

# The messages {"n":…} of these numbers, each under its number as key, into the topic.
# Options: partition.
sub numbers
{
	my ($kafka, $topic, $numbers, %opt) = @_;

	$kafka->kcat({ stdin => join '', map { qq($_\t{"n":$_}\n) } @$numbers },
		'-P', '-t', $topic, '-K', "\t", (defined $opt{partition} ? ('-p', $opt{partition}) : ()));
	return;
}

# Starts to publish such messages, some two thousand a second, from 1 on, until
# numbers_stop(), which answers the last. Brokers may go meanwhile: each arrives once.
sub numbers_start
{
	my ($kafka, $topic) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $program = <<'END';
$| = 1;
my ($dir, $n) = (@ARGV, 0);
until (-e "$dir/stop" || getppid() == 1)
{
	print map { $n++; qq($n\t{"n":$n}\n) } 1 .. 20;
	select(undef, undef, undef, 0.01);
}
open(my $last, '>', "$dir/last") or die $!;
print $last $n;
END

	my $run = IPC::Run::start([ $^X, '-e', $program, $dir ], '|',
		[ 'kcat', '-P', '-E', '-b', $kafka->bootstrap, '-X', 'enable.idempotence=true', '-t', $topic, '-K', "\t" ]);
	return { dir => $dir, run => $run };
}

sub numbers_stop
{
	my ($numbers) = @_;

	append_to_file("$numbers->{dir}/stop", '');
	$numbers->{run}->finish or die 'publishing numbers failed';
	return slurp_file("$numbers->{dir}/last");
}

# Starts a client (client.pl says what it does) for each database that is named; they
# produce until clients_stop(). An option before them: { pause => $seconds, topic => $name }.
sub clients_start
{
	my ($node, @databases) = @_;
	my $opt = ref $databases[0] ? shift @databases : {};
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $program = dirname(abs_path(__FILE__)) . '/client.pl';
	my $number = 0;
	my @runs;

	foreach my $db (@databases)
	{
		my $name = 'c' . ++$number;
		push @runs, IPC::Run::start([ $^X, $program, $name, $node->connstr($db), "$dir/$name", "$dir/stop",
				$opt->{pause} // 0, $opt->{topic} // '' ]);
	}
	return { dir => $dir, runs => \@runs };
}

# Stops them and reads their journals: for each word of client.pl's (try, done,
# undone) a hash of the session ids.
sub clients_stop
{
	my ($clients) = @_;
	my %journal = map { $_ => {} } qw(try done undone);

	append_to_file("$clients->{dir}/stop", '');
	$_->finish for @{ $clients->{runs} };
	foreach my $file (glob "$clients->{dir}/c*")
	{
		/^(\w+) (\S+)$/ and $journal{$1}{$2} = 1 for split /\n/, slurp_file($file);
	}
	return \%journal;
}

# Waits until all that the clients committed is in the table, and compares: each
# session of an answered COMMIT is one row; one whose COMMIT had no answer may be
# a row or none; nothing else is there.
sub exactly_once_ok
{
	my ($node, $db, $journal) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query($db, 'SELECT lag FROM nexus_status WHERE kind = \'outbox\'', 0);
	like($node->safe_psql($db, "SELECT nexus_consume(timeout => '60 s')"), qr/"(success|idle)"/, 'all is ingested');

	my %rows;
	$rows{$_}++ for split /\n/, $node->safe_psql($db, q(SELECT session_id FROM prospect_tracking WHERE session_id ~ '^c[0-9]+-'));
	my @lost = grep { !$rows{$_} } keys %{ $journal->{done} };
	my @twice = grep { $rows{$_} > 1 } keys %rows;
	my @never = grep { !$journal->{try}{$_} } keys %rows;
	my $unanswered = grep { !$journal->{done}{$_} } keys %{ $journal->{try} };

	diag(sprintf '%d committed, %d rolled back, %d without an answer, %d rows',
		scalar keys %{ $journal->{done} }, scalar keys %{ $journal->{undone} }, $unanswered, scalar keys %rows);
	cmp_ok(scalar keys %{ $journal->{done} }, '>', 100, 'the clients produced');
	cmp_ok(scalar keys %{ $journal->{undone} }, '>', 10, 'and rolled back');
	is("@lost[0 .. ($#lost > 9 ? 9 : $#lost)]", '', 'no committed session is lost');
	is("@twice", '', 'no session arrived twice');
	is("@never", '', 'nothing arrived that was rolled back');
	is($node->safe_psql($db, 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letters');
	return;
}

1;
