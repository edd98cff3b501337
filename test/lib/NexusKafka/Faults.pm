# What can go wrong around a database with nexus_kafka, as a table: how each fault begins
# and ends, and which states it may cause. They are dealt like cards, two at a time, and
# what was done when is kept, so that every state that was shown can be asked for its cause.
#
#   my $faults = NexusKafka::Faults->new(
#     kafka => $gated_cluster, pair => $standby_pair, clock => $clock, database => 'postgres',
#     schema => 'nexus', target => 'prospect_tracking', growing => 'events',
#     flows => sub { … });              # a number that grows while messages flow
#   $faults->run(600);                  # seconds; each at least once
#   $faults->causeless(@observations);  # of NexusKafka::Witness
#
# NEXUS_TEST_FAULTS=clock_back,truncate chooses; NEXUS_TEST_SEED repeats order and lengths.
package NexusKafka::Faults;

use strict;
use warnings;

use Carp qw(croak);
use JSON::PP qw(decode_json);
use NexusKafka::Chance;
use NexusKafka::Witness;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $at_once = 2;
my $grace = 30;         # seconds after a fault in which a state may still be its
my $flow_timeout = 60;
my $flow_grace = 10;    # seconds after a fault in which messages may not flow yet

# ---- what nexus_status may show: "kind name state: reason"

my $restart = qr/^\w+ \S+ starting: /;
my $unreachable = qr/^(?:outbox|pipeline) \S+ unreachable: no answer from /;
my $no_leader = qr/ waiting: .*has no leader/;
my $not_acknowledged = qr/^outbox \S+ waiting: .*not acknowledged/;
my $locked = qr/ waiting: .*\block/;
my $environment = qr/ waiting: .*\(SQLSTATE (?:08|40|53|55|57|58)...\)/;
my $no_topic = qr/^outbox \S+ waiting: .*topic.*does not exist/;
my $keeps_ending = qr/ waiting: the worker keeps ending/;
my $no_room = qr/ no_worker: .*nexus_kafka\.max_jobs/;
my $standby = qr/ standby: /;
# a client that is being made just then: librdkafka waits for its threads by the time of day
my $clock_jumped = qr/ waiting: Timed out waiting for \d+ background thread/;
# the shipped statement names the schema
my $renamed = qr/^pipeline prospect_tracking failing: relation "nexus\.prospect_tracking" does not exist/;
my $no_standby = qr/ waiting: .*synchronous standby/;
my $paused = qr/^pipeline \S+ paused: /;

my $stale_leader = qr/ waiting: offset \d+ of partition \d+ of topic "[^"]*" is not on the broker that leads it/;
my $unknown_partition = qr/ waiting: topic "[^"]*", partition \d+: failed to query logical offset/i;
my @brokers = ($restart, $unreachable, $no_leader, $not_acknowledged, $stale_leader, $unknown_partition);

# ---- the faults. begin answers what ends it. groups: of these one at a time; flows: messages
# go on meanwhile, but for those that another fault stops; holds: what the others do may have
# to wait for its end, so none begins or ends meanwhile.

