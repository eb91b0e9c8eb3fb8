//! Which VMs there are, and how they are.

use std::path::PathBuf;

use jackfield_cni::{ContainerId, InterfaceName, NetworkName};
use jackfield_vmconf::{Mtu, StaticNetworkConf};

use crate::error::Result;
use crate::guests::Guests;
use crate::known::{Attached, Known, State};
use crate::lock::Lock;

/// A VM.
#[derive(Debug)]
pub struct VmStatus {
    /// The VM.
    pub vm: ContainerId,
    /// How its network is.
    pub state: State,
    /// Somebody works on it at this moment.
    pub busy: bool,
    /// The namespace's path.
    pub netns_path: Option<PathBuf>,
    /// What is at the path.
    pub netns: Netns,
    /// Its networks, in order.
    pub networks: Vec<NetworkStatus>,
    /// What is missing.
    pub problems: Vec<String>,
}

/// What is at the path of a VM's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Netns {
    /// A namespace that was made for it.
    Made,
    /// A namespace that was there before.
    Given,
    /// Not its namespace.
    Gone,
}

impl Netns {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Netns::Made => "made",
            Netns::Given => "given",
            Netns::Gone => "gone",
        }
    }
}

/// One network of a VM.
#[derive(Debug)]
pub struct NetworkStatus {
    /// The network.
    pub network: NetworkName,
    /// The interface in the namespace.
    pub ifname: InterfaceName,
    /// What the guest was given; `None` where it was not attached to the end.
    pub conf: Option<StaticNetworkConf>,
    /// The cache that tells of it.
    pub cache_dir: PathBuf,
}

impl Guests {
    /// Every VM that there is something of, by its ID.
    ///
    /// # Errors
    /// The cache or the mounts cannot be read.
    pub fn list(&self) -> Result<Vec<VmStatus>> {
        Ok(Known::all(&self.places)?.iter().map(status).collect())
    }
}

pub(crate) fn status(known: &Known) -> VmStatus {
    let (state, mut problems) = known.judge();
    let sandbox = known.sandbox.as_ref();
    let made = sandbox.and_then(|it| it.mark.as_ref()).is_some_and(|mark| mark.made);
    if let Some(sandbox) = sandbox {
        for tap in known.attached.iter().filter_map(|it| it.tap()) {
            match sandbox.link(tap) {
                Ok(Some(_)) => {}
                Ok(None) => problems.push(format!("the tap {tap} is gone")),
                Err(error) => problems.push(error.to_string()),
            }
        }
    }
    let state = if state == State::Up && !problems.is_empty() { State::Incomplete } else { state };
    VmStatus {
        vm: known.vm.clone(),
        state,
        busy: Lock::is_held(&known.vm),
        // As it was given; of what is mounted only the real path is known.
        netns_path: (known.attached.iter())
            .find_map(|it| it.cached.conf.netns.clone())
            .or_else(|| sandbox.map(|sandbox| sandbox.path.clone())),
        netns: match (sandbox, made) {
            (None, _) => Netns::Gone,
            (_, true) => Netns::Made,
            (_, false) => Netns::Given,
        },
        networks: known.attached.iter().map(|attached| network(known, attached)).collect(),
        problems,
    }
}

fn network(known: &Known, attached: &Attached) -> NetworkStatus {
    let record = &attached.record;
    let tap = attached.tap().zip(known.sandbox.as_ref());
    let link = tap.and_then(|(tap, sandbox)| sandbox.link(tap).ok().flatten());
    let attachment = jackfield_vmconf::Attachment::of(known.vm.as_str())
        .named(record.vm_if_name.as_ref())
        .with_wanted_mtu(record.mtu.and_then(|mtu| Mtu::new(mtu).ok()))
        .with_tap_mtu(link.and_then(|link| Mtu::new(link.mtu).ok()));
    let read = |result| StaticNetworkConf::from_result(result, &attachment).ok();
    NetworkStatus {
        network: attached.network().clone(),
        ifname: attached.ifname().clone(),
        conf: attached.result().and_then(read),
        cache_dir: attached.cache_dir.clone(),
    }
}
