# A broker was frozen, and others took over what it led. Then it is all there is, and still
# thinks that it leads: it has less than the pipelines took in. They don't take its word for
# it that the messages are gone, or the topic was made anew: they wait for what the others
# say, and take in nothing twice.
use strict;
use warnings;

use NexusKafka::BrokerCluster;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $kafka = NexusKafka::BrokerCluster->new;
my $node = NexusKafka::Cluster->make('stale_leader', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$kafka->create_topic('led', 1);
my $stale = $kafka->leader('led');
my @others = grep { $_ != $stale } $kafka->nodes;
my @pipelines = qw(ends refuses reads_on);

pipeline($_) for @pipelines;
numbers($stale, 'led', [ 1 .. 5 ]);
numbers_are($_, 1 .. 5) for @pipelines;

# Of what the others take in meanwhile, "ends" has one message, of which the old leader says
# that the partition ends there; "refuses" has more.
$stale->freeze;
wait_for_another_leader();
numbers($others[0], 'led', [6]);
numbers_are($_, 1 .. 6) for @pipelines;
pause('ends');
numbers($others[0], 'led', [ 7 .. 10 ]);
numbers_are($_, 1 .. 10) for qw(refuses reads_on);
pause('refuses');

$_->freeze for @others;
$stale->resume;
resume($_) for qw(ends refuses);
in_doubt('ends', 6);
in_doubt('refuses', 10);
like($node->safe_psql('postgres', q(SELECT nexus_consume('refuses', '2 s'))),
	qr/"error".*offset 10 of partition 0 of topic \\"led\\" is not on the broker that leads it/, 'nexus_consume() says why it is not done');

$_->resume for @others;
$kafka->wait_in_sync;
numbers($others[0], 'led', [ 11 .. 15 ]);
foreach my $name (@pipelines)
{
	numbers_are($name, 1 .. 15);
	$node->poll_status('postgres', 'pipeline', $name, 'running');
}
unlike(slurp_file($node->logfile), qr/ingest \w+ of database postgres is stopped/, 'none was ever stopped');

no_crash_ok($node);
done_testing();

sub pipeline
{
	my ($name) = @_;

	return $node->safe_psql('postgres', <<"END");
CREATE TABLE $name (n bigint);
SELECT nexus_create_pipeline('$name', 'led', \$\$
  INSERT INTO $name SELECT (value ->> 'n')::bigint FROM nexus_messages() \$\$);
END
}

sub pause
{
	my ($name) = @_;

	$node->safe_psql('postgres', "SELECT nexus_pause('$name')");
	return $node->poll_status('postgres', 'pipeline', $name, 'paused');
}

sub resume { return $node->safe_psql('postgres', "SELECT nexus_resume('$_[0]')") }

sub wait_for_another_leader
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($others[0]->kcat('-L', '-t', 'led') =~ /partition 0, leader (\d+)/ && $1 != $stale->node_id)
	{
		die 'timed out waiting for another leader' if time > $deadline;
		sleep 0.1;
	}
	return;
}

sub in_doubt
{
	my ($name, $offset) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_for_query('postgres', "SELECT count(*) FROM nexus_status WHERE name = '$name' AND state = 'waiting'"
		. " AND reason ~ 'offset $offset of partition 0 of topic \"led\" is not on the broker that leads it \\(1 of 3 brokers answer\\)'", 1);
	return pass("$name waits: the broker that answers may be out of date");
}

sub numbers_are
{
	my ($name, @numbers) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_rows('postgres', $name, scalar @numbers);
	return is($node->safe_psql('postgres', "SELECT string_agg(n::text, ' ' ORDER BY n) FROM $name"), "@numbers",
		"$name has rows 1 to $numbers[-1], once each");
}
