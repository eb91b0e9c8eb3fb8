//! The status for who has just been woken: whether all is well, then what there is, then what to do.

use anstyle::{AnsiColor, Style};
use jackfield_hostnet::neighbours::Presence;
use jackfield_hostnet::status::{InterfaceStatus, State, Status};

use crate::table::Table;

/// What is wrong, and with whom.
struct Line<'s> {
    who: Vec<&'s str>,
    text: String,
    code: &'s str,
    fix: &'s str,
    style: Style,
    /// Not as wanted. Otherwise somebody wanted it so, and it is only said.
    counts: bool,
}

/// The whole of it. `denied`: there is an agent which may not be asked.
pub(super) fn render(status: &Status, denied: bool) -> String {
    let lines = lines(status, denied);
    let wrong: Vec<&Line<'_>> = lines.iter().filter(|line| line.counts).collect();
    let mut out = heading(status, &wrong);
    out.push_str(&format!("{}; {}\n", agent(status, denied), metadata(status)));
    if !status.interfaces.is_empty() {
        out.push_str(&table(status));
    }
    for line in &lines {
        let Line { who, text, code, fix, style, .. } = line;
        let who = who.join(", ");
        out.push_str(&format!("{style}{who}{style:#}: {text} [{code}]\n    {fix}\n"));
    }
    out.extend(status.neighbours.iter().map(beside));
    out
}

fn heading(status: &Status, wrong: &[&Line<'_>]) -> String {
    let here = match status.interfaces.len() {
        0 => "no cloud interface is here".to_owned(),
        1 => "1 interface".to_owned(),
        count => format!("{count} interfaces"),
    };
    if wrong.is_empty() {
        let green = style(AnsiColor::Green);
        return format!("{green}all is well{green:#}: {here}\n");
    }
    let red = style(AnsiColor::Red);
    let count = match wrong.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let mut who: Vec<&str> = wrong.iter().flat_map(|line| line.who.iter().copied()).collect();
    let mut seen = std::collections::BTreeSet::new();
    who.retain(|who| seen.insert(*who));
    format!("{red}{count}{red:#} ({}); {here}\n", who.join(", "))
}

fn agent(status: &Status, denied: bool) -> String {
    let Some(agent) = &status.agent else {
        return "no agent runs: nothing is kept as it is now".to_owned();
    };
    let process = agent.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    match (&agent.version, agent.uptime_s, denied) {
        (Some(version), Some(uptime), _) => {
            format!("agent {version}{process}, runs for {}", span(uptime))
        }
        (.., true) => format!("agent{process}, which only root may ask"),
        _ => format!("agent{process}, does not answer"),
    }
}

fn metadata(status: &Status) -> String {
    let metadata = &status.metadata;
    match (metadata.reachable, metadata.age_s) {
        (Some(true), Some(0)) => "metadata answers".to_owned(),
        (Some(true), Some(age)) => format!("metadata answered {} ago", span(age)),
        (Some(false), Some(age)) => format!("metadata does not answer, last {} ago", span(age)),
        (Some(false), None) => "metadata does not answer".to_owned(),
        _ => "metadata has not been asked".to_owned(),
    }
}

fn table(status: &Status) -> String {
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
    table.render()
}

/// What is wrong, each once.
fn lines(status: &Status, denied: bool) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let red = style(AnsiColor::Red);
    let yellow = style(AnsiColor::Yellow);
    if let Some(agent) = &status.agent {
        if !agent.answers && !denied {
            lines.push(Line {
                who: vec!["agent"],
                text: "it runs, and does not answer; this is what there is to see without it"
                    .into(),
                code: "agent-silent",
                fix: "see its log; a restart leaves the network as it is",
                style: red,
                counts: true,
            });
        }
        if let Some(error) = &agent.configuration_error {
            lines.push(Line {
                who: vec!["configuration"],
                text: format!("{error}; what was read before is in effect"),
                code: "configuration-invalid",
                fix: "correct it, then run 'jackfield reload'",
                style: yellow,
                counts: true,
            });
        }
    }
    let of_interfaces = status.interfaces.iter().flat_map(|it| &it.problems);
    let told = of_interfaces.clone().any(|problem| problem.code == "metadata-unreachable");
    if let Some(error) = status.metadata.error.as_ref().filter(|_| !told) {
        lines.push(Line {
            who: vec!["metadata"],
            // It begins with what it is about.
            text: error.strip_prefix("metadata ").unwrap_or(error).to_owned(),
            code: "metadata-unreachable",
            fix: "make sure that the instance metadata service is on and reachable (IMDSv2)",
            style: yellow,
            counts: true,
        });
    }
    for interface in &status.interfaces {
        for problem in &interface.problems {
            let same =
                |line: &&mut Line<'_>| line.code == problem.code && line.text == problem.text;
            if let Some(line) = lines.iter_mut().find(same) {
                line.who.push(&interface.name);
                continue;
            }
            lines.push(Line {
                who: vec![&interface.name],
                text: problem.text.clone(),
                code: &problem.code,
                fix: &problem.fix,
                style: color(interface),
                counts: interface.state != State::Foreign,
            });
        }
    }
    lines
}

