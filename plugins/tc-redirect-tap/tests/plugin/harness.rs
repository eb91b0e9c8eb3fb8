//! What the tests are written with: a container's namespace with an interface in it, and calls of
//! the plugin.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use jackfield_kernel::{
    Address, AddressFlags, Filter, Link, LinkChange, Namespace, Qdisc, Rtnetlink, Tap, TapSettings,
    VethEnd, veth_pair,
};
use serde_json::{Value, json};

use crate::responder::{Guest, reaches};

pub(crate) const PLUGIN: &str = env!("CARGO_BIN_EXE_tc-redirect-tap");
pub(crate) const ADDRESS: &str = "10.0.0.2/24";
pub(crate) const GATEWAY: &str = "10.0.0.1";
pub(crate) const MTU: u32 = 1400;
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const MAC_TEXT: &str = "02:00:00:00:00:02";

/// A container's namespace with `eth0`, the other end of which, `host0`, is in a host's.
pub(crate) struct Place {
    pub(crate) host: Namespace,
    pub(crate) sandbox: Namespace,
    pub(crate) kernel: Rtnetlink,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        let mut on_host = Rtnetlink::open_in(&place.host).unwrap();
        let inside = VethEnd {
            name: "eth0",
            address: Some(MAC),
            mtu: Some(MTU),
            namespace: Some(&place.sandbox),
        };
        let outside = VethEnd { name: "host0", address: None, mtu: Some(MTU), namespace: None };
        on_host.request("make a veth pair", veth_pair(outside, inside)).unwrap();
        let mut place = place;
        bring_up(&mut on_host, "host0", &format!("{GATEWAY}/24"));
        bring_up(&mut place.kernel, "eth0", ADDRESS);
        place
    }

    /// Without an interface.
    pub(crate) fn empty() -> Self {
        let anonymous = || Namespace::anonymous().expect("the right to make namespaces");
        let (host, sandbox) = (anonymous(), anonymous());
        let kernel = Rtnetlink::open_in(&sandbox).unwrap();
        let mut place = Place { host, sandbox, kernel };
        for namespace in [&place.host, &place.sandbox] {
            let mut kernel = Rtnetlink::open_in(namespace).unwrap();
            up(&mut kernel, 1);
        }
        place.kernel = Rtnetlink::open_in(&place.sandbox).unwrap();
        place
    }

    /// A path to the sandbox, good as long as it is held.
    pub(crate) fn netns(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.sandbox.as_raw_fd())
    }

    pub(crate) fn links(&mut self) -> Vec<Link> {
        Link::list(&mut self.kernel).unwrap()
    }

    pub(crate) fn link(&mut self, name: &str) -> Link {
        let links = self.links();
        links.into_iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The only tap.
    pub(crate) fn tap(&mut self) -> (Link, TapSettings) {
        let taps = self.taps();
        let [tap] = taps.as_slice() else { panic!("{taps:?}") };
        tap.clone()
    }

    pub(crate) fn taps(&mut self) -> Vec<(Link, TapSettings)> {
        let devices = TapSettings::list(&mut self.kernel).unwrap();
        devices.into_iter().filter_map(|(link, tap)| Some((link, tap?))).collect()
    }

    pub(crate) fn change(&mut self, name: &str, change: LinkChange<'_>) {
        let index = self.link(name).index;
        self.kernel.request("change a link", change.request(index)).unwrap();
    }

    pub(crate) fn filters(&mut self, name: &str) -> Vec<Filter> {
        let index = self.link(name).index;
        Filter::list(&mut self.kernel, index).unwrap()
    }

    pub(crate) fn has_qdisc(&mut self, name: &str) -> bool {
        let index = self.link(name).index;
        let qdiscs = Qdisc::list(&mut self.kernel).unwrap();
        qdiscs.iter().any(|qdisc| qdisc.interface == index && qdisc.is_for_arriving())
    }

    /// Everything in the sandbox that a plugin could leave behind.
    pub(crate) fn state(&mut self) -> BTreeSet<String> {
        let mut state = BTreeSet::new();
        for link in self.links() {
            for filter in Filter::list(&mut self.kernel, link.index).unwrap() {
                state.insert(format!("{filter:?}"));
            }
            let Link { name, index, mtu, up, alias, alternative_names, group, address, .. } = link;
            let rest = (mtu, up, alias, alternative_names, group, address);
            state.insert(format!("{name} {index} {rest:?}"));
        }
        for qdisc in Qdisc::list(&mut self.kernel).unwrap() {
            state.insert(format!("{qdisc:?}"));
        }
        state
    }

    /// Runs a program in the sandbox, which must succeed.
    pub(crate) fn run(&self, words: &str) -> String {
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.sandbox.start_inside(&mut command, None).unwrap();
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the plugin before would have said.
    pub(crate) fn prev_result(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "host0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": MAC_TEXT, "sandbox": self.netns()},
            ],
            "ips": [{"interface": 1, "address": ADDRESS, "gateway": GATEWAY}],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {"nameservers": ["1.1.1.1"]},
        })
    }

    pub(crate) fn call<'a>(&'a self, command: &'a str) -> Call<'a> {
        Call {
            place: self,
            variables: vec![
                ("CNI_COMMAND", command.into()),
                ("CNI_CONTAINERID", "vm-1".into()),
                ("CNI_NETNS", self.netns()),
                ("CNI_IFNAME", "eth0".into()),
                ("CNI_PATH", "/opt/cni/bin".into()),
            ],
            config: json!({
                "cniVersion": "1.0.0",
                "name": "fcnet",
                "type": "tc-redirect-tap",
                "prevResult": self.prev_result(),
            }),
            raw: None,
        }
    }

    /// A guest on a tap, that answers.
    pub(crate) fn guest(&self, tap: &str, mac: &str, address: IpAddr) -> Guest {
        let tap = self.sandbox.run(|| Tap::open(tap).unwrap()).unwrap();
        Guest::start(tap, mac, vec![address])
    }

    /// Whether a datagram of so many octets comes back from a guest.
    pub(crate) fn reaches(&self, guest: IpAddr, octets: usize) -> bool {
        reaches(&self.host, guest, octets, Duration::from_secs(3))
    }

    /// An ADD that must succeed: its result.
    pub(crate) fn add(&self) -> Value {
        self.call("ADD").result()
    }
}

