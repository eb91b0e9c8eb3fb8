//! `backend = "networkd"`, with Debian's systemd-networkd, which has a bus of its own in the instance.

use std::net::IpAddr;
use std::process::Stdio;

use jackfield_lab::Process;

use crate::harness::*;
use crate::place::*;

const CONFIG: &str =
    "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n[defaults]\nbackend = \"networkd\"\n";

pub(crate) const PROGRAMS: [&str; 3] =
    ["/lib/systemd/systemd-networkd", "/usr/bin/networkctl", "/usr/bin/dbus-daemon"];

/// What is not networkd's stays: what somebody has to configure who has both.
const KEEP: &str = include_str!("../../../../packaging/networkd/50-jackfield.conf");

/// A bus on which everybody may do everything: who may what is not what is looked at.
const BUS: &str = r#"<busconfig><type>system</type>
    <listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
    <policy context="default">
        <allow user="*"/><allow own="*"/><allow send_destination="*"/>
        <allow receive_type="method_call"/><allow receive_type="method_return"/>
        <allow receive_type="error"/><allow receive_type="signal"/>
    </policy></busconfig>"#;

/// networkd, running.
pub(crate) struct Networkd<'a> {
    place: &'a Place,
    _bus: Process,
    daemon: Option<Process>,
}

impl<'a> Networkd<'a> {
    pub(crate) fn start(place: &'a Place, configuration: &str) -> Self {
        shell(
            place.a(),
            &format!(
                "mkdir -p /run/dbus /etc/systemd/networkd.conf.d
                 printf '%s' '{BUS}' >/run/bus.conf
                 printf '%s' '{configuration}' >/etc/systemd/networkd.conf.d/test.conf
                 install -d -o systemd-network -g systemd-network /run/systemd/netif \
                     /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
                 # As in a container: devices are not waited for until a udev has seen them.
                 mount -o remount,ro /sys"
            ),
        );
        let mut command = place.a().command("dbus-daemon").unwrap();
        command.args(["--config-file=/run/bus.conf", "--nofork", "--nopidfile"]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let bus = Process::start(&mut command).unwrap();
        let mut networkd = Networkd { place, _bus: bus, daemon: None };
        networkd.restart();
        networkd
    }

    fn restart(&mut self) {
        self.daemon = None;
        let script =
            "SYSTEMD_LOG_LEVEL=debug exec /lib/systemd/systemd-networkd 2>>/run/networkd.log";
        let mut command = self.place.a().command("sh").unwrap();
        command.args(["-c", script]).stdin(Stdio::null());
        self.daemon = Some(Process::start(&mut command).unwrap());
        eventually("networkd answers", PATIENCE, || {
            let mut networkctl = self.place.a().command("networkctl").unwrap();
            networkctl.arg("reload").output().unwrap().status.success()
        });
    }

    pub(crate) fn pid(&mut self) -> u32 {
        self.daemon.as_mut().unwrap().child().id()
    }

    /// How often it was told to read its files.
    fn reloads(&self) -> usize {
        let log = shell(self.place.a(), "cat /run/networkd.log");
        log.lines().filter(|line| line.contains("member=Reload")).count()
    }
}

/// The state of the network but for what networkd switches off for itself on a device that it has, and
/// leaves so: that the kernel listens to router advertisements.
pub(crate) fn settled(place: &Place) -> NetworkState {
    NetworkState::settled_without(place.a(), " accept_ra=")
}

#[test]
fn an_interface_is_plugged_and_unplugged_by_one_reload_each_and_nothing_is_left() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let mut networkd = Networkd::start(&place, KEEP);
    let files = place.files();
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 3);
    let before = settled(&place);

    // By the kernel back-end first, to compare.
    succeed(a, &["plug", "eth1"]);
    let by_kernel = settled(&place);
    succeed(a, &["unplug", "eth1"]);
    assert_same(&before, &settled(&place));

    let reloads = networkd.reloads();
    succeed_with(a, &config, &["plug", "eth1"]);
    place.is_configured(&config, "eth1");
    assert_equal_but_for_addresses(&by_kernel, &settled(&place));
    place.everybody_meets(&eth1.addresses, "after the plug");
    assert_eq!(networkd.reloads(), reloads + 1);

    // Nothing to do is nothing written and nobody told.
    let again = succeed_with(a, &config, &["plug", "eth1"]);
    assert_eq!(again, "nothing to do: no netlink write was sent\n");
    assert_eq!(networkd.reloads(), reloads + 1);

    // It starts again and takes everything up as its own, with nobody of us there.
    networkd.restart();
    assert_equal_but_for_addresses(&by_kernel, &settled(&place));
    place.everybody_meets(&eth1.addresses, "after networkd's restart");

    let reloads = networkd.reloads();
    succeed_with(a, &config, &["unplug", "eth1"]);
    assert_same(&before, &settled(&place));
    assert_eq!(place.files(), files);
    assert_eq!(networkd.reloads(), reloads + 1);
}

