//! What others put around ours stays exactly as it is: rules, routes and nftables in random numbers,
//! at random places, before, between and behind ours, while interfaces are plugged, changed and
//! unplugged.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Stdio;

use fastrand::Rng;
use jackfield_kernel::{Family, Rtnetlink, Rule, RuleAction};
use jackfield_lab::probe::Echo;
use jackfield_lab::{Host, Plug};
use serde_json::Value;

use crate::harness::*;

const SEEDS: u64 = 4;
/// A refresh each second: what changes in metadata is noticed soon, and every refresh looks at all.
const HASTY: &str = "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n";
const OURS: u8 = 106;
/// Around ours, and exactly where they are.
const PRIORITIES: [u32; 12] =
    [1, 13_999, 14_000, 14_001, 14_050, 14_099, 14_100, 14_101, 14_200, 20_000, 29_999, 30_000];
const PROTOCOLS: [u8; 6] = [3, 4, 16, 99, 107, 186];
/// A bridge of somebody else's.
const BRIDGE: &str = "br-others";

/// What others have on a host, as iproute2 and nft tell it.
#[derive(Debug, PartialEq)]
struct Others {
    /// In the kernel's order, which is the one in which they are asked.
    rules: Vec<String>,
    routes: BTreeSet<String>,
    /// With the numbers that the kernel gives each thing: what is made anew has another.
    nft: Vec<String>,
}

impl Others {
    fn of(host: &Host) -> Self {
        let mut others = Others { rules: Vec::new(), routes: BTreeSet::new(), nft: Vec::new() };
        for family in ["-4", "-6"] {
            let list = |what: &str| -> Vec<Value> {
                let listed = shell(host, &format!("ip -N -d -json {family} {what}"));
                serde_json::from_str(&listed).unwrap()
            };
            let ours = |it: &Value| it["protocol"] == "106";
            let rules = list("rule show").into_iter().filter(|rule| !ours(rule));
            others.rules.extend(rules.map(|rule| format!("{family} {rule}")));
            for mut route in list("route show table all") {
                // The kernel's own come and go with addresses, and a cloud interface takes along
                // whatever uses it.
                let kernels = route["protocol"] == "2";
                let pulled =
                    route["dev"].as_str().is_some_and(|dev| ["eth1", "eth2"].contains(&dev));
                if !ours(&route) && !kernels && !pulled {
                    route.as_object_mut().unwrap().remove("expires");
                    others.routes.insert(format!("{family} {route}"));
                }
            }
        }
        let ruleset: Value = serde_json::from_str(&shell(host, "nft -j list ruleset")).unwrap();
        for object in ruleset["nftables"].as_array().unwrap() {
            let ours = object.as_object().unwrap().values().any(|it| {
                it["table"] == "jackfield" || (object["table"] == *it && it["name"] == "jackfield")
            });
            if !ours && object.get("metainfo").is_none() {
                others.nft.push(object.to_string());
            }
        }
        others
    }
}

#[track_caller]
fn assert_untouched(before: &Others, host: &Host, seed: u64, when: &str) {
    let after = Others::of(host);
    let gone = |was: &[String], is: &[String]| -> Vec<String> {
        was.iter().filter(|line| !is.contains(line)).cloned().collect()
    };
    let flat = |others: &Others| -> Vec<String> {
        others.rules.iter().chain(&others.routes).chain(&others.nft).cloned().collect()
    };
    let (was, is) = (flat(before), flat(&after));
    let (lost, new) = (gone(&was, &is), gone(&is, &was));
    assert!(
        lost.is_empty() && new.is_empty(),
        "seed {seed}, {when}: of others, lost {lost:#?}, new {new:#?}"
    );
    assert_eq!(*before, after, "seed {seed}, {when}: in another order");
}

/// Everything that others do. What they select is nothing that is sent here: each thing has a number
/// of its own in what it is about.
struct Neighbours {
    random: Rng,
    number: u32,
}

