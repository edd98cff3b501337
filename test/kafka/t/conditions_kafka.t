# Each condition that needs Kafka, set and cleared by the real thing (NexusKafka::Conditions;
# the others: t/conditions.t). The suite's lint holds that none is missing.
use strict;
use warnings;

use IPC::Run ();
use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::Conditions;
use NexusKafka::GatedCluster;
use NexusKafka::Load;
use PostgreSQL::Test::Utils;
use Test::More;

# None of the brokers can load its library for snappy.
my $kafka = NexusKafka::GatedCluster->new(
	flags => [ '-XX:TieredStopAtLevel=1', '-Dorg.xerial.snappy.tempdir=/proc/none' ],
	conf => { 'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users' => 'User:ANONYMOUS' });
my $prospects = 'nexus-prospect-ingestion';
my ($member, $stale, @others);

$kafka->create_topic($_) for $prospects, 'grown';
acl('add', qw(Read Describe Write));

# ---- by rights

my $limited = NexusKafka::Cluster->make('conditions_limited', sasl_ssl => $kafka);
$limited->create_extension('postgres');
runs_ok($limited, 'postgres');
my $conditions = NexusKafka::Conditions->watch($limited);

$conditions->come_and_go_ok(
	{ condition => 'NOT_ALLOWED', of => [ outbox => 'outbox' ],
		set => sub { acl('remove', 'Write'); terminate('outbox', 'outbox') },
		shows => [ 'waiting', qr/^the broker does not allow it: .*authorization failed/ ],
		clear => sub { acl('add', 'Write') } },

	{ condition => 'PARTITION_FAILS', of => [ pipeline => 'prospect_tracking' ],
		set => sub { acl('remove', 'Read') },
		shows => [ 'waiting', qr/^topic "$prospects", partition 0: .*authorization failed/ ],
		clear => sub { acl('add', 'Read') } },

	{ condition => 'NOT_ALLOWED', of => [ pipeline => 'prospect_tracking' ],
		set => sub { acl('remove', qw(Read Describe Write)); terminate('pipeline', 'prospect_tracking') },
		shows => [ 'waiting', qr/^the broker does not allow it: .*authorization failed/ ],
		clear => sub { acl('add', qw(Read Describe Write)) } });

$conditions->end;
no_crash_ok($limited);
$limited->stop;


# ---- by topics, groups and brokers

my $node = NexusKafka::Cluster->make('conditions_kafka', bootstrap => $kafka->gated_bootstrap);
$node->create_extension('postgres');
sql('CREATE TABLE taken (n bigint)', create_sql('grown', 'grown'));
runs_ok($node, 'postgres');
$conditions = NexusKafka::Conditions->watch($node);

