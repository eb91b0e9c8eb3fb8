//! Containers over several interfaces: a forwarded connection is answered by the interface by which
//! it came.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jackfield_kernel::{VethEnd, veth_pair};
use jackfield_lab::probe::{Echo, ProbeError, Transport, probe};
use jackfield_lab::{Bridge, Host, Instance, Lab};

use crate::harness::*;
use crate::killed::{is_killed, require_strace};

const ANSWER: Duration = Duration::from_secs(3);
/// The port that is published, and leads to the container's echo.
const PUBLISHED: u16 = 8080;

/// Publishes the container's echo at every address of the host, and lets it out by the primary, as
/// container engines do.
pub(crate) fn publish(container: &[IpAddr]) -> String {
    let [four, six] = families(container);
    format!(
        "table inet engine {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                fib daddr type local meta nfproto ipv4 meta l4proto {{ tcp, udp }} \
                    th dport {PUBLISHED} dnat ip to {four}:7
                fib daddr type local meta nfproto ipv6 meta l4proto {{ tcp, udp }} \
                    th dport {PUBLISHED} dnat ip6 to [{six}]:7
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname \"eth*\" ip saddr 172.17.0.0/16 masquerade
                oifname \"eth*\" ip6 saddr fd17::/64 masquerade
            }}
        }}"
    )
}

fn families(addresses: &[IpAddr]) -> [IpAddr; 2] {
    [true, false].map(|v4| *addresses.iter().find(|ip| ip.is_ipv4() == v4).unwrap())
}

pub(crate) fn nft(host: &Host, script: &str) -> String {
    let output = host.command("nft").unwrap().arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn docker0(a: &Instance) -> Bridge<'_> {
    a.bridge("docker0", &["172.17.0.0/16", "fd17::/64"].map(|net| net.parse().unwrap())).unwrap()
}

fn tables(host: &Host) -> Vec<String> {
    nft(host, "list tables").lines().map(str::to_owned).collect()
}

pub(crate) fn has_marks(host: &Host) -> bool {
    tables(host).iter().any(|table| table == "table inet jackfield")
}

fn filter(host: &Host, interface: &str) -> String {
    host.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter")).unwrap()
}

/// Waits until the host forwards IPv6 to its containers: while its link-local address there is looked
/// for on others, it asks no container where it is.
#[track_caller]
pub(crate) fn forwards(host: &Host) {
    eventually("every address is in use", PATIENCE, || {
        shell(host, "ip -6 address show tentative").is_empty()
    });
}

/// Who does not reach the published port by which address.
fn unanswered(clients: &[(&str, &Host)], addresses: &[IpAddr], within: Duration) -> Vec<String> {
    let ask = |name: &str, client: &Host, address: IpAddr, transport| {
        let to = SocketAddr::new(address, PUBLISHED);
        let error = probe(client, None, to, transport, within).err()?;
        Some(format!("{name} -> {to} by {transport:?}: {error}"))
    };
    let ask = &ask;
    std::thread::scope(|scope| {
        let all = clients.iter().flat_map(|(name, client)| {
            addresses.iter().flat_map(move |address| {
                Transport::ALL
                    .map(|transport| scope.spawn(move || ask(name, client, *address, transport)))
            })
        });
        let all: Vec<_> = all.collect();
        all.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
    })
}

#[test]
fn a_published_port_answers_by_the_interface_that_it_was_asked_by() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    let agent = Agent::start(a);
    let attached = [(2, 1), (2, 2), (3, 3)].map(|(subnet, device)| stage.attach(subnet, device, 2));
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    assert!(!has_marks(a), "connections are tracked for nothing");
    nft(a, &publish(container.addresses()));
    eventually("connections are marked", PATIENCE, || has_marks(a));

    let near: Vec<_> = stage.subnets.iter().map(|subnet| lab.client(subnet).unwrap()).collect();
    let clients: [(&str, &Host); 4] = [
        ("the remote host", lab.remote()),
        ("a client in the primary's subnet", &near[0]),
        ("a client in subnet 2, two secondaries'", &near[1]),
        ("a client in subnet 3, a secondary's", &near[2]),
    ];
    let mut addresses: Vec<IpAddr> = a.primary().addresses().collect();
    addresses.extend(attached.iter().flat_map(|interface| &interface.addresses));
    let outside = [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6];
    let _outside = Echo::start(lab.remote(), &outside).unwrap();
    forwards(a);
    let mut failed = Vec::new();
    for (strictness, by_mark) in [("0", "0"), ("1", "0"), ("1", "1"), ("2", "0")] {
        a.set_sysctl("net/ipv4/conf/all/src_valid_mark", by_mark).unwrap();
        for name in ["all", "default", "eth1", "eth2", "eth3", "eth0", "docker0"] {
            a.set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), strictness).unwrap();
        }
        eventually("the reverse path filter lets forwarded connections in", PATIENCE, || {
            let all = filter(a, "all");
            ["eth1", "eth2", "eth3"].iter().all(|name| filter(a, name).max(all.clone()) != "1")
        });
        let unanswered = unanswered(&clients, &addresses, ANSWER);
        failed.extend(unanswered.iter().map(|text| format!("rp_filter {strictness}: {text}\n")));
        // The container's own connections leave by the primary.
        for (address, transport) in outside.iter().flat_map(|to| Transport::ALL.map(|by| (to, by)))
        {
            if let Err(error) = probe(&container, None, Echo::at(*address), transport, ANSWER) {
                failed.push(format!("rp_filter {strictness}: {address} {transport:?}: {error}\n"));
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.concat());
    assert_eq!(lab.violations(), []);
    agent.stop();
}

