//! Random set-ups: devices, addresses, routes, rules and settings of which nobody would think.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;
use jackfield_kernel::{Family, Route, RouteFilter, Rtnetlink, Tap};
use jackfield_lab::Host;

use super::frame::{Packet, host_of, mac_of};
use crate::harness::{PATIENCE, eventually};

/// The number of the container's subnet, and those that no device has.
const CONTAINERS: u8 = 17;
const FAR: [u8; 3] = [100, 101, 102];
const TABLES: [u32; 4] = [100, 101, 102, 10_001];
const PRIORITIES: [u32; 8] = [10, 50, 100, 5000, 14_000, 14_100, 20_000, 32_000];
const MASK: &str = "0x7f";

/// A device whose other end is the test.
pub(super) struct Wire {
    pub(super) name: String,
    pub(super) number: u8,
    pub(super) mac: [u8; 6],
    pub(super) tap: Tap,
    /// It can take what comes in.
    pub(super) open: bool,
}

/// A set-up.
pub(super) struct Scene {
    pub(super) host: Host,
    pub(super) v4: bool,
    pub(super) wires: Vec<Wire>,
    pub(super) locals: Vec<IpAddr>,
    pub(super) strangers: Vec<IpAddr>,
    pub(super) script: String,
}

impl Scene {
    /// The address of a host in a subnet.
    fn at(v4: bool, subnet: u8, host: u8) -> IpAddr {
        match v4 {
            true => Ipv4Addr::new(10, 0, subnet, host).into(),
            false => Ipv6Addr::new(0x2001, 0xdb8, 0, subnet.into(), 0, 0, 0, host.into()).into(),
        }
    }

    pub(super) fn random(rng: &mut Rng) -> Self {
        let host = Host::new("explained").unwrap();
        let v4 = rng.bool();
        let mut scene = Scene {
            host,
            v4,
            wires: Vec::new(),
            locals: Vec::new(),
            strangers: Vec::new(),
            script: String::new(),
        };
        for path in ["net/ipv6/conf/all/accept_ra", "net/ipv6/conf/default/accept_ra"] {
            scene.host.set_sysctl(path, "0").unwrap();
        }
        let forwards = if rng.u8(..8) == 0 { "0" } else { "1" };
        scene.host.set_sysctl("net/ipv4/ip_forward", forwards).unwrap();
        scene.host.set_sysctl("net/ipv6/conf/all/forwarding", forwards).unwrap();
        let mut lines = scene.devices(rng);
        lines.extend(scene.tables(rng));
        lines.extend(scene.rules(rng));
        scene.script = lines.join("\n");
        scene.ip_batch();
        // The kernel takes IPv6 addresses into use on its own time.
        let mut kernel = Rtnetlink::open_in(scene.host.namespace()).unwrap();
        let family = if v4 { Family::V4 } else { Family::V6 };
        let filter = RouteFilter { table: Some(255), ..RouteFilter::default() };
        eventually("every address is in use", PATIENCE, || {
            let local = Route::list(&mut kernel, family, filter).unwrap();
            let has = |ip: &IpAddr| local.iter().any(|route| route.destination.addr() == *ip);
            scene.locals.iter().all(has)
        });
        for wire in 0..scene.wires.len() {
            scene.settings(wire, rng);
        }
        scene
    }

    /// Devices with addresses, two of which may be in one subnet, and the neighbours of each.
    fn devices(&mut self, rng: &mut Rng) -> Vec<String> {
        let mut lines = vec!["link set lo up".to_owned()];
        let count = rng.u8(2..=4);
        let mut next_hops: Vec<IpAddr> =
            FAR.iter().map(|subnet| Self::at(self.v4, *subnet, 9)).collect();
        for number in 1..=count + 1 {
            let name = format!("t{number}");
            let tap = self.host.run(|| Tap::create(Some(&name)).unwrap()).unwrap();
            // All devices of a namespace go with it at once, which takes no longer than one.
            tap.persist().unwrap();
            rustix::io::ioctl_fionbio(&tap, true).unwrap();
            let mac = [2, 0xec, 0, 0, 0, number];
            // The last one is the containers'.
            let subnet = if number > count { CONTAINERS } else { rng.u8(1..=3) };
            let address = Self::at(self.v4, subnet, 10 + number);
            lines.push(format!("link set {name} address 02:ec:00:00:00:{number:02x} up"));
            let alone = rng.u8(..3) == 0;
            let length = match (alone, self.v4) {
                (true, true) => 32,
                (true, false) => 128,
                (false, true) => 24,
                (false, false) => 64,
            };
            let nodad = if self.v4 { "" } else { " nodad" };
            lines.push(format!("address add {address}/{length} dev {name}{nodad}"));
            if rng.bool() && number <= count {
                lines.push(format!("link set {name} group 106"));
            }
            self.locals.push(address);
            for host in [1, 50] {
                next_hops.push(Self::at(self.v4, subnet, host));
            }
            self.wires.push(Wire { name, number, mac, tap, open: true });
        }
        next_hops.sort();
        next_hops.dedup();
        for wire in &self.wires {
            for next_hop in &next_hops {
                let [a, b, c, d, e, f] = mac_of(wire.number, *next_hop);
                lines.push(format!(
                    "neigh replace {next_hop} lladdr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} \
                     dev {} nud permanent",
                    wire.name
                ));
            }
        }
        self.strangers = next_hops;
        lines
    }

