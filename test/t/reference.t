# The catalog, the sources and docs/reference.md say the same: each function with its arguments,
# defaults and result, each column, option and setting, and which SQLSTATEs there are.
# (test/suite/lint.t has what needs no server.)
use strict;
use warnings;

use NexusKafka::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = NexusKafka::Cluster->make('reference');
my $reference = slurp_file('docs/reference.md');
my %section = $reference =~ /^### ([^\n]+)\n(.*?)(?=^##|\z)/msg;
my $members = q{
	FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'nexus_kafka' AND d.deptype = 'e'};

$node->create_extension('postgres');
functions();
defaults();
columns();
options();
settings();
sqlstates();
health();
done_testing();

sub sql { return $node->safe_psql('postgres', @_) }
sub lines { return split /\n/, sql(@_) }

# ---- functions

sub functions
{
	my %shown = map {; "$_->{name}($_->{in}) $_->{result}" => 1 } signatures();
	my %there = map { $_ => 1 } grep { my ($name) = /^(\w+)/; $section{'Other functions'} !~ /^\| `$name\(/m } functions_there();

	cmp_ok(scalar keys %there, '>', 20, 'there are functions');
	is_deeply([ sort keys %shown ], [ sort keys %there ], 'each function has its arguments and result');
	for my $row (lines("SELECT p.proname || E'\\t' || regexp_replace(obj_description(p.oid, 'pg_proc'), '\\s+', ' ', 'g')
		FROM pg_proc p WHERE p.oid IN (SELECT d.objid $members AND d.classid = 'pg_proc'::regclass)"))
	{
		my ($name, $comment) = split /\t/, $row;
		my $text = join ' ', $section{$name} // (), $section{'Other functions'} =~ /^\| (`$name\(.*)/mg;
		my @codes = codes_in($comment);

		is(join(' ', grep { $text !~ /\b$_\b/ } @codes), '', "$name has the SQLSTATEs of its comment") if @codes;
	}
}

