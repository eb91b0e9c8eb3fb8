//! `jackfield import` from tools whose work Debian's ifupdown, DHCP client and systemd-networkd do: these
//! let go of an interface while packets go over it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use jackfield_lab::probe::{Echo, PacketStream};

use crate::harness::*;
use crate::networkd::{self, Networkd};
use crate::place::*;

const IFUPDOWN: [&str; 3] = ["/usr/sbin/ifup", "/usr/sbin/dhclient", "/usr/sbin/udhcpd"];

/// Packets over the IPv4 addresses, of which none may be lost while `work` is done.
fn nothing_is_lost<T>(place: &Place, addresses: &[IpAddr], work: impl FnOnce() -> T) -> T {
    let remote = place.stage.lab.remote();
    let _echo = Echo::start(place.a(), addresses).unwrap();
    answers_within_of(remote, addresses, PATIENCE);
    let every = Duration::from_millis(1);
    let start = |to: &IpAddr| (*to, PacketStream::start(remote, None, *to, every).unwrap());
    let streams: Vec<_> = addresses.iter().map(start).collect();
    let done = work();
    for (to, stream) in streams {
        let report = stream.finish();
        assert!(report.sent > 0, "{to}: nothing was sent");
        assert_eq!(report.lost, Vec::<u64>::new(), "{to}: of {} packets", report.sent);
    }
    assert_eq!(place.stage.lab.violations(), []);
    done
}

fn ipv4(interface: &Attached) -> Vec<IpAddr> {
    interface.addresses.iter().copied().filter(IpAddr::is_ipv4).collect()
}

/// What it is like is what a plug makes of it, but for how long an address is valid.
#[track_caller]
fn is_as_plugged(place: &Place, state: impl Fn() -> NetworkState) {
    let imported = state();
    let theirs: Vec<&str> = imported
        .lines()
        .filter(|line| line.contains("10001") && !line.contains("proto 106"))
        .filter(|line| !line.contains("jackfield:"))
        .collect();
    assert_eq!(theirs, Vec::<&str>::new());
    succeed(place.a(), &["unplug", "eth1"]);
    succeed(place.a(), &["plug", "eth1"]);
    assert_same(&state(), &imported);
}

#[test]
fn ubuntu_ec2net_with_a_client_that_has_a_lease_is_taken_over_and_the_lease_kept_from_ending() {
    if !has_programs(&IFUPDOWN) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let eth1 = place.stage.attach(2, 1, 2);
    let addresses = ipv4(&eth1);
    let _server = DhcpServer::start(&place, &eth1, 600);
    let gateway = "10.0.2.1";
    shell(
        a,
        &format!(
            "cat >/etc/network/interfaces.d/eth1.cfg <<'END'
# This file is automaticatically generated
# See https://github.com/jessecollier/ubuntu-ec2net for source
auto eth1
iface eth1 inet dhcp
post-up ip route add default via {gateway} dev eth1 table 10001
post-up ip route add default via {gateway} dev eth1 metric 10001
END
             echo 'supersede dhcp-server-identifier 255.255.255.255;' >/etc/dhcp/dhclient-eth1.conf
             ifup eth1 2>&1
             # What the client's hook does then.
             ip address add {}/24 brd + dev eth1
             ip rule add from {} lookup 10001
             ip rule add from {} lookup 10001",
            addresses[1], addresses[0], addresses[1]
        ),
    );
    assert_eq!(processes(a, "dhclient").len(), 1);
    assert!(shell(a, "ip -4 -o address show dev eth1 dynamic").contains(&addresses[0].to_string()));

    nothing_is_lost(&place, &addresses, || succeed(a, &["import", "--remove"]));
    assert_eq!(processes(a, "dhclient"), [""; 0]);
    assert_eq!(shell(a, "ip -4 -o address show dev eth1 dynamic"), "");
    assert_eq!(shell(a, "ls /etc/network/interfaces.d /run | grep -e eth1 || true"), "");
    assert!(!shell(a, "cat /run/network/ifstate").contains("eth1"));
    assert_eq!(
        succeed(a, &["import", "--remove"]),
        "nothing to do: neither ubuntu-ec2net nor amazon-ec2-net-utils is here\n"
    );
    is_as_plugged(&place, || NetworkState::settled(a));
}

/// systemd's `systemctl`, where systemd is not process 1: it starts networkd anew as its unit has it
/// (`RestartKillSignal=SIGUSR2`), and knows no service of a package that has gone: the timer runs on.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/systemctl.log
for unit; do
    case $unit in refresh-policy-routes@*.service)
        echo "Failed to stop $unit: Unit $unit not loaded." >&2
        exit 5
    esac
