//! Has those let go who would make again what is removed: DHCP clients with the tools' hooks, timers,
//! udev's rules, networkd.
//!
//! A DHCP client is ended by a signal that it cannot answer: asked, it would give the lease back and
//! take the address away. networkd keeps what it has configured when it is started anew, and lets an
//! interface be that it is told not to manage; told so while it runs, it would remove everything first.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jackfield_kernel::Link;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::take_over::ImportError;
use super::{Fate, Findings, FoundInterface, Tool};
use crate::carrier::{remove, run, run_expecting, write};
use crate::neighbours::{deleter, networkd_has};
use crate::snapshot::Snapshot;

const MASKS: &str = "/etc/udev/rules.d";
/// Those that configure interfaces; the others give them names, which they keep.
const CONFIGURE: [&str; 2] = ["53-ec2-network-interfaces.rules", "99-vpc-policy-routes.rules"];
const NETWORKD_CONFIG: &str = "/etc/systemd/networkd.conf.d/50-jackfield.conf";
const KEEPS_FOREIGN: &str = include_str!("../../../../packaging/networkd/50-jackfield.conf");
/// systemd is process 1 (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// What `systemctl stop` says of a unit that is not there, such as when its package has gone
/// (LSB: the program is not installed).
const NOT_LOADED: i32 = 5;
const IFSTATE: &str = "/run/network/ifstate";
const IFSTATE_LOCK: &str = "/run/network/.ifstate.lock";
/// How long networkd may take to say that it does not manage an interface.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has them let go of everything that is taken over. Returns what was done.
pub(super) fn silence(
    findings: &Findings,
    snapshot: &Snapshot,
) -> Result<Vec<String>, ImportError> {
    let mut done = Vec::new();
    mask_rules(findings, Path::new(MASKS), &mut done)?;
    let links: Vec<(&FoundInterface, &Link)> =
        findings.taken().filter_map(|it| Some((it, snapshot.link(it.index)?))).collect();
    if findings.has(Tool::Ec2NetUtils2) {
        if Path::new(SYSTEMD).exists() {
            for (it, _) in links.iter().filter(|(it, _)| findings.has_left(it)) {
                for kind in ["timer", "service"] {
                    let unit = format!("refresh-policy-routes@{}.{kind}", it.name);
                    let stopped = run_expecting("systemctl", &["stop", &unit], &[0, NOT_LOADED]);
                    if stopped.map_err(ImportError::NotSilent)? == 0 {
                        done.push(format!("stopped {unit}"));
                    }
                }
            }
        }
        networkd(&links, snapshot, &mut done)?;
    }
    if findings.has(Tool::UbuntuEc2net) || findings.has(Tool::Ec2NetUtils1) {
        for (it, _) in &links {
            end_clients(&it.name, &mut done)?;
            forget_ifup(&it.name)?;
        }
    }
    Ok(done)
}

/// A rule of udev that is a package's is masked, as udev(7) has it.
fn mask_rules(
    findings: &Findings,
    masks: &Path,
    done: &mut Vec<String>,
) -> Result<(), ImportError> {
    for file in &findings.files {
        let Some(name) = file.path.rsplit('/').next().filter(|name| CONFIGURE.contains(name))
        else {
            continue;
        };
        let mask = format!("{}/{name}", masks.display());
        if file.fate == Fate::Remove
            || findings.needs(file.tool).is_some()
            || file.path == mask
            || Path::new(&mask).exists()
        {
            continue;
        }
        let made =
            fs::create_dir_all(masks).and_then(|()| std::os::unix::fs::symlink("/dev/null", &mask));
        made.map_err(|source| ImportError::File { what: "make", path: mask.clone(), source })?;
        done.push(format!("masked {} by {mask}", file.path));
    }
    Ok(())
}

