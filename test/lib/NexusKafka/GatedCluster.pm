# NexusKafka::BrokerCluster, of which a test can cut connections: those of clients that
# came by gated_bootstrap to a broker, and those of a broker to the other controllers.
#
#   my $kafka = NexusKafka::GatedCluster->new;
#   $kafka->clients(silent => $node);     # or refused (NexusKafka::Gate)
#   $kafka->clients(open => $node);
#   $kafka->news(silent => $node);        # it serves clients, but learns nothing new
#   $kafka->news(open => $node);
#   $kafka->controller;                   # the node that knows everything first
#
# kcat and all else that comes by bootstrap is not concerned.
package NexusKafka::GatedCluster;

use strict;
use warnings;

use parent 'NexusKafka::BrokerCluster';

use Carp qw(croak);
use IO::Socket::INET;
use NexusKafka::Broker;
use NexusKafka::Gate;
use Time::HiRes qw(sleep);

sub prepare
{
	my ($self) = @_;
	my %routes;

	foreach my $node ($self->nodes)
	{
		my ($gate, $port) = map { NexusKafka::Broker::free_port() } 1, 2;
		my %others = map { (NexusKafka::Broker::free_port() => $_) } grep { $_ != $node } $self->nodes;

		$routes{$gate} = $port;
		$routes{$_} = $others{$_}{controller_port} for keys %others;
		$self->{gates}{ $node->node_id } = { clients => [$gate], news => [ keys %others ] };
		$node->add_listener('GATED', "127.0.0.1:$port", "127.0.0.1:$gate");
		$node->configure('controller.quorum.voters' => join ',',
			$node->node_id . '@127.0.0.1:' . $node->{controller_port},
			map { $others{$_}->node_id . "\@127.0.0.1:$_" } keys %others);
	}
	$self->{gate} = NexusKafka::Gate->new(%routes);
	return;
}

sub gated_bootstrap
{
	my ($self) = @_;

	return join ',', map { "127.0.0.1:$self->{gates}{$_}{clients}[0]" } sort keys %{ $self->{gates} };
}

sub clients { return $_[0]->_set('clients', @_[ 1 .. $#_ ]) }
sub news { return $_[0]->_set('news', @_[ 1 .. $#_ ]) }

# The active controller. To be asked while all can reach it.
sub controller
{
	my ($self) = @_;

	foreach (1 .. 100)
	{
		my $leader = _leader_as_seen_by(($self->running)[0]);
		my ($node) = grep { $_->node_id == $leader } $self->nodes;
		return $node if $node;
		sleep 0.2;
	}
	croak 'the controllers elect no leader';
}

# By DescribeQuorum, version 0: kcat can't tell, since KRaft's metadata name any broker.
sub _leader_as_seen_by
{
	my ($node) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $node->bootstrap) // croak 'broker ' . $node->node_id . ": $!";
	my $topic = chr(1 + length '__cluster_metadata') . '__cluster_metadata';
	my ($size, $answer);

	print $socket pack('N/a', pack('nnNnC', 55, 0, 1, 0xffff, 0) . "\2$topic\2" . pack('N', 0) . "\0\0\0");
	$socket->flush;
	read($socket, $size, 4) == 4 && read($socket, $answer, unpack('N', $size)) or croak 'no answer to DescribeQuorum';
	my $place = 8 + length($topic) + 5;
	return length $answer > $place + 6 ? unpack("x$place x2 N", $answer) : -1;
}

# More partitions for a topic, while some brokers may not reach the controller: librdkafka
# asks any of them, and it is asked again until it has hit on one that does.
sub grow_topic
{
	my ($self, $name, $partitions, $controller) = @_;

	until ($self->partitions($name, $controller) >= $partitions)
	{
		local $SIG{ALRM} = sub { die "no answer\n" };
		alarm 3;
		eval { $controller->grow_topic($name, $partitions) };
		alarm 0;
	}
	return;
}

sub _set
{
	my ($self, $of, $how, @nodes) = @_;

	return $self->{gate}->set($how => map { @{ $self->{gates}{ $_->node_id }{$of} } } @nodes);
}

1;
