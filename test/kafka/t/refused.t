# What the broker refuses goes to the dead letters alone. It refuses whole batches, as
# librdkafka makes them; the rows that were only in one with the culprit are published.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use Time::HiRes qw(time);
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
$kafka->create_topic('small', 1, 'max.message.bytes' => 1000);
$kafka->create_topic('keyed', 1, 'cleanup.policy' => 'compact');
$kafka->create_topic('free', 1);
my $node = NexusKafka::Cluster->make('refused', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

# Produces in one transaction; the topic has got so many of them, and so many are dead letters.
sub published_ok
{
	my ($topic, $published, $dead, $name, $produce) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $since = time;

	$node->safe_psql('postgres', $produce);
	is($node->safe_psql('postgres', "SELECT nexus_flush('60 s')"), $dead ? 'f' : 't', "$name: flushed");
	$node->wait_rows('postgres', 'nexus_outbox', 0);
	diag(sprintf '%s: %.1f s', $name, time - $since);
	my @values = split /\n/, $kafka->kcat('-C', '-t', $topic, '-o', 'beginning', '-e', '-q', '-f', "%s\n");
	my %distinct = map { $_ => 1 } @values;

	is(scalar(@values), $published, "$name: what the topic takes is in it");
	is(scalar(keys %distinct), $published, 'once');
	is($node->safe_psql('postgres', "SELECT count(*) FROM nexus_dead_letters WHERE origin = 'outbox' AND topic = '$topic'"),
		$dead, 'and nothing else is a dead letter');
	return;
}

published_ok('small', 3000, 0, 'a batch that is too large in all', <<'END');
SELECT nexus_produce('small', n || repeat('x', 100), n::text) FROM generate_series(1, 3000) n;
END

published_ok('small', 5000, 3, 'three messages that are too large', <<'END');
SELECT nexus_produce('small', n || repeat('x', 100), n::text) FROM generate_series(3001, 5000) n;
SELECT nexus_produce('small', repeat('x', 2000), n::text) FROM generate_series(1, 3) n;
END

published_ok('keyed', 2999, 1, 'one message without the key that a compacted topic needs', <<'END');
SELECT nexus_produce('keyed', n::text, CASE WHEN n <> 1234 THEN n::text END) FROM generate_series(1, 3000) n;
END
is($node->safe_psql('postgres', "SELECT convert_from(value, 'UTF8') FROM nexus_dead_letters WHERE topic = 'keyed'"),
	1234, 'that one');

published_ok('free', 3000, 0, 'rows of another topic', <<'END');
SELECT nexus_produce('free', n::text) FROM generate_series(1, 3000) n;
END

no_crash_ok($node);
done_testing();
