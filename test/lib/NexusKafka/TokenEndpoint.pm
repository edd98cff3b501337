# An OAuth token endpoint on the loopback interface, which ends with the test, and the
# keys by which a broker tells its tokens.
#
#   my $endpoint = NexusKafka::TokenEndpoint->new;
#   $endpoint->url; $endpoint->jwks_file;
#   $endpoint->mode('refuse');      # or good, forged (by another key), silent
#   $endpoint->wait_for_more(4);    # until it has handed out so many more tokens
package NexusKafka::TokenEndpoint;

use strict;
use warnings;

use File::Temp ();
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use MIME::Base64 qw(encode_base64url);
use POSIX ();
use PostgreSQL::Test::Utils qw(slurp_file append_to_file);
use Time::HiRes qw(sleep time);

# The tokens are renewed by the client at four fifths of this.
my $token_life = 5;

sub new
{
	my ($class) = @_;
	my $self = bless { dir => File::Temp->newdir('nexus_kafka_tokens.XXXXXX', TMPDIR => 1) }, $class;
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', Proto => 'tcp') // die "can't listen: $!";

	_openssl('genrsa', '-out', "$self->{dir}/$_.key", '2048') for qw(good forged);
	my ($modulus) = _openssl('rsa', '-in', "$self->{dir}/good.key", '-noout', '-modulus') =~ /=([0-9A-F]+)/;
	append_to_file($self->jwks_file, encode_json({ keys => [
		{ kty => 'RSA', kid => 'one', alg => 'RS256', use => 'sig', e => 'AQAB', n => encode_base64url(pack('H*', $modulus)) } ] }));
	append_to_file("$self->{dir}/tokens", '');
	$self->mode('good');
	$self->{url} = 'http://127.0.0.1:' . $listener->sockport . '/token';
	$self->{pid} = fork() // die "fork: $!";
	if (!$self->{pid})
	{
		eval { $self->_serve($listener) };
		POSIX::_exit(0);    # without the test's own END blocks
	}
	return $self;
}

sub url { return $_[0]{url} }
sub jwks_file { return "$_[0]{dir}/jwks.json" }

sub wait_for_more
{
	my ($self, $more) = @_;
	my $tokens = "$self->{dir}/tokens";
	my $wanted = $more + -s $tokens;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (-s $tokens < $wanted)
	{
		die "timed out waiting for $more tokens" if time > $deadline;
		sleep 0.1;
	}
	return;
}

sub mode
{
	my ($self, $mode) = @_;

	append_to_file("$self->{dir}/mode.new", $mode);
	rename "$self->{dir}/mode.new", "$self->{dir}/mode" or die "rename: $!";
	return;
}

# Until the test has ended.
sub _serve
{
	my ($self, $listener) = @_;
	my $test = getppid();
	my @kept;

	$SIG{PIPE} = 'IGNORE';
	$listener->timeout(0.2);
	while (getppid() == $test)
	{
		my $client = $listener->accept or next;
		my $mode = slurp_file("$self->{dir}/mode");
		if ($mode eq 'silent')
		{
			push @kept, $client;
			next;
		}
		_read_request($client);
		print $client $mode eq 'refuse' ? _answer('401 Unauthorized', { error => 'invalid_client' })
		  : _answer('200 OK', { access_token => $self->_token($mode), token_type => 'Bearer', expires_in => $token_life });
		append_to_file("$self->{dir}/tokens", '.') if $mode ne 'refuse';
		close $client;
	}
	return;
}

sub _read_request
{
	my ($client) = @_;
	my $length = 0;

	while (defined(my $line = <$client>))
	{
		$length = $1 if $line =~ /^content-length: *(\d+)/i;
		last if $line =~ /^\r?\n/;
	}
	read($client, my $body, $length);
	return;
}

sub _answer
{
	my ($status, $body) = @_;
	my $text = encode_json($body);

	return "HTTP/1.1 $status\r\nContent-Type: application/json\r\nContent-Length: " . length($text) .
	  "\r\nConnection: close\r\n\r\n$text";
}

sub _token
{
	my ($self, $key) = @_;
	my $signed = join '.', map { encode_base64url(encode_json($_)) } { alg => 'RS256', typ => 'JWT', kid => 'one' },
	  { sub => 'nexus', aud => 'kafka', iss => 'test', iat => int(time), exp => int(time) + $token_life, scope => 'kafka' };

	my $signature = _openssl({ stdin => $signed }, 'dgst', '-sha256', '-sign', "$self->{dir}/$key.key", '-binary');
	return "$signed." . encode_base64url($signature);
}

sub _openssl
{
	my $opt = ref $_[0] ? shift : {};
	my @command = ('openssl', @_);
	my ($out, $err);

	IPC::Run::run(\@command, '<', \($opt->{stdin} // ''), '>', \$out, '2>', \$err) or die "@command: $err";
	return $out;
}

sub DESTROY
{
	my ($self) = @_;

	local ($?, $@);
	kill 'KILL', $self->{pid} and waitpid($self->{pid}, 0) if $self->{pid};
	return;
}

1;
