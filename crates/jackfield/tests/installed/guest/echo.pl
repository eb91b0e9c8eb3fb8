# An echo (RFC 862) at all addresses that the machine has at any time, by TCP and UDP, whose answers come from the
# address that was asked: that is, at each address as soon as it is there.
use strict;
use warnings;
use IO::Select;
use IO::Socket::IP;
use Socket;

my $PORT = 7;
my $select = IO::Select->new;
my %at;

sub listen_at {
    my ($address) = @_;
    my %to = (LocalHost => $address, LocalPort => $PORT);
    my $udp = IO::Socket::IP->new(%to, Proto => 'udp') or return;
    my $tcp = IO::Socket::IP->new(%to, Proto => 'tcp', Listen => 128, ReuseAddr => 1) or return;
    $_->blocking(0) for $udp, $tcp;
    $select->add($udp, $tcp);
    $at{$address} = [$udp, $tcp];
}

sub look_at_addresses {
    my %here = map { m{inet6? (\S+?)/} ? ($1 => 1) : () }
        split /\n/, `ip -oneline address show scope global -tentative`;
    for my $gone (grep { !$here{$_} } keys %at) {
        $select->remove(@{ $at{$gone} });
        delete $at{$gone};
    }
    listen_at($_) for grep { !$at{$_} } keys %here;
}

$SIG{CHLD} = 'IGNORE';
open my $changes, '-|', 'ip -oneline monitor address' or die;
$select->add($changes);
look_at_addresses();
while (my @ready = $select->can_read) {
    for my $socket (@ready) {
        if ($socket == $changes) {
            sysread $changes, my $line, 65536 or die;
            look_at_addresses();
        } elsif ($socket->socktype == SOCK_STREAM) {
            my $connection = $socket->accept or next;
            $connection->blocking(1);
            next if fork;
            while (sysread $connection, my $part, 65536) { syswrite $connection, $part }
            exit;
        } else {
            while (defined(my $peer = $socket->recv(my $packet, 65536))) {
                last unless length $packet;
                $socket->send($packet, 0, $peer);
            }
        }
    }
}