/// A line for each other manager that is here.
fn beside(neighbour: &Presence) -> String {
    let interfaces = match neighbour.interfaces.as_slice() {
        [] => "no interface".to_owned(),
        interfaces => interfaces.join(" "),
    };
    format!("beside {} ({}): {interfaces}\n", neighbour.name, neighbour.evidence)
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

/// A time, in two units at most.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{minutes} min"),
        7200..172_800 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn style(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(color.into()))
}

fn color(interface: &InterfaceStatus) -> Style {
    style(match interface.state {
        State::Configured => AnsiColor::Green,
        State::Pending | State::Removing => AnsiColor::Yellow,
        State::Error => AnsiColor::Red,
        State::Unmanaged | State::Foreign => AnsiColor::BrightBlack,
    })
}

#[cfg(test)]
mod tests {
    use jackfield_hostnet::Problem;
    use jackfield_hostnet::status::{AgentStatus, MetadataStatus};

    use super::*;

    fn interface(name: &str, state: State, problems: &[&str]) -> InterfaceStatus {
        let problem = |code: &&str| Problem {
            code: code.to_string().into(),
            text: format!("{code} is wrong"),
            fix: format!("cure {code}"),
        };
        InterfaceStatus {
            name: name.to_owned(),
            ifindex: 2,
            mac: "02:ec:20:00:00:01".to_owned(),
            interface_id: None,
            device_number: Some(1),
            network_card: Some(0),
            primary: false,
            managed: true,
            owner: "jackfield".into(),
            backend: "kernel".into(),
            state,
            table: Some(10_001),
            group: 106,
            mtu: 9001,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            metadata_age_s: Some(3),
            problems: problems.iter().map(problem).collect(),
        }
    }

    fn status(interfaces: Vec<InterfaceStatus>) -> Status {
        Status {
            version: 1,
            interfaces,
            neighbours: Vec::new(),
            agent: Some(AgentStatus {
                pid: Some(123),
                answers: true,
                version: Some("1.2.3".to_owned()),
                uptime_s: Some(11_520),
                configuration_error: None,
            }),
            metadata: MetadataStatus { reachable: Some(true), age_s: Some(12), error: None },
        }
    }

    fn plain(status: &Status, denied: bool) -> String {
        anstream::adapter::strip_str(&render(status, denied)).to_string()
    }

    #[test]
    fn the_first_lines_say_whether_all_is_well() {
        let text = plain(&status(vec![interface("eth1", State::Configured, &[])]), false);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("all is well: 1 interface"));
        let agent = "agent 1.2.3, process 123, runs for 3 h 12 min; metadata answered 12 s ago";
        assert_eq!(lines.next(), Some(agent));
        let empty = plain(&status(Vec::new()), false);
        assert!(empty.starts_with("all is well: no cloud interface is here\n"), "{empty}");
    }

    #[test]
    fn what_is_wrong_with_several_interfaces_is_said_once_with_what_to_do() {
        let interfaces = vec![
            interface("eth1", State::Pending, &["late"]),
            interface("eth2", State::Error, &["late", "broken"]),
            interface("eth3", State::Foreign, &["foreign"]),
        ];
        let text = plain(&status(interfaces), false);
        assert!(text.starts_with("2 problems (eth1, eth2); 3 interfaces\n"), "{text}");
        for part in [
            "\neth1, eth2: late is wrong [late]\n    cure late\n",
            "\neth2: broken is wrong [broken]\n    cure broken\n",
            "\neth3: foreign is wrong [foreign]\n    cure foreign\n",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part:?} in {text}");
        }
    }

    #[test]
    fn an_agent_that_is_not_there_or_not_to_be_heard_is_told_of() {
        let mut told = status(Vec::new());
        told.metadata =
            MetadataStatus { reachable: Some(false), age_s: None, error: Some("no".into()) };
        let silent = AgentStatus {
            pid: Some(7),
            answers: false,
            version: None,
            uptime_s: None,
            configuration_error: None,
        };
        told.agent = Some(silent);
        let text = plain(&told, false);
        assert!(text.starts_with("2 problems (agent, metadata); no cloud"), "{text}");
        assert!(text.contains("\nagent, process 7, does not answer; metadata does not"), "{text}");
        let text = plain(&told, true);
        assert!(text.starts_with("1 problem (metadata); "), "{text}");
        assert!(text.contains("\nagent, process 7, which only root may ask; "), "{text}");
        told.agent = None;
        assert!(plain(&told, false).contains("\nno agent runs: "), "{text}");
    }

    #[test]
    fn a_configuration_that_is_not_in_effect_is_a_problem() {
        let mut told = status(Vec::new());
        let agent = told.agent.as_mut().unwrap();
        agent.configuration_error = Some("line 3 is wrong".to_owned());
        let text = plain(&told, false);
        assert!(text.starts_with("1 problem (configuration); "), "{text}");
        assert!(text.contains("configuration: line 3 is wrong; what was read before"), "{text}");
    }

    #[test]
    fn a_time_has_two_units_at_most() {
        let spans = [0, 119, 120, 7199, 7200, 172_799, 172_800, 1_000_000].map(span);
        let expected = [
            "0 s",
            "119 s",
            "2 min",
            "119 min",
            "2 h 0 min",
            "47 h 59 min",
            "2 d 0 h",
            "11 d 13 h",
        ];
        assert_eq!(spans, expected);
    }
}
