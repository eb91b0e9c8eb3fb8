//! `jackfield vm list`.

use anstyle::{AnsiColor, Style};
use jackfield_guest::{NetworkStatus, State, VmStatus};
use serde_json::{Value, json};

use super::guests;
use crate::arguments::vm::All;
use crate::commands::{print, print_json, require_privilege};
use crate::failure::Failure;
use crate::table::Table;

pub(crate) fn list(all: &All) -> Result<(), Failure> {
    require_privilege()?;
    let vms = guests(&all.places, all.patience)?.list()?;
    if all.output.json {
        let vms: Vec<_> = vms.iter().map(vm_json).collect();
        return print_json(&json!({ "version": 1, "vms": vms }));
    }
    print(&render(&vms))
}

fn vm_json(vm: &VmStatus) -> Value {
    json!({
        "id": vm.vm,
        "state": vm.state.name(),
        "busy": vm.busy,
        "netns_path": vm.netns_path,
        "netns": vm.netns.name(),
        "networks": vm.networks.iter().map(network_json).collect::<Vec<_>>(),
        "problems": vm.problems,
    })
}

fn network_json(network: &NetworkStatus) -> Value {
    json!({
        "network": network.network,
        "ifname": network.ifname,
        "interface": network.conf,
        "cache_dir": network.cache_dir,
    })
}

fn render(vms: &[VmStatus]) -> String {
    if vms.is_empty() {
        return "no VM has a network here\n".to_owned();
    }
    let mut table = Table::new(&["VM", "STATE", "NAMESPACE", "NETWORKS", "TAPS", "ADDRESSES"]);
    let plain = Style::new();
    for vm in vms {
        let confs = || vm.networks.iter().filter_map(|network| network.conf.as_ref());
        let path = vm.netns_path.as_ref().map(|path| path.display().to_string());
        let state = if vm.busy { "busy" } else { vm.state.name() };
        table.row(vec![
            (vm.vm.to_string(), plain.bold()),
            (state.to_owned(), color(vm.state)),
            (path.unwrap_or_else(|| "-".to_owned()), plain),
            (words(vm.networks.iter().map(|network| network.network.to_string())), plain),
            (words(confs().map(|conf| conf.tap_name.to_string())), plain),
            (
                words(confs().flat_map(|conf| &conf.vm_ips).map(|ip| ip.address().to_string())),
                plain,
            ),
        ]);
    }
    let mut out = table.render();
    for vm in vms {
        for problem in &vm.problems {
            let style = color(vm.state);
            out.push_str(&format!("{style}{}{style:#}: {problem}\n", vm.vm));
        }
    }
    out
}

fn words(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

fn color(state: State) -> Style {
    let color = match state {
        State::Up => AnsiColor::Green,
        State::Incomplete => AnsiColor::Red,
        State::Leftover => AnsiColor::Yellow,
    };
    Style::new().fg_color(Some(color.into()))
}