$conditions->come_and_go_ok(
	{ condition => 'TOPIC_MISSING', of => [ pipeline => 'later' ], before => 'none',
		set => sub { sql(create_sql('later', 'later')) }, shows => [ 'waiting', qr/^topic "later" does not exist on the broker/ ],
		clear => sub { $kafka->create_topic('later') } },

	{ condition => 'TOPIC_MISSING', about => 'of the outbox', of => [ outbox => 'outbox' ],
		set => sub { sql(q(SELECT nexus_produce('missing', '1'))) },
		shows => [ 'waiting', qr/^a topic of the outbox does not exist on the broker/ ],
		clear => sub { $kafka->create_topic('missing') } },

	{ condition => 'REMARK', of => [ pipeline => 'list' ], before => 'none',
		set => sub { sql(create_sql('list', 'later,soon')) }, shows => [ 'running', qr/^topic "soon" does not exist on the broker/ ],
		clear => sub { $kafka->create_topic('soon') }, then => [ 'running', qr/^$/ ] },

	{ condition => 'GROUP_IN_USE', of => [ pipeline => 'grouped' ], before => 'none',
		set => sub {
			$kafka->create_topic('grouped');
			numbers($kafka, 'grouped', [ 1 .. 8 ]);
			$member = IPC::Run::start([ 'kcat', '-b', $kafka->bootstrap, '-q', '-u', '-X', 'auto.offset.reset=earliest',
				'-G', 'old', 'grouped' ], '>', \my $read, '2>', \my $errors,
				IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
			$member->pump until $read =~ /(?:.*"n":.*\n){8}/;
			sql(create_sql('grouped', 'grouped', '{"start": "group:old"}'));
		},
		shows => [ 'waiting', qr/^consumer group "old" has 1 members still/ ],
		clear => sub { $member->signal('TERM'); $member->finish } },

	# the topic wants what the brokers can't do
	{ condition => 'SENT_AGAIN', of => [ outbox => 'outbox' ],
		prepare => sub { $kafka->create_topic('squeezed', 1, 'compression.type' => 'snappy') },
		set => sub { sql(q(SELECT nexus_produce('squeezed', '1'))) },
		shows => [ 'waiting', qr/^Unknown broker error|^Broker: / ],
		clear => sub {
			($kafka->running)[0]->java('kafka.admin.ConfigCommand', '--bootstrap-server', $kafka->bootstrap, '--alter',
				'--entity-type', 'topics', '--entity-name', 'squeezed', '--add-config', 'compression.type=producer');
		} },

	{ condition => 'UNREACHABLE', of => [ outbox => 'outbox' ],
		set => sub { $kafka->clients(refused => $kafka->nodes) },
		shows => [ 'unreachable', qr/^no answer from / ],
		clear => sub { $kafka->clients(open => $kafka->nodes) } },

	{ condition => 'UNREACHABLE', of => [ pipeline => 'later' ],
		set => sub { $kafka->clients(silent => $kafka->nodes) },
		shows => [ 'unreachable', qr/^no answer from / ],
		clear => sub { $kafka->clients(open => $kafka->nodes) } },

	{ condition => 'STALE_BROKER', of => [ pipeline => 'grown' ], before => 'paused',
		prepare => sub {
			($stale, @others) = $kafka->nodes;
			leave_behind();
			$kafka->grow_topic('grown', 3, $others[0]);
			$node->wait_for_query('postgres', q(SELECT count(*) FROM nexus_partitions WHERE pipeline = 'grown'), 3);
			sql(q(SELECT nexus_pause('grown')));
		},
		set => sub { leave_to_stale(); sql(q(SELECT nexus_resume('grown'))) },
		shows => [ 'waiting', qr/^topic "grown" had a partition 2 and has 1 partitions by the brokers that answer \(1 of 3\)/ ],
		clear => \&all_are_back },

	# it runs until it has read
	{ condition => 'STALE_LEADER', of => [ pipeline => 'led' ], before => 'paused', first => 'running',
		prepare => sub {
			$kafka->wait_in_sync;
			$kafka->create_topic('led');
			sql(create_sql('led', 'led'));
			numbers($kafka, 'led', [ 1 .. 5 ]);
			wait_for_offset(5);
			$stale = $kafka->leader('led');
			@others = grep { $_ != $stale } $kafka->nodes;
			leave_behind();
			numbers($others[0], 'led', [ 6 .. 10 ]);
			wait_for_offset(10);
			sql(q(SELECT nexus_pause('led')));
		},
		set => sub { leave_to_stale(); sql(q(SELECT nexus_resume('led'))) },
		shows => [ 'waiting', qr/^offset 10 of partition 0 of topic "led" is not on the broker that leads it \(1 of 3 brokers answer\)/ ],
		clear => \&all_are_back },

	{ condition => 'NO_LEADER', of => [ pipeline => 'single' ],
		prepare => sub {
			$kafka->wait_in_sync;
			sql(q(SELECT nexus_create_topic('single', 1, 1)), create_sql('single', 'single'));
		},
		set => sub { ($stale = $kafka->leader('single'))->kill9 },
		shows => [ 'waiting', qr/has no leader/ ],
		clear => sub { $stale->start; $kafka->wait_in_sync } },

	{ condition => 'UNACKNOWLEDGED', of => [ outbox => 'outbox' ],
		prepare => sub { $kafka->create_topic('strict', 1, 'min.insync.replicas' => 3) },
		set => sub { $stale->kill9; sql(q(SELECT nexus_produce('strict', '1'))) },
		shows => [ 'waiting', qr/^a broker answers, but messages sent 10 s ago are not acknowledged/ ],
		clear => sub { $stale->start } });

$conditions->end;
no_crash_ok($node);
done_testing();

sub sql { return $node->safe_psql('postgres', join ";\n", @_) }

sub create_sql
{
	my ($name, $topics, $options) = @_;

	return sprintf q(SELECT nexus_create_pipeline('%s', '%s', 'INSERT INTO taken SELECT "offset" FROM nexus_messages()', '%s')),
	  $name, $topics, $options // '{}';
}

# One broker hears nothing; then it is all there is.
sub leave_behind
{
	$stale->freeze;
	return $kafka->clients(refused => $stale);
}

sub leave_to_stale
{
	$_->freeze for @others;
	$kafka->clients(refused => @others);
	$kafka->clients(open => $stale);
	return $stale->resume;
}

sub all_are_back
{
	$_->resume for $kafka->nodes;
	return $kafka->clients(open => $kafka->nodes);
}

sub wait_for_offset { return $node->wait_for_query('postgres', q(SELECT "offset" FROM nexus_partitions WHERE pipeline = 'led'), $_[0]) }

sub terminate
{
	my ($kind, $name) = @_;
	my $server = $node // $limited;

	return $server->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM nexus_status WHERE kind = '$kind' AND name = '$name'");
}

sub acl
{
	my ($what, @operations) = @_;

	return ($kafka->running)[0]->java('org.apache.kafka.tools.AclCommand', '--bootstrap-server', $kafka->bootstrap, "--$what",
		'--force', '--allow-principal', 'User:key', '--topic', $prospects, map { ('--operation', $_) } @operations);
}