    /// A next hop by a random device, or something that refuses.
    fn way(&self, rng: &mut Rng) -> (&'static str, String) {
        match rng.u8(..12) {
            0 => ("unreachable ", String::new()),
            1 => ("prohibit ", String::new()),
            2 => ("blackhole ", String::new()),
            3 => ("throw ", String::new()),
            _ => {
                let wire = &self.wires[rng.usize(..self.wires.len())];
                let gateway = Self::at(self.v4, rng.u8(1..=3), 1);
                // Only such a gateway as has a neighbour entry.
                match self.strangers.contains(&gateway) && rng.u8(..4) > 0 {
                    true => ("", format!(" via {gateway} dev {} onlink", wire.name)),
                    false => ("", format!(" dev {}", wire.name)),
                }
            }
        }
    }

    fn net(&self, rng: &mut Rng) -> String {
        let subnet = match rng.u8(..3) {
            0 => rng.u8(1..=3),
            1 => CONTAINERS,
            _ => FAR[rng.usize(..FAR.len())],
        };
        let (short, long) = if self.v4 { (24, 32) } else { (64, 128) };
        match rng.bool() {
            true => format!("{}/{short}", Self::at(self.v4, subnet, 0)),
            false => {
                let host = if FAR.contains(&subnet) { 9 } else { 50 };
                format!("{}/{long}", Self::at(self.v4, subnet, host))
            }
        }
    }

    fn tables(&self, rng: &mut Rng) -> Vec<String> {
        let mut lines = Vec::new();
        for table in TABLES.into_iter().chain([254, 254]) {
            for _ in 0..rng.u8(..4) {
                let to = if rng.bool() { "default".to_owned() } else { self.net(rng) };
                let (kind, how) = self.way(rng);
                let metric = rng.u32(1..4) * 100;
                let mtu = if kind.is_empty() && rng.u8(..4) == 0 { " mtu 1400" } else { "" };
                lines.push(format!("route add {kind}{to}{how} table {table} metric {metric}{mtu}"));
            }
        }
        // Most hosts have one.
        if rng.u8(..4) > 0 {
            let wire = &self.wires[rng.usize(..self.wires.len())];
            lines.push(format!("route add default dev {} table 254 metric 50", wire.name));
        }
        lines
    }

