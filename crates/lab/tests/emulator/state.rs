//! What the cloud holds, and its changes at run time.

use super::*;
use jackfield_lab::emulator::CloudError;
use std::net::IpAddr;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_interface_has_the_keys_that_have_values() {
    let service = service();
    service.cloud.add_interface(secondary()).unwrap();
    service.cloud.attach(SECONDARY, "i-a", 1, Some(2)).unwrap();
    assert_eq!(service.listing(), "02:ec:20:00:00:01/\n02:ec:20:00:00:02/");
    let keys = [
        ("device-number", "1"),
        ("interface-id", "eni-2"),
        ("ipv4-prefix", "10.0.0.32/28"),
        ("ipv6-prefix", "2001:db8:0:1:f::/80"),
        ("ipv6s", "2001:db8:0:1::20"),
        ("local-hostname", "ip-10-0-0-20.ec2.internal"),
        ("local-ipv4s", "10.0.0.20\n10.0.0.21"),
        ("mac", "02:ec:20:00:00:02"),
        ("network-card", "2"),
        ("owner-id", "123456789012"),
        ("security-group-ids", "sg-0123456789abcdef0"),
        ("subnet-id", "subnet-1"),
        ("subnet-ipv4-cidr-block", "10.0.0.0/24"),
        ("subnet-ipv6-cidr-blocks", "2001:db8:0:1::/64"),
        ("vpc-id", "vpc-1"),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16\n10.1.0.0/16"),
        ("vpc-ipv6-cidr-blocks", "2001:db8:0:1::/64"),
    ];
    let listed: Vec<_> = keys.iter().map(|(key, _)| *key).collect();
    assert_eq!(service.key(SECONDARY, "").unwrap(), listed.join("\n"));
    for (key, text) in keys {
        assert_eq!(service.key(SECONDARY, key).as_deref(), Some(text), "{key}");
    }
    for absent in ["network-card", "ipv6s", "ipv4-prefix", "ipv6-prefix"] {
        assert_eq!(service.key(PRIMARY, absent), None, "{absent}");
    }
}

#[test]
fn a_literal_text_is_answered_to_the_letter() {
    let service = service();
    let odd = secondary()
        .with_literal("subnet-ipv4-cidr-block", "10.0.0.7/24")
        .with_literal("ipv6s", "2001:0db8:0000:0001:0000:0000:0000:0020");
    service.cloud.add_interface(odd).unwrap();
    service.cloud.attach(SECONDARY, "i-a", 1, None).unwrap();
    let key = |key| service.key(SECONDARY, key).unwrap();
    assert_eq!(key("subnet-ipv4-cidr-block"), "10.0.0.7/24");
    assert_eq!(key("ipv6s"), "2001:0db8:0000:0001:0000:0000:0000:0020");
}

#[test]
fn addresses_and_prefixes_come_and_go() {
    let Service { cloud, .. } = &service();
    cloud.add_interface(secondary()).unwrap();
    cloud.remove_address(SECONDARY, ip("10.0.0.20")).unwrap();
    cloud.add_address(SECONDARY, ip("10.0.0.22")).unwrap();
    cloud.add_address(SECONDARY, ip("2001:db8:0:1::21")).unwrap();
    cloud.remove_prefix(SECONDARY, "10.0.0.32/28".parse().unwrap()).unwrap();
    cloud.add_prefix(SECONDARY, "10.0.0.48/28".parse().unwrap()).unwrap();
    let record = cloud.interface(SECONDARY).unwrap();
    let addresses: Vec<_> = record.addresses().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.21", "10.0.0.22", "2001:db8:0:1::20", "2001:db8:0:1::21"]);
    let prefixes: Vec<_> = record.prefixes().map(|prefix| prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.0.0.48/28", "2001:db8:0:1:f::/80"]);
    assert!(record.holds(ip("10.0.0.63")) && !record.holds(ip("10.0.0.64")));
}

#[test]
fn an_address_moves_in_one_step() {
    let service = service();
    service.cloud.add_interface(secondary()).unwrap();
    service.cloud.attach(SECONDARY, "i-a", 1, None).unwrap();
    service.cloud.move_address(ip("10.0.0.21"), SECONDARY, PRIMARY).unwrap();
    assert_eq!(service.key(PRIMARY, "local-ipv4s").unwrap(), "10.0.0.10\n10.0.0.21");
    assert_eq!(service.key(SECONDARY, "local-ipv4s").unwrap(), "10.0.0.20");
}

#[test]
fn the_source_address_tells_the_instance() {
    let Service { cloud, .. } = &service();
    cloud.add_instance("i-b", SECONDARY);
    cloud.add_interface(secondary()).unwrap();
    assert_eq!(cloud.instance_of(ip("10.0.0.20")).as_deref(), Some("i-a"), "everyone else");
    cloud.attach(SECONDARY, "i-b", 0, None).unwrap();
    for address in ["10.0.0.20", "10.0.0.21", "10.0.0.40", "::ffff:10.0.0.20", "2001:db8:0:1::20"] {
        assert_eq!(cloud.instance_of(ip(address)).as_deref(), Some("i-b"), "{address}");
    }
    cloud.detach(SECONDARY).unwrap();
    assert_eq!(cloud.instance_of(ip("10.0.0.20")).as_deref(), Some("i-a"));
}

#[test]
fn a_detached_interface_can_linger_while_another_instance_has_it() {
    let service = service();
    let cloud = &service.cloud;
    cloud.add_interface(secondary()).unwrap();
    cloud.attach(SECONDARY, "i-a", 1, None).unwrap();
    cloud.list_after_detach(Duration::from_secs(300));
    cloud.add_instance("i-b", PRIMARY);
    cloud.detach(SECONDARY).unwrap();
    cloud.attach(SECONDARY, "i-b", 3, None).unwrap();
    assert_eq!(cloud.attachment(SECONDARY), Some(("i-b".to_owned(), 3)));
    assert!(service.listing().contains("02:ec:20:00:00:02/"));
    assert_eq!(service.key(SECONDARY, "device-number").as_deref(), Some("1"));
    cloud.forget_detached();
    assert_eq!(service.listing(), "02:ec:20:00:00:01/");
    assert_eq!(service.key(SECONDARY, "device-number"), None);
}

#[test]
fn what_cannot_be_is_refused() {
    let Service { cloud, .. } = &service();
    let (mac, address) = (SECONDARY, ip("10.0.0.20"));
    assert_eq!(cloud.attach(mac, "i-a", 1, None), Err(CloudError::UnknownInterface(mac)));
    cloud.add_interface(secondary()).unwrap();
    assert_eq!(cloud.add_interface(secondary()), Err(CloudError::InterfaceExists(mac)));
    assert_eq!(
        cloud.attach(mac, "i-z", 1, None),
        Err(CloudError::UnknownInstance("i-z".to_owned()))
    );
    assert_eq!(cloud.detach(mac), Err(CloudError::NotAttached(mac)));
    assert_eq!(
        cloud.attach(PRIMARY, "i-a", 1, None),
        Err(CloudError::Attached { mac: PRIMARY, instance: "i-a".to_owned() })
    );
    assert_eq!(cloud.add_address(PRIMARY, address), Err(CloudError::Held { holder: mac, address }));
    assert_eq!(
        cloud.remove_address(PRIMARY, address),
        Err(CloudError::NotHeld { mac: PRIMARY, address })
    );
}
