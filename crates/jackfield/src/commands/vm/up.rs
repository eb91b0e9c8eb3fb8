//! `jackfield vm up`.

use jackfield_cni::CniArgs;
use jackfield_guest::{Error, NetworkRequest, UpRequest};

use super::guests;
use crate::arguments::vm::{Up, VmIfname};
use crate::commands::{print, require_privilege};
use crate::failure::Failure;

pub(crate) fn up(up: &Up) -> Result<(), Failure> {
    up.form.check()?;
    let request = request(up)?;
    require_privilege()?;
    let guests = guests(&up.places, up.patience)?;
    let text = guests.up(&request, |conf| up.form.text(conf))?;
    print(&text).inspect_err(|_| {
        // Nobody knows what the guest is to be given.
        let failed = match guests.down(&request.vm) {
            Ok(down) => down.failed,
            Err(error) => vec![error],
        };
        failed.iter().for_each(|error| log::error!("it could not be undone: {error}"));
    })
}

fn request(up: &Up) -> Result<UpRequest, Failure> {
    let too_many = |flag: &str, given: usize| {
        let networks = up.networks.len();
        Err(Failure::Usage(format!("{given} times {flag}, but {networks} times --network")))
    };
    if up.ifnames.len() > up.networks.len() {
        return too_many("--ifname", up.ifnames.len());
    }
    if up.vm_ifnames.len() > up.networks.len() {
        return too_many("--vm-ifname", up.vm_ifnames.len());
    }
    let mut networks = Vec::with_capacity(up.networks.len());
    for (position, name) in up.networks.iter().enumerate() {
        let usual = format!("eth{position}");
        let ifname = match up.ifnames.get(position) {
            Some(given) => given.clone(),
            None => usual.parse().map_err(Error::from)?,
        };
        let vm_if_name = match up.vm_ifnames.get(position) {
            Some(VmIfname(given)) => given.clone(),
            None => usual.parse().ok(),
        };
        networks.push(NetworkRequest { name: name.clone(), ifname, vm_if_name });
    }
    let mut args = CniArgs::default();
    for (key, value) in &up.args {
        args.push(key, value).map_err(Error::from)?;
    }
    Ok(UpRequest {
        vm: up.vm.clone(),
        networks,
        netns: up.netns.clone(),
        args,
        tap_uid: up.uid,
        tap_gid: up.gid,
        capability_args: up.capabilities.iter().cloned().collect(),
        mtu: up.mtu,
    })
}
