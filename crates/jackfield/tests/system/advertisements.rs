//! Router advertisements as they come from the wire, to a kernel that listens to them.

use std::net::Ipv6Addr;
use std::time::Duration;

use jackfield_lab::{Host, Lab, Plug, RouterAdvertisement};

use crate::harness::*;

/// None of these is fe80:ec2::1.
const PRIMARYS_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x71);
const SECONDARYS_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x72);
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

fn by(router: Ipv6Addr, lifetime: Duration) -> RouterAdvertisement {
    RouterAdvertisement { router, lifetime }
}

/// A stage whose kernel listens to advertisements, as every kernel does that nobody told otherwise and
/// that does not forward; and whose primary has no other default route for IPv6 than theirs.
fn stage() -> Stage {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    // How often the kernel looks for routes whose lifetime is over, from the first one on.
    a.set_sysctl("net/ipv6/route/gc_interval", "1").unwrap();
    a.set_sysctl("net/ipv6/conf/default/accept_ra", "1").unwrap();
    a.set_sysctl("net/ipv6/conf/eth0/accept_ra", "1").unwrap();
    shell(a, "ip -6 route delete default dev eth0");
    lab.advertise(a.primary().mac, by(PRIMARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    eventually("the primary has the route of the advertisement", PATIENCE, || {
        advertised(a, "eth0").contains(&format!("default via {PRIMARYS_ROUTER}"))
    });
    stage
}

/// Main's routes by a device that the kernel made of advertisements: `proto ra`, and the subnet's.
fn advertised(host: &Host, device: &str) -> String {
    shell(
        host,
        &format!(
            "ip -6 route show table main proto ra dev {device}
             ip -6 route show table main proto kernel dev {device} | grep -v ^fe80 || true"
        ),
    )
}

/// How many advertisements the kernel has had by a device.
fn heard(host: &Host, device: &str) -> u32 {
    let counters = shell(host, &format!("cat /proc/net/dev_snmp6/{device}"));
    let line = counters.lines().find(|line| line.starts_with("Icmp6InRouterAdvertisements"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn default_of_table(host: &Host) -> String {
    shell(host, "ip -6 route show table 10001 default proto 106")
}

#[track_caller]
fn assert_leads_by(host: &Host, from: &Attached, router: &str) {
    let own = from.addresses.iter().find(|ip| ip.is_ipv6()).unwrap();
    let route = shell(host, &format!("ip -6 route get {} from {own}", Lab::REMOTE_IPV6));
    assert!(route.contains(&format!("via {router} dev eth1 ")), "{route}");
}

#[test]
fn what_a_secondary_is_advertised_is_not_in_main_and_the_primarys_route_stays_the_first() {
    let stage = stage();
    let (lab, a) = (&stage.lab, &stage.a);
    let agent = Agent::start(a);
    let record = stage.interface(2, 2);
    lab.advertise(record.mac, by(SECONDARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    lab.attach(a, record.mac, &Plug::new(1)).unwrap();
    let attached = Attached::of(&record, 1);
    configured_within(a, &attached, PATIENCE);
    // The kernel asks once its link-local address is in use, and is answered.
    eventually("an answer was heard", PATIENCE, || heard(a, "eth1") > 0);
    let before = heard(a, "eth1");
    lab.advertise(record.mac, by(SECONDARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    eventually("one that nobody asked for was heard", PATIENCE, || heard(a, "eth1") > before);

    assert_eq!(advertised(a, "eth1"), "");
    let addresses = shell(a, "ip -6 -o address show dev eth1 scope global");
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
    assert_leads_by(a, &attached, "fe80:ec2::1");
    // What the host begins leaves by the primary, with whatever our last resort is.
    let route = shell(a, &format!("ip -6 route get {}", Lab::REMOTE_IPV6));
    assert!(route.contains(&format!("via {PRIMARYS_ROUTER} dev eth0 ")), "{route}");
    let own = a.primary().ipv6[0];
    assert!(route.contains(&format!("src {own} ")), "{route}");
    let all: Vec<_> = a.primary().addresses().chain(attached.addresses.clone()).collect();
    answers_within(lab.remote(), a, &all, PATIENCE);
    assert_eq!(succeed(a, &["plan"]), "nothing would change\n");

    // The primary's router goes: nobody else's route takes its place but the last resort.
    lab.advertise(a.primary().mac, by(PRIMARYS_ROUTER, Duration::ZERO)).unwrap();
    eventually("the primary's route is gone", PATIENCE, || {
        !advertised(a, "eth0").contains("default")
    });
    let defaults = shell(a, "ip -6 route show table main default");
    assert!(defaults.lines().all(|line| line.contains(" proto 106 metric 10")), "{defaults}");
    // It comes back, before that.
    lab.advertise(a.primary().mac, by(PRIMARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    eventually("the primary's route is the first again", PATIENCE, || {
        let route = shell(a, &format!("ip -6 route get {}", Lab::REMOTE_IPV6));
        route.contains(&format!("via {PRIMARYS_ROUTER} dev eth0 "))
    });
    assert_eq!(succeed(a, &["plan"]), "nothing would change\n");
    assert_eq!(lab.violations(), []);
    agent.stop();
}

/// An interface that was up before it is plugged: the kernel has listened.
#[test]
fn the_router_that_the_kernel_learnt_before_a_plug_is_used_until_its_lifetime_ends() {
    let stage = stage();
    let (lab, a) = (&stage.lab, &stage.a);
    let lifetime = Duration::from_secs(8);
    let attached = stage.attach(2, 1, 2);
    shell(a, "ip link set eth1 up");
    let learnt = |a: &Host| advertised(a, "eth1").contains(&SECONDARYS_ROUTER.to_string());
    lab.advertise(attached.mac, by(SECONDARYS_ROUTER, lifetime)).unwrap();
    eventually("the kernel has learnt of the router", PATIENCE, || learnt(a));
    let agent = Agent::start(a);
    configured_within(a, &attached, PATIENCE);
    let advertised_router = SECONDARYS_ROUTER.to_string();
    assert!(default_of_table(a).contains(&advertised_router), "{}", default_of_table(a));
    assert_leads_by(a, &attached, &advertised_router);
    answers_within(lab.remote(), a, &attached.addresses, PATIENCE);
    // Nothing that is advertised from now on makes it last.
    let before = heard(a, "eth1");
    lab.advertise(attached.mac, by(SECONDARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    eventually("a longer lifetime was heard", PATIENCE, || heard(a, "eth1") > before);
    eventually("the kernel's route is gone", 2 * PATIENCE, || !learnt(a));
    eventually("the router of every subnet is used", Duration::from_secs(1), || {
        default_of_table(a).contains("via fe80:ec2::1 ")
    });
    assert_leads_by(a, &attached, "fe80:ec2::1");
    answers_within(lab.remote(), a, &attached.addresses, PATIENCE);
    agent.stop();

    // Unplugged, it stays up, as it was, and the kernel listens again.
    succeed(a, &["unplug", "eth1"]);
    assert!(!learnt(a));
    lab.advertise(attached.mac, by(SECONDARYS_ROUTER, HALF_AN_HOUR)).unwrap();
    eventually("the kernel has learnt of the router again", PATIENCE, || learnt(a));
    assert_eq!(lab.violations(), []);
}
