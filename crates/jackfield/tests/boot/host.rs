//! The machine that has VMs: networks as CNI configures them, and `jackfield vm`. Everything that is
//! made goes with it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::machine::Machine;

/// Where the cache is that libcni would read.
const RESULTS: &str = "/var/lib/cni/results";

pub(crate) struct Host {
    machine: Machine,
    directory: Directory,
}

impl Host {
    /// A machine with addresses that stand for the world outside.
    pub(crate) fn new(addresses: &[&str]) -> Self {
        let host = Host { machine: Machine::new(), directory: Directory::new() };
        for address in addresses {
            host.machine.shell(&format!("ip address add {address} dev lo"));
        }
        host
    }

    /// A file of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// A command that will start on this machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.machine.command(program)
    }

    /// Configures a network: a plugin that makes interfaces, with addresses from host-local, and
    /// tc-redirect-tap behind it.
    pub(crate) fn configure(&self, network: &str, mut plugin: Value, addresses: &Addresses) {
        let ranges = addresses.subnets.iter().map(|subnet| json!([{ "subnet": subnet }]));
        plugin["ipam"] = json!({
            "type": "host-local",
            "ranges": ranges.collect::<Vec<_>>(),
            "routes": addresses.routes,
        });
        plugin["dns"] = addresses.dns.clone();
        self.machine.configure(network, vec![plugin, json!({ "type": "tc-redirect-tap" })]);
    }

    /// `jackfield vm up` with the networks, by this format.
    #[track_caller]
    pub(crate) fn up(&self, networks: &[&str], format: &str, more: &[&str]) -> Vm<'_> {
        let id = "guest".to_owned();
        let mut arguments = vec!["up", &id, "--format", format];
        arguments.extend(networks.iter().flat_map(|network| ["--network", network]));
        arguments.extend(more);
        let printed = self.machine.succeed(&arguments);
        let results = networks.iter().map(|network| self.result(network)).collect();
        Vm { host: self, id, printed, results }
    }

    /// What the network's plugins said, from the cache that libcni would read.
    fn result(&self, network: &str) -> Value {
        let read =
            |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let cached: Vec<Value> = self.machine.run(|| {
            let files = fs::read_dir(RESULTS).unwrap();
            files.map(|entry| read(entry.unwrap().path())).collect()
        });
        let mut of_network = cached.iter().filter(|entry| entry["networkName"] == network);
        let entry = of_network.next().unwrap();
        assert_eq!(of_network.next(), None);
        entry["result"].clone()
    }
}

/// What a network gives to its guests.
pub(crate) struct Addresses {
    pub(crate) subnets: Vec<&'static str>,
    pub(crate) routes: Value,
    pub(crate) dns: Value,
}

/// A VM's network that is up.
pub(crate) struct Vm<'a> {
    pub(crate) host: &'a Host,
    pub(crate) id: String,
    /// What `vm up` printed.
    pub(crate) printed: String,
    /// What the plugins said, a result a network, in the order in which the networks were given.
    pub(crate) results: Vec<Value>,
}

impl Vm<'_> {
    /// What QEMU is to be started with, by `jackfield vm conf` from each result.
    pub(crate) fn qemu_arguments(&self, device: &str) -> Vec<String> {
        let mut arguments = Vec::new();
        for (position, result) in self.results.iter().enumerate() {
            let file = self.host.file("result.json");
            fs::write(&file, result.to_string()).unwrap();
            let mut conf = vec!["conf", "--container-id", &self.id];
            conf.extend(["--result", file.to_str().unwrap()]);
            conf.extend(["--format", "qemu", "--qemu-device", device]);
            let printed = self.host.machine.succeed(&conf);
            // Each is printed for itself, and calls its first interface the same.
            let printed = printed.replace("=net0", &format!("=net{position}"));
            arguments.extend(printed.split_whitespace().map(str::to_owned));
        }
        arguments
    }

    /// The namespace in which its taps are.
    pub(crate) fn netns(&self) -> String {
        let sandbox = |interface: &Value| Some(interface["sandbox"].as_str()?.to_owned());
        let interfaces = self.results[0]["interfaces"].as_array().unwrap();
        interfaces.iter().filter_map(sandbox).find(|is| is.starts_with('/')).unwrap()
    }

    /// `jackfield vm down`, which leaves neither the namespace nor a link to it.
    pub(crate) fn down(self) {
        let netns = self.netns();
        self.host.machine.succeed(&["down", &self.id]);
        assert_eq!(self.host.machine.shell("ip -o link show type veth"), "");
        let gone = self.host.command("test").args(["!", "-e", &netns]).status().unwrap();
        assert!(gone.success(), "{netns} is still there");
    }
}

/// A directory that goes with its holder.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jackfield-boot-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