impl Neighbours {
    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.random.usize(..items.len())]
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// An address that nobody has.
    fn nobody(&mut self, family: Family) -> String {
        let number = self.next();
        match family {
            Family::V4 => format!("203.0.{}.{}/32", number / 250, number % 250),
            Family::V6 => format!("2001:db8:bad::{number:x}/128"),
        }
    }

    fn family(&mut self) -> Family {
        self.one_of(&Family::BOTH)
    }

    /// A table in which others may have something; ours is none of them.
    fn table(&mut self) -> u32 {
        let any = self.random.u32(20_000..20_010);
        self.one_of(&[254, 9_998, 10_050, 14_000, any, any])
    }

    /// Rules as lines for [`ip`]. Some are about addresses of ours.
    fn rules(&mut self, ours: &[IpAddr]) -> String {
        let mut lines = String::new();
        for _ in 0..self.random.u32(..60) {
            let mut family = self.family();
            let priority = match self.random.bool() {
                true => self.one_of(&PRIORITIES),
                false => self.random.u32(1..32_760),
            };
            let nobody = self.nobody(family);
            let mark = 0x1000 + self.next();
            let selector = match self.random.u32(..6) {
                0 => format!("from {nobody}"),
                1 => format!("to {nobody}"),
                2 => format!("fwmark {mark:#x}"),
                3 => format!("from {nobody} iif {BRIDGE}"),
                4 => format!("from all iif lo to {nobody} uidrange 4000-4010"),
                _ if ours.is_empty() => format!("oif {BRIDGE} to {nobody}"),
                _ => {
                    let address = self.one_of(ours);
                    family = Family::of(address);
                    format!("from {address} fwmark {mark:#x}")
                }
            };
            let table = self.one_of(&[254, 255, 10_001, 10_002, 20_000, 20_001]);
            let action = match self.random.u32(..7) {
                0 => "blackhole".to_owned(),
                1 => "prohibit".to_owned(),
                2 if priority < 32_766 => "goto 32766".to_owned(),
                3 => format!("lookup {table} suppress_prefixlength 0"),
                4 => format!("lookup {table} suppress_ifgroup 106"),
                _ => format!("lookup {table}"),
            };
            let (number, protocol) = (family.number(), self.one_of(&PROTOCOLS));
            writeln!(
                lines,
                "-{number} rule add priority {priority} {selector} {action} protocol {protocol}"
            )
            .unwrap();
        }
        lines
    }

    /// For some of our rules one that says the same, and asks for a mark besides.
    fn twins(&mut self, host: &Host) -> String {
        let mut kernel = Rtnetlink::open_in(host.namespace()).unwrap();
        let mut lines = String::new();
        for family in Family::BOTH {
            for rule in Rule::list(&mut kernel, family).unwrap() {
                if rule.protocol != OURS || self.random.u32(..4) == 0 {
                    continue;
                }
                let mark = 0x1000 + self.next();
                let (number, protocol) = (family.number(), self.one_of(&PROTOCOLS));
                let mut line = format!("-{number} rule add priority {}", rule.priority);
                let source = rule.source.map_or("all".to_owned(), |source| source.to_string());
                write!(line, " from {source} fwmark {mark:#x} protocol {protocol}").unwrap();
                if let Some(name) = &rule.input_interface {
                    write!(line, " iif {name}").unwrap();
                }
                match rule.action {
                    RuleAction::Table(table) => write!(line, " lookup {table}").unwrap(),
                    RuleAction::Goto(to) => write!(line, " goto {to}").unwrap(),
                    RuleAction::Nop => line.push_str(" nop"),
                    other => panic!("a rule of ours does {other:?}"),
                }
                if let Some(length) = rule.suppress_prefix_length {
                    write!(line, " suppress_prefixlength {length}").unwrap();
                }
                if let Some(group) = rule.suppress_group {
                    write!(line, " suppress_ifgroup {group}").unwrap();
                }
                writeln!(lines, "{line}").unwrap();
            }
        }
        lines
    }

    /// Routes as lines for [`ip`].
    fn routes(&mut self) -> String {
        let mut lines = String::new();
        for _ in 0..self.random.u32(..60) {
            let family = self.family();
            let (nobody, table, metric) = (self.nobody(family), self.table(), 1 + self.next());
            let gateway = match family {
                Family::V4 => "10.99.0.2",
                Family::V6 => "2001:db8:99::2",
            };
            let route = match self.random.u32(..6) {
                0 => format!("blackhole {nobody}"),
                1 => format!("unreachable {nobody}"),
                2 => format!("{nobody} dev {BRIDGE}"),
                3 => format!("{nobody} dev eth0"),
                // Behind the primary's.
                4 => format!("default via {gateway} dev {BRIDGE} metric {}", 10_000 + metric),
                _ => format!("{nobody} via {gateway} dev {BRIDGE}"),
            };
            let metric =
                if route.contains("metric") { String::new() } else { format!("metric {metric}") };
            let (number, protocol) = (family.number(), self.one_of(&PROTOCOLS));
            writeln!(
                lines,
                "-{number} route add {route} table {table} {metric} protocol {protocol}"
            )
            .unwrap();
        }
        lines
    }

    /// Tables as `nft` reads them, at the hooks that packets pass.
    fn nft(&mut self) -> String {
        let mut script = String::new();
        for _ in 0..self.random.u32(..6) {
            let number = self.next();
            let (family, ip) = self.one_of(&[("inet", "ip"), ("ip", "ip"), ("ip6", "ip6")]);
            let kind = if ip == "ip" { Family::V4 } else { Family::V6 };
            let (one, other) = (self.nobody(kind), self.nobody(kind));
            let [one, other] = [one, other].map(|it| it.split('/').next().unwrap().to_owned());
            let element = if ip == "ip" { "ipv4_addr" } else { "ipv6_addr" };
            let hook = self.one_of(&["prerouting", "input", "forward", "output", "postrouting"]);
            let priority = self.random.i32(-310..310);
            writeln!(
                script,
                "table {family} others{number} {{
                   set known {{ type {element}; elements = {{ {one}, {other} }} }}
                   chain filter {{
                     type filter hook {hook} priority {priority}; policy accept;
                     {ip} saddr @known meta mark set 0x{number:x}000
                     meta mark 0x{number:x}000 ct mark set mark
                   }}
                   chain published {{
                     type nat hook prerouting priority dstnat; policy accept;
                     {ip} daddr {one} tcp dport {} dnat to {other}
                   }}
                 }}",
                1000 + number,
            )
            .unwrap();
        }
        script
    }

    fn do_something(&mut self, host: &Host, ours: &[IpAddr]) {
        let lines = self.rules(ours) + &self.routes();
        ip(host, &lines);
        feed(host, &["nft", "-f", "-"], &self.nft());
    }
}

