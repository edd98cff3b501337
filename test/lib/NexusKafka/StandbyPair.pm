# A primary with one synchronous standby, which takes over when the primary is killed, and
# gets a standby of its own then: as often as a test likes.
#
#   my $pair = NexusKafka::StandbyPair->make('pair', bootstrap => …);    # as Cluster->make
#   $pair->sql('SELECT …');                  # by whoever is the primary
#   $pair->connstr('postgres');              # a client that connects anew finds it too
#   $pair->fail_over;
#
# A COMMIT waits for the standby, also while there is none.
package NexusKafka::StandbyPair;

use strict;
use warnings;

use Carp qw(croak);
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

sub make
{
	my ($class, $name, %opt) = @_;
	my $self = bless { name => $name, made => 1, clock => $opt{clock}, nodes => [],
		services => PostgreSQL::Test::Utils::tempdir() . '/services' }, $class;

	$self->{primary} = NexusKafka::Cluster->make("${name}_1", %opt, allows_streaming => 1);
	push @{ $self->{nodes} }, $self->{primary};
	$ENV{PGSERVICEFILE} = $self->{services};
	$self->_lead_clients;
	$self->_make_standby;
	$self->{primary}->reconfigure(synchronous_standby_names => '*');
	$self->wait_for_standby;
	return $self;
}

sub primary { return $_[0]{primary} }
sub standby { return $_[0]{standby} }

# All that ever were, those that were killed for good among them.
sub nodes { return @{ $_[0]{nodes} } }

sub connstr { return "service=pair dbname=$_[1]" }

# The answer of the primary; again and again while there is none to be had (so the
# statement must be one that may be repeated), but not after an error of its own.
sub sql
{
	my ($self, $sql) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (1)
	{
		my ($rc, $out, $err) = $self->{primary}->psql('postgres', $sql);
		return $out if $rc == 0;
		croak "$sql\n$err" if $rc == 3 && $err !~ /terminating connection|connection to server was lost/ || time > $deadline;
		sleep 0.1;
	}
}

# The primary is killed, at once and for good, and the standby promoted. mode: immediate
# (all of its processes), KILL (the postmaster; the others end when they notice).
sub fail_over
{
	my ($self, $mode) = @_;
	my ($old, $new) = @{$self}{qw(primary standby)};

	($mode // 'immediate') eq 'KILL' ? $old->kill9 : $old->stop('immediate');
	$new->promote;
	$self->{primary} = $new;
	$self->_lead_clients;
	$self->_make_standby;
	return $self->wait_for_standby;
}

sub _make_standby
{
	my ($self) = @_;
	my $standby = NexusKafka::Cluster->new("$self->{name}_" . ++$self->{made});

	$self->{primary}->backup("for_$self->{made}");
	$standby->init_from_backup($self->{primary}, "for_$self->{made}", has_streaming => 1);
	$standby->set_clock($self->{clock}) if $self->{clock};
	$standby->configure(synchronous_standby_names => '*');
	$standby->start;
	push @{ $self->{nodes} }, $standby;
	$self->{standby} = $standby;
	return;
}

# Until a standby has all that is committed from then on.
sub wait_for_standby
{
	my ($self) = @_;

	return $self->{primary}->wait_for_query('postgres',
		q(SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'));
}

# libpq reads the file at each connection.
sub _lead_clients
{
	my ($self) = @_;

	unlink "$self->{services}.new";
	append_to_file("$self->{services}.new",
		sprintf("[pair]\nhost=%s\nport=%s\n", $self->{primary}->host, $self->{primary}->port));
	rename "$self->{services}.new", $self->{services} or die "$self->{services}: $!";
	return;
}

1;