my %faults = (
	broker_killed => { groups => ['brokers'], seconds => [ 2, 10 ], may => \@brokers, begin => sub {
			my ($self) = @_;
			my $node = $self->_node;

			$node->kill9;
			return sub { $node->start; $self->{kafka}->wait_in_sync };
		} },

	majority_killed => { groups => ['brokers'], seconds => [ 2, 12 ], may => \@brokers, begin => sub {
			my ($self) = @_;
			my ($spared, @killed) = $self->_shuffled;

			$_->kill9 for @killed;
			return sub { $_->launch for @killed; $_->wait_until_ready for @killed; $self->{kafka}->wait_in_sync };
		} },

	broker_frozen => { groups => ['brokers'], seconds => [ 2, 15 ], may => \@brokers, begin => sub {
			my ($self) = @_;
			my $node = $self->_node;

			$node->freeze;
			return sub { $node->resume; $self->{kafka}->wait_in_sync };
		} },

	cut_off => { groups => ['brokers'], seconds => [ 2, 15 ], may => \@brokers, begin => sub {
			my ($self) = @_;
			my @nodes = ($self->_shuffled)[ 0 .. one_of(0, 0, 1, 2, 2) ];
			my $how = one_of(qw(silent refused));

			$self->{kafka}->clients($how => @nodes);
			return (sub { $self->{kafka}->clients(open => @nodes) }, "$how for " . _ids(@nodes));
		} },

	# A broker that doesn't learn of new partitions, and tells clients so.
	stale_metadata => { groups => ['brokers'], seconds => [ 8, 15 ], may => \@brokers, begin => sub {
			my ($self) = @_;
			my $controller = $self->{kafka}->controller;
			my ($node) = grep { $_ != $controller } $self->_shuffled;
			my $partitions = 1 + $self->{kafka}->partitions($self->{growing}, $controller);

			$self->{kafka}->news(silent => $node);
			$self->{kafka}->grow_topic($self->{growing}, $partitions, $controller);
			foreach (1 .. 4)
			{
				# each worker that comes asks one of the brokers first
				my $pid = $self->{pair}->sql("SELECT pid FROM nexus_status WHERE kind = 'pipeline' AND name = '$self->{growing}'");
				$self->{pair}->sql("SELECT pg_terminate_backend($pid)") if $pid;
				$self->_pass(1.5);
			}
			return (sub { $self->{kafka}->news(open => $node); $self->{kafka}->wait_in_sync },
				"broker @{[ $node->node_id ]} doesn't know that $self->{growing} has $partitions partitions");
		} },

	missing_topic => { groups => ['brokers'], seconds => [ 2, 8 ], flows => 1, may => [$no_topic], begin => sub {
			my ($self) = @_;
			my $topic = 'late-' . ++$self->{late};
			my $id = $self->{pair}->sql("SELECT nexus_produce('$topic', 'x', key => 'x') ->> 'messageId'");

			push @{ $self->{missing}{$topic} }, $id;
			return (sub { $self->{kafka}->create_topic($topic, 1) }, $topic);
		} },

	worker_killed => { groups => ['server'], seconds => [ 1, 2 ], may => [ $restart, $keeps_ending, $no_standby ], begin => sub {
			my ($self) = @_;
			my ($pid, $what) = $self->_worker;

			return (sub { }, 'nobody to kill') unless $pid && kill('KILL', $pid);
			$self->{kills}{ $self->{pair}->primary->name }++;
			return (sub { $self->_up }, "$what, $pid");
		} },

	worker_terminated => { groups => ['server'], seconds => [ 0, 1 ], may => [ $restart, $keeps_ending, $no_standby ], begin => sub {
			my ($self) = @_;
			my ($pid, $what) = $self->_worker;

			$self->{pair}->sql("SELECT pg_terminate_backend($pid)") if $pid;
			return (sub { }, $what);
		} },

	server_killed => { groups => ['server'], seconds => [ 0, 1 ], may => [ $restart, $keeps_ending, $no_standby ], begin => sub {
			my ($self) = @_;

			$self->{pair}->primary->kill9_and_start;
			return sub { $self->_up };
		} },

	failed_over => { groups => ['server'], seconds => [ 0, 1 ], may => [ $restart, $keeps_ending, $standby, $no_standby ], begin => sub {
			my ($self) = @_;
			my $mode = one_of(qw(immediate KILL));

			$self->{pair}->fail_over($mode);
			return (sub { $self->_up }, $mode . ', to ' . $self->{pair}->primary->name);
		} },

	clock_back => { groups => ['clock'], seconds => [ 3, 15 ], flows => 1, may => [$clock_jumped], begin => sub {
			my ($self) = @_;

			$self->{clock}->set(-3600);
			return sub { $self->{clock}->set(0) };
		} },

	target_locked => { groups => ['locks'], holds => 1, seconds => [ 2, 15 ], may => [ $locked, $environment ], begin => sub {
			return $_[0]->_lock($_[0]{target});
		} },

	outbox_locked => { groups => [qw(locks outbox)], holds => 1, seconds => [ 1, 8 ], may => [ $locked, $environment ], begin => sub {
			return $_[0]->_lock('nexus_outbox');
		} },

	offsets_locked => { groups => ['locks'], holds => 1, seconds => [ 1, 8 ], may => [ $locked, $environment ], begin => sub {
			return $_[0]->_lock('nexus_offsets');
		} },

	jobs_full => { groups => ['pipelines'], seconds => [ 2, 6 ], flows => 1, may => [ $restart, $no_room ], begin => sub {
			my ($self) = @_;

			$self->_create("filler$_", '{"on_demand": true, "workers": 32}') for 1 .. 2;
			return sub { $self->_drop("filler$_") for 1 .. 2 };
		} },

	pipeline_made => { groups => ['pipelines'], seconds => [ 1, 5 ], flows => 1, may => [$restart], begin => sub {
			my ($self) = @_;

			$self->_create('spare', '{"workers": 2}');
			return sub { $self->_drop('spare') };
		} },

	pipeline_altered => { groups => ['pipelines'], seconds => [ 0, 2 ], may => [$restart], begin => sub {
			my ($self) = @_;
			my $option = one_of('"workers": 2', '"workers": 1', '"batch_messages": 7', '"batch_messages": 1000');
			my $name = $self->_pipeline;

			$self->{pair}->sql("SELECT nexus_alter_pipeline('$name', options => '{$option}')");
			return (sub { }, "$name: $option");
		} },

	pipeline_paused => { groups => ['pipelines'], seconds => [ 1, 4 ], may => [ $restart, $paused ], begin => sub {
			my ($self) = @_;
			my $name = $self->_pipeline;

			$self->{pair}->sql("SELECT nexus_pause('$name')");
			return (sub { $self->{pair}->sql("SELECT nexus_resume('$name')") }, $name);
		} },

	truncate => { groups => [qw(server outbox)], seconds => [ 0, 1 ], flows => 1, begin => sub {
			my ($self) = @_;

			return (sub { }, $self->_truncate . ' rows');
		} },

	long_snapshot => { groups => ['snapshot'], seconds => [ 5, 20 ], flows => 1, begin => sub {
			return $_[0]->_session('BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM pg_class');
		} },

	# A transaction with low ids of the outbox that commits late, or never.
	late_commit => { groups => ['outbox'], seconds => [ 2, 15 ], flows => 1, begin => sub {
			my ($self) = @_;
			my $id = 'late-' . ++$self->{late};
			my $end = one_of(qw(COMMIT ROLLBACK));
			my ($undo, $said) = $self->_session('BEGIN', "SELECT nexus_produce('events', '{}'::jsonb, key => '$id')");

			return (sub { $self->{late_ids}{$id} = $undo->($end) ? $end : 'unknown' }, "$end of $id");
		} },

	schema_renamed => { groups => ['schema'], seconds => [ 1, 6 ], flows => 1, may => [ $restart, $renamed ], begin => sub {
			my ($self) = @_;

			$self->_rename($self->{schema}, "$self->{schema}_away");
			return sub { $self->_rename("$self->{schema}_away", $self->{schema}) };
		} },

	target_altered => { groups => ['schema'], seconds => [ 0, 2 ], flows => 1, may => [ $restart, $locked ], begin => sub {
			my ($self) = @_;
			my $column = 'more_' . ++$self->{columns};

			$self->{pair}->sql("ALTER TABLE $self->{target} ADD COLUMN IF NOT EXISTS $column text DEFAULT 'x'");
			return (sub { $self->{pair}->sql("ALTER TABLE $self->{target} DROP COLUMN IF EXISTS $column") }, $column);
		} },

	outbox_rewritten => { groups => ['outbox'], seconds => [ 0, 1 ], flows => 1, may => [$locked], begin => sub {
			my ($self) = @_;
			my $how = one_of('VACUUM (FULL) nexus_outbox', 'CLUSTER nexus_outbox USING nexus_outbox_pkey',
				'REINDEX TABLE nexus_outbox', 'VACUUM (FREEZE) nexus_outbox', 'VACUUM (FULL) nexus_offsets');

			$self->{pair}->sql($how);
			return (sub { }, $how);
		} });

