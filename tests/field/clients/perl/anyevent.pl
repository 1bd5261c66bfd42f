use strict;
use warnings;
use AnyEvent;
use AnyEvent::WebSocket::Client;
use JSON::PP;

$| = 1;
my $done = AnyEvent->condvar;
my $connection;
AnyEvent::WebSocket::Client->new(max_payload_size => 1 << 17)->connect($ENV{ROOM_URL})->cb(sub {
    $connection = eval { shift->recv };
    unless ($connection) { print "refused $@\n"; return $done->send }
    $connection->on(each_message => sub {
        my ($connection, $message) = @_;
        print $message->body, "\n";
        my $content = decode_json $message->body;
        $connection->send(encode_json {type => 'auth_token', token => $ENV{TOKEN}}) if $content->{type} eq 'auth_required';
        $connection->send(encode_json {type => 'answer', answer => {}, to => $content->{from}}) if $content->{type} eq 'offer';
    });
    $connection->on(finish => sub {
        my ($connection) = @_;
        print 'closed ', $connection->close_code // '', ' ', $connection->close_reason // '', "\n";
        $done->send;
    });
});
$done->recv;
