# What the documentation shows is what happens: its blocks of SQL run, in order, and the
# block of text behind one is the end of what psql prints. And it has each column that
# there is.
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
	my $output = answer($example->{sql});

	like($output, qr/\Q$example->{text}\E\z/, "$example->{heading}: it shows what the text says");
}
is(join(', ', columns_not_named('docs/reference.md')), '', 'docs/reference.md names each column under its relation');
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

# Each view and table of the extension has a heading, and each column stands below it.
sub columns_not_named
{
	my ($file) = @_;
	my %section = slurp_file($file) =~ /^### (nexus_\w+)\n(.*?)(?=^##|\z)/msg;
	my @columns = split /\n/, $node->safe_psql('postgres', q{
		SELECT c.relname || '.' || a.attname
		FROM pg_depend d
		JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
		JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'v')
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE e.extname = 'nexus_kafka' AND a.attname <> 'singleton' ORDER BY 1});

	cmp_ok(scalar @columns, '>', 50, 'there are columns');
	return grep { my ($relation, $column) = split /\./; ($section{$relation} // '') !~ /`"?$column"?`/ } @columns;
}

sub answer
{
	my ($sql) = @_;
	my @psql = ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-P', 'footer=off', '-P', 'pager=off', '-d', $node->connstr('postgres'));
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
