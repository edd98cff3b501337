# Rows that come back from the broker, and what waits behind them: a refusal after a time
# without answers; a topic that was made anew with other partitions while rows for it were
# under way; calls of nexus_produce_now beside rows that the broker refuses.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('nexus-prospect-ingestion', 1);
$kafka->create_topic('small', 1, 'max.message.bytes' => 1000);
$kafka->create_topic('shrinks', 8);
$kafka->create_topic('busy', 1, 'max.message.bytes' => 1000);
my $node = NexusKafka::Cluster->make('come_back', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

sub values_of { return split /\n/, $kafka->kcat('-C', '-t', $_[0], '-o', 'beginning', '-e', '-q', '-f', "%s\n") }

# ---- refused after a time without answers

$node->safe_psql('postgres', q(SELECT nexus_produce('small', 'first'::text); SELECT nexus_flush('30 s')));
$kafka->freeze;
$node->safe_psql('postgres', q(SELECT nexus_produce('small', repeat('x', 2000))));
$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable', timeout => 120);
$kafka->resume;
$node->wait_rows('postgres', q(nexus_dead_letters WHERE topic = 'small'), 1);
is($node->safe_psql('postgres', q(SELECT nexus_produce('small', 'second'::text) IS NOT NULL; SELECT nexus_flush('60 s'))), "t\nt",
	'after a late refusal the topic goes on');
is_deeply([ values_of('small') ], [ 'first', 'second' ], 'with what it takes');

# ---- a topic that has fewer partitions than it had

my $keyed = q(SELECT nexus_produce('shrinks', n::text, n::text) FROM generate_series(1, 200) n);
is($node->safe_psql('postgres', "SELECT count(*) FROM ($keyed) x; SELECT nexus_flush('60 s')"), "200\nt", 'a topic with many partitions') for 1 .. 3;
$kafka->delete_topic('shrinks');
$kafka->create_topic('shrinks', 1);
is($node->safe_psql('postgres', "SELECT count(*) FROM ($keyed) x; SELECT nexus_flush('120 s')"), "200\nt", 'made anew with one');
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_outbox)), 0, 'nothing is left in the outbox');
is($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_dead_letters WHERE topic = 'shrinks')), 0, 'nothing is a dead letter');
my %distinct = map { $_ => 1 } values_of('shrinks');
is(scalar(keys %distinct), 200, 'all are in the topic');

# past the outbox, where no row has told of it before
$kafka->create_topic('called', 8);
my $called = q(SELECT count(*) FROM generate_series(1, 20) n, nexus_produce_now('called', n::text, n::text));
is($node->safe_psql('postgres', $called), 20, 'messages past the outbox') for 1 .. 3;
$kafka->delete_topic('called');
$kafka->create_topic('called', 1);
my $refused;
for (1 .. 60)
{
	my ($ok, undef, $error) = $node->psql('postgres', $called);

	$refused = $error;
	last if $ok == 0;
	last unless $error =~ /Unknown topic/;
}
is($refused, '', 'go to the partition that is left');

# ---- calls beside rows that are refused

$node->safe_psql('postgres', q(SELECT nexus_produce('busy', CASE WHEN n % 500 = 0 THEN repeat('x', 2000) ELSE n::text END) FROM generate_series(1, 5000) n));
my $calls = 0;
while ($node->safe_psql('postgres', q(SELECT count(*) FROM nexus_outbox)) > 0)
{
	$node->safe_psql('postgres', q(SELECT nexus_produce_now('busy', 'now'::text, timeout => '60 s')));
	$calls++;
}
diag("$calls calls");
is(scalar(grep { $_ ne 'now' } values_of('busy')), 4990, 'rows that are not refused are published, once');
is(scalar(grep { $_ eq 'now' } values_of('busy')), $calls, 'and so is what was called beside them');
no_crash_ok($node);
done_testing();
