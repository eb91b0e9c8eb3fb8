//! An instance that a tool has configured, and the traffic that goes over it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use jackfield_kernel::{Family, Route, RouteFilter, Rtnetlink, Rule};
use jackfield_lab::probe::{Echo, PacketStream};
use jackfield_lab::{Host, Instance};
use serde_json::Value;

use crate::harness::*;

const OURS: u8 = 106;

/// Everything of a host's network, but for how long addresses are valid.
pub(super) fn state(host: &Host) -> BTreeSet<String> {
    let settled = NetworkState::settled(host);
    settled.lines().map(|it| it.split(" valid_lft").next().unwrap().to_owned()).collect()
}

/// An instance with two secondary interfaces in different subnets, with directories of its own where the
/// tools have files.
pub(super) struct Place {
    pub(super) stage: Stage,
    pub(super) interfaces: Vec<Attached>,
    /// Before any tool was there; the devices are up.
    untouched: NetworkState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    /// ubuntu-ec2net.
    Ubuntu,
    /// ec2-net-utils 1.x.
    First,
    /// amazon-ec2-net-utils 2.x.
    Second,
}

impl Place {
    pub(super) fn new() -> Self {
        let stage = Stage::new();
        let own = "for directory in /etc /var/lib/dpkg /usr/lib/udev/rules.d; do
                       copy=/run/own$directory
                       mkdir -p $copy && mount --bind $copy $directory
                   done
                   mkdir -p /etc/network/interfaces.d /etc/dhcp /etc/udev/rules.d \
                       /etc/sysconfig/network-scripts /var/lib/dpkg/info /run/systemd/network /run/network";
        shell(&stage.a, own);
        let interfaces: Vec<Attached> = [(2, 1), (3, 2)]
            .map(|(subnet, device)| stage.attach(subnet, device, 2))
            .into_iter()
            .collect();
        for it in &interfaces {
            shell(&stage.a, &format!("ip link set {} up", it.name));
        }
        let untouched = NetworkState::settled(&stage.a);
        Place { stage, interfaces, untouched }
    }

