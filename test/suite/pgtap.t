# test/pgtap/*.sql, each in a database of its own with the extension and pgTAP, against
# a server with the embedded broker.
use strict;
use warnings;

use File::Basename qw(basename);
use NexusKafka::Cluster;
use PostgreSQL::Test::Utils;
use TAP::Parser;
use Test::More;

my $node = NexusKafka::Cluster->make('pgtap', embedded => 1);

for my $file (glob 'test/pgtap/*.sql')
{
	my $name = basename($file, '.sql');

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION nexus_kafka; CREATE EXTENSION pgtap');
	my $rc = $node->psql($name, slurp_file($file), stdout => \my $tap, stderr => \my $stderr);
	pass_on($name, $tap);
	is($rc, 0, "$name: ran to its end") or diag($stderr);
}
done_testing();

sub pass_on
{
	my ($name, $tap) = @_;
	my $parser = TAP::Parser->new({ tap => $tap });

	while (my $result = $parser->next)
	{
		ok($result->is_ok, "$name " . $result->description) if $result->is_test;
		diag($result->comment) if $result->is_comment;
	}
	ok($parser->is_good_plan, "$name: as many tests as planned");
	return;
}
