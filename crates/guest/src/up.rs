//! A VM's network, made.

use std::path::{Path, PathBuf};

use jackfield_cni::config::{self, NetworkList};
use jackfield_cni::runtime::{Runtime, RuntimeConf};
use jackfield_cni::types::{CniResult, Extra};
use jackfield_cni::{CniArgs, ContainerId, InterfaceName, NetworkName};
use jackfield_vmconf::{Attachment, Mtu, ResultError, StaticNetworkConf, VmConf};

use crate::error::{Error, Result, file};
use crate::guests::Guests;
use crate::known::Known;
use crate::mark::{Mark, Stage};
use crate::places::absolute;
use crate::record::{NamespaceIdentity, Record};
use crate::sandbox::{Found, Sandbox, default_path};

/// What a VM's network is to be.
#[derive(Debug, Clone)]
pub struct UpRequest {
    /// The VM: CNI's container ID.
    pub vm: ContainerId,
    /// Its networks, in the order in which they are attached and the guest is given them.
    pub networks: Vec<NetworkRequest>,
    /// The path of its network namespace; `None` is `/var/run/netns/<VM>`.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS` for all plugins. Where there are any, `IgnoreUnknown` is added: all plugins get all
    /// of them, and those that do not know one are to go on.
    pub args: CniArgs,
    /// The user who may open the tap, as tc-redirect-tap is told.
    pub tap_uid: Option<u32>,
    /// The group that may open the tap.
    pub tap_gid: Option<u32>,
    /// Capability arguments for all plugins that ask for them.
    pub capability_args: Extra,
    /// The MTU in the guest; `None` is the tap's.
    pub mtu: Option<Mtu>,
}

/// One network of a VM.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// The network's name.
    pub name: NetworkName,
    /// The interface's name in the namespace.
    pub ifname: InterfaceName,
    /// The interface's name in the guest.
    pub vm_if_name: Option<jackfield_vmconf::InterfaceName>,
}

/// What was made so far, and is undone where something fails.
struct Made {
    sandbox: Sandbox,
    attached: Vec<(NetworkList, RuntimeConf)>,
}

impl UpRequest {
    fn cni_args(&self) -> Result<CniArgs> {
        let mut args = self.args.clone();
        let owner = [("TC_REDIRECT_TAP_UID", self.tap_uid), ("TC_REDIRECT_TAP_GID", self.tap_gid)];
        for (key, id) in owner {
            if let Some(id) = id {
                args.push(key, &id.to_string())?;
            }
        }
        if !args.is_empty() && args.get("IgnoreUnknown").is_none() {
            args.push("IgnoreUnknown", "1")?;
        }
        Ok(args)
    }
}

impl Guests {
    /// Makes a VM's network: the namespace where there is none, then each network in order. What an
    /// interrupted `up` or a VM that does not run any more left is removed first. `accept` gets what the
    /// guest is to be given, and has the last word.
    ///
    /// Whatever fails, `accept` included, what was made is undone in reverse.
    ///
    /// # Errors
    /// [`Error::Running`] where the VM's tap is in use; [`Error::Busy`]; what a network, a plugin, the
    /// kernel or `accept` says.
    pub fn up<T, E: From<Error>>(
        &self,
        request: &UpRequest,
        accept: impl FnOnce(&VmConf) -> Result<T, E>,
    ) -> Result<T, E> {
        let networks = self.networks(request)?;
        let _lock = self.lock(&request.vm)?;
        let path = match &request.netns {
            Some(path) => absolute(path)?,
            None => default_path(&request.vm),
        };
        self.remove_leftovers(&request.vm, &path)?;
        let runtime = Runtime {
            plugin_dirs: self.places.plugin_dirs(),
            cache_dir: self.places.cache_dir(),
            deadline: self.plugin_deadline,
            ..Runtime::new(Vec::new())
        };
        let sandbox = sandbox(&request.vm, &path, &runtime.cache_dir)?;
        let mut made = Made { sandbox, attached: Vec::new() };
        let done = attach_all(&runtime, request, networks, &mut made)
            .map_err(E::from)
            .and_then(|conf| accept(&conf))
            .and_then(|accepted| {
                // From here on only `down` takes it away.
                made.sandbox.set_stage(Stage::Up)?;
                Ok(accepted)
            });
        if done.is_err() {
            undo(&runtime, made);
        }
        done
    }

