# Asks the echo at an address, from another, by TCP and UDP, and dies where it does not answer.
use strict;
use warnings;
use IO::Select;
use IO::Socket::IP;

my ($from, $to) = @ARGV;
for my $by ('tcp', 'udp') {
    my $socket = IO::Socket::IP->new(
        LocalHost => $from, PeerHost => $to, PeerPort => 7, Proto => $by, Timeout => 10
    ) or die "$from -> $to by $by: $@";
    my $answered = 0;
    for (1 .. 5) {
        $socket->syswrite("is this line plugged in?") or next;
        $answered = IO::Select->new($socket)->can_read(2) && $socket->sysread(my $answer, 100);
        last if $answered;
    }
    $answered or die "$from -> $to by $by: no answer";
}
