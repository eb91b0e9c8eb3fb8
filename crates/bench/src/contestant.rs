//! A resident program in an instance of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jackfield_kernel::Rtnetlink;
use jackfield_lab::{Instance, Lab, Process};

use crate::Failure;
use crate::state;

const PATIENCE: Duration = Duration::from_secs(10);
/// Who has asked metadata nothing for so long is ready.
const QUIET: Duration = Duration::from_millis(300);

/// A resident program, the instance that it keeps, and how that was before the first plug.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) instance: Instance,
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
    /// The number that the next device will have.
    pub(crate) next_index: Option<u32>,
    _process: Process,
    kernel: Rtnetlink,
    empty: BTreeSet<String>,
}

impl Contestant {
    /// Starts `program` in the instance, and waits until it has settled.
    pub(crate) fn start(
        name: &'static str,
        lab: &Lab,
        instance: Instance,
        (program, arguments): (&Path, &[&str]),
        log: PathBuf,
    ) -> Result<Self, Failure> {
        // A detection of duplicates takes a second and more, and changes the state at its end.
        for which in ["all", "default"] {
            instance.set_sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
        }
        let file = File::create(&log)?;
        let mut command = instance.command(program)?;
        command.args(arguments).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let mut process = Process::start(&mut command)?;
        let pid = process.child().id();
        settle(lab, &instance)?;
        if let Some(status) = process.child().try_wait()? {
            return Err(format!("{name} ended: {status}; see {}", log.display()).into());
        }
        let mut kernel = Rtnetlink::open_in(instance.namespace())?;
        let empty = state::dump(&mut kernel, &instance)?;
        Ok(Contestant {
            name,
            instance,
            pid,
            log,
            next_index: None,
            _process: process,
            kernel,
            empty,
        })
    }

    /// The kernel's state.
    pub(crate) fn state(&mut self) -> Result<BTreeSet<String>, Failure> {
        state::dump(&mut self.kernel, &self.instance)
    }

    /// Waits until the state is this one.
    pub(crate) fn reaches(&mut self, wanted: &BTreeSet<String>) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            let is = self.state()?;
            if is == *wanted {
                return Ok(());
            }
            if Instant::now() > end {
                let difference = state::difference(&is, wanted);
                let log = self.log.display();
                return Err(format!("{}: a wrong state:\n{difference}see {log}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until nothing of a plug is left.
    pub(crate) fn is_empty(&mut self) -> Result<(), Failure> {
        let empty = self.empty.clone();
        self.reaches(&empty)
    }
}

/// Waits until the instance has asked the metadata service something, and then nothing for a time.
fn settle(lab: &Lab, instance: &Instance) -> Result<(), Failure> {
    let end = Instant::now() + PATIENCE;
    loop {
        let requests = lab.cloud().requests();
        let last = requests
            .iter()
            .rev()
            .find(|request| request.instance.as_deref() == Some(instance.id()))
            .map(|request| request.at);
        if last.is_some_and(|last| last.elapsed() > QUIET) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("nothing in {} asks the metadata service", instance.id()).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
