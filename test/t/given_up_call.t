# A call of nexus_produce_now is given up while its relay looks at it, and the session calls
# the next one, of another connection: that message goes to its own cluster or nowhere.
use strict;
use warnings;

use NexusKafka::Checks;
use NexusKafka::Cluster;
use NexusKafka::ConnectionFile;
use NexusKafka::Pause;
use Test::More;

# The relay is held in strcmp(), which the sanitizers have their own of.
plan skip_all => 'not under sanitizers' if $ENV{SANITIZER_REPORTS};

# The one cluster is in a server of its own; nobody listens for the other.
my $kafka = NexusKafka::Cluster->make('given_up_call_kafka', embedded => 1);
$kafka->create_extension('postgres');
$kafka->safe_psql('postgres', <<'END');
CREATE TABLE taken (value text);
SELECT nexus_create_pipeline('taken', 'calls', 'INSERT INTO taken SELECT value #>> ''{}'' FROM nexus_messages()');
END
runs_ok($kafka, 'postgres', 'a broker');
my ($bootstrap) = map { /nexus_kafka broker is running: on ([\d.]+:\d+)/ ? $1 : () } log_lines($kafka, qr/broker is running/);
my $closed = PostgreSQL::Test::Cluster::get_free_port();

my $pause = NexusKafka::Pause->new('here');
my $node = NexusKafka::Cluster->make('given_up_call', bootstrap => $bootstrap, start => 0);
my $file = NexusKafka::ConnectionFile->new($node);
$file->write("bootstrap.servers=$bootstrap\n[here]\nbootstrap.servers=$bootstrap\n[nowhere]\nbootstrap.servers=127.0.0.1:$closed\n");
$pause->start($node);
$node->create_extension('postgres');
runs_ok($node, 'postgres', 'and who uses it');

sub call
{
	my ($connection, $value, $timeout) = @_;

	return "SELECT nexus_produce_now('calls', '\"$value\"'::jsonb, connection => '$connection', timeout => '$timeout');";
}

like($node->safe_psql('postgres', call('here', 'before', '60 s')), qr/"published"/, 'a call of the one connection');
$node->psql('postgres', call('nowhere', 'before', '100 ms'));
$node->poll_status('postgres', 'outbox', 'nowhere', 'unreachable');
my $relay = $node->status('postgres', 'outbox', 'here')->{pid};
foreach my $try (1 .. 3)
{
	$pause->begin($relay);
	my ($rc, $out, $err) = $node->psql('postgres', call('here', "given up $try", '300 ms') . call('nowhere', "lost $try", '5 s'),
		on_error_stop => 0);
	$pause->end;
	is($out, '', 'no call has gone anywhere');
	is(scalar(() = $err =~ /not published/g), 2, 'and both say so');
}
like($node->safe_psql('postgres', call('here', 'after', '60 s')), qr/"published"/, 'the next one is served');
$kafka->wait_rows('postgres', q(taken WHERE value = 'after'), 1);
is($kafka->safe_psql('postgres', q(SELECT string_agg(value, ', ' ORDER BY value) FROM taken)), 'after, before',
	'no message has come to the wrong cluster');

no_crash_ok($_) for $node, $kafka;
done_testing();