    fn rules(&self, rng: &mut Rng) -> Vec<String> {
        let mut lines = Vec::new();
        if rng.bool() {
            // As jackfield has them.
            lines.push(
                "rule add priority 14000 lookup main suppress_prefixlength 0 \
                 suppress_ifgroup 106 protocol 106"
                    .to_owned(),
            );
            lines.push(format!(
                "rule add priority 14011 fwmark 0x1/{MASK} lookup 10001 protocol 106"
            ));
            let address = self.locals[0];
            lines.push(format!("rule add priority 14100 from {address} lookup 10001 protocol 106"));
            lines.push("route add unreachable default table 10001 metric 4000".to_owned());
        }
        for _ in 0..rng.u8(1..=8) {
            let mut words = String::new();
            if rng.u8(..6) == 0 {
                words.push_str(" not");
            }
            match rng.u8(..5) {
                0 => words.push_str(&format!(" from {}", self.net(rng))),
                1 | 2 => {
                    let address = self.locals[rng.usize(..self.locals.len())];
                    words.push_str(&format!(" from {address}"));
                }
                _ => words.push_str(" from all"),
            }
            if rng.u8(..5) == 0 {
                words.push_str(&format!(" to {}", self.net(rng)));
            }
            match rng.u8(..8) {
                0 => words.push_str(" iif lo"),
                1 => {
                    let wire = &self.wires[rng.usize(..self.wires.len())];
                    words.push_str(&format!(" iif {}", wire.name));
                }
                2 => words.push_str(" oif t1"),
                _ => {}
            }
            match rng.u8(..8) {
                0 => words.push_str(&format!(" fwmark 0x1/{MASK}")),
                1 => words.push_str(&format!(" fwmark 0x0/{MASK}")),
                2 => words.push_str(" ipproto tcp"),
                3 => words.push_str(" ipproto udp dport 53"),
                4 => words.push_str(" sport 1000-1499"),
                5 => words.push_str(" uidrange 1-1000"),
                _ => {}
            }
            let priority = PRIORITIES[rng.usize(..PRIORITIES.len())] + rng.u32(..2);
            match rng.u8(..12) {
                0 => words.push_str(" blackhole"),
                1 => words.push_str(" prohibit"),
                2 => words.push_str(" unreachable"),
                3 | 4 => {
                    let to = PRIORITIES[rng.usize(..PRIORITIES.len())].max(priority + 1);
                    words.push_str(&format!(" goto {to}"));
                }
                _ => {
                    let tables = [100, 101, 102, 10_001, 254, 253];
                    let table = tables[rng.usize(..tables.len())];
                    words.push_str(&format!(" lookup {table}"));
                    match rng.u8(..5) {
                        0 => words.push_str(" suppress_prefixlength 0"),
                        1 => words.push_str(" suppress_prefixlength 24"),
                        2 => words.push_str(" suppress_ifgroup 106"),
                        _ => {}
                    }
                }
            }
            lines.push(format!("rule add priority {priority}{words}"));
        }
        lines
    }

    /// What the kernel refuses, such as a rule that is there already, is left out.
    fn ip_batch(&self) {
        let mut ip = self.host.command("ip").unwrap();
        ip.args([if self.v4 { "-4" } else { "-6" }, "-force", "-batch", "-"]);
        ip.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut child = ip.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{}\n", self.script).as_bytes()).unwrap();
        child.wait().unwrap();
    }

    fn settings(&mut self, wire: usize, rng: &mut Rng) {
        let name = self.wires[wire].name.clone();
        if rng.u8(..4) == 0 {
            let filter = if rng.bool() { "1" } else { "2" };
            self.set(&format!("net/ipv4/conf/{name}/rp_filter"), filter);
        }
        if rng.u8(..10) == 0 {
            self.set(&format!("net/ipv4/conf/{name}/forwarding"), "0");
        }
        if rng.u8(..8) == 0 {
            self.set(&format!("net/ipv4/conf/{name}/src_valid_mark"), "1");
        }
        if rng.u8(..6) == 0 {
            for family in ["ipv4", "ipv6"] {
                self.set(&format!("net/{family}/conf/{name}/ignore_routes_with_linkdown"), "1");
            }
        }
        let deed = match rng.u8(..48) {
            0..=3 if self.locals.len() > 2 => "down",
            4 => "carrier off",
            _ => return,
        };
        self.wires[wire].open = false;
        if deed == "down" && !self.v4 {
            // The kernel takes its IPv6 addresses.
            let number = self.wires[wire].number;
            self.locals.retain(|ip| host_of(*ip) != 10 + number);
        }
        let line = format!("link set {name} {deed}");
        let ip = |arguments: &str| {
            let mut ip = self.host.command("ip").unwrap();
            let output = ip.args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "{arguments}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        ip(&line);
        // The kernel lets packets pass until it has taken note, up to a second later.
        eventually("the device is down", PATIENCE, || {
            ip(&format!("-o link show {name}")).contains("state DOWN")
        });
        self.script.push_str(&format!("\n{line}"));
    }

    fn set(&mut self, path: &str, value: &str) {
        self.host.set_sysctl(path, value).unwrap();
        self.script.push_str(&format!("\n# {path} = {value}"));
    }

    pub(super) fn packet(&self, rng: &mut Rng, from_here: bool) -> Packet {
        let stranger = |rng: &mut Rng| self.strangers[rng.usize(..self.strangers.len())];
        let local = |rng: &mut Rng| self.locals[rng.usize(..self.locals.len())];
        let source = if from_here { local(rng) } else { stranger(rng) };
        let mut destination = source;
        while destination == source {
            destination = if rng.u8(..3) == 0 { local(rng) } else { stranger(rng) };
        }
        let port = [53, 80, 443][rng.usize(..3)];
        Packet {
            tcp: rng.bool(),
            source: SocketAddr::new(source, rng.u16(1000..2000)),
            destination: SocketAddr::new(destination, port),
            mark: if from_here && rng.bool() { 1 } else { 0 },
        }
    }
}
