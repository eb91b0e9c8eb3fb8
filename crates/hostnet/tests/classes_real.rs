//! What the kernel does with compiled rules, and while they change: it is asked for the route of
//! packets from each source.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use ipnet::IpNet;
use jackfield_hostnet::{MAIN, OURS, apply};
use jackfield_kernel::{
    Address, AddressFlags, Family, LinkChange, Namespace, Route, Rtnetlink, Rule, bridge,
};
use world::sources::{Numbers, Shape, Sources};

/// A namespace in which each table has a default route by a device of its own, and main by `other`.
struct Host {
    namespace: Namespace,
    kernel: Rtnetlink,
    family: Family,
    devices: BTreeMap<u32, String>,
}

impl Host {
    fn new(sources: &Sources) -> Self {
        let namespace =
            Namespace::anonymous().expect("this test needs the right to make namespaces");
        let kernel = Rtnetlink::open_in(&namespace).unwrap();
        let family = sources.family;
        let mut host = Host { namespace, kernel, family, devices: BTreeMap::new() };
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        host.kernel.request("lo up", up.request(1)).unwrap();
        for table in sources.tables.keys().copied().chain([MAIN]) {
            let name = if table == MAIN { "other".to_owned() } else { format!("t{table}") };
            host.kernel.request(&name, bridge(&name)).unwrap();
            let links = jackfield_kernel::Link::list(&mut host.kernel).unwrap();
            let index = links.iter().find(|link| link.name == name).unwrap().index;
            host.kernel.request(&name, up.request(index)).unwrap();
            let route = Route::via_interface(family.everything(), table, index);
            host.kernel.request(&name, route.add()).unwrap();
            host.devices.insert(table, name);
        }
        let write = |path: &str, value: &str| std::fs::write(path, value).unwrap();
        host.namespace
            .run(|| {
                write("/proc/sys/net/ipv4/ip_forward", "1");
                write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
            })
            .unwrap();
        host
    }

    fn add_addresses(&mut self, sources: &Sources) {
        let flags = AddressFlags { no_dad: true, no_prefix_route: true, ..AddressFlags::default() };
        let add = |ip: &IpAddr| {
            Address { interface: 1, address: IpNet::from(*ip), protocol: 0, flags }.add()
        };
        let adds: Vec<_> = sources.addresses.keys().map(add).collect();
        assert!(self.kernel.batch(&adds).unwrap().iter().all(Result::is_ok));
    }

    fn rules(&mut self) -> Vec<Rule> {
        Rule::list(&mut self.kernel, self.family).unwrap()
    }

    /// By which device packets go, or why not, for each question to `ip route get`.
    fn routes(&self, questions: &[String]) -> Vec<String> {
        let mut ip = Command::new("ip");
        ip.args([if self.family == Family::V4 { "-4" } else { "-6" }, "-force", "-batch", "-"]);
        ip.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut found = Vec::new();
        for questions in questions.chunks(200) {
            let mut child = self.namespace.run(|| ip.spawn().unwrap()).unwrap();
            let lines: String =
                questions.iter().map(|question| format!("route get {question}\n")).collect();
            child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let answers = text.lines().filter(|line| line.contains(" dev "));
            let device =
                |line: &str| line.split(" dev ").nth(1)?.split(' ').next().map(str::to_owned);
            let answers: Vec<String> = answers.filter_map(device).collect();
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(answers.len(), questions.len(), "{errors}");
            found.extend(answers);
        }
        found
    }

    fn device_of(&self, owner: Option<u32>) -> &str {
        &self.devices[&owner.unwrap_or(MAIN)]
    }

    /// What is wrong with the ways that packets take.
    fn judge(&self, sources: &Sources) -> Vec<String> {
        let far = if self.family == Family::V4 { "192.0.2.1" } else { "2001:db8:ffff::1" };
        let (mut questions, mut expected) = (Vec::new(), Vec::new());
        // Made here.
        for ip in sources.addresses.keys() {
            questions.push(format!("{far} from {ip}"));
            expected.push(self.device_of(sources.owner(*ip)));
        }
        // Forwarded.
        for net in sources.prefixes.keys() {
            for ip in [net.network(), net.broadcast()] {
                if !sources.addresses.contains_key(&ip) {
                    questions.push(format!("{far} from {ip} iif inner"));
                    expected.push(self.device_of(sources.owner(ip)));
                }
            }
        }
        let found = self.routes(&questions);
        let mut wrong = Vec::new();
        for ((question, found), expected) in questions.iter().zip(&found).zip(expected) {
            if found != expected {
                wrong.push(format!("{question}: by {found}, not {expected}"));
            }
        }
        wrong
    }