fn bring_up(kernel: &mut Rtnetlink, name: &str, address: &str) {
    let links = Link::list(kernel).unwrap();
    let index = links.iter().find(|link| link.name == name).unwrap().index;
    up(kernel, index);
    let flags = AddressFlags {
        no_prefix_route: false,
        no_dad: false,
        tentative: false,
        permanent: true,
        deprecated: false,
    };
    let address =
        Address { interface: index, address: address.parse().unwrap(), protocol: 0, flags };
    kernel.request("add an address", address.add()).unwrap();
}

fn up(kernel: &mut Rtnetlink, index: u32) {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    kernel.request("set a link up", up.request(index)).unwrap();
}

/// A call of the plugin.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    place: &'a Place,
    variables: Vec<(&'static str, String)>,
    pub(crate) config: Value,
    raw: Option<String>,
}

impl<'a> Call<'a> {
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.into()));
        self
    }

    pub(crate) fn args(self, args: &str) -> Self {
        self.variable("CNI_ARGS", args)
    }

    pub(crate) fn container(self, id: &str) -> Self {
        self.variable("CNI_CONTAINERID", id)
    }

    /// Sets, or with `null` removes, a field of the configuration.
    pub(crate) fn field(mut self, name: &str, value: Value) -> Self {
        let fields = self.config.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), value);
        }
        self
    }

    pub(crate) fn prev_result(self, result: &Value) -> Self {
        self.field("prevResult", result.clone())
    }

    /// Standard input as it is.
    pub(crate) fn stdin(mut self, text: &str) -> Self {
        self.raw = Some(text.to_owned());
        self
    }

    /// The command that makes it; under another program where words are given.
    pub(crate) fn command(&self, under: &[&str]) -> Command {
        let words: Vec<&str> = under.iter().copied().chain([PLUGIN]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("PATH", std::env::var("PATH").unwrap());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.place.host.start_inside(&mut command, None).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn output_under(&self, under: &[&str]) -> Output {
        let mut child = self.command(under).spawn().unwrap();
        let config = self.raw.clone().unwrap_or_else(|| self.config.to_string());
        // One that is killed does not read it.
        let _ = child.stdin.take().unwrap().write_all(config.as_bytes());
        child.wait_with_output().unwrap()
    }

    pub(crate) fn output(&self) -> Output {
        self.output_under(&[])
    }

    pub(crate) fn succeed(&self) {
        let output = self.output();
        assert!(output.status.success(), "{:?}: {output:?}", self.variables);
    }

    /// The result that it prints.
    pub(crate) fn result(&self) -> Value {
        let output = self.output();
        assert!(output.status.success(), "{:?}: {output:?}", self.variables);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The error that it prints: its code, and message with details.
    pub(crate) fn error(&self) -> (u64, String) {
        let output = self.output();
        assert_eq!(output.status.code(), Some(1), "{:?}: {output:?}", self.variables);
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
        (error["code"].as_u64().unwrap(), format!("{}: {}", text("msg"), text("details")))
    }

    /// It fails, says so with these words, and leaves everything as it was.
    pub(crate) fn is_refused(&self, words: &[&str]) {
        let kernel = Rtnetlink::open_in(&self.place.sandbox).unwrap();
        let handle = |namespace: &Namespace| namespace.try_clone().unwrap();
        let mut look =
            Place { host: handle(&self.place.host), sandbox: handle(&self.place.sandbox), kernel };
        let before = look.state();
        let (_, message) = self.error();
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
        assert_eq!(look.state(), before, "after {message}");
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
