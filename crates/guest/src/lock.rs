//! One at a time works on a VM.
//!
//! A file a VM under /run/jackfield-vm is locked by who works on it; the kernel takes the lock from who
//! is killed. What is killed may leave a plugin behind that goes on making things, and that has to
//! end before anybody cleans up: a second file is inherited by every plugin, and by what plugins
//! start. Both are removed by who ends in order, so that one that is found tells of a crash.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jackfield_cni::ContainerId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result, file};
use crate::places::Places;

/// As good as for ever, where the clock can still say when it ends.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The right to work on a VM. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    plugins_path: PathBuf,
    _held: File,
    _plugins: File,
    _all: File,
}

impl Lock {
    /// Waits until nobody else works on the VM, then until plugins have ended that somebody who was
    /// killed left behind; those for no longer than a plugin may take.
    ///
    /// # Errors
    /// [`Error::Busy`] where somebody else does not end within `wait`.
    pub(crate) fn take(
        vm: &ContainerId,
        wait: Duration,
        plugin_deadline: Duration,
    ) -> Result<Self> {
        let ends = from_now(wait);
        let directory = Path::new(Places::LOCKS);
        let busy = || Error::Busy { vm: vm.clone(), waited: wait };
        let all = everybody(FlockOperation::NonBlockingLockShared, ends)?.ok_or_else(busy)?;
        let path = directory.join(format!("{vm}.lock"));
        let held = exclusive(&path, ends)?.ok_or_else(busy)?;

        let plugins_path = directory.join(format!("{vm}.plugins"));
        let ends = from_now(plugin_deadline);
        if let Ok(left) = File::open(&plugins_path) {
            if !locked(&left, FlockOperation::NonBlockingLockExclusive, ends)
                .map_err(file("lock", &plugins_path))?
            {
                log::warn!(
                    "a plugin that an interrupted command started for VM {vm} still runs; it is \
                     not waited for any longer"
                );
            }
            remove(&plugins_path)?;
        }
        let plugins = open(&plugins_path)?;
        locked(&plugins, FlockOperation::NonBlockingLockExclusive, ends)
            .map_err(file("lock", &plugins_path))?;
        // Inherited, in contrast to all other files.
        rustix::io::fcntl_setfd(&plugins, rustix::io::FdFlags::empty())
            .map_err(|error| file("lock", &plugins_path)(error.into()))?;
        Ok(Lock { path, plugins_path, _held: held, _plugins: plugins, _all: all })
    }

    /// Somebody works on the VM at this moment.
    pub(crate) fn is_held(vm: &ContainerId) -> bool {
        let path = Path::new(Places::LOCKS).join(format!("{vm}.lock"));
        let Ok(held) = File::open(path) else { return false };
        flock(&held, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// The VMs that somebody works on or was killed over.
    pub(crate) fn vms() -> Vec<ContainerId> {
        let Ok(entries) = std::fs::read_dir(Places::LOCKS) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut vms: Vec<_> = names
            .filter_map(|name| {
                let vm = name.strip_suffix(".lock").or(name.strip_suffix(".plugins"))?;
                ContainerId::new(vm).ok()
            })
            .collect();
        vms.sort();
        vms.dedup();
        vms
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while they are held: who waits for them sees that, and makes new ones.
        for path in [&self.plugins_path, &self.path] {
            if let Err(error) = remove(path) {
                log::warn!("{error}");
            }
        }
    }
}

/// The right to work on all VMs at once: nobody works on any.
#[derive(Debug)]
pub(crate) struct AllLock(#[allow(dead_code, reason = "held")] File);

impl AllLock {
    /// `None` where somebody worked on some VM all the time.
    pub(crate) fn take(wait: Duration) -> Result<Option<Self>> {
        let ends = from_now(wait);
        Ok(everybody(FlockOperation::NonBlockingLockExclusive, ends)?.map(AllLock))
    }
}

/// The directory itself, locked: shared by all who work on one VM.
fn everybody(operation: FlockOperation, ends: Instant) -> Result<Option<File>> {
    let directory = Path::new(Places::LOCKS);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file("make", directory))?;
    let all = File::open(directory).map_err(file("open", directory))?;
    Ok(locked(&all, operation, ends).map_err(file("lock", directory))?.then_some(all))
}

/// The file, locked, and still the one of that path.
fn exclusive(path: &Path, ends: Instant) -> Result<Option<File>> {
    loop {
        let held = open(path)?;
        if !locked(&held, FlockOperation::NonBlockingLockExclusive, ends)
            .map_err(file("lock", path))?
        {
            return Ok(None);
        }
        let opened = held.metadata().map_err(file("look at", path))?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) => {
                return Ok(Some(held));
            }
            // Who held it has removed it.
            _ => {}
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(file("open", path))
}

fn from_now(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST)
}

/// True once it is locked, false where others held it all the time.
fn locked(held: &File, operation: FlockOperation, ends: Instant) -> std::io::Result<bool> {
    let mut pause = FIRST_PAUSE;
    loop {
        match flock(held, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < ends => {
                // There is no lock that is waited for until a time.
                sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("remove", path)(error))
        }
        _ => Ok(()),
    }
}
