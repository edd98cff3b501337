# What holds the sources together, and no compiler checks: the layers of src/ depend on
# each other in one direction, each thing that has one place is there only, the shell
# scripts pass shellcheck, and the documentation names all there is.
use strict;
use warnings;

use File::Basename qw(basename dirname);
use Test::More;

# A layer may include itself and these; what is directly in src/ is known everywhere
# but in kafka, and its .c files may include everything.
my %may_include = (
	kafka => [],
	catalog => ['.'],
	worker => [qw(. catalog kafka)],
	guard => ['.'],
	produce => [qw(. worker catalog kafka)],
	ingest => [qw(. guard worker catalog kafka)],
	admin => [qw(. ingest guard produce worker catalog kafka)]);

my @sources = glob 'src/*.[ch] src/*/*.[ch]';
my @tables = slurp(glob 'sql/nexus_kafka--*.sql') =~ /^CREATE TABLE \@extschema\@\.(\w+)/mg;

cmp_ok(scalar @sources, '>', 10, 'there are sources');
cmp_ok(scalar @tables, '>', 3, 'the install script has tables');

for my $file (@sources)
{
	my $text = slurp($file);
	my $code = without_comments($text);
	my $layer = layer_of($file);

	like($text, qr{\A/\*.*?\w}s, "$file opens with a comment");
	is_deeply([ upward_includes($layer, $code) ], [], "$file includes only what is below it");
	unlike($code, qr/\b(PG_VERSION_NUM|PG_MAJORVERSION_NUM)\b/, "$file has no test of PostgreSQL's version")
	  unless $file eq 'src/compat.h';
	is_deeply([ tables_named($code) ], [], "$file names no table of the extension")
	  unless $layer eq 'catalog';
}

my $reference = slurp('docs/reference.md');
my %there_is = names_that_exist();

