//! Finding a network by its name.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::parse::{self, DOCUMENT, Inlined};
use super::{NetworkList, PluginConfig};
use crate::types::from_slice;
use crate::{Error, NetworkName};

/// Finds and reads the network of a name, as libcni does: in each directory, `*.conflist` in the
/// order of names, then `*.conf` and `*.json`, which hold a single plugin, in the order of names.
/// The first of that name is it; a directory that is not there is empty.
///
/// A list that does not say `loadOnlyInlinedPlugins` gets the plugins in `*.conf` of the directory
/// beside it that has the network's name.
///
/// A file that cannot be read does not hide another one: it is told of only where none has the
/// name.
///
/// # Errors
///
/// [`Error::NetworkNotFound`]; [`Error::InFile`] where the file that has the name is wrong.
pub fn load(directories: &[PathBuf], name: &NetworkName) -> Result<NetworkList, Error> {
    let mut broken = Vec::new();
    for directory in directories {
        for (extensions, is_list) in [(&["conflist"][..], true), (&["conf", "json"], false)] {
            let paths = files(directory, extensions).unwrap_or_else(|error| {
                broken.push(error);
                Vec::new()
            });
            for path in paths {
                match read_named(&path) {
                    Ok((found, json)) if found == *name => return read(&path, &json, is_list),
                    Ok(_) => {}
                    Err(error) => broken.push(error),
                }
            }
        }
    }
    let directories = directories.to_vec();
    broken.dedup();
    Err(Error::NetworkNotFound { name: name.clone(), directories, broken })
}

fn read(path: &Path, json: &[u8], is_list: bool) -> Result<NetworkList, Error> {
    if !is_list {
        return parse::single(json).map_err(|error| in_file(path, error));
    }
    let Inlined { mut list, only_these } =
        parse::list(json).map_err(|error| in_file(path, error))?;
    if !only_these && let Some(directory) = path.parent() {
        for path in files(&directory.join(list.name.as_str()), &["conf"])? {
            list.plugins.push(read_plugin(&path)?);
        }
    }
    parse::complete(list).map_err(|error| in_file(path, error))
}

fn read_plugin(path: &Path) -> Result<PluginConfig, Error> {
    let json = contents(path)?;
    from_slice(DOCUMENT, &json)
        .and_then(|fields| parse::plugin("", fields))
        .map_err(|error| in_file(path, error))
}

fn read_named(path: &Path) -> Result<(NetworkName, Vec<u8>), Error> {
    let json = contents(path)?;
    let name = parse::name(&json).map_err(|error| in_file(path, error))?;
    Ok((name, json))
}

/// The regular files of a directory with one of some extensions, in the order of names.
fn files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let error = |error: std::io::Error| Error::File {
        attempt: "read directory",
        path: directory.to_owned(),
        reason: error.to_string(),
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(failed) => return Err(error(failed)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        // A link to nowhere is left to be found unreadable; a pipe would be waited for.
        let may_be_file = fs::metadata(&path).map_or(true, |it| it.is_file());
        if may_be_file && extension.is_some_and(|it| extensions.contains(&it)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::File {
        attempt: "read",
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn in_file(path: &Path, error: Error) -> Error {
    Error::InFile { path: path.to_owned(), error: Box::new(error) }
}
