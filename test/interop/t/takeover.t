# A pipeline takes over from KafkaJS at work, and KafkaJS from the pipeline, in the same
# consumer group, while messages arrive: each message is processed once, by one of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../lib";

use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::KafkaJS;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep);
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $kafka = NexusKafka::Broker->new;
$kafka->create_topic('numbers', 3);
my $node = NexusKafka::Cluster->make('takeover', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
$node->safe_psql('postgres', 'CREATE TABLE numbers (n bigint)');

my $numbers = numbers_start($kafka, 'numbers');
my $before = kafkajs_start($kafka, 'numbers', "$dir/before");
wait_for_keys(1000);
$node->safe_psql('postgres', <<'END');
SELECT nexus_create_pipeline('numbers', 'numbers', 'INSERT INTO numbers SELECT (value ->> ''n'')::bigint FROM nexus_messages()',
  '{"start": "group:nexus-consumer-group"}');
END
like($node->poll_status('postgres', 'pipeline', 'numbers', 'waiting')->{reason},
	qr/consumer group "nexus-consumer-group" has 1 members still/, 'the pipeline waits while KafkaJS is at work');
wait_for_keys(keys_processed() + 1000);
is(rows(), 0, 'and reads nothing');
kafkajs_stop($before);
$node->wait_for_query('postgres', 'SELECT count(*) > 1000 FROM numbers');
pass('KafkaJS has left, the pipeline goes on');

$node->safe_psql('postgres', q(SELECT nexus_pause('numbers')));
my $rows = rows();
my $after = kafkajs_start($kafka, 'numbers', "$dir/after");
wait_for_keys(keys_processed() + 1000);
my $count = numbers_stop($numbers);
wait_for_keys($count - $rows);
kafkajs_stop($after);
is(rows(), $rows, 'the pipeline is paused, KafkaJS goes on');

my %times;
$times{$_}++ for processed_keys(), split /\n/, $node->safe_psql('postgres', 'SELECT n FROM numbers');
diag("$count messages, of which $rows by the pipeline");
is(join(' ', grep { !$times{$_} } 1 .. $count), '', 'none is lost');
is(join(' ', grep { $times{$_} > 1 } sort keys %times), '', 'none is processed twice');
is($node->safe_psql('postgres', 'SELECT count(*) FROM nexus_dead_letters'), 0, 'no dead letter');

no_crash_ok($node);
done_testing();

sub rows { return $node->safe_psql('postgres', 'SELECT count(*) FROM numbers') }
sub processed_keys { return map { -e $_ ? split /\n/, slurp_file($_) : () } "$dir/before", "$dir/after" }
sub keys_processed { return scalar(my @keys = processed_keys()) }

# Until KafkaJS has processed so many in all.
sub wait_for_keys
{
	my ($count) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (keys_processed() < $count)
	{
		die "timed out waiting for KafkaJS to process $count messages, had " . keys_processed() if time > $deadline;
		sleep 0.1;
	}
	return;
}
