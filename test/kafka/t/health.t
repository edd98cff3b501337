# What nexus_health() tells of the connection, in each way that it can be, and at once,
# also when the broker is silent.
use strict;
use warnings;

use JSON::PP;
use NexusKafka::Broker;
use NexusKafka::Certificates;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use Test::More;
use Time::HiRes qw(time sleep);

my $kafka = NexusKafka::Broker->new;
my $other_ca = NexusKafka::Certificates->new;
my $node = NexusKafka::Cluster->make('health', start => 0);
my $file = NexusKafka::ConnectionFile->new($node);
my $slowest = 0;

sub properties
{
	my (%opt) = @_;

	return join "\n", 'bootstrap.servers=' . ($opt{server} // $kafka->sasl_bootstrap), 'security.protocol=SASL_SSL',
	  'sasl.mechanism=PLAIN', 'sasl.username=key', 'sasl.password=' . ($opt{password} // NexusKafka::Broker::SASL_PASSWORD),
	  'ssl.ca.location=' . ($opt{ca} // $kafka->ca_file), '';
}

sub health
{
	my ($took, $health) = split /\|/, $node->safe_psql('postgres',
		'SELECT EXTRACT(epoch FROM clock_timestamp() - statement_timestamp()), h FROM (SELECT nexus_health() AS h OFFSET 0) q'), 2;

	$slowest = $took if $took > $slowest;
	return decode_json($health);
}

# Waits until these fields are so; undef: null.
sub health_ok
{
	my ($name, %expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $got;

	do
	{
		$got = health();
		my %seen = map { $_ => $got->{$_} } keys %expected;
		return pass($name) if _text(\%seen) eq _text(\%expected);
		sleep 0.05;
	} while (time < $deadline);
	fail($name);
	return diag(_text($got));
}

sub _text { return JSON::PP->new->canonical->encode($_[0]) }

my $yes = JSON::PP::true;
my $no = JSON::PP::false;
my %all_well = (status => 'healthy', brokerReachable => $yes, authenticated => $yes, topicFound => $yes,
	workers => { running => 2, wanted => 2 }, lag => 0);

# ---- not connected yet

$file->write(properties(server => 'localhost:1'));
$node->start;
$node->create_extension('postgres');
health_ok('nobody listens', status => 'unhealthy', brokerReachable => $no, authenticated => undef, topicFound => undef,
	kafkaConfigured => $yes);
$file->state_ok('unreachable', 'localhost:1', 'nobody listens');
like(health()->{outbox}{reason}, qr/localhost:1/, 'the reason says where');

# ---- connected

$file->reload_with(properties());
health_ok('the topic is missing', status => 'degraded', brokerReachable => $yes, authenticated => $yes, topicFound => $no);
$kafka->create_topic('nexus-prospect-ingestion', 1);
health_ok('all is well', %all_well);
is(join(' ', sort keys %{ health() }),
	'authenticated brokerReachable kafkaConfigured lag outbox pipelines role status timestamp topic topicFound transport version workers',
	'the fields');

$node->safe_psql('postgres', q(SELECT nexus_pause('prospect_tracking')));
health_ok('a pipeline that is paused', status => 'healthy', workers => { running => 1, wanted => 1 });
$node->safe_psql('postgres', q(SELECT nexus_resume('prospect_tracking')));
health_ok('all is well again', %all_well);

# ---- what goes wrong

$file->reload_with(properties(password => 'wrong'));
health_ok('a wrong password', status => 'unhealthy', brokerReachable => $yes, authenticated => $no);
$file->reload_with(properties(ca => $other_ca->ca_file));
health_ok('a wrong CA', status => 'unhealthy', brokerReachable => $no, authenticated => undef);
$file->reload_with(properties());
health_ok('mended', %all_well);

$kafka->freeze;
health_ok('the broker falls silent', status => 'unhealthy', brokerReachable => $no, authenticated => undef);
$kafka->resume;
health_ok('and speaks again', %all_well);

cmp_ok($slowest, '<', 1, sprintf('the slowest answer: %.3f s', $slowest));
no_crash_ok($node);
done_testing();