done
[ "$1" = restart ] || exit 0
old=$(cat /run/networkd.pid)
kill -USR2 $old
while readlink /proc/$old/exe >/dev/null; do sleep 0.02; done
setsid /lib/systemd/systemd-networkd >>/run/networkd.log 2>&1 </dev/null &
echo $! >/run/networkd.pid
"#;

/// The networkd that was started anew ends with it.
struct Restarted<'a>(&'a Place);

impl Drop for Restarted<'_> {
    fn drop(&mut self) {
        let end = "kill -KILL $(cat /run/networkd.pid)";
        let _ = self.0.a().command("sh").unwrap().args(["-c", end]).output();
    }
}

#[test]
fn networkd_lets_an_interface_of_amazon_ec2_net_utils_go_and_no_packet_is_lost() {
    if !has_programs(&networkd::PROGRAMS) || !has_programs(&["/usr/sbin/udhcpd"]) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let eth1 = place.stage.attach(2, 1, 2);
    let addresses = ipv4(&eth1);
    let _server = DhcpServer::start(&place, &eth1, 600);
    let network = "/run/systemd/network/70-eth1.network";
    let (first, second, mac) = (addresses[0], addresses[1], eth1.mac);
    shell(
        a,
        &format!(
            "mkdir -p /run/systemd/system /run/bin /run/default {network}.d
             mount --bind /run/default /usr/lib/systemd/network
             cat >/run/bin/systemctl <<'END'
{SYSTEMCTL}END
             chmod 755 /run/bin/systemctl
             printf '[Match]\\nName=eth0\\n[Link]\\nUnmanaged=yes\\n' >/etc/systemd/network/10-eth0.network
             printf '[Match]\\nDriver=veth\\n[Network]\\nDHCP=yes\\nIPv6AcceptRA=no\\n' \\
                 >/usr/lib/systemd/network/80-ec2.network
             ln -s /usr/lib/systemd/network/80-ec2.network {network}
             cat >{network}.d/eni.conf <<'END'
# Configuration for eth1 generated by policy-routes@eth1.service
[Match]
MACAddress={mac}
[Network]
DHCP=yes

[DHCPv4]
RouteMetric=513
UseRoutes=true
UseGateway=true

[Route]
Gateway=_dhcp4
Table=10001
[Route]
Table=10001
Destination=10.0.2.0/24
END
             printf '[Address]\\nAddress={second}/32\\nAddPrefixRoute=false\\n' \\
                 >{network}.d/ec2net_alias.conf
             for source in {first} {second}; do
                 printf '[RoutingPolicyRule]\\nFrom=%s\\nPriority=10001\\nTable=10001\\n' $source
             done >{network}.d/ec2net_policy_4.conf"
        ),
    );
    let mut networkd = Networkd::start(&place, "");
    shell(a, &format!("echo {} >/run/networkd.pid", networkd.pid()));
    let _restarted = Restarted(&place);
    eventually("networkd has configured eth1", PATIENCE, || {
        let is = shell(a, "ip rule; ip route show table 10001; ip address show eth1");
        [format!("from {second} lookup 10001"), "default via".into(), format!("{first}/24")]
            .iter()
            .all(|part| is.contains(part))
    });

    let import = || -> Output {
        let config = ConfigFile::new(LAB_CONFIG);
        let path = format!("/run/bin:{}", std::env::var("PATH").unwrap());
        let mut command = a.command(JACKFIELD).unwrap();
        command.env("PATH", path).args(["--config", config.path(), "import", "--remove"]);
        command.output().unwrap()
    };
    let output = nothing_is_lost(&place, &addresses, import);
    assert!(output.status.success(), "{output:?}\n{}", shell(a, "cat /run/networkd.log"));
    assert_eq!(
        shell(a, "cat /run/systemctl.log"),
        "stop refresh-policy-routes@eth1.timer\n\
         stop refresh-policy-routes@eth1.service\n\
         restart systemd-networkd.service\n"
    );
    let told = String::from_utf8(output.stdout).unwrap();
    let stopped: Vec<&str> = told.lines().filter(|line| line.starts_with("stopped")).collect();
    assert_eq!(stopped, ["stopped refresh-policy-routes@eth1.timer"]);
    assert_eq!(shell(a, "ls -d /run/systemd/network/*eth1* 2>/dev/null || true"), "");
    // It may be told to read its files as often as somebody likes.
    let unchanged = networkd::settled(&place);
    nothing_is_lost(&place, &addresses, || {
        eventually("networkd answers", PATIENCE, || {
            let mut networkctl = a.command("networkctl").unwrap();
            networkctl.arg("reload").output().unwrap().status.success()
        });
    });
    assert_same(&unchanged, &networkd::settled(&place));
    let said: BTreeSet<String> = shell(a, "networkctl --no-legend list eth1")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert!(said.contains("unmanaged"), "{said:?}");
    is_as_plugged(&place, || networkd::settled(&place));
}
