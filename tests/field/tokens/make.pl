# Tokens by Crypt::JWT; see make.py.
use strict;
use warnings;
use Crypt::JWT qw(encode_jwt);

my ($key, $later) = ($ENV{JWT_SECRET_KEY}, time + 300);

sub tell_of {
    my ($form, $expected, %arguments) = @_;
    print join("\t", "Crypt::JWT", $form, $expected, encode_jwt(alg => "HS256", key => $key, %arguments)), "\n";
}

tell_of("relative_exp", "ok", payload => { sub => "alice" }, relative_exp => 300);
tell_of("time + 300", "ok", payload => { sub => "alice", exp => $later });
tell_of("exp that was a text", "`exp` is a text", payload => { sub => "alice", exp => "$later" });
tell_of("sub is a number", "`sub` is a number", payload => { sub => 7, exp => $later });
tell_of("a JWK with the secret as k", "base64", payload => { sub => "alice", exp => $later }, key => { kty => "oct", k => $key });