sub new
{
	my ($class, %world) = @_;
	my %known = map { $_ => 1 } split /,/, $ENV{NEXUS_TEST_FAULTS} // join ',', keys %faults;
	my @unknown = grep { !$faults{$_} } keys %known;

	croak "NEXUS_TEST_FAULTS: there is no @unknown, but " . join(',', sort keys %faults) if @unknown;
	return bless { %world, chosen => [ sort keys %known ], timeline => [], active => [], begun => now(),
		kills => {}, unknown => {}, missing => {}, late_ids => {}, late => 0, columns => 0 }, $class;
}

# Deals all of them in turn, anew until the seconds have gone; then ends what is active.
# False, and what the test itself died of, if it did.
sub run
{
	my ($self, $seconds) = @_;
	my $done = eval { $self->_deal($seconds); 1 };
	my $why = $@;

	foreach my $left (@{ $self->{active} })
	{
		eval { $left->{undo}->() } if $left->{undo};
		$left->{to} = now();
	}
	diag("the test itself failed: $why") unless $done;
	return $done;
}

sub _deal
{
	my ($self, $seconds) = @_;
	my $until = now() + $seconds;

	do
	{
		my @deck = @{ $self->{chosen} };
		while (@deck)
		{
			my $name = splice @deck, chance(scalar @deck), 1;
			$self->_make_room($name);
			$self->_begin($name);
			$self->_pass(chance(3000) / 1000);
		}
	} until now() > $until;
	$self->_pass_until(sub { !@{ $self->{active} } });
	return;
}

