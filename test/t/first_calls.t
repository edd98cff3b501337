# The first call in a database, right after CREATE EXTENSION: whichever it is, it waits for
# the workers that are on their way, and for none that won't come.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use Test::More;

my $node = NexusKafka::Cluster->make('first', embedded => 1, start => 0);
NexusKafka::ConnectionFile->new($node)->write("[archive]\nbootstrap.servers=127.0.0.1:1\n");
$node->start;

my $payload = q('{"sessionId": "s", "fingerprint": "f", "messages": [{"role": "user", "content": "x"}]}');
my %calls = (
	create_topic => [ q(SELECT nexus_create_topic('made_' || current_database())), '' ],
	topics => [ q(SELECT count(*) > 0 FROM nexus_topics()), 't' ],
	topics_of_archive => [ q(SELECT count(*) > 0 FROM nexus_topics(connection => 'archive')), 't' ],
	produce_now => [ "SELECT nexus_produce_now($payload)->>'status'", 'accepted' ],
	produce_now_to_archive => [ q(SELECT nexus_produce_now('t', 'v'::text, connection => 'archive')->>'status'), 'accepted' ],
	flush => [ 'SELECT nexus_flush()', 't' ],
	flush_of_a_row => [ "WITH p AS MATERIALIZED (SELECT nexus_produce($payload)) SELECT count(*) FROM p; SELECT nexus_flush()", "1\nt" ],
	consume => [ q(SELECT nexus_consume()->>'status' IN ('idle', 'success')), 't' ]);

foreach my $round (1 .. 3)
{
	foreach my $call (sort keys %calls)
	{
		my ($sql, $answer) = @{ $calls{$call} };

		$node->safe_psql('postgres', "CREATE DATABASE ${call}_$round");
		is($node->safe_psql("${call}_$round", "CREATE EXTENSION nexus_kafka;\n$sql"), $answer, "$call, round $round");
		$node->safe_psql('postgres', "DROP DATABASE ${call}_$round");
	}
}

# ---- the same where the extension was just before: its workers are on their way out

$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->safe_psql('again', 'CREATE EXTENSION nexus_kafka');
foreach my $round (1 .. 10)
{
	is($node->safe_psql('again', "DROP EXTENSION nexus_kafka;\nCREATE EXTENSION nexus_kafka;\n$calls{flush_of_a_row}[0]"),
		$calls{flush_of_a_row}[1], "nexus_flush of an extension that was made anew, round $round");
}

# ---- what isn't there, and won't come, is told long before the timeout of an hour

my %vain = (
	q(SELECT * FROM nexus_topics('1 h', connection => 'nowhere')) => 'nexus_topics',
	q(SELECT nexus_create_topic('t', timeout => '1 h', connection => 'nowhere')) => 'nexus_create_topic',
	q(SELECT nexus_produce_now('t', 'v'::text, timeout => '1 h', connection => 'nowhere')) => 'nexus_produce_now');
foreach my $sql (sort keys %vain)
{
	$node->safe_psql('postgres', 'CREATE DATABASE vain');
	my ($rc, $out, $err) = $node->psql('vain', "CREATE EXTENSION nexus_kafka;\n\\set VERBOSITY sqlstate\n$sql");
	is($err =~ /ERROR:  (\w+)/ ? $1 : "$rc $err", '08006', "$vain{$sql}: no such connection");
	$node->safe_psql('postgres', 'DROP DATABASE vain');
}
no_crash_ok($node);
done_testing();