for my $kind (sort keys %there_is)
{
	my @names = sort keys %{ $there_is{$kind} };

	cmp_ok(scalar @names, '>', 1, "there are names of the kind $kind");
	is(join(', ', grep { $reference !~ /`\Q$_\E\b|^#+ \Q$_\E$/m } @names), '', "docs/reference.md names each $kind");
}
is_deeply(to_set($reference =~ /^## States\n(.*?)^## /ms ? $1 =~ /^\| `(\w+)` \|/mg : ()), $there_is{state}, 'docs/reference.md has these states');
is_deeply(properties_in('may be set'), to_set(properties_allowed()), 'docs/reference.md has the properties that may be set');
is_deeply(properties_in('may not'), { properties_refused() }, 'and those that may not, with the reasons');
for my $file (glob 'README.md NEWS.md docs/*.md src/README.md test/README.md')
{
	is(join(', ', broken_links($file)), '', "the links of $file lead somewhere");
	is(join(', ', files_not_there($file)), '', "the sources that $file names are there");
}
cmp_ok(slurp('README.md') =~ tr/\n//, '<=', 250, 'README.md has 250 lines at most');

# docs/troubleshooting.md has the reasons of states as patterns: each has one that fits, and none is of the past.
{
	my @reasons = reasons_that_exist();
	my %pattern = map { $_ => join('.*', map { quotemeta } split /…/, $_, -1) =~ s/^(connection\\ \.\*\\:\\ )/(?:$1)?/r }
	  slurp('docs/troubleshooting.md') =~ /^\| `\w+` \| `([^`]+)` \|.*\|$/mg;

	cmp_ok(scalar @reasons, '>', 30, 'there are reasons');
	is(join("\n", grep { my $reason = $_; !grep { $reason =~ /^$_$/ } values %pattern } @reasons), '',
		'docs/troubleshooting.md has each reason of a state');
	is(join("\n", grep { my $like = $pattern{$_}; !/^… \(SQLSTATE …\)$/ && !grep { /^$like$/ } @reasons } sort keys %pattern), '',
		'and none that the sources don\'t have');
}

is_deeply([ same_names() ], [], 'test files have names of their own, and so logs of their own');

for my $script (shell_scripts())
{
	my $findings = `shellcheck -x -P SCRIPTDIR '$script' 2>&1`;
	is($findings, '', "$script passes shellcheck");
}

# Whoever sets the clock must not move a deadline.
is(join("\n", map { deadlines_by_the_wall_clock($_) } glob 'src/*.c src/*/*.c'), '', 'deadlines go by the monotonic clock');

# Which conditions a file sets or clears is told in worker.h.
{
	my %told = owners_told();
	my %found = owners_found();

	is($found{$_} // '', $told{$_}, "$_ is set and cleared where worker.h says") for sort keys %told;
	is_deeply([ conditions_in_readme() ], [ conditions_in_order() ], 'src/README.md has the conditions by rank, with state and owner');
	is_deeply([ conditions_in_diagram() ], [ sort map { join ' ', (split)[ 0, 1 ] } conditions_in_order() ], 'and in its diagram, with the state');
	is_deeply([ conditions_tested() ], [ sort map { /^(\w+)/ } conditions_in_order() ], 'each comes and goes in a test');
}

# Which file writes a part of the relay is told in src/README.md.
{
	my %told = slurp('src/README.md') =~ /^\| `(\w+)` \| ([\w.]+\.c(?:, [\w.]+\.c)*) \|/mg;

	cmp_ok(scalar keys %told, '>', 5, 'src/README.md tells who writes the parts of the relay');
	is(join(', ', writers_of($_)), $told{$_}, "$_ is written where src/README.md says") for sort keys %told;
}

done_testing();

# The files in src/produce/ that assign to a field of the struct, by the name that its variables have.
sub writers_of
{
	my ($struct) = @_;
	my $field = '\b' . lc($struct) . '(?:->|\.)\w+(?:(?:->|\.)\w+|\[[^\]]*\])*';
	my @files;

	foreach my $file (glob 'src/produce/*.c')
	{
		my $code = without_comments(slurp($file));
		push @files, basename($file) if $code =~ /$field\s*(?:=(?!=)|[-+|&]=|\+\+|--)|(?:\+\+|--)(?:relay(?:->|\.))?$field/;
	}
	return @files;
}

sub slurp
{
	local (@ARGV, $/) = @_;
	return join '', map { $_ // '' } <>;
}

sub without_comments
{
	my ($text) = @_;

	$text =~ s{/\*.*?\*/}{}gs;
	return $text;
}

sub layer_of
{
	my ($file) = @_;

	return dirname($file) eq 'src' ? '.' : basename(dirname($file));
}

# PostgreSQL has a directory catalog/ as well: ours is what is there.
sub upward_includes
{
	my ($layer, $code) = @_;
	my @includes = $code =~ /^#\s*include\s+["<]([^">]+)[">]/mg;

	return grep { /postgres|fmgr\.h|utils\// || ours($_) && layer_of(ours($_)) ne 'kafka' } @includes
	  if $layer eq 'kafka';
	return if $layer eq '.';

	my %allowed = map { $_ => 1 } $layer, @{ $may_include{$layer} // [] };
	return grep { ours($_) && !$allowed{ layer_of(ours($_)) } } @includes;
}

# The file of ours that an include means, if it does.
sub ours
{
	my ($include) = @_;

	return (grep { -f } "src/$include")[0] // (grep { -f } "src/kafka/$include")[0];
}

# What a message tells the user to look at is no access to it.
sub tables_named
{
	my ($code) = @_;
	my $string = qr/"(?:[^"\\\n]|\\.)*"/;

	$code =~ s/\berr(?:msg|detail|hint)\w*\s*\(\s*(?:$string\s*)+//g;
	return grep { my $table = $_; grep { /\b$table\b/ } $code =~ /$string/g } @tables;
}

# What a user meets by its name, from where it is defined.
sub names_that_exist
{
	my $script = slurp(glob 'sql/nexus_kafka--*.sql');
	my $states = slurp('src/worker/condition.c') =~ /job_state_name.*?\{(.*?)\};/s ? $1 : '';

	return (
		function => to_set($script =~ /^CREATE FUNCTION \@extschema\@\.(\w+)/mg),
		relation => to_set($script =~ /^CREATE (?:TABLE|VIEW) \@extschema\@\.(\w+)/mg),
		option => to_set(slurp('src/admin/options.c') =~ /^\s*\{"(\w+)", OPTION_/mg),
		setting => to_set(slurp('src/nexus_kafka.c') =~ /DefineCustom\w+Variable\("([\w.]+)"/g),
		state => to_set($states =~ /"(\w+)"/g, slurp('src/admin/status.c') =~ /\bstate = "(\w+)"/g));
}

# As src/kafka/property_names.c has them, and with the reason.
sub properties_allowed
{
	return slurp('src/kafka/property_names.c') =~ /\ballowed\[\] = \{(.*?)\};/s ? $1 =~ /"([^"]+)"/g : ();
}

sub properties_refused
{
	return slurp('src/kafka/property_names.c') =~ /\brefused\[\] = \{(.*?)\};/s ? $1 =~ /\{"([^"]+)", "([^"]+)"\}/g : ();
}

# Of the first table of a section "Properties that …", where a cell has reasons: with these.
sub properties_in
{
	my ($which) = @_;
	my ($table) = $reference =~ /^### Properties that $which\n.*?^(\|.*?)\n\n/ms;
	my %properties;

	for my $row (split /\n/, $table // '')
	{
		my (undef, @cells) = split /\s*\|\s*/, $row;
		my ($names, $why) = $which eq 'may not' ? @cells : ($cells[1], 1);
		$properties{$_} = $why =~ tr/`//dr for ($names // '') =~ /`([a-z.]+\*?)`/g;
	}
	return \%properties;
}

sub deadlines_by_the_wall_clock
{
	my ($file) = @_;
	my $code = without_comments(slurp($file));

	return map { "$file: $_" } $code =~ /(TimestampTzPlus\w+|TimestampDifference\w+|GetCurrentTimestamp\(\)\s*[-+<>])/g;
}

# STARTING is no trouble: it comes and goes with the process.
sub owners_told
{
	my $list = slurp('src/worker/worker.h') =~ /typedef enum JobCondition\n\{(.*?)\} JobCondition;/s ? $1 : '';
	my %owners = $list =~ /(CONDITION_\w+),\s*\/\* ([\w.]+\.c(?:, \w+\.c)*)/g;

	delete $owners{CONDITION_STARTING};
	$_ = join ', ', sort split /, / for values %owners;
	return %owners;
}

sub owners_found
{
	my %files;

	for my $file (glob 'src/*/*.c')
	{
		next if basename($file) eq 'condition.c';
		$files{$_}{ basename($file) } = 1
		  for map { /(CONDITION_\w+)/g } slurp($file) =~ /(?:job_condition_(?:set|clear)|note_again)\(([^;]*?)(?:"|\);)/g;
	}
	return map { $_ => join(', ', sort keys %{ $files{$_} }) } keys %files;
}

# State and owners of each condition, from the highest on: by the table of src/README.md, and by the sources.
sub conditions_in_readme
{
	my ($table) = slurp('src/README.md') =~ /^\| condition, highest first .*?\n\|[-|]+\n(.*?)\n\n/ms;

	return map {
		my @cells = split /\s*\|\s*/;
		my ($name) = $cells[1] =~ /^`(\w+)`: /;
		join ' ', $name // $cells[1], $cells[2], join ', ', sort $cells[3] =~ /\w+\.c/g;
	} split /\n/, $table // '';
}

sub conditions_in_order
{
	my ($list) = slurp('src/worker/worker.h') =~ /typedef enum JobCondition\n\{(.*?)\} JobCondition;/s;
	my %owners = $list =~ /(CONDITION_\w+),?\s*\/\* ([\w.]+\.c(?:, \w+\.c)*)/g;
	my %state = slurp('src/worker/condition.c') =~ /\[(CONDITION_\w+)\] = \{JOB_(\w+)/g;

	return map { s/^CONDITION_//r . ' `' . lc($state{$_}) . '` ' . join ', ', sort split /, /, $owners{$_} // '' } $list =~ /(CONDITION_\w+)/g;
}

# Lines "state <── CONDITION, CONDITION", the conditions maybe on more than one.
sub conditions_in_diagram
{
	my ($diagram) = slurp('src/README.md') =~ /^(    \w+ +<── .*?)\n\n/ms;
	my @pairs;
	my $state;

	for my $line (split /\n/, $diagram // '')
	{
		my ($new, $conditions) = $line =~ /^    (\w*) *(?:<── )?(.*)/;
		$state = $new if $line =~ /<──/;
		push @pairs, map { "$_ `$state`" } $conditions =~ /\b([A-Z]+(?:_[A-Z]+)*)\b/g;
	}
	return sort @pairs;
}

# By the tables of test/t/conditions.t and test/kafka/t/conditions_kafka.t.
sub conditions_tested
{
	return sort keys %{ to_set(slurp(glob 'test/{t,kafka/t}/conditions*.t') =~ /\bcondition => '(\w+)'/g) };
}

# What nexus_status can show as a reason, with x for what is filled in. Where all of it is
# filled in, it says what PostgreSQL, librdkafka or the broker says, or a text found elsewhere.
sub reasons_that_exist
{
	my $string = qr/"((?:[^"\\]|\\.)*)"/;
	my $script = slurp(glob 'sql/nexus_kafka--*.sql');
	my @reasons;

	for my $file (grep { !m{worker/broker\.c} } glob 'src/*/*.[ch]')	# the embedded broker is no row of nexus_status
	{
		my $code = one_string_each(without_comments(slurp($file)));

		push @reasons, $code =~ /(?:job_condition_set|ingest_stop|await_resume)\([^";]*?$string/g,
		  $code =~ /#define \w+_REASON\s+$string/g, $code =~ /\*reason = (?:psprintf\()?$string/g,
		  $code =~ /paused_reason\s*=\s*'((?:[^'"])*)'/g, $code =~ /pg_catalog\.format\('([^']*)'/g;
		push @reasons, $code =~ /psprintf\($string/g if $file =~ m{ingest/pipeline_topics\.c};
		push @reasons, $code =~ /^catalog_role_mistake\(.*?^\}/ms ? $& =~ /psprintf\($string/g : () if $file =~ m{catalog/pipelines\.c};
		push @reasons, $code =~ /^explain_none\(.*?^\}/ms ? $& =~ /\bnone = (.*?);/g : () if $file =~ m{worker/link\.c};
	}
	push @reasons, $script =~ /new\.paused_reason := '((?:[^']|'')*)'/g, $script =~ /c\.paused_reason, '((?:[^']|'')*)'/g,
	  $script =~ /THEN '(nexus_kafka\.config_file (?:[^']|'')*)'/g, $script =~ /format\('(the table was there (?:[^']|'')*)'/g;
	@reasons = map { /^[^"]*\? "|^"/ ? /$string/g : $_ } @reasons;
	return grep { /[^x]/ } map { s/\\"/"/gr =~ s/''/'/gr =~ s/%[-.\d]*l*[sduI]/x/gr } @reasons;
}

# Strings that stand beside each other, or around a format, or that SQL puts together, as one.
sub one_string_each
{
	my ($code) = @_;

	$code =~ s/"\s*U?INT64_FORMAT\s*(?=[,)])/%d"/g;
	$code =~ s/"\s*U?INT64_FORMAT\s*"/%d/g;
	$code =~ s/(?<!\\)"\s*"//g;
	$code =~ s/' OPERATOR\(pg_catalog\.\|\|\) \w+ OPERATOR\(pg_catalog\.\|\|\) '/%s/g;
	return $code;
}

# Names of sources, as the documentation has them.
sub files_not_there
{
	my ($file) = @_;
	my %there = map { basename($_) => 1 } glob 'src/*.[ch] src/*/*.[ch] test/*/*.[ch] test/*/*/*.[ch] {test,.}/*/*.pm test/lib/NexusKafka/* test/*/*.t test/*/*/*.t test/*/*';

	return grep { !/\bNAME\./ && !$there{ basename($_) } } slurp($file) =~ m{(?<![\w.*])([\w/]+\.(?:c|h|t|pm|pl))\b(?!\.)}g;
}

sub to_set
{
	return { map { $_ => 1 } @_ };
}

# Those to a file or heading of the documentation that isn't there.
sub broken_links
{
	my ($file) = @_;

	return grep {
		my ($path, $heading) = /^([^#]*)(?:#(.*))?$/;
		my $target = $path eq '' ? $file : dirname($file) . "/$path";
		!-f $target || defined $heading && !grep { anchor($_) eq $heading } slurp($target) =~ /^#+ (.+)$/mg;
	} grep { !/^https?:/ } slurp($file) =~ /\]\(([^)\s]+)\)/g;
}

# As GitHub makes it of a heading.
sub anchor
{
	my $anchor = lc $_[0];

	$anchor =~ s/[^\w\s-]//g;
	$anchor =~ s/ /-/g;
	return $anchor;
}

sub same_names
{
	my %seen;

	return grep { $seen{ basename($_) }++ } glob 'test/{suite,t,kafka/t,interop/t}/*.t';
}

sub shell_scripts
{
	return grep { -f && slurp($_) =~ /\A#(!.*\b(ba)?sh\b| shellcheck shell)/ }
	  glob '.ci/* test/* test/*/*';
}
