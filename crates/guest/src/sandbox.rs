//! A VM's network namespace: found, made, marked, removed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jackfield_cni::ContainerId;
use jackfield_kernel::{Link, LinkChange, Namespace, Rtnetlink};
use jackfield_vmconf::same_path;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Result, file};
use crate::mark::{Mark, Stage};
use crate::places::Places;

/// The loopback is the first device of every namespace.
const LOOPBACK: u32 = 1;

/// A mark is shorter than this, and a file that is longer is none of ours.
const MOST_MARK: u64 = 256;

/// What is at a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Absent,
    /// A file of ours on which a namespace was about to be mounted, or was mounted.
    Interrupted(Mark),
    /// A namespace.
    Namespace(Sandbox),
    /// Something else.
    Other,
}

/// A network namespace at a path.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) path: PathBuf,
    pub(crate) namespace: Namespace,
    /// What the loopback's alias says; `None` where it is not ours.
    pub(crate) mark: Option<Mark>,
    /// The alias is free.
    unmarked: bool,
}

/// Where a VM's namespace is unless somebody says otherwise.
pub(crate) fn default_path(vm: &ContainerId) -> PathBuf {
    Path::new(Places::NAMESPACES).join(vm.as_str())
}

impl Found {
    /// What is at a path.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let kind = match std::fs::metadata(path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::Absent),
            Err(error) => return Err(file("look at", path)(error)),
        };
        // A pipe would be waited for.
        if !kind.is_file() {
            return Ok(Self::Other);
        }
        match Namespace::at(path) {
            Ok(namespace) => Sandbox::of(path, namespace).map(Self::Namespace),
            Err(jackfield_kernel::Error::System { source, .. })
                if source.kind() == std::io::ErrorKind::InvalidInput =>
            {
                let mark = content(path).and_then(|text| Mark::read(&text));
                Ok(mark.map_or(Self::Other, Self::Interrupted))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Sandbox {
    fn of(path: &Path, namespace: Namespace) -> Result<Self> {
        let alias = loopback(&namespace)?;
        let mark = alias.as_deref().and_then(Mark::read);
        Ok(Sandbox { path: path.to_owned(), namespace, mark, unmarked: alias.is_none() })
    }

    /// Makes a namespace that is marked from the beginning.
    ///
    /// # Errors
    /// Something is at the path, or the privilege is missing.
    pub(crate) fn make(path: &Path, mark: Mark) -> Result<Self> {
        let parent = path.parent().and_then(Path::to_str).unwrap_or_default();
        if same_path(parent, Places::NAMESPACES) {
            Namespace::share_directory(Path::new(parent))?;
        }
        let mut sandbox = Sandbox {
            path: path.to_owned(),
            namespace: Namespace::anonymous()?,
            mark: None,
            unmarked: true,
        };
        let text = mark.to_string();
        sandbox.set_mark(Some(mark))?;
        place_file(path, &text)?;
        match sandbox.namespace.mount(path) {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error.into())
            }
        }
    }

    /// Marks a namespace that was there before, where nobody else has its loopback's alias.
    pub(crate) fn mark_given(&mut self, mark: Mark) -> Result<()> {
        if self.unmarked { self.set_mark(Some(mark)) } else { Ok(()) }
    }

    /// Leaves the mark to the VM that it is of.
    pub(crate) fn ignore_mark(&mut self) {
        self.mark = None;
    }

    /// Says how far the VM's network is, where the namespace is marked.
    pub(crate) fn set_stage(&mut self, stage: Stage) -> Result<()> {
        match self.mark.clone() {
            Some(mark) if mark.stage != stage => self.set_mark(Some(Mark { stage, ..mark })),
            _ => Ok(()),
        }
    }

    /// Removes it, or only its mark where it was there before.
    pub(crate) fn remove(mut self) -> Result<()> {
        match &self.mark {
            Some(mark) if mark.made => Ok(Namespace::unmount(&self.path)?),
            Some(_) => self.set_mark(None),
            None => Ok(()),
        }
    }

    pub(crate) fn is_of(&self, vm: &ContainerId) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.vm == *vm)
    }

    /// A device in it.
    pub(crate) fn link(&self, name: &str) -> Result<Option<Link>> {
        link(&self.namespace, |link| link.name == name)
    }

    fn set_mark(&mut self, mark: Option<Mark>) -> Result<()> {
        let alias = mark.as_ref().map_or(String::new(), ToString::to_string);
        let change = LinkChange { alias: Some(&alias), ..LinkChange::default() };
        let attempt = format!("mark the network namespace {}", self.path.display());
        Rtnetlink::open_in(&self.namespace)?.request(attempt, change.request(LOOPBACK))?;
        self.unmarked = mark.is_none();
        self.mark = mark;
        Ok(())
    }
}

/// Every namespace of ours that is mounted, by its path.
pub(crate) fn all() -> Result<Vec<Sandbox>> {
    let mut found = Vec::new();
    for path in Namespace::mounted()? {
        // One that goes meanwhile, or is covered by another mount, is none of ours any more.
        match Found::at(&path) {
            Ok(Found::Namespace(sandbox)) if sandbox.mark.is_some() => found.push(sandbox),
            Ok(_) => {}
            Err(error) => log::debug!("{error}"),
        }
    }
    // /var/run is /run: one namespace can be mounted at several paths.
    Ok(found)
}

/// Files in the usual directory on which a namespace of ours was about to be mounted.
pub(crate) fn interrupted() -> Vec<(PathBuf, Mark)> {
    let Ok(entries) = std::fs::read_dir(Places::NAMESPACES) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter_map(|path| match Found::at(&path) {
            Ok(Found::Interrupted(mark)) => Some((path, mark)),
            _ => None,
        })
        .collect()
}

fn loopback(namespace: &Namespace) -> Result<Option<String>> {
    Ok(link(namespace, |link| link.index == LOOPBACK)?.and_then(|link| link.alias))
}

fn link(namespace: &Namespace, is_it: impl Fn(&Link) -> bool) -> Result<Option<Link>> {
    let links = Link::list(&mut Rtnetlink::open_in(namespace)?)?;
    Ok(links.into_iter().find(is_it))
}

/// Makes a file that is there with its content or not at all: one that an interruption leaves is
/// recognised.
fn place_file(path: &Path, content: &str) -> Result<()> {
    let failed = |error: Errno| file("make", path)(error.into());
    let parent = path.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let nameless = match rustix::fs::open(parent, flags, Mode::RUSR) {
        Ok(nameless) => nameless,
        // A file system without nameless files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => return place_named_file(path, content),
        Err(error) => return Err(failed(error)),
    };
    let mut nameless = File::from(nameless);
    nameless.write_all(content.as_bytes()).map_err(file("write", path))?;
    let handle = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&nameless));
    rustix::fs::linkat(CWD, handle, CWD, path, AtFlags::SYMLINK_FOLLOW).map_err(failed)
}

fn place_named_file(path: &Path, content: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let mut new =
        options.write(true).create_new(true).mode(0o400).open(path).map_err(file("make", path))?;
    new.write_all(content.as_bytes()).map_err(file("write", path))
}

/// The text of a file; `None` where it cannot be read, such as a namespace of another kind.
fn content(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_MARK).read_to_end(&mut text)).ok()?;
    String::from_utf8(text).ok()
}
