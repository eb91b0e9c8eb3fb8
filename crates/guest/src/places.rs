//! Where things are.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where configurations, plugins and the cache are; what is `None` is where it usually is, or for a
/// VM that is there, where it was when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Directories of network configurations.
    pub conf_dirs: Option<Vec<PathBuf>>,
    /// Directories of plugins.
    pub plugin_dirs: Option<Vec<PathBuf>>,
    /// The directory of the cache.
    pub cache_dir: Option<PathBuf>,
}

impl Places {
    /// Where configurations are: Firecracker's Go SDK looks in the first, all others in the second.
    pub const CONF_DIRS: [&str; 2] = ["/etc/cni/conf.d", "/etc/cni/net.d"];
    /// Where plugins are: as everybody has it, and as Debian does.
    pub const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
    /// Where the cache is.
    pub const CACHE_DIR: &str = jackfield_cni::runtime::Runtime::CACHE_DIR;
    /// Where namespaces are.
    pub const NAMESPACES: &str = "/var/run/netns";
    /// Where locks are.
    pub(crate) const LOCKS: &str = "/run/jackfield-vm";

    /// Makes every path absolute, since it is remembered.
    ///
    /// # Errors
    /// A path that is not UTF-8: what remembers them holds text.
    pub fn absolute(self) -> Result<Self> {
        let all = |paths: Option<Vec<PathBuf>>| {
            paths.map(|paths| paths.iter().map(|path| absolute(path)).collect()).transpose()
        };
        Ok(Self {
            conf_dirs: all(self.conf_dirs)?,
            plugin_dirs: all(self.plugin_dirs)?,
            cache_dir: self.cache_dir.as_deref().map(absolute).transpose()?,
        })
    }

    pub(crate) fn conf_dirs(&self) -> Vec<PathBuf> {
        self.conf_dirs.clone().unwrap_or_else(|| Self::CONF_DIRS.map(PathBuf::from).into())
    }

    pub(crate) fn plugin_dirs(&self) -> Vec<PathBuf> {
        self.plugin_dirs.clone().unwrap_or_else(|| Self::PLUGIN_DIRS.map(PathBuf::from).into())
    }

    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(|| Self::CACHE_DIR.into())
    }
}

/// # Errors
/// A path that is not UTF-8.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let refuse = |reason| Error::Path { path: path.to_owned(), reason };
    let absolute = std::path::absolute(path).map_err(|_| refuse("it is empty"))?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(refuse("it is not UTF-8")),
    }
}
