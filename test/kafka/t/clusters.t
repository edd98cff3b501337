# Two Kafka clusters: the default connection and a section of nexus_kafka.config_file,
# with SASL_SSL. Pipelines and messages of each, both in one transaction, one of the
# two away, and what happens when a pipeline is sent to the other cluster.
use strict;
use warnings;

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $here = NexusKafka::Broker->new;
my $there = NexusKafka::Broker->new;
$here->create_topic('nexus-prospect-ingestion', 1);
$_->create_topic('events', 1) for $here, $there;

my $node = NexusKafka::Cluster->make('clusters', start => 0);
my $file = $node->data_dir . '/kafka.properties';
my $rows = 0;

sub sql { return $node->safe_psql('postgres', @_) }

sub write_file
{
	my ($section) = @_;
	my $password = NexusKafka::Broker::SASL_PASSWORD;

	open(my $handle, '>', "$file.new") or die "$file.new: $!";
	print $handle 'bootstrap.servers = ' . $here->bootstrap . "\n\n[there]\nbootstrap.servers = " . $there->sasl_bootstrap .
	  "\nsecurity.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nsasl.username = key\nsasl.password = $password\n" .
	  'ssl.ca.location = ' . $there->ca_file . "\n" . ($section // '');
	close $handle;
	chmod 0600, "$file.new";
	rename "$file.new", $file or die "rename: $!";
	return;
}

# n messages to each of the connections, in one transaction.
sub produce_to
{
	my ($n, @connections) = @_;
	my $names = join ', ', map { $_ ? "'$_'" : 'NULL' } @connections;

	return "SELECT count(nexus_produce('events', to_jsonb($rows + n), connection => c)) " .
	  "FROM generate_series(1, $n) n, unnest(ARRAY[$names]::text[]) c";
}

sub arrived_is
{
	my ($n, $table, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->wait_rows('postgres', $table, $n);
	is(sql("SELECT count(DISTINCT value) FROM $table"), $n, $name);
	return;
}

sub pid { return $node->status('postgres', @_)->{pid} }

write_file();
$node->configure('nexus_kafka.config_file' => $file);
$node->start;
$node->create_extension('postgres');
runs_ok($node, 'postgres');
for (qw(here there))
{
	my $options = $_ eq 'there' ? '{"connection": "there"}' : '{}';
	sql("CREATE TABLE from_$_ (value integer); SELECT nexus_create_pipeline('$_', 'events', " .
		  "'INSERT INTO from_$_ SELECT value::integer FROM nexus_messages()', '$options')");
}

# ---- each to its own

my $per_cluster = scaled(20000, 2000);
sql(produce_to($per_cluster, '', 'there'));
$rows += $per_cluster;
arrived_is($rows, "from_$_", "$per_cluster messages to each, in one transaction: all are $_, once") for qw(here there);
sql('BEGIN;' . produce_to(10, '', 'there') . '; ROLLBACK');
sql(produce_to(1, '', 'there'));
$rows++;
arrived_is($rows, "from_$_", "of a transaction that is rolled back none is $_") for qw(here there);

like(sql(q(SELECT nexus_produce_now('events', '0'::jsonb, connection => 'there'))), qr/"offset": $rows\b/,
	'nexus_produce_now: the offset is of that cluster');
sql(q(SELECT nexus_create_topic('only-there', connection => 'there')));
is(sql(q(SELECT count(*) FROM nexus_topics(connection => 'there') WHERE topic = 'only-there')), 1, 'a topic of the one cluster');
is(sql(q(SELECT count(*) FROM nexus_topics() WHERE topic = 'only-there')), 0, 'which the other one doesn\'t have');
is(sql('SELECT count(DISTINCT cluster_id) FROM nexus_partitions WHERE topic = \'events\''), 2, 'nexus_partitions: two clusters');
sql('DELETE FROM from_there WHERE value = 0');

# ---- one is away, and does not answer

foreach my $outage (qw(freeze stop))
{
	$there->$outage;
	sql(produce_to(1000, '', 'there'));
	$rows += 1000;
	arrived_is($rows, 'from_here', "$outage: what is for the other cluster is published and taken in");
	is($node->status('postgres', 'outbox', 'there')->{lag}, 1000, "$outage: its own messages wait");
	is($node->status('postgres', 'outbox', 'outbox')->{lag}, 0, "$outage: no others do");
	is(sql(q(SELECT nexus_flush('100 ms'))), 'f', "$outage: nexus_flush says that not all is published");
	works_ok($node, 'postgres', "$outage: the default connection is as quick as ever");
	if ($outage eq 'stop')
	{
		$node->poll_status('postgres', $_, 'there', 'unreachable') for qw(outbox pipeline);
		sqlstate_is($node, 'postgres', q(SELECT nexus_produce_now('events', '0'::jsonb, timeout => '100 ms', connection => 'there')),
			'08006', "$outage: outbox and pipeline say so, and nexus_produce_now that it was not sent");
	}
	$outage eq 'freeze' ? $there->resume : $there->start;
	arrived_is($rows, 'from_there', "$outage: afterwards they arrive, once");
}
is(sql('SELECT nexus_flush()'), 't', 'and nexus_flush says that all is published');

# ---- refused by the one

sql(q(SELECT nexus_produce('events', '0'::jsonb, partition => 99, connection => 'there')));
$node->wait_for_query('postgres', q(SELECT connection FROM nexus_dead_letters WHERE origin = 'outbox'), 'there');
pass('what that cluster refuses is a dead letter with its connection');

# ---- a change of the one

my @others = (pid('outbox', 'outbox'), pid('pipeline', 'here'));
my $relay = pid('outbox', 'there');
my $ingest = pid('pipeline', 'there');
write_file("client.id = other\n");
$node->reload;
$node->wait_for_query('postgres', "SELECT pid <> $_->[0] AND state = 'running' FROM nexus_status WHERE kind = '$_->[1]' AND name = 'there'")
  for [ $relay, 'outbox' ], [ $ingest, 'pipeline' ];
pass('a change of the section starts its workers anew');
is_deeply([ pid('outbox', 'outbox'), pid('pipeline', 'here') ], \@others, 'and no others');
sql(produce_to(1, '', 'there'));
$rows++;
arrived_is($rows, "from_$_", "messages arrive $_") for qw(here there);

# ---- a pipeline that is sent to the other cluster

sql(q(SELECT nexus_alter_pipeline('here', options => '{"connection": "there"}')));
my $status = $node->poll_status('postgres', 'pipeline', 'here', 'stopped');
like($status->{reason}, qr/the offsets belong to Kafka cluster/, 'a pipeline doesn\'t go on at its offsets in another cluster');
sql(q(BEGIN; SELECT nexus_pause('here'), nexus_seek('here', 'latest'), nexus_resume('here'); COMMIT));
sql(produce_to(1, 'there'));
$node->wait_rows('postgres', 'from_here WHERE value = ' . ($rows + 1), 1);
pass('nexus_seek says where to read on there');

no_crash_ok($node);
done_testing();
