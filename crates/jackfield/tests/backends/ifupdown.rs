//! `backend = "ifupdown"`, on Debian as installed: ifupdown, isc-dhcp-client, dash.

use std::net::IpAddr;
use std::process::Stdio;

use jackfield_lab::{Plug, Process};

use crate::client_matrix::Matrix;
use crate::harness::*;
use crate::place::*;

const CONFIG: &str =
    "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n[defaults]\nbackend = \"ifupdown\"\n";

const PROGRAMS: [&str; 4] =
    ["/usr/sbin/ifup", "/usr/sbin/ifdown", "/usr/sbin/dhclient", "/usr/sbin/udhcpd"];

#[test]
fn an_interface_is_plugged_by_ifup_and_unplugged_by_ifdown_and_nothing_is_left() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let files = place.files();
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 3);
    let _server = DhcpServer::start(&place, &eth1, 600);
    let before = NetworkState::settled(a);

    // By the kernel back-end first, to compare.
    succeed(a, &["plug", "eth1"]);
    let by_kernel = NetworkState::settled(a);
    succeed(a, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));

    succeed_with(a, &config, &["plug", "eth1"]);
    place.is_configured(&config, "eth1");
    assert_equal_but_for_addresses(&by_kernel, &NetworkState::settled(a));
    place.everybody_meets(&eth1.addresses, "after the plug");
    // The server sends more than an address; nothing else of it is taken.
    assert_eq!(shell(a, "cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
    let client = processes(a, "dhclient");
    assert!(client.len() == 1 && client[0].contains("/etc/dhcp/dhclient-eth1.conf"), "{client:?}");
    let leased = eth1.addresses.iter().find(|ip| ip.is_ipv4()).unwrap();
    let dynamic = shell(a, "ip -4 -o address show dev eth1 dynamic");
    assert!(
        dynamic.contains(&format!(" {leased}/32 ")) && dynamic.lines().count() == 1,
        "{dynamic}"
    );

    // Nothing to do is nothing written and nobody told.
    let again = succeed_with(a, &config, &["plug", "eth1"]);
    assert_eq!(again, "nothing to do: no netlink write was sent\n");
    assert_eq!(processes(a, "dhclient"), client);

    // The files say enough for the manager alone, as when the host boots.
    let plugged = NetworkState::settled(a);
    shell(a, "ifdown eth1 2>&1");
    assert!(!shell(a, "ip address show eth1").contains("10.0.2."), "ifdown leaves addresses");
    shell(a, "ifup eth1 2>&1");
    assert_equal_but_for_addresses(&plugged, &NetworkState::settled(a));
    place.everybody_meets(&eth1.addresses, "after ifdown and ifup");

    succeed_with(a, &config, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
    assert_eq!(processes(a, "dhclient"), [""; 0]);
}

#[test]
fn everybody_meets_every_address_of_interfaces_that_ifup_plugged() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let (a, files) = (place.a(), place.files());
    let config = ConfigFile::new(CONFIG);
    let mut servers = Vec::new();
    let matrix = Matrix::with(&place.stage, 2, CONFIG, |interface| {
        servers.push(DhcpServer::start(&place, interface, 600));
    });
    for number in 1..=4 {
        let name = format!("eth{number}");
        place.is_configured(&config, &name);
        assert!(shell(a, "cat /run/network/ifstate").contains(&format!("{name}={name}")));
    }
    matrix.everybody_meets();

    succeed_with(a, &config, &["unplug", "eth1", "eth2", "eth3", "eth4"]);
    // The primary's further addresses are the kernel back-end's.
    assert!(!NetworkState::without(a, &["eth0"]).has_ours());
    assert_eq!(place.files(), files);
    assert_eq!(processes(a, "dhclient"), [""; 0]);
}

#[test]
fn the_agent_adds_an_address_without_taking_the_interface_down_and_cleans_up_after_a_pull() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    let (before, files) = (NetworkState::settled(a), place.files());
    let mut eth1 = place.stage.attach(2, 1, 1);
    let server = DhcpServer::start(&place, &eth1, 600);
    let agent = Agent::with_config(a, &CONFIG.replace("[agent]", "[agent]\nrefresh = \"1s\""));
    place.is_configured(&config, "eth1");
    place.everybody_meets(&eth1.addresses, "after the plug");
    let client = shell(a, "cat /run/dhclient.eth1.pid");

    let more: Vec<IpAddr> = place.stage.lab.new_addresses(place.subnet());
    for ip in &more {
        place.stage.lab.add_address(eth1.mac, *ip).unwrap();
    }
    eth1.addresses.extend(more);
    configured_within(a, &eth1, PATIENCE);
    place.is_configured(&config, "eth1");
    place.everybody_meets(&eth1.addresses, "with an address more");
    assert_eq!(shell(a, "cat /run/dhclient.eth1.pid"), client, "it was taken down and up again");
    let stanza = shell(a, "cat /etc/network/interfaces.d/eth1.cfg");
    assert!(eth1.addresses.iter().all(|ip| stanza.contains(&format!("{ip}/"))), "{stanza}");

    // A lease without a client is lost: somebody killed it.
    shell(a, "kill $(cat /run/dhclient.eth1.pid)");
    eventually("there is a client again", PATIENCE, || {
        let now = shell(a, "cat /run/dhclient.eth1.pid 2>/dev/null || true");
        !now.is_empty() && now != client
    });
    place.is_configured(&config, "eth1");
    place.everybody_meets(&eth1.addresses, "after the client was killed");

    place.stage.lab.detach(eth1.mac).unwrap();
    drop(server);
    becomes(&before, a);
    eventually("the files are gone", PATIENCE, || place.files() == files);
    eventually("the client has ended", PATIENCE, || processes(a, "dhclient").is_empty());
    agent.stop();
}

