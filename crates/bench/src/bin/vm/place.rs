//! A container's namespace with an interface, and calls of a plugin in it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_kernel::{
    Address, AddressFlags, Filter, Link, LinkChange, Namespace, Qdisc, Rtnetlink, VethEnd,
    veth_pair,
};

use crate::Failure;
use crate::programs::Programs;

const ADDRESS: &str = "10.0.0.2/24";
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Where both make what they make.
pub(crate) struct Place {
    namespace: Namespace,
    kernel: Rtnetlink,
}

impl Place {
    pub(crate) fn new() -> Result<Self, Failure> {
        let namespace = Namespace::anonymous()?;
        let mut kernel = Rtnetlink::open_in(&namespace)?;
        let end = |name, address| VethEnd { name, address, mtu: Some(1400), namespace: None };
        kernel
            .request("make a veth pair", veth_pair(end("eth0", Some(MAC)), end("other", None)))?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        for link in Link::list(&mut kernel)? {
            kernel.request("set a link up", up.request(link.index))?;
            if link.name == "eth0" {
                kernel.request("add an address", address(link.index)?.add())?;
            }
        }
        Ok(Place { namespace, kernel })
    }

    /// Everything that a plugin makes, in words that are the same for every tap.
    pub(crate) fn state(&mut self) -> Result<Vec<String>, Failure> {
        let links = Link::list(&mut self.kernel)?;
        let name = |index: u32| {
            let link = links.iter().find(|link| link.index == index);
            link.map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let mut state = Vec::new();
        for link in &links {
            state.push(format!("{} up {} mtu {}", link.name, link.up, link.mtu));
            for filter in Filter::list(&mut self.kernel, link.index)? {
                let to = filter.redirects_to.map(name);
                let rest = (filter.kind, filter.preference, filter.matches_everything, to);
                state.push(format!("{} {rest:?}", link.name));
            }
        }
        for qdisc in Qdisc::list(&mut self.kernel)? {
            // One that is made when a device comes up appears some time later.
            if qdisc.is_for_arriving() {
                state.push(format!("{} {}", name(qdisc.interface), qdisc.kind));
            }
        }
        Ok(state)
    }

    /// Runs a program for one command to its end, and says how long that took and what it printed.
    pub(crate) fn time(
        &self,
        program: &Path,
        command: &str,
        result: Option<&str>,
    ) -> Result<(Duration, String), Failure> {
        self.run(Command::new(program), command, result)
    }

    /// The most memory that the plugin has resident while it does this, KiB.
    pub(crate) fn peak(&self, programs: &Programs, command: &str) -> Result<u64, Failure> {
        let mut result = None;
        if matches!(command, "CHECK" | "DEL") {
            result = Some(self.time(&programs.plugin, "ADD", None)?.1);
        }
        // A small program starts it: what that has resident counts as well.
        let mut under = Command::new(&programs.floor);
        under.arg("rusage").arg(&programs.plugin);
        let mut child = self.prepare(under, command).stderr(Stdio::piped()).spawn()?;
        let config = self.config(result.as_deref());
        give(&mut child, &config)?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("{command}: {output:?}").into());
        }
        if command != "DEL" {
            self.time(&programs.plugin, "DEL", None)?;
        }
        Ok(String::from_utf8(output.stderr)?.trim().parse()?)
    }

    fn run(
        &self,
        program: Command,
        command: &str,
        result: Option<&str>,
    ) -> Result<(Duration, String), Failure> {
        let mut prepared = self.prepare(program, command);
        let config = self.config(result);
        let start = Instant::now();
        let mut child = prepared.spawn()?;
        give(&mut child, &config)?;
        let mut printed = String::new();
        child.stdout.take().ok_or("no standard output")?.read_to_string(&mut printed)?;
        let status = child.wait()?;
        let time = start.elapsed();
        if !status.success() {
            return Err(format!("{prepared:?} {command}: {status}: {printed}").into());
        }
        Ok((time, printed))
    }

    fn prepare(&self, mut program: Command, command: &str) -> Command {
        program.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", "vm-1");
        program.env("CNI_NETNS", self.path()).env("CNI_IFNAME", "eth0");
        program.env("CNI_PATH", "/opt/cni/bin").env("CNI_ARGS", "TC_REDIRECT_TAP_NAME=tap0");
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        program
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }

    fn config(&self, result: Option<&str>) -> String {
        let path = self.path();
        let before = format!(
            r#"{{"cniVersion":"1.0.0","interfaces":[{{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"{path}"}}],"ips":[{{"interface":0,"address":"{ADDRESS}","gateway":"10.0.0.1"}}],"routes":[{{"dst":"0.0.0.0/0"}}],"dns":{{}}}}"#
        );
        let result = result.unwrap_or(&before);
        format!(
            r#"{{"cniVersion":"1.0.0","name":"fcnet","type":"tc-redirect-tap","prevResult":{result}}}"#
        )
    }
}

/// Gives a program its standard input. VERSION needs none, and may have ended by now.
fn give(child: &mut Child, config: &str) -> Result<(), Failure> {
    let mut input = child.stdin.take().ok_or("no standard input")?;
    match input.write_all(config.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn address(interface: u32) -> Result<Address, Failure> {
    let flags = AddressFlags {
        no_prefix_route: false,
        no_dad: false,
        tentative: false,
        permanent: true,
        deprecated: false,
    };
    Ok(Address { interface, address: ADDRESS.parse()?, protocol: 0, flags })
}