    pub(super) fn a(&self) -> &Instance {
        &self.stage.a
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let written = self.a().run(|| {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, text)
        });
        written.unwrap().unwrap();
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.a().run(|| std::path::Path::new(path).exists()).unwrap()
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.interfaces.iter().flat_map(|it| it.addresses.iter().copied()).collect()
    }

    pub(super) fn configure(&self, by: Generation) {
        for it in &self.interfaces {
            self.configure_one(it, by);
        }
        if by == Generation::Second {
            let rule = "/usr/lib/udev/rules.d/99-vpc-policy-routes.rules";
            self.write(rule, "SUBSYSTEM==\"net\", ACTION==\"add\", RUN+=\"policy-routes\"\n");
            self.write("/var/lib/dpkg/info/amazon-ec2-net-utils.list", &format!("/.\n{rule}\n"));
        }
    }

    /// As a tool leaves an interface when it has configured it.
    pub(super) fn configure_one(&self, it: &Attached, by: Generation) {
        let name = &it.name;
        let number: u32 = name.trim_start_matches("eth").parse().unwrap();
        let table = 10_000 + number;
        let (ipv4, ipv6): (Vec<IpAddr>, Vec<IpAddr>) =
            it.addresses.iter().partition(|ip| ip.is_ipv4());
        let [first, second] = [ipv4[0], ipv4[1]];
        let subnet = first.to_string().rsplit_once('.').unwrap().0.to_owned();
        let mac = it.mac;
        let leased = "valid_lft 3600 preferred_lft 3600";
        let mut script = format!("ip address add {first}/24 brd + dev {name} {leased}\n");
        for ip in &ipv6 {
            script += &format!("ip address add {ip}/128 dev {name} nodad {leased}\n");
        }
        let via = format!("default via {subnet}.1 dev {name}");
        match by {
            Generation::Ubuntu | Generation::First => {
                script += &format!(
                    "ip address add {second}/24 brd + dev {name}
                     ip route add {via} table {table}
                     ip route add {via} metric {table}
                     ip rule add from {first} lookup {table}
                     ip rule add from {second} lookup {table}\n"
                );
            }
            Generation::Second => {
                let metric = 512 + number;
                script += &format!(
                    "ip route del {subnet}.0/24 dev {name}
                     ip route add {subnet}.0/24 dev {name} proto kernel scope link src {first} metric {metric}
                     ip route add {via} proto dhcp src {first} metric {metric}
                     ip route add {subnet}.1 dev {name} proto dhcp scope link src {first} metric {metric}
                     ip address add {second}/32 dev {name} noprefixroute
                     ip route add {via} proto dhcp table {table}
                     ip route add {subnet}.0/24 dev {name} proto static scope link table {table}\n"
                );
                for ip in &it.addresses {
                    let family = if ip.is_ipv4() { "-4" } else { "-6" };
                    script += &format!(
                        "ip {family} rule add from {ip} lookup {table} priority {table} protocol static\n"
                    );
                }
            }
        }
        if by == Generation::First {
            script += &format!(
                "ip route add {subnet}.0/24 dev {name} proto kernel scope link src {first} table {table}\n"
            );
            for ip in &ipv6 {
                script += &format!("ip -6 rule add from {ip} lookup {table}\n");
            }
        }
        if by != Generation::Ubuntu {
            script +=
                &format!("ip -6 route add default via fe80:ec2::1 dev {name} table {table}\n");
        }
        shell(self.a(), &script);
        let client = "supersede dhcp-server-identifier 255.255.255.255;\n";
        match by {
            Generation::Ubuntu => {
                self.write(
                    &format!("/etc/network/interfaces.d/{name}.cfg"),
                    &format!(
                        "# This file is automaticatically generated\n\
                         # See https://github.com/jessecollier/ubuntu-ec2net for source\n\
                         auto {name}\niface {name} inet dhcp\n\
                         post-up ip route add {via} table {table}\n\
                         post-up ip route add {via} metric {table}\n"
                    ),
                );
                self.write(&format!("/etc/dhcp/dhclient-{name}.conf"), client);
                let ifstate = "lo=lo\neth0=eth0\neth1=eth1\neth2=eth2\n";
                self.write("/run/network/ifstate", ifstate);
            }
            Generation::First => {
                let scripts = "/etc/sysconfig/network-scripts";
                self.write(
                    &format!("{scripts}/ifcfg-{name}"),
                    &format!(
                        "DEVICE={name}\nBOOTPROTO=dhcp\nONBOOT=yes\nTYPE=Ethernet\nPEERDNS=no\n\
                         HWADDR={mac}\nDEFROUTE=no\nEC2SYNC=yes\nMAINROUTETABLE=yes\n"
                    ),
                );
                self.write(
                    &format!("{scripts}/route-{name}"),
                    &format!(
                        "{via} table {table}\n{subnet}.0/24 dev {name} proto kernel scope link src \
                         {first} table {table}\n{via} metric {table}\n"
                    ),
                );
                self.write(
                    &format!("{scripts}/route6-{name}"),
                    &format!("default via fe80:ec2::1 dev {name} table {table}\n"),
                );
                self.write(
                    &format!("/etc/dhcp/dhclient-{name}.conf"),
                    &format!("{client}timeout 300;\n"),
                );
            }
            Generation::Second => {
                let network = format!("/run/systemd/network/70-{name}.network");
                let default = "/usr/lib/systemd/network/80-ec2.network";
                shell(self.a(), &format!("ln -s {default} {network}"));
                self.write(
                    &format!("{network}.d/eni.conf"),
                    &format!(
                        "# Configuration for {name} generated by policy-routes@{name}.service\n\
                         [Match]\nMACAddress={mac}\n[Network]\nDHCP=yes\n\n[DHCPv4]\n\
                         RouteMetric={}\n[Route]\nTable={table}\nGateway=_dhcp4\n",
                        512 + number
                    ),
                );
                self.write(
                    &format!("{network}.d/ec2net_policy_4.conf"),
                    &format!(
                        "[RoutingPolicyRule]\nFrom={first}\nPriority={table}\nTable={table}\n"
                    ),
                );
                self.write(
                    &format!("{network}.d/ec2net_alias.conf"),
                    &format!("[Address]\nAddress={second}/32\nAddPrefixRoute=false\n"),
                );
            }
        }
    }

    pub(super) fn import(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["import", "--json"];
        all.extend(arguments);
        serde_json::from_str(&succeed(self.a(), &all)).unwrap()
    }

    /// What is in the tables and leads to them that is not jackfield's.
    pub(super) fn of_others(&self) -> Vec<String> {
        let mut kernel = Rtnetlink::open_in(self.a().namespace()).unwrap();
        let mut found = Vec::new();
        for family in Family::BOTH {
            for rule in Rule::list(&mut kernel, family).unwrap() {
                if rule.protocol != OURS && ![0, 32_766, 32_767].contains(&rule.priority) {
                    found.push(format!("{rule:?}"));
                }
            }
            for table in [10_001, 10_002] {
                let filter = RouteFilter { table: Some(table), ..RouteFilter::default() };
                for route in Route::list(&mut kernel, family, filter).unwrap() {
                    if route.protocol != OURS {
                        found.push(format!("{route:?}"));
                    }
                }
            }
        }
        found
    }

    /// The end state is that of a plug, and an unplug leaves what was there before the tool.
    pub(super) fn assert_as_plugged(&self) {
        assert_eq!(self.of_others(), Vec::<String>::new());
        let imported = NetworkState::settled(self.a());
        succeed(self.a(), &["unplug", "eth1", "eth2"]);
        assert_same(&self.untouched, &NetworkState::settled(self.a()));
        succeed(self.a(), &["plug", "eth1", "eth2"]);
        assert_same(&NetworkState::settled(self.a()), &imported);
        assert_eq!(self.stage.lab.violations(), []);
    }
}

