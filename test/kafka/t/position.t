# Positions in real partitions: times (exact, between, out of order, far away), offsets
# and latest, by nexus_seek() and by the option start, against a model of the topics.
#
# NEXUS_TEST_SEED repeats a run.
use strict;
use warnings;

use JSON::PP;
use NexusKafka::Broker;
use NexusKafka::Chance;
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Load;
use Test::More;

my $rounds = scaled(200, 12);
my $messages = 30;
my $first = 1_767_225_600_000;    # 2026-01-01, in milliseconds
my %times;                        # by topic and partition

diag("$rounds rounds");

my $kafka = NexusKafka::Broker->new;
foreach my $topic (qw(a b))
{
	$kafka->create_topic($topic, 3, 'retention.ms' => -1);

	# Partition 0 in order, 1 not, 2 empty.
	my @ordered = sort { $a <=> $b } map { $first + chance(200) } 1 .. $messages;
	$times{$topic} = [ \@ordered, [ map { $first + chance(200) } 1 .. $messages ], [] ];
	$kafka->stamp_topic($topic, $_, @{ $times{$topic}[$_] }) for 0, 1;
}
my $node = NexusKafka::Cluster->make('position', bootstrap => $kafka->bootstrap);
$node->create_extension('postgres');
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(<<'END');
SELECT nexus_drop_pipeline('prospect_tracking');
CREATE TABLE taken (topic text, partition integer, "offset" bigint);
END
my $create = q{SELECT nexus_create_pipeline('p', 'a,b',
	'INSERT INTO taken SELECT topic, partition, "offset" FROM nexus_raw_messages()'};

# SQL for a time that is so many microseconds after the first.
sub at
{
	my ($us) = @_;

	return sql(sprintf "SELECT to_timestamp(%d) + interval '%d microseconds'", $first / 1000, $us);
}

# Positions, each with a function: the first offset to be read of a partition with such timestamps.
sub by_time
{
	my ($ms) = @_;

	return sub { my @t = @_; return (grep { $t[$_] >= $ms } 0 .. $#t)[0] // scalar @t };
}
sub by_offset { my ($offset) = @_; return sub { $offset } }
my %far = (
	earliest => by_offset(0),
	'1970-01-01 00:00:00+00' => by_offset(0),
	'4713-01-01 00:00:00+00 BC' => by_offset(0),
	'epoch' => by_offset(0),
	'2025-12-31 23:59:59.999+00' => by_offset(0),
	'294276-12-31 00:00:00+00' => sub { scalar @_ });

sub random_position
{
	my $kind = chance(10);

	if ($kind < 6)
	{
		my $us = chance(201) * 1000 + one_of(0, 0, 0, 1, 500, 999);
		return at($us), by_time($first + int($us / 1000));
	}
	if ($kind < 8)
	{
		my $offset = chance($messages + 1);
		return "$offset", by_offset($offset);
	}
	my $far = one_of(sort keys %far);
	return $far, $far{$far};
}

sub expected
{
	my ($first_of) = @_;    # by topic and partition
	my @lines;

	foreach my $topic (sort keys %times)
	{
		foreach my $partition (0 .. 2)
		{
			my @t = @{ $times{$topic}[$partition] };
			push @lines, map { "$topic $partition $_" } $first_of->{$topic}[$partition]->(@t) .. $#t;
		}
	}
	return join ',', @lines;
}

sub taken_ok
{
	my ($first_of, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	like(sql("SELECT nexus_consume('p', '60 s')"), qr/"(success|idle)"/, "$name: consumed");
	return is(sql(q(SELECT string_agg(concat_ws(' ', topic, partition, "offset"), ',' ORDER BY topic, partition, "offset")
		FROM taken)), expected($first_of), "$name: exactly what is from there on");
}

# An offset that isn't in an empty partition would stop the pipeline: that one begins at its earliest.
sub everywhere { my ($first) = @_; return { map { $_ => [ $first, $first, by_offset(0) ] } qw(a b) } }

# ---- nexus_seek

sql("$create)");
taken_ok(everywhere(by_offset(0)), 'at first');
foreach my $round (1 .. $rounds)
{
	my @calls;
	my %first_of = map { $_ => [ (by_offset(0)) x 3 ] } qw(a b);

	sql(q(SELECT nexus_pause('p'); TRUNCATE taken; SELECT nexus_seek('p', 'earliest')));
	foreach my $topic (qw(a b))
	{
		foreach my $partition (0, 1)
		{
			my ($position, $first_offset) = random_position();
			push @calls, "'$position', '$topic', $partition";
			$first_of{$topic}[$partition] = $first_offset;
		}
	}
	sql(join ';', map { "SELECT nexus_seek('p', $_)" } @calls);
	sql(q(SELECT nexus_resume('p')));
	taken_ok(\%first_of, "nexus_seek @{[ join '; ', @calls ]}");
}

# ---- the option start

sub start_ok
{
	my ($start, $first_of) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $option = JSON::PP->new->canonical->encode({ start => $start });

	sql(q(SELECT nexus_drop_pipeline('p'); TRUNCATE taken));
	sql("$create, '$option')");
	return taken_ok($first_of, $option);
}

foreach my $round (1 .. $rounds)
{
	my ($position, $first_offset) = random_position();
	my ($other, $other_first) = random_position();
	my $kind = chance(3);

	# A plain offset holds for all partitions, and isn't there in the empty ones.
	if ($kind == 0 && $position !~ /^\d+$/)
	{
		start_ok($position, everywhere($first_offset));
	}
	elsif ($kind == 1)
	{
		start_ok({ 0 => $position, 1 => $other },
			{ map { $_ => [ $first_offset, $other_first, by_offset(0) ] } qw(a b) });
	}
	else
	{
		start_ok({ a => { 1 => $position }, b => { 0 => $other } },
			{ a => [ by_offset(0), $first_offset, by_offset(0) ], b => [ $other_first, (by_offset(0)) x 2 ] });
	}
}

# latest: what comes after the call, also if the pipeline doesn't run when it comes.
$kafka->produce('a', ['before'], partition => $_) for 0 .. 2;
push @$_, 0 for @{ $times{a} };
my $there = sub { scalar @_ };
start_ok('latest', everywhere_end());
sql(q(SELECT nexus_pause('p'); SELECT nexus_seek('p', 'latest')));
my %first_of = map { my $topic = $_; $topic => [ map { by_offset(scalar @$_) } @{ $times{$topic} } ] } qw(a b);
foreach my $partition (0 .. 2)
{
	$kafka->produce('a', ['after'], partition => $partition);
	push @{ $times{a}[$partition] }, 0;
}
sql(q(SELECT nexus_resume('p')));
taken_ok(\%first_of, 'latest, and then more');

sub everywhere_end { return { map { $_ => [ ($there) x 3 ] } qw(a b) } }

no_crash_ok($node);
done_testing();
