//! A machine: a network and mounts of its own, so that nothing of the real one is touched, with
//! plugins and networks at the usual places.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jackfield_kernel::{Link, LinkChange, MountNamespace, Namespace, Rtnetlink, Tap};
use rustix::mount::{MountFlags, mount};
use serde_json::{Value, json};

/// The program under test.
pub(crate) const JACKFIELD: &str = env!("CARGO_BIN_EXE_jackfield");

/// Where Debian has the plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// How long the kernel may take for what it does in the background.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the machine's configurations are.
pub(crate) const CONF_DIR: &str = "/etc/cni/conf.d";

/// This workspace's plugin, which is beside the program under test.
static TC_REDIRECT_TAP: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = Path::new(JACKFIELD).with_file_name("tc-redirect-tap");
    // Cargo builds only the tested package's executables.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "-p", "tc-redirect-tap"]);
    cargo.arg("--target-dir").arg(path.parent().unwrap().parent().unwrap());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(built.success() && path.exists(), "{} cannot be built", path.display());
    path
});

/// A machine without a name, which goes with what holds it.
pub(crate) struct Machine {
    pub(crate) network: Namespace,
    mounts: MountNamespace,
}

impl Machine {
    /// With the networks `one` (IPv4), `other` (IPv4, without routes, so that it can be a second one),
    /// `dual` (both families), all by `ptp`, and `bridged` (both families, by `bridge`). Those of both
    /// families take more than a second: the plugins wait until IPv6 addresses are no duplicates.
    pub(crate) fn new() -> Self {
        assert!(
            Path::new(PLUGINS).join("ptp").exists(),
            "{PLUGINS}/ptp is missing: install Debian's package containernetworking-plugins, as \
             .ci/run does"
        );
        let tap = &*TC_REDIRECT_TAP;
        let network = Namespace::anonymous().expect("these tests need root");
        let mounts = MountNamespace::anonymous(&network, || {
            for directory in ["/run", "/etc", "/opt", "/var/lib"] {
                mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"mode=755"))?;
            }
            std::fs::create_dir_all("/opt/cni/bin")?;
            std::os::unix::fs::symlink(tap, "/opt/cni/bin/tc-redirect-tap")
        })
        .unwrap();
        let machine = Machine { network, mounts };
        let mut kernel = Rtnetlink::open_in(&machine.network).unwrap();
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        kernel.request("set the loopback up", up.request(1)).unwrap();
        let one = json!([[{"subnet": "10.80.0.0/16"}]]);
        let dual = json!([[{"subnet": "10.81.0.0/16"}], [{"subnet": "fd81::/64"}]]);
        let bridged = json!([[{"subnet": "10.82.0.0/16"}], [{"subnet": "fd82::/64"}]]);
        let default = json!([{"dst": "0.0.0.0/0"}]);
        let both = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let ipam =
            |ranges, routes| json!({"type": "host-local", "ranges": ranges, "routes": routes});
        let other = json!({"type": "host-local", "ranges": [[{"subnet": "10.83.0.0/16"}]]});
        let other = json!({"type": "ptp", "ipam": other});
        machine.configure("other", vec![other, json!({"type": "tc-redirect-tap"})]);
        let dns = json!({"nameservers": ["1.1.1.1", "8.8.8.8"]});
        machine.configure(
            "one",
            vec![
                json!({"type": "ptp", "ipam": ipam(one, default), "dns": dns}),
                json!({"type": "tc-redirect-tap"}),
            ],
        );
        machine.configure(
            "dual",
            vec![
                json!({"type": "ptp", "mtu": 1400, "ipam": ipam(dual, both.clone())}),
                json!({"type": "tc-redirect-tap"}),
            ],
        );
        machine.configure("bridged", vec![
            json!({"type": "bridge", "bridge": "br-test", "isGateway": true, "ipam": ipam(bridged, both)}),
            json!({"type": "tc-redirect-tap"}),
        ]);
        machine
    }

    /// Writes the configuration of a network.
    pub(crate) fn configure(&self, name: &str, plugins: Vec<Value>) {
        self.configure_version(name, "1.0.0", plugins);
    }

    pub(crate) fn configure_version(&self, name: &str, version: &str, plugins: Vec<Value>) {
        let list = json!({"cniVersion": version, "name": name, "plugins": plugins});
        self.write(&format!("{CONF_DIR}/{name}.conflist"), &list.to_string());
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        self.run(|| {
            std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        });
    }

    /// Writes a plugin that is a shell script.
    pub(crate) fn install(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = format!("/opt/cni/bin/{name}");
        self.write(&path, &format!("#!/bin/sh\n{script}\n"));
        let mode = std::fs::Permissions::from_mode(0o755);
        self.run(|| std::fs::set_permissions(&path, mode).unwrap());
    }

    /// Runs something that sees the machine's files and network.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.mounts.enter().unwrap();
            work()
        };
        self.network.run(inside).unwrap()
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.network.start_inside(&mut command, Some(self.mounts.as_fd())).unwrap();
        command.stdin(Stdio::null());
        command
    }

    /// Runs `jackfield vm` to its end.
    pub(crate) fn vm(&self, arguments: &[&str]) -> Output {
        self.command(JACKFIELD).arg("vm").args(arguments).output().unwrap()
    }

    /// Runs it; it has to succeed. What it printed.
    #[track_caller]
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.vm(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }

    /// Runs it; it has to fail with a status and one line that says something. The line.
    #[track_caller]
    pub(crate) fn refuses(&self, arguments: &[&str], status: i32, said: &[&str]) -> String {
        let output = self.vm(arguments);
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        assert!(stderr.starts_with("jackfield: ") && stderr.lines().count() == 1, "{stderr}");
        for part in said {
            assert!(stderr.contains(part), "{arguments:?}: no {part:?} in: {stderr}");
        }
        stderr
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        let output = self.command("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The namespace at a path.
    pub(crate) fn namespace(&self, path: &str) -> Namespace {
        self.run(|| Namespace::at(Path::new(path)).unwrap())
    }

    /// Opens a VM's tap, as a VMM does.
    pub(crate) fn open_tap(&self, interface: &Value) -> Tap {
        let namespace = self.namespace(interface["netns_path"].as_str().unwrap());
        let name = interface["tap_name"].as_str().unwrap();
        namespace.run(|| Tap::open(name).unwrap()).unwrap()
    }

    /// What is there that a VM could leave behind: devices, namespaces, leases, what is remembered.
    pub(crate) fn state(&self) -> State {
        let mut state: BTreeSet<String> = self.run(|| {
            let files = ["/run", "/var/lib"].iter().flat_map(|it| files(Path::new(it)));
            let mounts = Namespace::mounted().unwrap();
            // Those of the real machine are listed as well, below what covers them.
            let mounts = mounts.iter().filter(|path| path.exists());
            let mounts = mounts.map(|path| format!("namespace {}", path.display()));
            files.chain(mounts).collect()
        });
        let links = Link::list(&mut Rtnetlink::open_in(&self.network).unwrap()).unwrap();
        state.extend(links.iter().map(|link| format!("device {}", link.name)));
        State(state)
    }

    /// What is there is this; devices of a deleted namespace go a little later.
    #[track_caller]
    pub(crate) fn assert_is(&self, expected: &State, when: &str) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        while state != *expected && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            state = self.state();
        }
        let more: Vec<_> = state.0.difference(&expected.0).collect();
        let less: Vec<_> = expected.0.difference(&state.0).collect();
        assert!(more.is_empty() && less.is_empty(), "{when}: more: {more:?}, less: {less:?}");
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        let is_lease = |it: &String| it.starts_with("/var/lib/cni/networks/");
        self.state().0.into_iter().filter(is_lease).collect()
    }
}

/// What is there, one thing a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State(BTreeSet<String>);

/// Files below a directory, but for what host-local keeps of a network for ever.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else if !(name == "lock" || name.starts_with("last_reserved_ip.")) {
            found.push(path.display().to_string());
        }
    }
    found
}
