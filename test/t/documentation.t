# What the documentation shows is what happens: its blocks of SQL run, in order, and the
# block of text behind one is the end of what psql prints.
use strict;
use warnings;

use IPC::Run qw(run);
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = NexusKafka::Cluster->make('main', embedded => 1, conf => { max_worker_processes => 64 });

$node->create_extension('postgres');
for my $example (map { examples($_) } 'docs/statements.md', 'docs/coming-from.md')
{
	my $output = answer('postgres', $example->{sql});

	like($output, qr/\Q$example->{text}\E\z/, "$example->{heading}: it shows what the text says");
}

# The README's begin with CREATE EXTENSION, twice.
$node->safe_psql('postgres', 'CREATE DATABASE readme; CREATE ROLE app');
for my $example (examples('README.md'))
{
	answer('readme', $example->{sql} =~ s/^CREATE EXTENSION/$& IF NOT EXISTS/mr);
}
is($node->safe_psql('readme', q(SELECT string_agg(session_id, ' ') FROM prospect_tracking WHERE fingerprint_id = 'f-1')), 's-1',
	'README.md: one transaction is published, and not the other');
is($node->safe_psql('readme', q(SELECT string_agg(convert_from(value, 'UTF8'), ' ') FROM nexus_dead_letters)), '{"id": "seven"}',
	'README.md: the second message is a dead letter');

# test/README.md has whole files, which compile, and helpers by their names.
my $tests = slurp_file('test/README.md');
for my $example ($tests =~ /^```perl\n(.*?)^```$/msg)
{
	my ($out, $err) = ('', '');

	ok(run([ $^X, (map { "-I$_" } @INC), '-c' ], '<', \$example, '>', \$out, '2>', \$err), 'an example of test/README.md compiles') or diag($err);
}
for my $section ($tests =~ /^### (NexusKafka::\w+\n.*?)(?=^##)/msg)
{
	my ($module) = $section =~ /^(\S+)/;
	my @names = map { /^\| (.*?) \|/ ? $1 =~ /`(\w+)\(/g : () } split /\n/, $section;

	eval "require $module" or die $@;
	cmp_ok(scalar @names, '>', 3, "test/README.md has helpers of $module");
	is(join(' ', grep { !$module->can($_) } @names), '', "$module has them");
}
done_testing();

sub examples
{
	my ($file) = @_;
	my $document = slurp_file($file);
	my $heading = '';
	my @examples;

	while ($document =~ /^##? ([^\n]+)$|^```(sql|text)\n(.*?)^```$/msg)
	{
		$heading = $1 if defined $1;
		push @examples, { heading => $heading, sql => $3, text => '' } if ($2 // '') eq 'sql';
		$examples[-1]{text} = comparable($3) if ($2 // '') eq 'text';
	}
	cmp_ok(scalar @examples, '>', 5, "$file has examples");
	return @examples;
}

sub answer
{
	my ($database, $sql) = @_;
	my @psql = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-P', 'footer=off', '-P', 'pager=off', '-d', $node->connstr($database));
	my ($out, $err) = ('', '');
	my $ok = run(\@psql, '<', \$sql, '>', \$out, '2>', \$err);

	ok($ok, 'psql runs it') or diag("$sql\n$out\n$err");
	return comparable($out);
}

# Without what differs from run to run, or that an editor takes away.
sub comparable
{
	my ($text) = @_;

	$text =~ s/ received from server process with PID \d+\./ received/g;
	$text =~ s/[ \t]+$//mg;
	$text =~ s/\s+\z//;
	return $text;
}
