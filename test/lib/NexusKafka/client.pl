# A client that produces one session a transaction, every tenth rolled back, until
# a file says stop. Started by NexusKafka::Load.
#
#   client.pl NAME CONNECTION-STRING JOURNAL STOP-FILE [PAUSE [TOPIC]]
#
# With a pause, so many seconds between transactions; with a topic, the session's id also
# goes there, as the key, in the same transaction.
#
# The work is psql's, fed with a script, so that the journal is written by the one
# who saw the server's answer:
#   try ID      before COMMIT is sent        done ID    COMMIT was answered
#   undone ID   ROLLBACK was answered
# psql ends at any error or broken connection; then another one goes on with new ids.
use strict;
use warnings;

my ($name, $connection, $journal, $stop, $pause, $topic) = @ARGV;
my $parent = getppid();
my $number = 0;

$SIG{PIPE} = 'IGNORE';
open(STDOUT, '>>', $journal) or die "$journal: $!";
open(STDERR, '>', '/dev/null') or die $!;    # the broken connections are the test's intent

sub transaction
{
	my $id = "$name-" . ++$number;
	my ($before, $end, $after) = $number % 10 ? ("\\echo try $id\n", 'COMMIT', 'done') : ('', 'ROLLBACK', 'undone');

	my $more = $topic ? qq(SELECT nexus_produce('$topic', '{"of": "$id"}'::jsonb, key => '$id');\n) : '';

	return <<"END";
BEGIN;
SELECT nexus_produce('{"messages":[{"role":"user","content":"Hola"}],"fingerprint":"$name","sessionId":"$id"}');
$more$before$end;
\\echo $after $id
END
}

until (-e $stop || getppid() != $parent)
{
	open(my $psql, '|-', 'psql', '-XAtq', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $connection)
	  or die "psql: $!";
	until (-e $stop || getppid() != $parent)
	{
		syswrite($psql, transaction()) or last;
		select(undef, undef, undef, $pause) if $pause;
	}
	# A psql that couldn't connect ends at once; no tight loop then.
	close($psql) or select(undef, undef, undef, 0.1);
}
