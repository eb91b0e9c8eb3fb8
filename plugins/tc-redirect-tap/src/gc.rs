//! GC: what is left of attachments of a network that are not valid any more.
//!
//! A namespace is found here by its name in /run/netns, by a process in it, or because this plugin
//! runs in it. One that is mounted elsewhere and has no process is not seen; what is in it goes
//! with it, or by a DEL.

use std::collections::BTreeSet;
use std::fs::read_dir;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jackfield_cni::plugin::{GcRequest, PluginError};
use jackfield_kernel::Rtnetlink;

use crate::del;
use crate::failure::Batch;
use crate::mark::FilterMark;
use crate::sandbox;
use crate::survey::{Arriving, Survey};

pub(crate) fn gc(request: &GcRequest) -> Result<(), PluginError> {
    let mut failures = Vec::new();
    for path in namespaces() {
        let collected = match sandbox::enter_if_there(&path) {
            Ok(Some(mut kernel)) => collect(&mut kernel, request),
            // It went in the meantime, or is no namespace.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = collected {
            failures.push(format!("{}: {}", path.display(), error.msg));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let msg = "not everything that is left over could be removed";
    Err(PluginError::internal(msg).with_details(failures.join("; ")))
}

/// Removes what is of this network and not valid from the namespace of this process.
fn collect(kernel: &mut Rtnetlink, request: &GcRequest) -> Result<(), PluginError> {
    let survey = Survey::take(kernel)?;
    let is_stale = |mark: FilterMark| {
        mark.is_in(&request.config.name)
            && !request.valid_attachments.iter().any(|valid| mark.is_of(valid))
    };
    let mut batch = Batch::new();
    for link in survey.links() {
        let arriving = Arriving::of(kernel, link.index)?;
        // On our own taps too, where it does no harm: those go in the same batch.
        batch.extend(del::filters(link, &arriving, is_stale));
    }
    let stale = survey.ours().filter(|tap| {
        tap.mark.network == request.config.name.as_str()
            && !request.valid_attachments.contains(&tap.mark.attachment)
    });
    batch.extend(stale.map(|tap| del::tap(&tap)));
    del::send(kernel, batch)
}

/// A path for each namespace that can be found, once.
fn namespaces() -> Vec<PathBuf> {
    let named = ["/run/netns", "/var/run/netns"].into_iter().flat_map(entries);
    let of_processes = entries("/proc").filter(|path| is_process(path));
    let of_processes = of_processes.map(|path| path.join("ns/net"));
    let mut seen = BTreeSet::new();
    named
        .chain(of_processes)
        .filter(|path| {
            let found = path.metadata().ok().map(|found| (found.dev(), found.ino()));
            found.is_some_and(|found| seen.insert(found))
        })
        .collect()
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.bytes().all(|octet| octet.is_ascii_digit()))
}
