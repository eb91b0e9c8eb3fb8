//! The network namespace in which the interface is.

use std::io::ErrorKind;
use std::path::Path;

use jackfield_cni::plugin::{ErrorCode, PluginError, Request};
use jackfield_kernel::{Error, Namespace, Rtnetlink};

use crate::failure;

const OWN: &str = "/proc/self/ns/net";
/// `EINVAL`: the file is there, and is no network namespace.
const NO_NAMESPACE: i32 = 22;

/// Moves this process into the namespace of a request, which must not be its own, and opens a
/// socket there.
pub(crate) fn enter(request: &Request) -> Result<Rtnetlink, PluginError> {
    let path = &request.netns;
    let invalid = |reason: String| PluginError::new(ErrorCode::INVALID_NETNS, reason);
    let shown = path.display();
    let namespace = Namespace::open(path).map_err(|error| {
        invalid(format!("the network namespace {shown} does not exist: {error}"))
    })?;
    if !request.netns_override {
        let own = match Namespace::of_own_sockets() {
            Some(own) => own,
            None => Namespace::open(Path::new(OWN)).map_err(failure::kernel)?,
        };
        if namespace.is_same(&own).map_err(failure::kernel)? {
            return Err(invalid(format!(
                "the network namespace {shown} is the one that the plugin runs in: give the \
                 container's, or set CNI_NETNS_OVERRIDE=1"
            )));
        }
    }
    namespace.enter().map_err(|error| match error.errno() {
        Some(NO_NAMESPACE) => invalid(format!("{shown} is no network namespace")),
        _ => failure::kernel(error),
    })?;
    Rtnetlink::open().map_err(failure::kernel)
}

/// The same where it may be gone: `None`, since everything of ours is gone with it.
pub(crate) fn enter_if_there(path: &Path) -> Result<Option<Rtnetlink>, PluginError> {
    let gone = |error: &Error| match error {
        Error::System { source, .. } => {
            // A directory on the way may have become a file, and a file what is no namespace.
            source.raw_os_error() == Some(NO_NAMESPACE)
                || [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&source.kind())
        }
        _ => false,
    };
    let entered = Namespace::open(path).and_then(|namespace| {
        namespace.enter()?;
        Rtnetlink::open()
    });
    match entered {
        Ok(kernel) => Ok(Some(kernel)),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(failure::kernel(error)),
    }
}
