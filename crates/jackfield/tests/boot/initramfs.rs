//! A guest's initial file system, which is all that it has: Debian's static busybox, this machine's
//! own programs with their libraries, and files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in the making, as an archive of cpio's format `newc`, which the kernel unpacks.
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    present: BTreeSet<PathBuf>,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

impl Initramfs {
    /// Busybox, iproute2's `ip`, which tells in JSON, and a first process that does what it is asked
    /// on the console.
    pub(crate) fn new() -> Self {
        let mut new = Initramfs { archive: Vec::new(), present: BTreeSet::new() };
        // As in Debian.
        for (link, target) in [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib")] {
            new.link(link, target);
        }
        new.link("/lib64", "usr/lib64");
        for directory in ["/dev", "/proc", "/run", "/sys", "/tmp", "/usr/sbin"] {
            new.directory(Path::new(directory));
        }
        new.copy("/bin/busybox");
        new.link("/bin/sh", "busybox");
        new.program("/bin/ip");
        new.file("/init", 0o755, include_bytes!("guest/init.sh"));
        new
    }

    pub(crate) fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: &[u8]) {
        self.entry(path.as_ref(), FILE | mode, 0, content);
    }

    pub(crate) fn link(&mut self, path: impl AsRef<Path>, target: &str) {
        self.entry(path.as_ref(), LINK | 0o777, 0, target.as_bytes());
    }

    /// Takes a file of this machine along, under its own path, with its mode and times.
    #[track_caller]
    pub(crate) fn copy(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let read = fs::metadata(path).and_then(|is| Ok((is, fs::read(path)?)));
        let (metadata, content) = read.unwrap_or_else(|error| {
            panic!("a guest needs {}, of a Debian package in .ci/run: {error}", path.display())
        });
        let mode = metadata.permissions().mode() & 0o777;
        let modified = u32::try_from(metadata.mtime()).unwrap();
        self.entry(path, FILE | mode, modified, &content);
    }

    /// Takes a program or a library along, with the libraries that it needs.
    #[track_caller]
    pub(crate) fn program(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.copy(path);
        let libraries = Command::new("ldd").arg(path).output().unwrap();
        for word in String::from_utf8(libraries.stdout).unwrap().split_whitespace() {
            if word.starts_with('/') && !self.present.contains(&place(Path::new(word))) {
                self.copy(word);
            }
        }
    }

    /// Takes a directory of this machine along, with all that is in it.
    pub(crate) fn tree(&mut self, path: impl AsRef<Path>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { self.tree(path) } else { self.copy(path) }
        }
    }

    /// Writes the archive.
    pub(crate) fn write(mut self, path: &Path) {
        self.header("TRAILER!!!", 0, 0, 0);
        fs::write(path, self.archive).unwrap();
    }

    fn directory(&mut self, path: &Path) {
        self.entry(path, DIRECTORY | 0o755, 0, &[]);
    }

    fn entry(&mut self, path: &Path, mode: u32, modified: u32, content: &[u8]) {
        let path = place(path);
        if !self.present.insert(path.clone()) {
            return;
        }
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("/")) {
            self.directory(parent);
        }
        let name = path.strip_prefix("/").unwrap().to_str().unwrap();
        self.header(name, mode, modified, content.len());
        self.archive.extend(content);
        self.pad();
    }

    fn header(&mut self, name: &str, mode: u32, modified: u32, size: usize) {
        let (inode, owner, group, links, checksum) = (0, 0, 0, 1, 0);
        let (device, name_length) = (0, name.len() + 1);
        write!(self.archive, "070701{inode:08X}{mode:08X}{owner:08X}{group:08X}").unwrap();
        write!(self.archive, "{links:08X}{modified:08X}{size:08X}{device:032X}").unwrap();
        write!(self.archive, "{name_length:08X}{checksum:08X}{name}\0").unwrap();
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.archive.len().next_multiple_of(4);
        self.archive.resize(length, 0);
    }
}

/// Where a path leads to in the guest, whose `/bin` and others are links.
fn place(path: &Path) -> PathBuf {
    let merged = ["bin", "sbin", "lib", "lib64"];
    let relative = path.strip_prefix("/").unwrap();
    let first = relative.components().next().unwrap();
    let is_link = relative == Path::new(first.as_os_str());
    if merged.iter().any(|name| first.as_os_str() == *name) && !is_link {
        Path::new("/usr").join(relative)
    } else {
        path.to_owned()
    }
}