#[test]
fn a_plug_that_is_killed_while_ifup_waits_for_a_server_is_finished_by_the_next() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    let files = place.files();
    let eth1 = place.stage.attach(2, 1, 2);
    let before = NetworkState::settled(a);
    let mut command = a.command(JACKFIELD).unwrap();
    command.args(["--config", config.path(), "plug", "eth1"]).stderr(Stdio::null());
    let plug = Process::start(&mut command).unwrap();
    eventually("the client asks", PATIENCE, || !processes(a, "dhclient").is_empty());
    drop(plug);
    let _server = DhcpServer::start(&place, &eth1, 600);
    succeed_with(a, &config, &["plug", "eth1"]);
    place.is_configured(&config, "eth1");
    place.everybody_meets(&eth1.addresses, "after the second plug");
    assert_eq!(processes(a, "dhclient").len(), 1);
    succeed_with(a, &config, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
    assert_eq!(processes(a, "dhclient"), [""; 0]);
}

#[test]
fn an_interface_without_ipv4_is_plugged_without_a_dhcp_client() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let (a, lab) = (place.a(), &place.stage.lab);
    let config = ConfigFile::new(CONFIG);
    let files = place.files();
    let interface = lab.interface(&lab.ipv6_subnet(4), 2).unwrap();
    lab.attach(a, interface.mac, &Plug::new(1)).unwrap();
    let eth1 = Attached::of(&interface, 1);
    let before = NetworkState::settled(a);
    succeed_with(a, &config, &["plug", "eth1"]);
    place.is_configured(&config, "eth1");
    place.everybody_meets(&eth1.addresses, "after the plug");
    assert_eq!(processes(a, "dhclient"), [""; 0]);
    succeed_with(a, &config, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
}

