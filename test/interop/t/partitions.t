# A key's partition is the one that KafkaJS and the Java client choose, so that the
# messages of one key stay in one partition, in order, whoever sends them.
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../../lib";

use Encode qw(encode_utf8);
use NexusKafka::Broker;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::KafkaJS;
use Test::More;

my $partitions = 7;
my $kafka = NexusKafka::Broker->new;
$kafka->create_topic($_, $partitions) for qw(bytes text sessions);

my $node = NexusKafka::Cluster->make('partitions', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');

my @texts = map { encode_utf8($_) } text_keys();
my @keys = (@texts, binary_keys());

my @by_java = java_partitions(@keys);
is_deeply([ kafkajs_partitions($partitions, @keys) ], \@by_java, 'the Java client and KafkaJS agree');
is(scalar(keys %{ { map { $_ => 1 } @by_java } }), $partitions, 'and the keys meet every partition');

is_deeply([ produced('bytes', 'convert_to(n::text, getdatabaseencoding()), decode(hex, $$hex$$)', @keys) ], \@by_java,
	'nexus_produce with ' . @keys . ' keys of type bytea chooses as they do');
is_deeply([ produced('text', 'n::text, convert_from(decode(hex, $$hex$$), $$UTF8$$)', @texts) ],
	[ @by_java[ 0 .. $#texts ] ], 'and with keys of type text');
sessions_by_their_ids();

no_crash_ok($node);
done_testing();

sub text_keys
{
	return ('', (map { "key-$_" } 1 .. 100), (map { 'a' x $_ } 1 .. 40),
		(map { chr($_) x ($_ % 5 + 1) } 0xa1 .. 0xff), (map { chr(0x4e00 + $_ * 97) . "$_" } 1 .. 50),
		map { chr(0x1f600 + $_) } 0 .. 30);
}

# Every byte, and lengths that end anywhere in the hash's words of four.
sub binary_keys
{
	my $state = 1;
	my $byte = sub { $state = ($state * 1103515245 + 12345) & 0x7fffffff; return chr($state >> 16 & 0xff) };

	return ((map { chr } 0 .. 255), map { join '', map { $byte->() } 1 .. $_ } (1 .. 40) x 3);
}

sub java_partitions
{
	my (@bytes) = @_;
	my $input = join '', map { unpack('H*', $_) . "\n" } @bytes;

	return split /\n/, $kafka->java({ stdin => $input }, "$FindBin::RealBin/../Partitions.java", $partitions);
}

# Produces a message for each key, whose value is the key's number; answers the
# partitions that they are found in.
sub produced
{
	my ($topic, $value_and_key, @bytes) = @_;
	my $hex = join ',', map { '"' . unpack('H*', $_) . '"' } @bytes;

	$node->safe_psql('postgres', <<"END");
SELECT count(nexus_produce('$topic', $value_and_key))
FROM unnest('{$hex}'::text[]) WITH ORDINALITY AS k (hex, n)
END
	my $found = partitions_by('%s', $topic, scalar @bytes);
	return map { $found->{$_} } 1 .. @bytes;
}

# The partition of each message of the topic, by what kcat's format shows of it.
sub partitions_by
{
	my ($format, $topic, $count) = @_;
	is($node->safe_psql('postgres', "SELECT nexus_flush('60 s')"), 't', "the broker has all of the topic $topic");

	my @lines = split /\n/, $kafka->kcat('-C', '-t', $topic, '-o', 'beginning', '-e', '-q', '-f', "$format %p\n");
	is(scalar @lines, $count, "and $count is all");
	return { map { split / / } @lines };
}

sub sessions_by_their_ids
{
	my @ids = split /\n/, $node->safe_psql('postgres', <<'END');
SET nexus_kafka.topic = 'sessions';
SELECT nexus_produce('{"sessionId":"s","fingerprint":"f","messages":[{"role":"user","content":"Hola"}]}') ->> 'messageId'
FROM generate_series(1, 50)
END
	my $found = partitions_by('%k', 'sessions', 50);
	is_deeply([ map { $found->{$_} } @ids ], [ kafkajs_partitions($partitions, @ids) ],
		'sessions go by their message ids');
	return;
}
