//! A real systemd-udevd in an instance.

use crate::error::{Attempt, LabError, Result};
use crate::host::{Host, Process};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd"];
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts udevd with the machine's rules and these besides, and lets it handle the links that
/// are there.
pub(crate) fn start(host: &Host, rules: &[(&str, &str)]) -> Result<Process> {
    let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
        return Err(LabError::Unsupported(format!(
            "there is no systemd-udevd on this machine: none of {} exists",
            PROGRAMS.join(", ")
        )));
    };
    if !is_real_root() {
        let text = "systemd-udevd needs real root: in a user namespace the kernel gives no device \
                    events; run this as root";
        return Err(LabError::Unsupported(text.to_owned()));
    }
    let written: std::io::Result<()> = host.run(|| {
        std::fs::create_dir_all("/run/udev/rules.d")?;
        rules.iter().try_for_each(|(name, text)| {
            std::fs::write(Path::new("/run/udev/rules.d").join(name), text)
        })
    })?;
    written.attempt(|| format!("write udev rules in '{}'", host.name()))?;
    let mut command = host.command(program)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Process::start(&mut command)?;
    let end = Instant::now() + PATIENCE;
    while !host.run(|| Path::new("/run/udev/control").exists())? {
        let ended = daemon.child().try_wait().attempt(|| "wait for systemd-udevd".to_owned())?;
        if ended.is_some() || Instant::now() > end {
            let text = format!("systemd-udevd did not start in '{}': {ended:?}", host.name());
            return Err(LabError::Unsupported(text));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    udevadm(host, &["trigger", "--action=add", "--subsystem-match=net"])?;
    settle(host)?;
    Ok(daemon)
}

/// Waits until udevd has handled all events so far.
pub(crate) fn settle(host: &Host) -> Result<()> {
    udevadm(host, &["settle", "--timeout=10"])
}

fn udevadm(host: &Host, arguments: &[&str]) -> Result<()> {
    let attempt = || format!("run udevadm {} in '{}'", arguments.join(" "), host.name());
    let mut command = host.command("udevadm")?;
    let output = command.args(arguments).stdin(Stdio::null()).output().attempt(attempt)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Unsupported(format!("cannot {}: {}", attempt(), said.trim())))
}

/// Whether root here is root of the machine, and not of a user namespace.
fn is_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = ["0", "0", "4294967295"];
    map.split_whitespace().eq(whole) && rustix::process::geteuid().is_root()
}