fn networkd(
    links: &[(&FoundInterface, &Link)],
    snapshot: &Snapshot,
    done: &mut Vec<String>,
) -> Result<(), ImportError> {
    let managed: Vec<&FoundInterface> = links
        .iter()
        .filter(|(_, link)| networkd_has(&snapshot.neighbours, link.index))
        .map(|(it, _)| *it)
        .collect();
    if managed.is_empty() {
        return Ok(());
    }
    let put = |path: &str, text: &str| {
        let written = write(Path::new(path), text);
        written.map_err(|source| ImportError::File { what: "write", path: path.to_owned(), source })
    };
    if deleter(snapshot).is_some() {
        put(NETWORKD_CONFIG, KEEPS_FOREIGN)?;
        done.push(format!("wrote {NETWORKD_CONFIG}"));
    }
    for it in &managed {
        let mac: String = it.mac.to_string().chars().filter(|c| *c != ':').collect();
        let path = format!("/run/systemd/network/05-jackfield-{mac}.network");
        let text = format!(
            "# Written by jackfield import\n[Match]\nMACAddress={}\n[Link]\nUnmanaged=yes\n",
            it.mac
        );
        put(&path, &text)?;
        done.push(format!("wrote {path}"));
    }
    run("systemctl", &["restart", "systemd-networkd.service"]).map_err(ImportError::NotSilent)?;
    done.push("restarted systemd-networkd".to_owned());
    let end = Instant::now() + PATIENCE;
    for it in &managed {
        let lets_go = || {
            let state = fs::read_to_string(format!("/run/systemd/netif/links/{}", it.index));
            state.is_ok_and(|text| text.lines().any(|line| line == "ADMIN_STATE=unmanaged"))
        };
        while !lets_go() {
            if Instant::now() > end {
                return Err(ImportError::NotSilent(format!(
                    "systemd-networkd goes on managing {}: see 'networkctl status {}'",
                    it.name, it.name
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Ends dhclient of an interface, of either family, without a word to its server.
fn end_clients(name: &str, done: &mut Vec<String>) -> Result<(), ImportError> {
    for file in [
        format!("/run/dhclient.{name}.pid"),
        format!("/run/dhclient-{name}.pid"),
        format!("/run/dhclient6.{name}.pid"),
        format!("/run/dhclient6-{name}.pid"),
    ] {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        // Held by a descriptor, the number is nobody else's meanwhile.
        if let Some(pid) = pid
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && is_client_of(pid, name)
        {
            pidfd_send_signal(&process, Signal::KILL).map_err(|errno| {
                ImportError::NotSilent(format!("cannot end dhclient of {name} ({pid:?}): {errno}"))
            })?;
            done.push(format!("ended dhclient of {name}"));
        }
        remove(Path::new(&file)).map_err(ImportError::NotSilent)?;
    }
    Ok(())
}

fn is_client_of(pid: Pid, name: &str) -> bool {
    let number = pid.as_raw_nonzero();
    let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let mut words = line.split(|octet| *octet == 0);
    let program = words.next().unwrap_or_default();
    let here = fs::read_link("/proc/thread-self/ns/net").ok();
    program.ends_with(b"dhclient")
        && words.any(|word| word == name.as_bytes())
        && here.is_some()
        && fs::read_link(format!("/proc/{number}/ns/net")).ok() == here
}

/// ifupdown counts the interface as up no more; `ifdown --all` at shutdown leaves it alone.
fn forget_ifup(name: &str) -> Result<(), ImportError> {
    let failed = |source| ImportError::File { what: "write", path: IFSTATE.to_owned(), source };
    if !Path::new(IFSTATE).exists() {
        return Ok(());
    }
    // As ifup does.
    let mut options = fs::File::options();
    let lock = options.create(true).append(true).open(IFSTATE_LOCK).map_err(failed)?;
    fcntl_lock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    let text = fs::read_to_string(IFSTATE).map_err(failed)?;
    let is_its = |line: &&str| line.split('=').next() == Some(name);
    if !text.lines().any(|line| is_its(&line)) {
        return Ok(());
    }
    let kept: String =
        text.lines().filter(|line| !is_its(line)).map(|line| format!("{line}\n")).collect();
    write(Path::new(IFSTATE), &kept).map_err(failed)?;
    remove(Path::new(&format!("{IFSTATE}.{name}"))).map_err(ImportError::NotSilent)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::import::kernel::Theirs;
    use crate::import::{FoundFile, Takeover};

    /// A directory of its own, which goes with it.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("jackfield-import-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A udev rule of a package, and eth1, of which the tool has a file.
    fn with_rule(takeover: Takeover) -> Findings {
        let rule = format!("/usr/lib/udev/rules.d/{}", CONFIGURE[1]);
        let its = "/run/systemd/network/70-eth1.network".to_owned();
        let tool = Tool::Ec2NetUtils2;
        let file = |path: &str, interface: Option<&str>, fate| FoundFile {
            path: path.to_owned(),
            tool,
            interface: interface.map(str::to_owned),
            fate,
        };
        Findings {
            tools: vec![(tool, rule.clone())],
            interfaces: vec![FoundInterface {
                index: 3,
                name: "eth1".to_owned(),
                mac: [2, 0, 0, 0, 0, 3].into(),
                takeover,
                needs_tool: false,
                theirs: Theirs::default(),
            }],
            files: vec![
                file(&rule, None, Fate::Package("amazon-ec2-net-utils".to_owned())),
                file(&its, Some("eth1"), Fate::Remove),
            ],
            ..Findings::default()
        }
    }

    #[test]
    fn a_rule_of_udev_is_masked_but_for_an_interface_that_cannot_be_taken_over() {
        let masks = Directory::new("masks");
        let mask = masks.0.join(CONFIGURE[1]);
        let mut left = with_rule(Takeover::Takes);
        left.leave(3, "its backend is another manager");
        let mut done = Vec::new();
        mask_rules(&left, &masks.0, &mut done).unwrap();
        assert_eq!(done, [""; 0]);
        assert_eq!(left.files[0].fate, Fate::Needed("eth1".to_owned()));
        assert!(fs::symlink_metadata(&mask).is_err());
        // The primary is left anyway.
        let mut primary = with_rule(Takeover::Leaves("the primary".to_owned()));
        primary.leave(3, "the primary");
        mask_rules(&primary, &masks.0, &mut done).unwrap();
        assert_eq!(done.len(), 1);
        assert_eq!(fs::read_link(&mask).unwrap(), Path::new("/dev/null"));
    }
}