    /// Configurations before anything is made: most mistakes are there.
    fn networks(&self, request: &UpRequest) -> Result<Vec<NetworkList>> {
        for (position, network) in request.networks.iter().enumerate() {
            let earlier = request.networks.get(..position).unwrap_or_default();
            if earlier.iter().any(|earlier| earlier.ifname == network.ifname) {
                return Err(Error::SameInterface(network.ifname.clone()));
            }
        }
        let directories = self.places.conf_dirs();
        let load = |network: &NetworkRequest| Ok(config::load(&directories, &network.name)?);
        request.networks.iter().map(load).collect()
    }

    fn remove_leftovers(&self, vm: &ContainerId, path: &Path) -> Result<()> {
        let Some(known) = Known::find(&self.places, vm, Some(path), false)? else {
            return Ok(());
        };
        if let Some(sandbox) = &known.sandbox {
            for tap in known.attached.iter().filter_map(|attached| attached.tap()) {
                // A tap has a carrier as long as a program holds it open.
                if sandbox.link(tap)?.is_some_and(|link| link.carrier) {
                    return Err(Error::Running { vm: vm.clone(), tap: tap.to_owned() });
                }
            }
        }
        let mut failed = self.tear_down(known).into_iter();
        let Some(first) = failed.next() else { return Ok(()) };
        failed.for_each(|error| log::error!("{error}"));
        Err(first)
    }
}

/// The namespace at a path, or a new one.
fn sandbox(vm: &ContainerId, path: &Path, cache_dir: &Path) -> Result<Sandbox> {
    match Found::at(path)? {
        Found::Absent => Sandbox::make(path, Mark::new(vm, true, cache_dir)?),
        Found::Namespace(mut sandbox) => {
            match sandbox.mark.clone() {
                Some(mark) if mark.made => {
                    return Err(Error::NamespaceOfOther { path: path.to_owned(), vm: mark.vm });
                }
                // It was there before that VM as well, and can hold only one mark.
                Some(_) => sandbox.ignore_mark(),
                None => sandbox.mark_given(Mark::new(vm, false, cache_dir)?)?,
            }
            Ok(sandbox)
        }
        Found::Interrupted(mark) => {
            Err(Error::NamespaceOfOther { path: path.to_owned(), vm: mark.vm })
        }
        Found::Other => Err(Error::NoNamespace(path.to_owned())),
    }
}

fn attach_all(
    runtime: &Runtime,
    request: &UpRequest,
    networks: Vec<NetworkList>,
    made: &mut Made,
) -> Result<VmConf> {
    let namespace_made = made.sandbox.mark.as_ref().is_some_and(|mark| mark.made);
    let namespace = NamespaceIdentity::at(&made.sandbox.path)?;
    if !namespace_made {
        refuse_taken_names(request, &made.sandbox)?;
    }
    let args = request.cni_args()?;
    let mut confs = Vec::with_capacity(networks.len());
    for (position, (wanted, network)) in request.networks.iter().zip(networks).enumerate() {
        let record = Record {
            position,
            networks: request.networks.len(),
            vm_if_name: wanted.vm_if_name.clone(),
            mtu: request.mtu.map(Mtu::bytes),
            namespace_made,
            namespace: namespace.clone(),
            plugin_dirs: runtime.plugin_dirs.clone(),
        };
        let conf = RuntimeConf {
            args: args.clone(),
            capability_args: record.beside(&request.capability_args)?,
            ..RuntimeConf::new(
                request.vm.clone(),
                Some(made.sandbox.path.clone()),
                wanted.ifname.clone(),
            )
        };
        let result = runtime.add(&network, &conf)?;
        made.attached.push((network, conf));
        confs.push(read(&result, request, wanted, &made.sandbox)?);
    }
    Ok(VmConf::new(confs)?)
}

