# Conditions of a job (src/worker/condition.c) that come and go by the real thing: what
# nexus_status shows meanwhile, one line of the log a change of state, and no other state in
# between.
#
#   my $conditions = NexusKafka::Conditions->watch($node);
#   $conditions->come_and_go_ok(
#     { condition => 'PAUSED', of => [ pipeline => 'p' ],
#       set => sub { … }, shows => [ 'paused', qr/nexus_pause/ ],
#       clear => sub { … } },    # then => [ 'running' ]
#     …);
#   $conditions->end;
#
# An entry may also have: prepare, what comes before it is looked at; before, the state that
# it begins with (running); first, what a new worker shows until it learns better; logs, the kind and name whose state the log tells of instead, as
# that of the supervisor; about, which of several causes this one is.
package NexusKafka::Conditions;

use strict;
use warnings;

use Carp qw(croak);
use NexusKafka::Witness;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $looks = 3;    # while it is set: what is tried again is tried meanwhile

sub watch
{
	my ($class, $node) = @_;

	return bless { node => $node, witness => NexusKafka::Witness->start($node->connstr('postgres'), $node->logfile) },
		$class;
}

sub come_and_go_ok
{
	my ($self, @entries) = @_;

	foreach my $entry (@entries)
	{
		local $Test::Builder::Level = $Test::Builder::Level + 1;
		my %entry = (before => 'running', then => ['running'], logs => $entry->{of}, %$entry);
		my $name = join ' ', $entry{condition}, $entry{about} // ();

		subtest "$name: @{ $entry{of} }" => sub { $self->_one_ok(%entry) };
	}
	return;
}

sub end
{
	my ($self) = @_;

	$self->{witness}->end;
	return;
}

sub _one_ok
{
	my ($self, %entry) = @_;
	my ($before, $shown, $then) = ($entry{before}, $entry{shows}[0], $entry{then}[0]);

	$entry{prepare}->() if $entry{prepare};
	$self->_await(\%entry, $before) unless $before eq 'none';
	my $from = $self->_noted;
	$entry{set}->();
	pass('it is set: ' . $self->_await(\%entry, @{ $entry{shows} }));
	$self->_await(\%entry, @{ $entry{shows} }) for 1 .. $looks;
	$entry{clear}->();
	pass('it is cleared: ' . $self->_await(\%entry, @{ $entry{then} }));
	my @noted = $self->_since($from);
	my @first = $entry{first} // ();
	my $may_be_first = join '|', $before, @first;
	my $set = "(?:$before )?(?:starting )?(?:(?:$may_be_first) )?$shown";
	my $cleared = ($shown eq $then ? '' : " (?:starting )?$then") . "(?: starting(?: $then)?)?";

	like(_changes(_states('status', $entry{of}, @noted)), qr/^$set$cleared$/, 'no other state is shown in between');
	is(join(' ', $self->_logged($entry{logs}, $from)), join(' ', _to_log($before, @first, $shown, $then)), 'the log has one line a change');
	return;
}

# Until nexus_status shows it, and the witness has noted that too, and its line in the log: so
# what it notes from then on is what comes later.
sub _await
{
	my ($self, $entry, $state, $reason) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $is_so = sub { $_[0]->{state} eq $state && (!$reason || ($_[0]->{reason} // '') =~ $reason) };
	my $from;
	my $now;

	while (1)
	{
		$now = eval { $self->{node}->status('postgres', @{ $entry->{of} }) } // { state => 'none' };
		$from = $is_so->($now) ? $from // $self->_noted : undef;
		return join ': ', grep { $_ } @{$now}{qw(state reason)}
		  if defined $from
		  && (grep { $is_so->($_) } _notes('status', $entry->{of}, $self->_since($from)))
		  && ($state eq 'starting' || _last(_states('log', $entry->{logs}, $self->_since(0))) eq $state);
		croak "timed out waiting for state '$state'" . ($reason ? " ($reason)" : '') . " of @{ $entry->{of} }, last seen: "
		  . join ': ', grep { $_ } @{$now}{qw(state reason)}
		  if time > $deadline;
		sleep 0.05;
	}
}

sub _noted { return scalar(my @all = $_[0]{witness}->seen) }

sub _since
{
	my ($self, $from) = @_;
	my @noted = $self->{witness}->seen;

	return splice @noted, $from;
}

sub _notes
{
	my ($from, $of, @noted) = @_;

	return grep { $_->{from} eq $from && "$_->{kind} $_->{name}" eq "@$of" } @noted;
}

sub _states { return map { $_->{state} } _notes(@_) }

sub _last { return $_[-1] // '' }

sub _changes
{
	my @changes;

	foreach my $state (@_)
	{
		push @changes, $state unless @changes && $changes[-1] eq $state;
	}
	return join ' ', @changes;
}

# That it is on its way isn't logged.
sub _to_log
{
	my (undef, @changes) = split / /, _changes(grep { $_ ne 'starting' } @_);

	return @changes;
}

# A worker that starts anew, as it does for other partitions, comes from "starting" and says
# again what the one before it has said; or that it runs, until it learns better.
sub _logged
{
	my ($self, $of, $from) = @_;
	my $last = (_notes('log', $of, splice @{ [ $self->_since(0) ] }, 0, $from))[-1] // { state => '', pid => 0 };
	my @states;

	foreach my $note (_notes('log', $of, $self->_since($from)))
	{
		push @states, $note->{state} unless $note->{state} eq $last->{state} && $note->{pid} != $last->{pid};
		$last = $note;
	}
	return @states;
}

1;
