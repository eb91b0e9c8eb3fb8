//! A host: a network namespace with its loopback up, in which things can be run.

use crate::error::{Attempt, LabError, Result};
use jackfield_kernel::{
    Address, AddressFlags, Family, Link, LinkChange, MountNamespace, Namespace, Request, Rtnetlink,
};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A network namespace without a name. It goes with the last thing that holds it.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    mounts: Option<MountNamespace>,
    kernel: Mutex<Kernel>,
}

/// The rtnetlink socket of a namespace.
pub(crate) struct Kernel {
    host: String,
    socket: Rtnetlink,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel of {}", self.host)
    }
}

impl Host {
    /// A new namespace with nothing but a loopback, which is up.
    ///
    /// # Errors
    ///
    /// Without the right to make namespaces.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        Self::make(name.into(), false)
    }

    /// A host that has a /run and a /sys of its own besides.
    pub(crate) fn with_mounts(name: impl Into<String>) -> Result<Self> {
        Self::make(name.into(), true)
    }

    fn make(name: String, with_mounts: bool) -> Result<Self> {
        let attempt = || format!("make the namespace of '{name}'");
        let namespace = Namespace::anonymous().attempt(attempt)?;
        let socket = Rtnetlink::open_in(&namespace).attempt(attempt)?;
        let kernel = Mutex::new(Kernel { host: name.clone(), socket });
        let mounts = with_mounts.then(|| crate::mounts::of_instance(&namespace)).transpose()?;
        let host = Self { name, namespace, mounts, kernel };
        // What a new namespace takes over from the machine's own differs from machine to machine.
        host.set_sysctl("net/ipv4/ip_forward", "0")?;
        for which in ["all", "default"] {
            host.set_sysctl(&format!("net/ipv4/conf/{which}/rp_filter"), "0")?;
        }
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        host.kernel().apply("set the loopback up", &[up.request(1)])?;
        Ok(host)
    }

    /// The name that it was given, which is known nowhere else.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Runs `work` in a thread of the host's and returns what it returns.
    ///
    /// # Errors
    ///
    /// Where the namespace cannot be entered; `work` has then not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let attempt = || format!("run something in '{}'", self.name);
        let ran = self.namespace.run(|| {
            self.mounts.as_ref().map_or(Ok(()), MountNamespace::enter)?;
            Ok::<T, jackfield_kernel::Error>(work())
        });
        ran.attempt(attempt)?.attempt(attempt)
    }

    /// A command that will start in the host, in the directory `/`.
    ///
    /// # Errors
    ///
    /// Where no file descriptor is left.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        let started =
            self.namespace.start_inside(&mut command, self.mounts.as_ref().map(AsFd::as_fd));
        started.attempt(|| format!("prepare a command in '{}'", self.name))?;
        Ok(command)
    }

    /// Reads a setting, given by its path below /proc/sys, for example `net/ipv4/ip_forward`.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn sysctl(&self, path: &str) -> Result<String> {
        let file = format!("/proc/sys/{path}");
        let text = self.run(|| std::fs::read_to_string(&file))?;
        let text = text.attempt(|| format!("read {file} in '{}'", self.name))?;
        Ok(text.trim_end().to_owned())
    }

    /// Writes a setting, given by its path below /proc/sys.
    ///
    /// # Errors
    ///
    /// Where there is none or it does not take the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/{path}");
        let written = self.run(|| std::fs::write(&file, value))?;
        written.attempt(|| format!("write {value} to {file} in '{}'", self.name))
    }

    /// All links that it has now.
    ///
    /// # Errors
    ///
    /// Where the conversation with the kernel fails.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.kernel().links()
    }

    /// The link of this name.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn link(&self, name: &str) -> Result<Link> {
        self.kernel().link(name)
    }

    /// Sends changes to the kernel, as an administrator of the host would make them.
    ///
    /// # Errors
    ///
    /// The first refusal; the requests after it took effect all the same.
    pub fn apply(&self, what: &str, requests: &[Request]) -> Result<()> {
        self.kernel().apply(what, requests)
    }

    /// Sets a link up or down.
    ///
    /// # Errors
    ///
    /// Where there is no such link.
    pub fn set_up(&self, link: &str, up: bool) -> Result<()> {
        let index = self.link(link)?.index;
        let change = LinkChange { up: Some(up), ..LinkChange::default() };
        self.apply("set a link up or down", &[change.request(index)])
    }

    /// Whether an IPv6 address is not in use yet.
    pub(crate) fn has_tentative_address(&self) -> Result<bool> {
        let addresses = Address::list(&mut self.kernel().socket, Family::V6);
        let addresses = addresses.attempt(|| format!("list the addresses of '{}'", self.name))?;
        Ok(addresses.iter().any(|address| address.flags.tentative))
    }

    pub(crate) fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel {
    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        Link::list(&mut self.socket).attempt(|| "list links".to_owned())
    }

    pub(crate) fn link(&mut self, name: &str) -> Result<Link> {
        let link = self.links()?.into_iter().find(|link| link.name == name);
        link.ok_or_else(|| LabError::NoLink { host: self.host.clone(), link: name.to_owned() })
    }

    pub(crate) fn index(&mut self, name: &str) -> Result<u32> {
        self.link(name).map(|link| link.index)
    }

    pub(crate) fn apply(&mut self, what: &str, requests: &[Request]) -> Result<()> {
        let answers = self.socket.batch(requests).attempt(|| what.to_owned())?;
        for (number, answer) in answers.into_iter().enumerate() {
            if let Err(refusal) = answer {
                let attempt = format!("{what} (request {number} of {})", requests.len());
                let source = jackfield_kernel::Error::Refused { attempt: what.to_owned(), refusal };
                return Err(LabError::Kernel { attempt, source });
            }
        }
        Ok(())
    }

    /// Like [`Kernel::apply`], content where things were gone already.
    pub(crate) fn clear(&mut self, what: &str, requests: &[Request]) -> Result<()> {
        self.socket.batch(requests).attempt(|| what.to_owned()).map(drop)
    }
}

/// An address with its prefix length, as configured by hand or by DHCP: no detection of
/// duplicates, the route to its prefix made by the kernel.
pub(crate) fn address(interface: u32, address: IpAddr, prefix_length: u8) -> Option<Request> {
    let flags = AddressFlags { no_dad: address.is_ipv6(), ..AddressFlags::default() };
    let address = ipnet::IpNet::new(address, prefix_length).ok()?;
    Some(Address { interface, address, protocol: 0, flags }.add())
}

/// A process of a host. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts a command.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().attempt(|| format!("start {program}")).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The process itself, to wait for it or to take its output.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first address of a network: that of its gateway.
pub(crate) fn first_of(address: IpAddr, prefix_length: u8) -> IpAddr {
    match ipnet::IpNet::new(address, prefix_length).map(|network| network.network()) {
        Ok(IpAddr::V4(network)) => IpAddr::V4((u32::from(network) | 1).into()),
        Ok(IpAddr::V6(network)) => IpAddr::V6((u128::from(network) | 1).into()),
        Err(_) => address,
    }
}
