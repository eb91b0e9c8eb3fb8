//! `jackfield render`: what it prints is what a back-end writes, and nothing is changed by it.

use crate::harness::*;
use crate::place::*;

#[test]
fn what_is_printed_is_what_would_be_written_for_each_interface() {
    let place = Place::new();
    let a = place.a();
    let (eth1, eth2) = (place.stage.attach(2, 1, 2), place.stage.attach(3, 2, 1));
    let (before, files) = (NetworkState::settled(a), place.files());

    let text = succeed(a, &["render", "--backend", "networkd"]);
    let paths: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# /")).collect();
    assert_eq!(
        paths,
        [&eth1, &eth2].map(|interface| {
            let mac = interface.mac.to_string().replace(':', "");
            format!("run/systemd/network/10-jackfield-{mac}.network")
        })
    );
    for ip in eth1.addresses.iter().chain(&eth2.addresses) {
        assert!(text.contains(&format!("\nAddress={ip}/")), "{ip}: {text}");
    }

    let json = succeed(a, &["render", "--backend", "ifupdown", "--json", "eth2"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["version"], 1);
    let printed = json["files"].as_array().unwrap();
    assert!(printed.iter().all(|file| file["interface"] == "eth2"), "{json}");
    let stanza = printed.iter().find(|file| file["path"] == "/etc/network/interfaces.d/eth2.cfg");
    assert!(stanza.unwrap()["text"].as_str().unwrap().contains("\niface eth2 inet manual\n"));

    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
}

#[test]
fn wrong_use_is_told_of_in_one_line() {
    let place = Place::new();
    for (arguments, exit, part) in [
        (&["render", "--backend", "netplan"][..], 2, "networkd"),
        (&["render"], 2, "--backend"),
        (&["render", "--backend", "networkd", "eth7"], 1, "eth7"),
        (&["render", "--backend", "networkd", "eth0"], 1, "primary"),
    ] {
        let (status, said) = failure(&jackfield(place.a(), arguments));
        assert_eq!(status, exit, "{arguments:?}: {said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}