#[test]
fn files_of_an_interface_that_went_while_no_agent_ran_are_removed_by_the_next_scan() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let (before, files) = (NetworkState::settled(a), place.files());
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 1);
    let server = DhcpServer::start(&place, &eth1, 600);
    succeed_with(a, &config, &["plug", "eth1"]);
    place.stage.lab.detach(eth1.mac).unwrap();
    drop(server);
    assert_ne!(place.files(), files);
    succeed_with(a, &config, &["scan"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
    assert_eq!(processes(a, "dhclient"), [""; 0]);
}

#[test]
fn a_file_by_hand_is_never_changed_and_ec2sync_no_keeps_jackfield_off() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    place.stage.attach(2, 1, 2);
    for (line, state, code) in
        [("# EC2SYNC=no", "unmanaged", "opted-out"), ("", "error", "configured-by-hand")]
    {
        let by_hand = format!("{line}\niface eth1 inet manual\n");
        shell(a, &format!("printf '%s' '{by_hand}' >/etc/network/interfaces.d/eth1.cfg"));
        let (before, files) = (NetworkState::settled(a), place.files());
        let agent = Agent::with_config(a, CONFIG);
        agent.wait_until_started();
        let status = jackfield_with(a, &config, &["status", "--json", "eth1"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let eth1 = &status["interfaces"][0];
        assert_eq!(eth1["state"], state, "{status}");
        assert_eq!(eth1["problems"][0]["code"], code, "{status}");
        agent.stop();
        let (exit, said) = failure(&jackfield_with(a, &config, &["plug", "--wait", "1", "eth1"]));
        assert!(exit == 1 && said.contains("interfaces.d/eth1.cfg"), "{said}");
        succeed_with(a, &config, &["unplug", "eth1"]);
        assert_same(&before, &NetworkState::settled(a));
        assert_eq!(place.files(), files, "{line}");
    }
}

#[test]
fn who_puts_a_stanza_of_his_own_in_the_place_of_ours_keeps_his_interface_up() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 1);
    let _server = DhcpServer::start(&place, &eth1, 600);
    succeed_with(a, &config, &["plug", "eth1"]);
    shell(
        a,
        "printf '# EC2SYNC=no\\nauto eth1\\niface eth1 inet manual\\n' >/run/his.cfg
         cp /run/his.cfg /etc/network/interfaces.d/eth1.cfg",
    );
    succeed_with(a, &config, &["scan"]);
    // What was ours is taken back: rules, routes, the files that belong to our stanza.
    assert!(!NetworkState::settled(a).has_ours());
    assert!(!place.files().iter().any(|file| file.contains("jackfield")), "{:?}", place.files());
    shell(
        a,
        "cmp /run/his.cfg /etc/network/interfaces.d/eth1.cfg; grep eth1=eth1 /run/network/ifstate",
    );
}

#[test]
fn without_ifup_nothing_is_changed_and_the_missing_program_is_named() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    place.stage.attach(2, 1, 1);
    shell(a, "touch /run/nothing && mount --bind /run/nothing /usr/sbin/ifup");
    let (before, files) = (NetworkState::settled(a), place.files());
    let (exit, said) = failure(&jackfield_with(a, &config, &["plug", "eth1"]));
    assert_eq!(exit, 1);
    assert!(said.contains("'ifup'") && said.lines().count() == 1, "{said}");
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
}

#[test]
fn an_ifup_that_fails_is_told_of_and_unplug_cleans_up() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    place.stage.attach(2, 1, 1);
    let (before, files) = (NetworkState::settled(a), place.files());
    shell(
        a,
        "printf '#!/bin/sh\\necho the dog ate it >&2; exit 1\\n' >/run/ifup; chmod +x /run/ifup
              mount --bind /run/ifup /usr/sbin/ifup",
    );
    let (exit, said) = failure(&jackfield_with(a, &config, &["-q", "plug", "eth1"]));
    assert_eq!(exit, 1);
    assert!(said.contains("ifup eth1 failed") && said.contains("the dog ate it"), "{said}");
    succeed_with(a, &config, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
}

#[test]
#[ignore = "long: most of a lease has to be over"]
fn a_lease_is_renewed_before_it_ends() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 1);
    // The broadcast that renews it comes when an eighth is left: that has to be enough for a machine
    // that is busy.
    let _server = DhcpServer::start(&place, &eth1, 120);
    succeed_with(a, &config, &["plug", "eth1"]);
    let seconds_left = || {
        let dynamic = shell(a, "ip -4 -o address show dev eth1 dynamic");
        let mut words = dynamic.split_whitespace().skip_while(|word| *word != "valid_lft");
        let left = words.nth(1).unwrap_or_else(|| panic!("the lease is over: {dynamic:?}"));
        left.trim_end_matches("sec").parse::<u32>().unwrap()
    };
    let long = std::time::Duration::from_secs(120);
    eventually("half of it is over", long, || seconds_left() < 60);
    eventually("it is renewed", long, || seconds_left() > 60);
    place.everybody_meets(&eth1.addresses, "after the renewal");
    succeed_with(a, &config, &["unplug", "eth1"]);
}