#[test]
fn that_a_container_cannot_be_reached_is_said_by_the_interface_that_was_asked() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 1);
    configured_within(a, &attached, PATIENCE);
    nft(a, &publish(container.addresses()));
    eventually("connections are marked", PATIENCE, || has_marks(a));
    // Nobody answers there when the bridge looks for it.
    shell(&container, "ip address flush dev eth0");
    for address in attached.addresses {
        let to = SocketAddr::new(address, PUBLISHED);
        let answer = probe(lab.remote(), None, to, Transport::Tcp, PATIENCE);
        assert_eq!(answer, Err(ProbeError::Failed(ErrorKind::HostUnreachable)), "{to}");
    }
    assert_eq!(lab.violations(), []);
    agent.stop();
}

#[test]
fn behind_a_link_without_a_bridge_a_published_port_answers_too() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    // As a VM behind a tap has it.
    let vm = Host::new("vm").unwrap();
    let near = VethEnd { name: "tap0", address: None, mtu: None, namespace: None };
    let far = VethEnd { name: "eth0", namespace: Some(vm.namespace()), ..near };
    a.apply("make a VM's link", &[veth_pair(near, far)]).unwrap();
    let side = |device: &str, number: u32| {
        format!(
            "ip address add 192.168.77.{number}/30 dev {device}
             ip address add fd77::{number}/64 dev {device} nodad
             ip link set {device} up"
        )
    };
    shell(a, &side("tap0", 1));
    shell(&vm, &side("eth0", 2));
    shell(&vm, "ip route add default via 192.168.77.1; ip -6 route add default via fd77::1");
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        a.set_sysctl(setting, "1").unwrap();
    }
    let addresses = ["192.168.77.2", "fd77::2"].map(|ip| ip.parse().unwrap());
    let _echo = Echo::start(&vm, &addresses).unwrap();
    nft(a, &publish(&addresses));
    let agent = Agent::start(a);
    let attached = [(1, 1), (2, 2)].map(|(subnet, device)| stage.attach(subnet, device, 1));
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    forwards(a);
    let near = lab.client(&stage.subnets[0]).unwrap();
    let clients: [(&str, &Host); 2] = [("the remote host", lab.remote()), ("a client", &near)];
    let addresses: Vec<IpAddr> =
        attached.iter().flat_map(|interface| interface.addresses.clone()).collect();
    assert_eq!(unanswered(&clients, &addresses, ANSWER), [""; 0]);
    assert_eq!(lab.violations(), []);
    agent.stop();
}

#[test]
fn switched_off_nothing_is_marked_and_a_secondary_does_not_answer() {
    let stage = Stage::new();
    let a = &stage.a;
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    nft(a, &publish(container.addresses()));
    let agent = Agent::with_config(a, &format!("{LAB_CONFIG}[defaults]\ncontainers = \"off\"\n"));
    let attached = stage.attach(2, 1, 1);
    configured_within(a, &attached, PATIENCE);
    forwards(a);
    let remote: [(&str, &Host); 1] = [("the remote host", stage.lab.remote())];
    let left = unanswered(&remote, &attached.addresses, Duration::from_millis(500));
    assert_eq!(left.len(), 4, "{left:?}");
    let primary: Vec<IpAddr> = a.primary().addresses().collect();
    assert_eq!(unanswered(&remote, &primary, ANSWER), [""; 0]);
    assert_eq!(tables(a), ["table inet engine"]);
    agent.stop();
}

