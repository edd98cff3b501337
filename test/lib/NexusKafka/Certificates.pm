# A certification authority for tests.
#
#   my $ca = NexusKafka::Certificates->new;
#   my $broker = $ca->issue('localhost');               # certificate, key, keystore: files
#   my $late = $ca->issue('localhost', days => -1);     # expired yesterday
#
# keystore has key and certificate in one file, as Kafka's ssl.keystore.type=PEM wants it.
package NexusKafka::Certificates;

use strict;
use warnings;

use File::Temp ();
use IPC::Run ();
use PostgreSQL::Test::Utils qw(slurp_file);

sub new
{
	my ($class) = @_;
	my $self = bless { dir => File::Temp->newdir('nexus_kafka_ca.XXXXXX', TMPDIR => 1), issued => 0 }, $class;

	_openssl('req', '-x509', _new_key(), '-nodes', '-days', 2, '-subj', '/CN=an authority',
		'-keyout', "$self->{dir}/ca.key", '-out', $self->ca_file);
	return $self;
}

sub ca_file { return "$_[0]{dir}/ca.pem" }

# Options: days (how long it is valid), password (of the key).
sub issue
{
	my ($self, $name, %opt) = @_;
	my $base = "$self->{dir}/" . ++$self->{issued};
	my %issued = map { $_ => "$base.$_" } qw(certificate key keystore);

	_openssl('req', _new_key(), '-subj', "/CN=$name", '-addext', "subjectAltName=DNS:$name",
		(defined $opt{password} ? ('-passout', "pass:$opt{password}") : '-nodes'),
		'-keyout', $issued{key}, '-out', "$base.request");
	_openssl('x509', '-req', '-in', "$base.request", '-copy_extensions', 'copy', '-days', $opt{days} // 2,
		'-CA', $self->ca_file, '-CAkey', "$self->{dir}/ca.key", '-out', $issued{certificate});
	open(my $keystore, '>', $issued{keystore}) or die "$issued{keystore}: $!";
	print $keystore slurp_file($issued{key}), slurp_file($issued{certificate});
	close($keystore) or die "$issued{keystore}: $!";
	return \%issued;
}

sub _new_key
{
	return ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1');
}

sub _openssl
{
	my @command = ('openssl', @_);
	my ($out, $err);

	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or die "@command: $err";
	return;
}

1;
