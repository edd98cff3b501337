# Three nodes of Apache Kafka that are one cluster, each broker and controller. A topic
# has three replicas, of which two must have what is acknowledged.
#
#   my $kafka = NexusKafka::BrokerCluster->new;
#   $kafka->create_topic('orders', 1);
#   my $leader = $kafka->leader('orders');    # a NexusKafka::Broker
#   $leader->kill9;
#   …
#   $leader->start;
#   $kafka->wait_in_sync;
package NexusKafka::BrokerCluster;

use strict;
use warnings;

use Carp qw(croak);
use JSON::PP qw(decode_json);
use NexusKafka::Broker;
use Time::HiRes qw(sleep time);

my $nodes = 3;
my $timeout = 120;

my %conf = (
	'default.replication.factor' => $nodes,
	'min.insync.replicas' => 2,
	'offsets.topic.replication.factor' => $nodes,
	'transaction.state.log.replication.factor' => $nodes,
	'transaction.state.log.min.isr' => 2);

# Options: conf => { property => value, … }; node_conf => a sub that has a node's own ones;
# heap (small: three share a machine), flags as for a Broker.
sub new
{
	my ($class, %opt) = @_;
	my @ports = map { NexusKafka::Broker::free_port() } 1 .. $nodes;
	my $self = bless { nodes => [] }, $class;

	foreach my $id (1 .. $nodes)
	{
		push @{ $self->{nodes} }, NexusKafka::Broker->new(
			start => 0,
			node_id => $id,
			controller_port => $ports[ $id - 1 ],
			voters => join(',', map { "$_\@127.0.0.1:$ports[$_ - 1]" } 1 .. $nodes),
			join => $self->{nodes}[0],
			heap => $opt{heap} // '256m',
			flags => $opt{flags},
			conf => { %conf, %{ $opt{conf} // {} } });
	}
	if ($opt{node_conf})
	{
		$_->configure($opt{node_conf}->($_)) for $self->nodes;
	}
	$self->prepare;
	# one alone is no majority, and waits for others
	$_->launch for $self->nodes;
	$_->wait_until_ready for $self->nodes;
	$self->_wait_for('all nodes to know each other', sub { @{ $_[0]{brokers} } == $nodes });
	return $self;
}

# What a subclass has to do to the nodes before they start.
sub prepare { return }

sub nodes { return @{ $_[0]{nodes} } }
sub running { return grep { $_->pid } $_[0]->nodes }

sub bootstrap { return join ',', map { $_->bootstrap } $_[0]->nodes }
sub sasl_bootstrap { return join ',', map { $_->sasl_bootstrap } $_[0]->nodes }
sub ca_file { return $_[0]{nodes}[0]->ca_file }
sub sasl_properties { return NexusKafka::Broker::sasl_properties(@_) }

sub create_topic
{
	my ($self, @args) = @_;
	my ($node) = $self->running;

	$node->create_topic(@args);
	return $self->wait_in_sync;
}

sub kcat
{
	my ($self, @args) = @_;
	my ($node) = $self->running;

	return $node->kcat(@args);
}

# The node that leads the topic's partition 0, as a running one sees it.
sub leader
{
	my ($self, $topic) = @_;
	my ($node) = $self->running;
	my ($found) = grep { $_->{topic} eq $topic } @{ _metadata($node)->{topics} };
	my ($leader) = grep { $_->node_id == $found->{partitions}[0]{leader} } $self->nodes;

	return $leader // croak "topic $topic has no leader";
}

# How many partitions the topic has, as a node (a running one) sees it.
sub partitions
{
	my ($self, $topic, $node) = @_;
	my ($found) = grep { $_->{topic} eq $topic } @{ _metadata($node // ($self->running)[0])->{topics} };

	return $found ? scalar @{ $found->{partitions} } : 0;
}

# Waits until each node says that all replicas of all partitions are in sync.
sub wait_in_sync
{
	my ($self) = @_;

	return $self->_wait_for('all replicas to be in sync', sub {
		return !grep { @{ $_->{isrs} } < @{ $_->{replicas} } } map { @{ $_->{partitions} } } @{ $_[0]{topics} };
	});
}

# Stops and starts each node; the next one when all replicas are in sync again.
sub rolling_restart
{
	my ($self) = @_;

	foreach my $node ($self->nodes)
	{
		$node->stop;
		$node->start;
		$self->wait_in_sync;
	}
	return;
}

# Until the metadata of each running node fulfils the condition.
sub _wait_for
{
	my ($self, $what, $condition) = @_;
	my $deadline = time + $timeout;

	foreach my $node ($self->running)
	{
		until ($condition->(_metadata($node)))
		{
			croak 'timed out waiting for ' . $what if time > $deadline;
			sleep 0.05;
		}
	}
	return;
}

sub _metadata
{
	my ($node) = @_;

	return decode_json($node->kcat('-L', '-J'));
}

1;
