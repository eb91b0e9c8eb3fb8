//! What comes to light late.

use super::*;
use jackfield_lab::emulator::Lag;
use std::time::{Duration, Instant};

fn attach(service: &Service, lag: Lag) {
    service.cloud.add_interface(secondary()).unwrap();
    service.cloud.attach_with_lag(SECONDARY, "i-a", 1, Some(1), lag).unwrap();
}

#[test]
fn a_held_interface_appears_when_it_is_released() {
    let service = service();
    attach(&service, Lag::none().listed(Lag::HELD));
    assert_eq!(service.listing(), "02:ec:20:00:00:01/");
    assert_eq!(service.key(SECONDARY, "interface-id"), None);
    service.cloud.release_key(SECONDARY, "macs/").unwrap();
    assert_eq!(service.key(SECONDARY, "interface-id").as_deref(), Some("eni-2"));
}

#[test]
fn a_held_key_is_neither_listed_nor_found() {
    let service = service();
    attach(&service, Lag::none().key("network-card", Lag::HELD).addresses(Lag::HELD));
    let listed = service.key(SECONDARY, "").unwrap();
    for key in ["network-card", "local-ipv4s", "ipv6s", "ipv4-prefix", "ipv6-prefix"] {
        assert!(!listed.lines().any(|line| line == key), "{listed}");
        assert_eq!(service.key(SECONDARY, key), None, "{key}");
    }
    service.cloud.release(SECONDARY).unwrap();
    assert_eq!(service.key(SECONDARY, "local-ipv4s").as_deref(), Some("10.0.0.20\n10.0.0.21"));
    assert_eq!(service.key(SECONDARY, "network-card").as_deref(), Some("1"));
}

#[test]
fn the_device_number_reads_0_until_it_is_known() {
    let service = service();
    attach(&service, Lag::none().device_number(Lag::HELD));
    assert_eq!(service.key(SECONDARY, "device-number").as_deref(), Some("0"));
    service.cloud.release_key(SECONDARY, "device-number").unwrap();
    assert_eq!(service.key(SECONDARY, "device-number").as_deref(), Some("1"));
}

#[test]
fn lag_ends_by_itself() {
    let service = service();
    let attached = Instant::now();
    attach(&service, Lag::none().addresses(Duration::from_millis(80)));
    while service.key(SECONDARY, "ipv6s").is_none() {
        assert!(attached.elapsed() < Duration::from_secs(5));
    }
    assert!(attached.elapsed() >= Duration::from_millis(80));
}

#[test]
fn a_change_is_shown_after_its_lag() {
    let service = service();
    attach(&service, Lag::none());
    service.cloud.show_changes_after(Duration::from_secs(3600));
    service.cloud.add_address(SECONDARY, "10.0.0.22".parse().unwrap()).unwrap();
    service.cloud.remove_address(SECONDARY, "10.0.0.20".parse().unwrap()).unwrap();
    assert_eq!(service.key(SECONDARY, "local-ipv4s").as_deref(), Some("10.0.0.20\n10.0.0.21"));
    service.cloud.release(SECONDARY).unwrap();
    assert_eq!(service.key(SECONDARY, "local-ipv4s").as_deref(), Some("10.0.0.21\n10.0.0.22"));
}