#[test]
fn marks_come_and_go_with_destination_nat_and_with_the_interfaces() {
    let stage = Stage::new();
    let a = &stage.a;
    a.set_sysctl("net/ipv4/conf/default/rp_filter", "1").unwrap();
    let before = NetworkState::settled(a);
    let agent = Agent::start(a);
    let attached = [(2, 1), (2, 2)].map(|(subnet, device)| stage.attach(subnet, device, 1));
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    let plain = NetworkState::settled(a);
    // The engine starts: it forwards, and makes a chain for NAT.
    a.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    nft(a, "add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; }");
    let loose = |is: &str| ["eth1", "eth2"].iter().all(|name| filter(a, name) == is);
    eventually("connections are marked", PATIENCE, || has_marks(a) && loose("2"));
    let marked = succeed(a, &["plan"]);
    assert!(!marked.contains("mark"), "{marked}");
    // Who is not let look at nf_tables sees no difference either.
    let config = ConfigFile::new(LAB_CONFIG);
    let mut powerless = a.command("setpriv").unwrap();
    powerless.args(["--bounding-set=-all", "--inh-caps=-all", JACKFIELD]);
    let output = powerless.args(["--config", config.path(), "plan"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), marked);

    // Somebody removes what is ours.
    for deed in
        ["flush ruleset", "delete table inet jackfield", "flush chain inet jackfield forward"]
    {
        nft(a, deed);
        nft(
            a,
            "add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; }",
        );
        let text = "goto set_0x1_of_0x7f";
        eventually(&format!("all is put back after '{deed}'"), PATIENCE, || {
            has_marks(a) && {
                let table = nft(a, "list table inet jackfield");
                table.contains(text) && table.contains("vmap @interfaces")
            }
        });
    }
    shell(a, "ip rule del priority 14011 fwmark 0x1/0x7f");
    eventually("the rule is put back", PATIENCE, || {
        shell(a, "ip rule show priority 14011").contains("fwmark 0x1/0x7f")
    });

    // The engine stops.
    nft(a, "delete table ip nat");
    eventually("nothing is marked", PATIENCE, || !has_marks(a) && loose("1"));
    a.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
    becomes(&plain, a);

    // It starts again, and the interfaces go one by one.
    a.set_sysctl("net/ipv4/ip_forward", "1").unwrap();
    nft(a, "add table ip nat; add chain ip nat pre { type nat hook prerouting priority -100; }");
    eventually("connections are marked", PATIENCE, || has_marks(a) && loose("2"));
    stage.lab.detach(attached[0].mac).unwrap();
    eventually("the one that went is not in the table", PATIENCE, || {
        !nft(a, "list table inet jackfield").contains("set_0x1_of_0x7f")
    });
    assert!(nft(a, "list table inet jackfield").contains("set_0x2_of_0x7f"));
    stage.lab.detach(attached[1].mac).unwrap();
    eventually("nothing is marked", PATIENCE, || !has_marks(a));
    assert_eq!(tables(a), ["table ip nat"]);
    a.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
    becomes(&before, a);
    agent.stop();
}

#[test]
fn a_mark_of_somebody_else_is_left_alone() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    nft(a, &publish(container.addresses()));
    // Everybody's connection marks, in bits that are not ours, and one that uses ours.
    nft(
        a,
        "table inet others {
            counter kept {}
            counter changed {}
            counter marked {}
            chain first {
                type filter hook prerouting priority -160
                ct mark set ct mark or 0x4080
            }
            chain seen {
                type filter hook postrouting priority 300
                oifname eth1 ct mark & 0xffffff80 == 0x4080 ct mark & 0x7f != 0 counter name \"kept\"
                meta mark & 0xff0000 == 0x40000 meta mark != 0x40000 counter name \"changed\"
                ct mark & 0x7f != 0 iifname eth2 counter name \"marked\"
            }
            chain marks {
                type filter hook prerouting priority -155
                iifname eth2 meta mark set 0x40000
            }
        }",
    );
    let agent = Agent::start(a);
    let attached = [(2, 1), (2, 2)].map(|(subnet, device)| stage.attach(subnet, device, 1));
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    eventually("both are marked", PATIENCE, || {
        has_marks(a) && nft(a, "list table inet jackfield").contains("set_0x2_of_0x7f")
    });
    forwards(a);
    let remote: [(&str, &Host); 1] = [("the remote host", lab.remote())];
    assert_eq!(unanswered(&remote, &attached[0].addresses, ANSWER), [""; 0]);
    // Marked by somebody else when it came in, a packet goes where that one says.
    let left = unanswered(&remote, &attached[1].addresses, Duration::from_millis(300));
    assert_eq!(left.len(), 4, "{left:?}");
    let count = |counter: &str| {
        let text = nft(a, &format!("list counter inet others {counter}"));
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(count("kept") > 0);
    assert_eq!((count("changed"), count("marked")), (0, 0));
    agent.stop();
}

