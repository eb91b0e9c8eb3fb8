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
pub(super) const CONFIGURE: [&str; 2] =
    ["53-ec2-network-interfaces.rules", "99-vpc-policy-routes.rules"];
const NETWORKD_CONFIG: &str = "/etc/systemd/networkd.conf.d/50-jackfield.conf";
const KEEPS_FOREIGN: &str = include_str!("../../../../packaging/networkd/50-jackfield.conf");
/// systemd is process 1 (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// What `systemctl stop` says of a unit that is not there, such as when its package has gone
/// (LSB: the program is not installed).
const NOT_LOADED: i32 = 5;
/// Where ifupdown remembers what is up.
const IFUPDOWN: &str = "/run/network";
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
            forget_ifup(Path::new(IFUPDOWN), &it.name)?;
        }
    }
    Ok(done)
}

/// A rule of udev that is a package's is masked, as udev(7) has it.
pub(super) fn mask_rules(
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
            // A link that leads nowhere is there all the same.
            || fs::symlink_metadata(&mask).is_ok()
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
pub(super) fn forget_ifup(directory: &Path, name: &str) -> Result<(), ImportError> {
    let state = directory.join("ifstate");
    let path = state.display().to_string();
    let failed = |source| ImportError::File { what: "write", path: path.clone(), source };
    if !state.exists() {
        return Ok(());
    }
    // As ifup does.
    let mut options = fs::File::options();
    let lock =
        options.create(true).append(true).open(directory.join(".ifstate.lock")).map_err(failed)?;
    fcntl_lock(&lock, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    let text = fs::read_to_string(&state).map_err(failed)?;
    let is_its = |line: &&str| line.split('=').next() == Some(name);
    if text.lines().any(|line| is_its(&line)) {
        let kept: String =
            text.lines().filter(|line| !is_its(line)).map(|line| format!("{line}\n")).collect();
        write(&state, &kept).map_err(failed)?;
    }
    // Also after a run that was killed before it came to that.
    remove(&directory.join(format!("ifstate.{name}"))).map_err(ImportError::NotSilent)
}
