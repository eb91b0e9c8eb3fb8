//! One rule for several addresses.

use std::net::IpAddr;

use jackfield_lab::{Host, Lab, Plug};

use crate::harness::*;

fn device_from(host: &Host, source: IpAddr) -> String {
    let (to, family) = match source {
        IpAddr::V4(_) => (Lab::REMOTE_IPV4, "-4"),
        IpAddr::V6(_) => (Lab::REMOTE_IPV6, "-6"),
    };
    let route = shell(host, &format!("ip {family} route get {to} from {source}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).unwrap_or_default().to_owned()
}

#[test]
fn an_address_of_somebody_else_among_those_of_an_interface_goes_its_own_way() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let interface = lab.interface(&stage.subnets[1], 2).unwrap();
    let among = lab.new_addresses(&stage.subnets[1]);
    let mut attached = Attached::of(&interface, 1);
    for _ in 0..3 {
        for ip in lab.new_addresses(&stage.subnets[1]) {
            lab.add_address(attached.mac, ip).unwrap();
            attached.addresses.push(ip);
        }
    }
    let agent = Agent::start(a);
    lab.attach(a, attached.mac, &Plug::new(1)).unwrap();
    configured_within(a, &attached, PATIENCE);
    let rules = || shell(a, "ip rule show; ip -6 rule show").matches("lookup 10001").count();
    eventually("one rule of each family", PATIENCE, || rules() == 2);
    for ip in &among {
        shell(a, &format!("ip address add {ip} dev lo"));
    }
    eventually("they go their own way", PATIENCE, || {
        among.iter().all(|ip| device_from(a, *ip) != "eth1")
    });
    for ip in &attached.addresses {
        assert_eq!(device_from(a, *ip), "eth1", "{ip}");
    }
    assert!(rules() > 2);
    answers_within(lab.remote(), a, &attached.addresses, PATIENCE);
    for ip in &among {
        shell(a, &format!("ip address del {ip} dev lo"));
    }
    eventually("one rule of each family again", PATIENCE, || rules() == 2);
    agent.stop();
}