/// A packet a millisecond over each address, from far and from the interface's subnet, and a TCP
/// connection to each; ended, nothing was lost.
pub(super) struct Traffic {
    streams: Vec<(IpAddr, PacketStream)>,
    connections: Vec<(IpAddr, TcpStream)>,
    _near: Instance,
    _echo: Echo,
}

impl Traffic {
    pub(super) fn start(place: &Place, addresses: &[IpAddr]) -> Self {
        let remote: &Host = place.stage.lab.remote();
        let echo = Echo::start(place.a(), addresses).unwrap();
        answers_within_of(remote, addresses, PATIENCE);
        let every = Duration::from_millis(1);
        let stream = |to: &IpAddr| (*to, PacketStream::start(remote, None, *to, every).unwrap());
        let connect = |to: &IpAddr| {
            let stream = remote.run(|| TcpStream::connect(Echo::at(*to))).unwrap().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            (*to, stream)
        };
        let connections = addresses.iter().map(connect).collect();
        let near = place.stage.lab.client(&place.stage.subnets[1]).unwrap();
        let of_near = &place.interfaces[0].addresses;
        let by_near = addresses.iter().filter(|it| of_near.contains(it));
        answers_within_of(&near, &by_near.clone().copied().collect::<Vec<_>>(), PATIENCE);
        let by_near =
            by_near.map(|to| (*to, PacketStream::start(&near, None, *to, every).unwrap()));
        let streams = by_near.chain(addresses.iter().map(stream)).collect();
        let mut traffic = Traffic { streams, connections, _near: near, _echo: echo };
        traffic.exchange();
        traffic
    }

    pub(super) fn exchange(&mut self) {
        for (to, stream) in &mut self.connections {
            let mut answer = [0; 4];
            stream.write_all(b"jack").unwrap();
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{to}: {error}"));
            assert_eq!(&answer, b"jack", "{to}");
        }
    }

    #[track_caller]
    pub(super) fn nothing_was_lost(mut self) {
        self.exchange();
        for (to, stream) in self.streams {
            let report = stream.finish();
            assert!(report.sent > 0, "{to}: nothing was sent");
            assert_eq!(report.lost, Vec::<u64>::new(), "{to}: of {} packets", report.sent);
        }
    }
}