    /// The strict reverse path filter lets in by the interface that the address belongs to, and by
    /// no other.
    fn filter(&self, sources: &Sources) {
        let set = |value: &str| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", value);
        self.namespace.run(|| set("1").unwrap()).unwrap();
        let of_table = |(ip, owner): (&IpAddr, &Option<u32>)| Some((*ip, (*owner)?));
        for (ip, table) in sources.addresses.iter().filter_map(of_table).step_by(7) {
            let own = self.devices[&table].as_str();
            for device in self.devices.values() {
                let mut command = Command::new("ip");
                let from = ["route", "get", &ip.to_string(), "from", "192.0.2.1", "iif", device]
                    .map(str::to_owned);
                let output = self.namespace.run(|| command.args(from).output().unwrap()).unwrap();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(output.status.success(), device == own, "{ip} by {device}: {said}");
            }
        }
        self.namespace.run(|| set("0").unwrap()).unwrap();
    }
}

/// The inner interface, from which packets of delegated prefixes are forwarded.
fn inner(host: &mut Host) {
    host.kernel.request("inner", bridge("inner")).unwrap();
    let links = jackfield_kernel::Link::list(&mut host.kernel).unwrap();
    let index = links.iter().find(|link| link.name == "inner").unwrap().index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    host.kernel.request("inner", up.request(index)).unwrap();
}

fn goes(shape: Shape) {
    let mut numbers = Numbers(7);
    let first = Sources::draw(&mut numbers, shape);
    let mut host = Host::new(&first);
    inner(&mut host);
    host.add_addresses(&first);
    let plan = first.plan(&host.rules());
    assert!(apply(&mut host.kernel, &plan).unwrap().refused.is_empty());
    assert!(first.plan(&host.rules()).is_empty(), "nothing is left to do");
    assert_eq!(host.judge(&first), Vec::<String>::new(), "{:#?}", host.rules());
    if shape.family == Family::V4 && shape.prefixes == 0 {
        host.filter(&first);
    }
    // To others, of which some are the same.
    let mut second = first.clone();
    second.addresses.retain(|_, _| numbers.below(3) > 0);
    second.prefixes.retain(|_, _| numbers.below(3) > 0);
    let plan = second.plan(&host.rules());
    let refused = apply(&mut host.kernel, &plan).unwrap().refused;
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(second.plan(&host.rules()).is_empty(), "nothing is left to do");
    assert_eq!(host.judge(&second), Vec::<String>::new(), "{:#?}", host.rules());
}

#[test]
fn the_kernel_takes_packets_where_the_rules_were_compiled_to_take_them() {
    for family in Family::BOTH {
        for (count, interleaved, prefixes) in
            [(60, false, 0), (400, true, 0), (300, false, 10), (300, true, 30)]
        {
            goes(Shape { family, subnets: 2, tables: 5, count, interleaved, prefixes });
        }
    }
}

/// The kernel keeps rules apart that differ by their protocol alone, and one that is taken away is the
/// one that was named.
#[test]
fn rules_of_others_that_say_what_ours_say_are_never_taken_for_ours() {
    const THEIRS: u8 = 99;
    for (family, count) in
        [(Family::V4, 20), (Family::V6, 20), (Family::V4, 200), (Family::V6, 200)]
    {
        let shape = Shape { family, subnets: 2, tables: 3, count, interleaved: true, prefixes: 5 };
        let mut numbers = Numbers(11);
        let first = Sources::draw(&mut numbers, shape);
        let mut second = first.clone();
        second.addresses.retain(|_, _| numbers.below(4) > 0);
        let none = Sources { addresses: <_>::default(), prefixes: <_>::default(), ..first.clone() };
        let mut host = Host::new(&first);
        let theirs = |host: &mut Host| -> Vec<Rule> {
            host.rules().into_iter().filter(|rule| rule.protocol != OURS).collect()
        };
        // Before ours are there, and when they are.
        for before in [true, false] {
            let copies = |rules: Vec<Rule>| -> Vec<_> {
                let copy = |rule: Rule| Rule { protocol: THEIRS, ..rule }.add();
                rules.into_iter().map(copy).collect()
            };
            let made = |host: &mut Host, sources: &Sources| {
                let plan = sources.plan(&host.rules());
                assert_eq!(apply(&mut host.kernel, &plan).unwrap().refused, []);
                let left = sources.plan(&host.rules()).changes;
                assert_eq!(left, [], "{family:?} {count}");
            };
            if before {
                let all = host.kernel.batch(&copies(first.compiled(&[]))).unwrap();
                assert!(all.iter().all(Result::is_ok), "{all:#?}");
            }
            made(&mut host, &first);
            if !before {
                let ours = host.rules().into_iter().filter(|rule| rule.protocol == OURS).collect();
                // Those that are there from before are refused.
                host.kernel.batch(&copies(ours)).unwrap();
            }
            let there = theirs(&mut host);
            assert!(there.len() > host.rules().len() / 3);
            for sources in [&second, &first, &none] {
                made(&mut host, sources);
                assert_eq!(theirs(&mut host), there, "{family:?} {count}");
            }
            assert_eq!(host.rules(), there, "nothing of ours is left");
        }
    }
}