/// Plugins find an interface by its name: an ADD that fails because somebody else has it would be
/// undone by a DEL that removes it.
fn refuse_taken_names(request: &UpRequest, sandbox: &Sandbox) -> Result<()> {
    for NetworkRequest { ifname, .. } in &request.networks {
        if sandbox.link(ifname.as_str())?.is_some() {
            let (path, ifname) = (sandbox.path.clone(), ifname.clone());
            return Err(Error::InterfaceTaken { path, ifname });
        }
    }
    Ok(())
}

fn read(
    result: &CniResult,
    request: &UpRequest,
    wanted: &NetworkRequest,
    sandbox: &Sandbox,
) -> Result<StaticNetworkConf> {
    let failed = |error| Error::Result { network: wanted.name.clone(), error };
    let path = sandbox.path.to_string_lossy();
    let attachment = Attachment::of(request.vm.as_str())
        .in_namespace(&path)
        .comparing(&same_namespace)
        .named(wanted.vm_if_name.as_ref())
        .with_wanted_mtu(request.mtu);
    let mut conf = StaticNetworkConf::from_result(result, &attachment).map_err(failed)?;
    if request.mtu.is_none()
        && let Some(mtu) = tap_mtu(sandbox, &conf)?
    {
        conf.vm_mtu = Some(mtu);
    }
    Ok(conf)
}

/// Reads a result of an ADD as what a guest is to be given. The MTU is the wanted one, else the
/// tap's in its namespace where that can be looked at, else the result's.
///
/// # Errors
/// The result is not one for a VM.
pub fn conf_of_result(
    result: &CniResult,
    vm: &ContainerId,
    vm_if_name: Option<&jackfield_vmconf::InterfaceName>,
    mtu: Option<Mtu>,
) -> Result<StaticNetworkConf, ResultError> {
    let attachment = Attachment::of(vm.as_str())
        .comparing(&same_namespace)
        .named(vm_if_name)
        .with_wanted_mtu(mtu);
    let mut conf = StaticNetworkConf::from_result(result, &attachment)?;
    if mtu.is_none() {
        match Found::at(Path::new(conf.netns_path.as_str())) {
            Ok(Found::Namespace(sandbox)) => match tap_mtu(&sandbox, &conf) {
                Ok(None) => {}
                Ok(mtu) => conf.vm_mtu = mtu,
                Err(error) => log::debug!("the tap's MTU is not known: {error}"),
            },
            Ok(_) => log::debug!("{} is no namespace here", conf.netns_path),
            Err(error) => log::debug!("the tap's MTU is not known: {error}"),
        }
    }
    Ok(conf)
}

fn tap_mtu(sandbox: &Sandbox, conf: &StaticNetworkConf) -> Result<Option<Mtu>> {
    let link = sandbox.link(conf.tap_name.as_str())?;
    Ok(link.and_then(|link| Mtu::new(link.mtu).ok()))
}

/// Two paths are of one file; where one cannot be looked at, by the paths alone.
fn same_namespace(one: &str, other: &str) -> bool {
    let identity = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).map_err(file("look at", path)).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        _ => jackfield_vmconf::same_path(one, other),
    }
}

/// Undoes what was made, last first. What cannot be undone is left to `down`, and told of.
fn undo(runtime: &Runtime, made: Made) {
    for (network, conf) in made.attached.iter().rev() {
        if let Err(error) = runtime.del(network, conf) {
            log::error!("it could not be undone: {error}");
        }
    }
    if let Err(error) = made.sandbox.remove() {
        log::error!("it could not be undone: {error}");
    }
}
