# Messages that no broker acknowledges: nexus_status says so until that has come, also while
# the connection goes and comes again. It never shows "running" in between.
use strict;
use warnings;

use NexusKafka::BrokerCluster;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Witness;
use Test::More;

my $kafka = NexusKafka::BrokerCluster->new;
my ($third, @others) = $kafka->nodes;
$kafka->create_topic('nexus-prospect-ingestion');
$kafka->create_topic('strict', 1, 'min.insync.replicas' => 3);
my $node = NexusKafka::Cluster->make('unacknowledged', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
runs_ok($node, 'postgres');

$third->kill9;
my $sent = $node->safe_psql('postgres', q(SELECT nexus_produce('strict', 'x')->>'messageId'));
my $status = $node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
like($status->{reason}, qr/not acknowledged/, "too few replicas in sync ($status->{reason})");

my $witness = NexusKafka::Witness->start($node->connstr('postgres'), $node->logfile);
my $begun = now();
foreach my $round (1, 2)
{
	$_->kill9 for @others;
	$node->poll_status('postgres', 'outbox', 'outbox', 'unreachable');
	pass("round $round: unreachable");
	$_->launch for @others;
	$_->wait_until_ready for @others;
	$status = $node->poll_status('postgres', 'outbox', 'outbox', 'waiting');
	like($status->{reason}, qr/^a broker answers/, "and when it is there again ($status->{reason})");
}
my $acknowledged = now();
$third->start;
$node->wait_rows('postgres', 'nexus_outbox', 0);
$node->poll_status('postgres', 'outbox', 'outbox', 'running');

my @shown = map { $_->{state} } grep {
	$_->{from} eq 'status' && $_->{kind} eq 'outbox' && $_->{time} > $begun && $_->{time} < $acknowledged
} $witness->end;
cmp_ok(scalar @shown, '>', 10, 'nexus_status was looked at all the time');
is(join(' ', grep { !/^(?:waiting|unreachable)$/ } @shown), '', 'and never said that all is well');
my @logged = map { /relay of database postgres is (\w+)/ } log_lines($node, qr/relay of database postgres is/);
is("@logged", 'running waiting unreachable waiting unreachable waiting running', 'each change is logged once');
like($kafka->kcat('-C', '-q', '-e', '-t', 'strict', '-f', '%h\n'), qr/nexus-message-id=\Q$sent\E/, 'it arrived');
no_crash_ok($node);
done_testing();