#[test]
fn an_interface_goes_from_one_back_end_to_the_other_and_back() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let _networkd = Networkd::start(&place, KEEP);
    let files = place.files();
    let config = ConfigFile::new(CONFIG);
    let eth1 = place.stage.attach(2, 1, 2);
    succeed(a, &["plug", "eth1"]);
    let by_kernel = settled(&place);
    for _ in 0..2 {
        succeed_with(a, &config, &["plug", "eth1"]);
        place.is_configured(&config, "eth1");
        assert_ne!(place.files(), files);
        place.everybody_meets(&eth1.addresses, "by networkd");
        succeed(a, &["plug", "eth1"]);
        assert_eq!(place.files(), files);
        assert_same(&by_kernel, &settled(&place));
        place.everybody_meets(&eth1.addresses, "by the kernel again");
    }
}

#[test]
fn networkd_takes_our_rules_away_when_it_is_not_told_to_keep_them_and_the_agent_puts_them_back() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let mut networkd = Networkd::start(&place, "");
    let (before, files) = (settled(&place), place.files());
    let config = ConfigFile::new(CONFIG);
    let agent = Agent::with_config(a, &CONFIG.replace("[agent]", "[agent]\nrefresh = \"1s\""));
    let mut eth1 = place.stage.attach(2, 1, 1);
    place.is_configured_but_for(&config, "eth1", &["rules-deleted-by-others"]);
    place.everybody_meets(&eth1.addresses, "after the plug");

    let more: Vec<IpAddr> = place.stage.lab.new_addresses(place.subnet());
    for ip in &more {
        place.stage.lab.add_address(eth1.mac, *ip).unwrap();
    }
    eth1.addresses.extend(more);
    configured_within(a, &eth1, PATIENCE);
    place.is_configured_but_for(&config, "eth1", &["rules-deleted-by-others"]);
    place.everybody_meets(&eth1.addresses, "with an address more");

    networkd.restart();
    place.is_configured_but_for(&config, "eth1", &["rules-deleted-by-others"]);
    place.everybody_meets(&eth1.addresses, "after networkd's restart");

    place.stage.lab.detach(eth1.mac).unwrap();
    eventually("nothing is left", PATIENCE, || {
        place.files() == files && NetworkState::settled_without(a, " accept_ra=") == before
    });
    agent.stop();
}

#[test]
fn without_networkd_the_failure_is_told_of_and_nothing_is_left_after_unplug() {
    if !has_programs(&PROGRAMS) {
        return;
    }
    let place = Place::new();
    let a = place.a();
    let config = ConfigFile::new(CONFIG);
    place.stage.attach(2, 1, 1);
    let (before, files) = (NetworkState::settled(a), place.files());
    let (exit, said) = failure(&jackfield_with(a, &config, &["-q", "plug", "eth1"]));
    assert_eq!(exit, 1);
    assert!(said.contains("networkctl reload failed"), "{said}");
    succeed_with(a, &config, &["-q", "unplug", "eth1"]);
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);

    shell(a, "touch /run/nothing && mount --bind /run/nothing /usr/bin/networkctl");
    let (exit, said) = failure(&jackfield_with(a, &config, &["plug", "eth1"]));
    assert_eq!(exit, 1);
    assert!(said.contains("'networkctl'") && said.lines().count() == 1, "{said}");
    assert_same(&before, &NetworkState::settled(a));
    assert_eq!(place.files(), files);
}
