# shellcheck shell=bash disable=SC2034,SC2317
# What test/run, test/demo and test/bench/run share: Debian packages, a work copy,
# stepping down from root, building and installing, Kafka. To be sourced, with set -eu
# in force.
#
# Environment: PG_MAJOR (15 by default) or PG_CONFIG choose the PostgreSQL; TEST_USER
# the user that the servers run as when this is started by root (postgres by default);
# KEEP=1 leaves the work copy there, with results and logs.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
pg_major=${PG_MAJOR:-15}
pg_config_given=${PG_CONFIG:-}
export PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$pg_major/bin/pg_config}
test_user=${TEST_USER:-postgres}

packages_build=(gcc make pkg-config librdkafka-dev)
packages_server=()
packages_fuzz=(clang-14/clang-14 libclang-rt-14-dev)
packages_kafka=(kcat/kcat openssl/openssl openjdk-17-jdk-headless/javac maven/mvn python3-pip/pip3)
# Who names a pg_config of their own has a PostgreSQL that is not Debian's.
if [ -z "$pg_config_given" ]; then
	packages_build+=("postgresql-server-dev-$pg_major")
	packages_server+=("postgresql-$pg_major")
fi

say() {
	printf '== %s\n' "$*"
}

die() {
	printf '%s: %s\n' "$(basename "$0")" "$*" >&2
	exit 1
}

# Runs a command and shows what it printed only if it fails.
quietly() {
	local output

	output=$("$@" 2>&1) || {
		printf '%s\n' "$output" >&2
		return 1
	}
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		command -v sudo > /dev/null || die "this needs root, and there is no sudo: $*"
		sudo "$@"
	fi
}

# Sets the array step_down, to be put before a command: PostgreSQL refuses to run as
# root. A home directory of its own keeps the settings of whoever starts this
# (~/.psqlrc, ~/.pgpass) out of it.
set_step_down() {
	step_down=()
	if [ "$(id -u)" = 0 ]; then
		step_down=(setpriv --reuid "$test_user" --regid "$(id -g "$test_user")" --init-groups --)
	fi
	step_down+=(env HOME="$work/home" PATH="$("$PG_CONFIG" --bindir):$PATH")
}

as_user() {
	local step_down

	set_step_down
	"${step_down[@]}" "$@"
}

# For what uses the Perl modules of PostgreSQL's tests and of ours. What a test that is
# killed leaves in its temporary directory goes with the work copy.
as_user_with_perl_modules() {
	local pgxs

	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	as_user env \
		PERL5LIB="$tree/test/lib:$pgxs/src/test/perl" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" \
		TMPDIR="$work/tmp" TESTDIR="$work" TESTDATADIR="$work/tmp_check" TESTLOGDIR="$work/tmp_check/log" \
		"$@"
}

# Is it there? An entry is a Debian package, or package/command: then whatever brings
# the command will do.
have() {
	case $1 in
		*/*) command -v "${1#*/}" > /dev/null ;;
		*) [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ] ;;
	esac
}

install_packages() {
	local entry missing=()

	if ! command -v apt-get > /dev/null; then
		say "no apt-get here: taking it that these are installed: $*"
		return
	fi
	for entry in "$@"; do
		have "$entry" || missing+=("${entry%/*}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	say "installing Debian packages: ${missing[*]}"
	# An index that can't be had may not be the one that matters: installing decides.
	quietly as_root apt-get -qq update || say 'apt-get update failed, going on'
	quietly as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq -y --no-install-recommends install "${missing[@]}"
}

# The sources in a temporary directory that the ordinary user owns and can reach; the
# user's own tree stays as it is.
make_work_copy() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/nexus_kafka.XXXXXX")
	tree=$work/tree
	mkdir "$tree" "$work/home" "$work/tmp"
	tar -C "$root" --exclude=./.git --exclude=node_modules --exclude='*.o' --exclude='*.bc' \
		--exclude='*.so' --exclude=./tmp_check --exclude=./test/unit/build --exclude=./test/fuzz/build -cf - . |
		tar -C "$tree" --no-same-owner -xf -
	chmod 755 "$work"
	if [ "$(id -u)" = 0 ]; then
		chown -R "$test_user:" "$work"
	fi
}

remove_work_copy() {
	if [ -n "${KEEP:-}" ]; then
		say "kept: $work"
	elif [ -n "${work:-}" ]; then
		rm -rf "$work"
	fi
}

# Warnings are errors here.
build_and_install() {
	say "building against $("$PG_CONFIG" --version), librdkafka $(pkg-config --modversion rdkafka)"
	as_user make -s -C "$tree" -j"$(nproc)" WERROR=1
	if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
		make -s -C "$tree" install > /dev/null
	else
		as_root make -s -C "$tree" install PG_CONFIG="$PG_CONFIG" > /dev/null
	fi
}

# Fetched as the user who started this, whose settings and cache Maven and pip need;
# copied to where the ordinary user can read it.
provide_kafka() {
	local jars library

	say 'Apache Kafka, and a newer librdkafka: fetched by Maven and pip unless in the cache'
	jars=$("$tree/test/kafka/fetch")
	library=$("$tree/test/kafka/fetch-librdkafka")
	export NEXUS_KAFKA_CACHE=$work/cache
	as_user mkdir "$NEXUS_KAFKA_CACHE"
	cp -r "$jars" "$library" "$NEXUS_KAFKA_CACHE"
}