#[test]
fn commands_mark_and_unmark_and_a_second_pass_writes_nothing() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let before = NetworkState::settled(a);
    let attached = stage.attach(2, 1, 1);
    let config = ConfigFile::new(&format!("{LAB_CONFIG}[defaults]\ncontainers = \"on\"\n"));
    let run = |arguments: &[&str]| {
        let output = jackfield_with(a, &config, arguments);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    // Whether anything is forwarded or not.
    let first = run(&["plug", "eth1", "--json"]);
    let marks = |report: &serde_json::Value| -> Vec<serde_json::Value> {
        let changes = report["changes"].as_array().unwrap();
        changes.iter().filter(|change| change["object"] == "mark").cloned().collect()
    };
    let index = a.link("eth1").unwrap().index;
    let [mark] = &marks(&first)[..] else { panic!("{first:#}") };
    assert_eq!(mark["action"], "add");
    assert_eq!(mark["after"]["interfaces"][0], serde_json::json!({ "ifindex": index, "mark": 1 }));
    let second = run(&["plug", "eth1", "--json"]);
    assert_eq!(
        (&second["changes"], &second["netlink_writes"]),
        (&serde_json::json!([]), &0.into())
    );

    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    nft(a, &publish(container.addresses()));
    forwards(a);
    let remote: [(&str, &Host); 1] = [("the remote host", lab.remote())];
    assert_eq!(unanswered(&remote, &attached.addresses, ANSWER), [""; 0]);
    nft(a, "delete table inet engine");
    shell(a, "ip link del docker0; ip link del vethc1 || true");
    a.set_sysctl("net/ipv4/ip_forward", "0").unwrap();
    a.set_sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();

    let last = run(&["unplug", "eth1", "--json"]);
    assert_eq!(marks(&last)[0]["action"], "remove");
    assert_eq!(tables(a), [""; 0]);
    lab.detach(attached.mac).unwrap();
    becomes(&before, a);
}

#[test]
fn a_port_that_the_older_iptables_publishes_answers_too() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    let [four, _] = families(container.addresses());
    shell(
        a,
        &format!(
            "for protocol in tcp udp; do iptables-legacy -t nat -A PREROUTING -p $protocol \
                 -m addrtype --dst-type LOCAL --dport {PUBLISHED} -j DNAT --to {four}:7; done"
        ),
    );
    let agent = Agent::start(a);
    let attached = [(2, 1), (2, 2)].map(|(subnet, device)| stage.attach(subnet, device, 1));
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    let ipv4: Vec<IpAddr> =
        attached.iter().map(|interface| families(&interface.addresses)[0]).collect();
    forwards(a);
    let remote: [(&str, &Host); 1] = [("the remote host", lab.remote())];
    assert_eq!(unanswered(&remote, &ipv4, ANSWER), [""; 0]);
    agent.stop();
}

#[test]
fn killed_at_any_message_to_the_kernel_the_next_command_finishes_or_leaves_nothing() {
    require_strace();
    let stage = Stage::new();
    let a = &stage.a;
    a.set_sysctl("net/ipv4/conf/default/rp_filter", "1").unwrap();
    stage.attach(2, 1, 1);
    let config = ConfigFile::new(&format!("{LAB_CONFIG}[defaults]\ncontainers = \"on\"\n"));
    let run = |arguments: &[&str]| {
        let output = jackfield_with(a, &config, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    let state = || {
        let rules = shell(a, "ip rule; ip -6 rule");
        let alias = a.link("eth1").unwrap().alias.unwrap_or_default();
        (nft(a, "list ruleset"), rules, filter(a, "eth1"), alias)
    };
    let bare = state();
    run(&["plug", "eth1"]);
    let plugged = state();
    assert_eq!(plugged.2, "2");
    for (command, start, done) in [("plug", "unplug", &plugged), ("unplug", "plug", &bare)] {
        let mut kills = 0;
        for call in ["sendto", "write"] {
            for nth in 1.. {
                run(&[start, "eth1"]);
                if !is_killed(a, &config, call, nth, &[command, "eth1"]) {
                    break;
                }
                kills += 1;
                if nth % 2 == 0 {
                    // What went on is given up.
                    run(&[start, "eth1"]);
                    assert_eq!(
                        state(),
                        if command == "plug" { bare.clone() } else { plugged.clone() }
                    );
                }
                run(&[command, "eth1"]);
                assert_eq!(&state(), done, "after {command} was killed at {call} {nth}");
            }
        }
        assert!(kills > 5, "{command} was killed {kills} times");
    }
}