/// Runs lines that begin with their family.
#[track_caller]
fn ip(host: &Host, lines: &str) {
    for family in ["-4 ", "-6 "] {
        let of_family: Vec<&str> = lines.lines().filter_map(|it| it.strip_prefix(family)).collect();
        feed(host, &["ip", family.trim(), "-batch", "-"], &of_family.join("\n"));
    }
}

/// Runs a program that reads what to do, which must succeed.
#[track_caller]
fn feed(host: &Host, command: &[&str], text: &str) {
    let mut process = host.command(command[0]).unwrap();
    process.args(&command[1..]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = process.spawn().unwrap();
    std::io::Write::write_all(&mut process.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}\n{text}");
}

/// Nothing is left to do.
fn is_at_rest(host: &Host) -> bool {
    jackfield(host, &["plan"]).status.code() == Some(0)
}

fn around_everything(seed: u64) {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    shell(
        a,
        &format!(
            "ip link add {BRIDGE} type bridge
             ip address add 10.99.0.1/24 dev {BRIDGE}
             ip address add 2001:db8:99::1/64 dev {BRIDGE} nodad
             ip link set {BRIDGE} up"
        ),
    );
    let mut neighbours = Neighbours { random: Rng::with_seed(seed), number: 0 };
    neighbours.do_something(a, &[]);
    eventually("link-local addresses are in use", PATIENCE, || {
        shell(a, "ip -6 address show tentative").is_empty()
    });
    let before = Others::of(a);
    let mut agent = Agent::with_config(a, HASTY);
    // One in a subnet of its own, one beside the primary.
    let first = stage.attach(2, 1, 3);
    let second = stage.attach(1, 2, 3);
    let mut all: Vec<IpAddr> = first.addresses.iter().chain(&second.addresses).copied().collect();
    let _echo = Echo::start(a, &all).unwrap();
    answers_within_of(lab.remote(), &all, PATIENCE);
    eventually("nothing is left to do", PATIENCE, || is_at_rest(a));
    assert_untouched(&before, a, seed, "plugged");

    neighbours.do_something(a, &all);
    ip(a, &neighbours.twins(a));
    let before = Others::of(a);
    let new = lab.new_addresses(&stage.subnets[1]);
    for address in &new {
        lab.add_address(first.mac, *address).unwrap();
    }
    let _echo_of_new = Echo::start(a, &new).unwrap();
    all.extend(&new);
    let moved = second.addresses[2];
    answers_within_of(lab.remote(), &all, PATIENCE);
    eventually("nothing is left to do", PATIENCE, || is_at_rest(a));
    assert_untouched(&before, a, seed, "addresses more");

    lab.move_address(moved, second.mac, a.primary().mac).unwrap();
    let mut kernel = Rtnetlink::open_in(a.namespace()).unwrap();
    eventually("the address has moved", PATIENCE, || {
        addresses_of(&mut kernel, "eth0").contains(&moved)
    });
    answers_within_of(lab.remote(), &all, PATIENCE);
    assert_untouched(&before, a, seed, "an address moved");

    for interface in [&first, &second] {
        lab.detach(interface.mac).unwrap();
    }
    eventually("nothing is left to do", PATIENCE, || is_at_rest(a));
    assert_untouched(&before, a, seed, "unplugged");
    lab.attach(a, first.mac, &Plug::new(1)).unwrap();
    let of_first: Vec<IpAddr> = first.addresses.iter().chain(&new).copied().collect();
    answers_within_of(lab.remote(), &of_first, PATIENCE);
    assert_untouched(&before, a, seed, "plugged again");
    assert!(agent.is_running(), "{:#?}", agent.log());
    agent.stop();

    // What was done by event is undone by hand.
    succeed(a, &["unplug", "eth1"]);
    assert_untouched(&before, a, seed, "unplugged by command");
    let mut kernel = Rtnetlink::open_in(a.namespace()).unwrap();
    let ours = |rule: &Rule| rule.protocol == OURS;
    for family in Family::BOTH {
        let left: Vec<Rule> =
            Rule::list(&mut kernel, family).unwrap().into_iter().filter(ours).collect();
        assert_eq!(left, [], "seed {seed}");
    }
    assert_eq!(lab.violations(), [], "seed {seed}");
}

/// `JACKFIELD_SEED` replays one seed, which a failure names; `JACKFIELD_CASES` sets how many are tried.
#[test]
fn rules_routes_and_nft_of_others_are_untouched_by_plug_change_and_unplug() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("JACKFIELD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("JACKFIELD_CASES").unwrap_or(SEEDS),
    };
    for seed in seeds {
        around_everything(seed);
    }
}
