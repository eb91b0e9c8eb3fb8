//! `jackfield status`.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use jackfield_hostnet::neighbours::Presence;
use jackfield_hostnet::once::find;
use jackfield_hostnet::status::{InterfaceStatus, State, Status, status as put_together};
use jackfield_hostnet::{Role, Scope};

use crate::arguments::{Arguments, Show};
use crate::commands::{print, print_json, session};
use crate::failure::Failure;
use crate::table::Table;

/// How long metadata may take before the status is told without it.
const WAIT: Duration = Duration::from_secs(2);

pub(crate) fn status(arguments: &Arguments, show: &Show) -> Result<(), Failure> {
    let mut session = session(arguments)?;
    let metadata = session.crawl(Instant::now() + WAIT)?;
    let view = session.view(&Scope::Everything)?;
    let machine = session.machine();
    let mut status = put_together(machine, &view, metadata.as_ref().err(), Instant::now());
    if show.interfaces.is_empty() {
        // Devices that metadata does not know are told of where somebody asks for them by name.
        let stranger = |index: u32| {
            view.desired.interfaces.iter().any(|interface| {
                interface.index == index
                    && interface.role == Role::Waiting
                    && interface.problems.iter().any(|problem| problem.code == "not-listed")
            })
        };
        status.interfaces.retain(|interface| !stranger(interface.ifindex));
    } else {
        let mut chosen = Vec::new();
        for name in &show.interfaces {
            let link = find(&view.snapshot, name)
                .ok_or_else(|| jackfield_hostnet::once::OnceError::NoSuchInterface(name.clone()))?;
            chosen.push(link.index);
        }
        status.interfaces.retain(|interface| chosen.contains(&interface.ifindex));
    }
    if show.output.json {
        let value = serde_json::to_value(&status).unwrap_or_default();
        return print_json(&value);
    }
    print(&render(&status))
}

fn render(status: &Status) -> String {
    if status.interfaces.is_empty() {
        return "no cloud interface is here\n".to_owned() + &beside(status);
    }
    let heading = ["INTERFACE", "STATE", "ID", "CARD/DEVICE", "TABLE", "MTU", "ADDRESSES"];
    let mut table = Table::new(&heading);
    let plain = Style::new();
    for interface in &status.interfaces {
        let name = match interface.primary {
            true => format!("{} (primary)", interface.name),
            false => interface.name.clone(),
        };
        let slot = match (interface.network_card, interface.device_number) {
            (Some(card), Some(device)) => format!("{card}/{device}"),
            _ => "-".to_owned(),
        };
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
        table.row(vec![
            (name, plain.bold()),
            (interface.state.name().to_owned(), color(interface)),
            (interface.interface_id.clone().unwrap_or("-".to_owned()), plain),
            (slot, plain),
            (number(interface.table), plain),
            (interface.mtu.to_string(), plain),
            (addresses(&interface.addresses), plain),
        ]);
    }
    let mut out = table.render();
    for interface in &status.interfaces {
        for problem in &interface.problems {
            let style = color(interface);
            out.push_str(&format!(
                "{style}{}{style:#}: {} [{}]\n    {}\n",
                interface.name, problem.text, problem.code, problem.fix
            ));
        }
    }
    out + &beside(status)
}

/// A line for each other manager that is here.
fn beside(status: &Status) -> String {
    let line = |neighbour: &Presence| {
        let interfaces = match neighbour.interfaces.as_slice() {
            [] => "no interface".to_owned(),
            interfaces => interfaces.join(" "),
        };
        format!("beside {} ({}): {interfaces}\n", neighbour.name, neighbour.evidence)
    };
    status.neighbours.iter().map(line).collect()
}

fn addresses(addresses: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = addresses.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" ");
    match addresses.len().checked_sub(SHOWN) {
        None | Some(0) if addresses.is_empty() => "-".to_owned(),
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

fn color(interface: &InterfaceStatus) -> Style {
    let color = match interface.state {
        State::Configured => AnsiColor::Green,
        State::Pending | State::Removing => AnsiColor::Yellow,
        State::Error => AnsiColor::Red,
        State::Unmanaged | State::Foreign => AnsiColor::BrightBlack,
    };
    Style::new().fg_color(Some(color.into()))
}
