# That a secret is nowhere: everything that a server shows, or has about its processes,
# is searched for it.
package NexusKafka::Secrets;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

our @EXPORT = qw(secrets_nowhere_ok);

# $secrets: name => secret. The server's log should be at debug5.
sub secrets_nowhere_ok
{
	my ($node, $secrets) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my %text = (_seen_by_monitor($node), _of_processes($node),
		'the log at debug5' => slurp_file($node->logfile),
		'errors' => _errors($node),
		'a dump' => scalar `pg_dumpall -h @{[ $node->host ]} -p @{[ $node->port ]}`);

	for my $where (sort keys %text)
	{
		ok(length $text{$where}, "$where: something to look at");
		for my $name (sort keys %$secrets)
		{
			unlike($text{$where}, qr/\Q$secrets->{$name}\E/, "$where: no $name");
		}
	}
	like($text{'the log at debug5'}, qr/DEBUG: .*librdkafka/, 'the log has librdkafka\'s lines');
	return;
}

# All that a superuser who looks at everything, and a role that may look, can select.
sub _seen_by_monitor
{
	my ($node) = @_;
	my @relations = split /\n/, $node->safe_psql('postgres', <<'END');
SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e' WHERE e.extname = 'nexus_kafka' AND c.relkind IN ('r', 'v')
END
	my %text = map { $_ => $node->safe_psql('postgres', "TABLE $_") } @relations;

	$node->safe_psql('postgres', 'CREATE ROLE onlooker IN ROLE pg_monitor') if !$node->{_nexus_onlooker}++;
	for my $view (qw(pg_settings pg_file_settings pg_stat_activity))
	{
		$text{$view} = $node->safe_psql('postgres', "TABLE $view");
		$text{"$view, of a monitor"} = $node->safe_psql('postgres', "SET ROLE onlooker; TABLE $view")
		  if $view ne 'pg_file_settings';
	}
	$text{nexus_health} = $node->safe_psql('postgres', 'SELECT nexus_health()');
	$text{nexus_jobs} = $node->safe_psql('postgres', 'SELECT * FROM nexus_jobs()');
	delete $text{$_} for grep { $text{$_} eq '' } @relations;
	return %text;
}

# Title, arguments and environment of each process of the server.
sub _of_processes
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @pids = ($postmaster, split ' ', `ps -o pid= --ppid $postmaster`);
	my %text = ('process titles' => '', environments => '');

	# one of them may end meanwhile
	for my $pid (@pids)
	{
		$text{'process titles'} .= eval { slurp_file("/proc/$pid/cmdline") } // '';
		$text{environments} .= eval { slurp_file("/proc/$pid/environ") } // '';
	}
	return %text;
}

sub _errors
{
	my ($node) = @_;
	my $errors = '';

	for my $call (q(nexus_produce_now('no topic', 'x')), q(nexus_produce_now('nowhere', 'x', timeout => '1 s')),
		q(nexus_create_topic('nexus-prospect-ingestion', timeout => '1 s')))
	{
		my (undef, undef, $err) = $node->psql('postgres', "SELECT $call");
		$errors .= $err;
	}
	return $errors;
}

1;