sub timeline { return @{ $_[0]{timeline} } }
sub kills { return $_[0]{kills}{ $_[1]->name } // 0 }

# What happened, as lines for people.
sub story
{
	my ($self) = @_;

	return map {
		sprintf '%6.1f to %6.1f  %s%s', (map { $_ - $self->{begun} } $_->{from}, $_->{to} // now()), $_->{name},
		  $_->{said} ? ": $_->{said}" : ''
	} $self->timeline;
}

# Of what a witness noted, that which no fault explains.
sub causeless
{
	my ($self, @observations) = @_;
	my %causeless;

	foreach my $seen (@observations)
	{
		my $text = "$seen->{kind} $seen->{name} $seen->{state}: $seen->{reason}";

		next if $seen->{time} < $self->{begun} || $text =~ /^\w+ \S+ running: $/ || $text =~ /^pipeline filler\d on_demand: /;
		next if grep { _explains($_, $seen->{time}, $text) } $self->timeline;
		$causeless{$text} //= sprintf '%6.1f  %s (%s)', $seen->{time} - $self->{begun}, $text, $seen->{from};
	}
	return sort values %causeless;
}

sub _explains
{
	my ($done, $time, $text) = @_;

	return $time >= $done->{from} && $time <= ($done->{to} // $time) + $grace
	  && grep { $text =~ $_ } @{ $faults{ $done->{name} }{may} // [] };
}

# ---- one after the other

sub _begin
{
	my ($self, $name) = @_;
	my $fault = $faults{$name};
	my ($least, $most) = @{ $fault->{seconds} };
	my $done = { name => $name, from => now() };

	push @{ $self->{timeline} }, $done;
	push @{ $self->{active} }, $done;
	$done->{before} = $self->{flows}->() if $fault->{flows};
	@{$done}{qw(undo said)} = $fault->{begin}->($self);
	$done->{due} = now() + $least + chance(1000 * ($most - $least) + 1) / 1000;
	note(sprintf '%6.1f  %s%s', $done->{from} - $self->{begun}, $name, $done->{said} ? ": $done->{said}" : '');
	return;
}

sub _end
{
	my ($self, $done) = @_;

	$self->_must_flow($done) if $faults{ $done->{name} }{flows};
	$done->{undo}->();
	$done->{to} = now();
	@{ $self->{active} } = grep { $_ != $done } @{ $self->{active} };
	note(sprintf '%6.1f  end of %s', $done->{to} - $self->{begun}, $done->{name});
	return;
}

# Messages have gone on since this one began, unless others are about that stop them.
sub _must_flow
{
	my ($self, $done) = @_;
	my $from = now();
	my $grown = 0;

	return if grep { !$faults{ $_->{name} }{flows} && ($_->{to} // now()) > $done->{from} - $flow_grace } $self->timeline;
	until ($grown = $self->{flows}->() > $done->{before})
	{
		last if now() > $from + $flow_timeout;
		sleep 0.1;
	}
	ok($grown, "messages flow on: $done->{name} " . ($done->{said} // ''));
	return;
}

sub _make_room
{
	my ($self, $name) = @_;
	my %taken;

	return $self->_pass_until(sub {
		my @active = map { $faults{ $_->{name} } } @{ $self->{active} };
		%taken = map { $_ => 1 } map { @{ $_->{groups} } } @active;
		@active < $at_once && !grep { $_->{holds} } @active and !grep { $taken{$_} } @{ $faults{$name}{groups} };
	});
}

sub _pass
{
	my ($self, $seconds) = @_;
	my $until = now() + $seconds;

	return $self->_pass_until(sub { now() > $until });
}

sub _pass_until
{
	my ($self, $enough) = @_;

	until ($enough->())
	{
		my @active = @{ $self->{active} };
		my @holding = grep { $faults{ $_->{name} }{holds} } @active;

		$_->{due} && $_->{due} < now() and $self->_end($_) for @holding ? @holding : @active;
		sleep 0.05;
	}
	return;
}

# ---- what the faults do

sub _ids { return 'brokers ' . join ', ', map { $_->node_id } @_ }

sub _shuffled
{
	my ($self) = @_;
	my @nodes = $self->{kafka}->nodes;

	return map { splice @nodes, chance(scalar @nodes), 1 } 1 .. @nodes;
}

sub _node { return ($_[0]->_shuffled)[0] }
sub _pipeline { return one_of('prospect_tracking', 'events', 'derived') }

# The pid of a worker, and what it does.
sub _worker
{
	my ($self) = @_;
	my ($kind, $name) = @{ one_of([qw(outbox outbox)], [qw(outbox outbox)], [ 'pipeline', $self->_pipeline ]) };

	return ($self->{pair}->sql("SELECT pid FROM nexus_status WHERE kind = '$kind' AND name = '$name'"), "$kind $name");
}

# Until the server answers, and its standby is there.
sub _up
{
	my ($self) = @_;

	$self->{pair}->sql('SELECT 1');
	return $self->{pair}->wait_for_standby;
}

# A session in which something stays as it is until the end. The end tells whether it was
# answered: the server may have gone meanwhile, and the session with it.
sub _session
{
	my ($self, @statements) = @_;
	my $session = eval { $self->{pair}->primary->background_psql($self->{database}, on_error_stop => 0) };
	my $begun = $session && eval { $session->query_safe($_) for @statements; 1 };

	return (sub {
			my $ended = $begun && eval { $session->query_safe($_[0] // 'COMMIT'); 1 };

			eval { $session->quit } if $session;
			return $ended;
		}, $begun ? '' : 'not to be had');
}

# A lock that is not waited for, or others would wait behind it for who holds the table now.
sub _lock
{
	my ($self, $table) = @_;

	foreach (1 .. 100)
	{
		my ($undo, $failed) = $self->_session('BEGIN', "LOCK TABLE $table NOWAIT");
		return ($undo, $table) unless $failed;
		$undo->();
		sleep 0.1;
	}
	return (sub { }, "$table was not to be had");
}

sub _create
{
	my ($self, $name, $options) = @_;

	$self->{pair}->sql(<<"END");
SELECT nexus_create_pipeline('$name', 'nexus-prospect-ingestion',
  'INSERT INTO sink SELECT "offset" FROM nexus_messages()', '$options')
WHERE NOT EXISTS (SELECT FROM nexus_pipelines WHERE name = '$name')
END
	return;
}

sub _drop
{
	my ($self, $name) = @_;

	$self->{pair}->sql("SELECT nexus_drop_pipeline(name) FROM nexus_pipelines WHERE name = '$name'");
	return;
}

sub _rename
{
	my ($self, $from, $to) = @_;

	$self->{pair}->sql("DO \$\$ BEGIN IF to_regnamespace('$from') IS NOT NULL THEN ALTER SCHEMA $from RENAME TO $to; END IF; END \$\$");
	return;
}

# Without triggers, if it is refused otherwise. Whether what was there is published nobody
# knows then. Answers how many rows that were.
sub _truncate
{
	my ($self) = @_;
	my $rows = $self->{pair}->sql(<<'END');
BEGIN;
LOCK TABLE nexus_outbox;
SELECT topic, CASE WHEN topic = 'nexus-prospect-ingestion' THEN convert_from(value, 'UTF8')::jsonb ->> 'sessionId'
  ELSE convert_from(key, 'UTF8') END
FROM nexus_outbox;
SET LOCAL session_replication_role = replica;
TRUNCATE nexus_outbox RESTART IDENTITY;
COMMIT;
END
	my @rows = map { [ split /\|/ ] } split /\n/, $rows;

	$self->{unknown}{ $_->[0] }{ $_->[1] } = 1 for @rows;
	return scalar @rows;
}

1;