# The indented blocks of the reference.
sub signatures
{
	my @found;

	for my $name (grep { /^nexus_/ } keys %section)
	{
		for my $text ($section{$name} =~ /^(    nexus_\w+\([^\n]*\n(?:     +[^\n]*\n)*)/mg)
		{
			$text =~ s/\s+/ /g;
			$text =~ s/"//g;
			my ($function, $arguments, $result) = $text =~ /^ (nexus_\w+)\((.*?)\)(?: → (.*?))? ?$/ or next;
			push @found, signature($function, [ split /, /, $arguments ], $result);
		}
	}
	return @found;
}

sub signature
{
	my ($name, $arguments, $result) = @_;
	my @out = map { /^OUT (.*)/ } @$arguments;
	my @in = grep { !/^OUT / } @$arguments;

	return {
		name => $name, in => join(', ', map { s/ DEFAULT .*//r } @in), result => $result // '(' . join(', ', @out) . ')',
		defaults => { map { /^(\w+) (.*) DEFAULT (.*)/ ? ($1 => [ $2, $3 ]) : () } @in } };
}

# In the same form: "name(argument type, …) result".
sub functions_there
{
	return map { s/timestamp with time zone/timestamptz/gr } lines(qq{
		SELECT p.proname || '(' || coalesce(a.arguments, '') || ') ' ||
			CASE WHEN p.proretset THEN 'setof ' ELSE '' END || coalesce('(' || a.results || ')', format_type(p.prorettype, NULL))
		FROM pg_proc p
		CROSS JOIN LATERAL (
			SELECT string_agg(p.proargnames[n] || ' ' || format_type(t, NULL), ', ' ORDER BY n) FILTER (WHERE coalesce(p.proargmodes[n], 'i') = 'i'),
				string_agg(p.proargnames[n] || ' ' || format_type(t, NULL), ', ' ORDER BY n) FILTER (WHERE p.proargmodes[n] IN ('o', 't'))
			FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS u (t, n)) AS a (arguments, results)
		WHERE p.oid IN (SELECT d.objid $members AND d.classid = 'pg_proc'::regclass) AND p.prorettype <> 'trigger'::regtype});
}

# Where a signature has any default, it has all.
sub defaults
{
	for my $shown (grep { %{ $_->{defaults} } } signatures())
	{
		my $types = join ', ', map { s/^\w+ //r } split /, /, $shown->{in};
		my %there = map { split /\t/ } lines(qq{
			SELECT p.proargnames[n] || E'\\t' || pg_get_function_arg_default(p.oid, n::integer)
			FROM pg_proc p, generate_series(1, p.pronargs) n
			WHERE p.oid = to_regprocedure('$shown->{name}($types)') AND pg_get_function_arg_default(p.oid, n::integer) IS NOT NULL});

		is_deeply([ sort keys %{ $shown->{defaults} } ], [ sort keys %there ], "$shown->{name} has these defaults");
		for my $argument (grep { $there{$_} } keys %{ $shown->{defaults} })
		{
			my ($type, $default) = @{ $shown->{defaults}{$argument} };

			is(sql("SELECT ($default)::$type IS NOT DISTINCT FROM ($there{$argument})"), 't', "$shown->{name}: $argument is $default");
		}
	}
}

# ---- relations

# Each column stands in its section, and no other has a row there.
sub columns
{
	my %there;

	push @{ $there{ $_->[0] } }, $_->[1] for map { [ split /\./ ] } lines(qq{
		SELECT c.relname || '.' || a.attname
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.oid IN (SELECT d.objid $members AND d.classid = 'pg_class'::regclass) AND c.relkind IN ('r', 'v')
			AND a.attname <> 'singleton' ORDER BY 1});

	cmp_ok(scalar keys %there, '>', 7, 'there are relations');
	for my $relation (sort keys %there)
	{
		my $text = $section{$relation} // '';
		my @shown = $text =~ /^\| column \| \|\n\|-+\|-+\|\n((?:\|.*\n)+)/m ? map { names_in((split /\|/)[1]) } split /\n/, $1 : ();

		is(join(' ', grep { $text !~ /`"?$_"?`/ } @{ $there{$relation} }), '', "$relation: each column is there");
		is_deeply([ sort @shown ], [ sort @{ $there{$relation} } ], "$relation: its table has these columns") if @shown;
	}
}

sub names_in
{
	return map { tr/"//dr } $_[0] =~ /`([^`]+)`/g;
}

# ---- options and settings

sub options
{
	my %takes = slurp_file('src/admin/options.c') =~ /^\s*\{"(\w+)", OPTION_[^"]*"((?:[^"\\]|\\.)*)"\}/msg;
	my ($rows) = $reference =~ /^\| option \| default \| takes \|\n\|[-|]+\n(.*?)\n\n/ms;
	my %shown = map { /^\| \[`(\w+)`\]\(#\1\) \| (.*?) \| (.*) \|$/ ? ($1 => [ map { tr/`//dr } $2, $3 ]) : () } split /\n/, $rows // '';

	cmp_ok(scalar keys %takes, '>', 8, 'there are options');
	is_deeply([ sort keys %shown ], [ sort keys %takes ], 'each option has a row');
	for my $option (grep { $takes{$_} } sort keys %shown)
	{
		my $default = sql("SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a
			ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.adrelid = 'nexus_pipelines'::regclass AND a.attname = '$option'");

		$default = $default eq '' ? 'none' : $default eq 'CURRENT_USER' ? 'who makes it' : sql("SELECT ($default)::text");
		is_deeply($shown{$option}, [ $default, $takes{$option} =~ s/\\"/"/gr ], "$option: its default, and what it takes");
		ok($section{$option}, "$option has a section");
	}
}

sub settings
{
	my %who = (sighup => 'reload', postmaster => 'restart', superuser => 'superuser, any time');
	my @rows = map { [ split /\s*\|\s*/ ] } $reference =~ /^(\| `nexus_kafka\.\w+` \|.*)/mg;
	my %shown = map { $_->[1] =~ tr/`//dr => [ @$_[ 2 .. 4 ] ] } @rows;
	my %there;

	for my $row (lines(q{SELECT concat_ws(E'\t', name, vartype, context, boot_val, coalesce(min_val, ''), coalesce(max_val, ''), coalesce(unit, '')) || E'\t.'
		FROM pg_settings WHERE name ~ '^nexus_kafka[.]'}))
	{
		my ($name, $type, $context, $default, $min, $max, $unit) = split /\t/, $row;

		$there{$name} = [
			$default eq '' ? 'empty' : "`$default$unit`",
			$type eq 'integer' ? "$min to $max" . ($unit eq 'B' ? ' bytes' : $unit) : '',
			$who{$context} // $context ];
	}
	cmp_ok(scalar keys %there, '>', 5, 'there are settings');
	is_deeply(\%shown, \%there, 'each setting has its default with its unit, its range, and who changes it');
}

sub health
{
	my ($rows) = $section{nexus_health} =~ /^\| field \| \|\n\|[-|]+\n((?:\|.*\n)+)/m;

	is_deeply([ sort map { names_in((split /\|/)[1]) } split /\n/, $rows // '' ],
		[ lines('SELECT k FROM jsonb_object_keys(nexus_health()) k ORDER BY k COLLATE "C"') ], 'nexus_health() has these fields');
}

# ---- SQLSTATEs

sub sqlstates
{
	my %code = codes();
	my %name = reverse %code;
	my %sources = map { $code{$_} => 1 } map { without_categories(slurp_file($_)) =~ /\bERRCODE_(\w+)/g } glob 'src/*.c src/*/*.[ch]';
	my %conditions = $section{'Errors of the functions'} =~ /^\| (\w{5}) \| (\w+) \|/mg;

	# What no caller of a function sees: random bytes fail, a dry run is undone, another writer had the offsets, the
	# postmaster is gone, the extension is.
	my %inside = map { $_ => 1 } qw(XX000 00000 40001 57P01 42P01 3F000);

	# What PostgreSQL itself raises in the functions, or in a statement.
	my %of_postgresql = map { $_ => 1 } qw(22003 22007 2201B 25006 42703 42P01 55P03 57014 P0001);

	is($code{ uc $conditions{$_} } // '', $_, "$_ is $conditions{$_}") for sort keys %conditions;
	is(join(' ', grep { !$inside{$_} && $reference !~ /\b$_\b/ } sort keys %sources), '', 'the reference has each SQLSTATE that the sources raise');
	is(join(' ', grep { !$sources{$_} && !$of_postgresql{$_} } codes_in($reference)), '', 'and no other');
}

# By name, as PostgreSQL has them.
sub codes
{
	chomp(my $directory = `$ENV{PG_CONFIG} --includedir-server`);

	return map { /^#define ERRCODE_(\w+) MAKE_SQLSTATE\('(.)','(.)','(.)','(.)','(.)'\)/ ? ($1 => "$2$3$4$5$6") : () }
	  split /\n/, slurp_file("$directory/utils/errcodes.h");
}

sub codes_in
{
	my ($text) = @_;
	my %known = reverse codes();

	return sort keys %{ { map { $_ => 1 } grep { $known{$_} } $text =~ /\b([0-9A-Z]{5})\b/g } };
}

# A class of errors is asked for, not raised.
sub without_categories
{
	my ($code) = @_;

	$code =~ s{/\*.*?\*/}{}gs;
	$code =~ s/ERRCODE_TO_CATEGORY(\([^()]*\))?//g;
	$code =~ s/== ERRCODE_\w+//g;
	return $code;
}
