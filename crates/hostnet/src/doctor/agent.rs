//! Who sees to it that interfaces are plugged.

use super::facts::{AGENT_UNIT, SCAN_UNIT, Unit};
use super::{Facts, Finding};

const CHECK: &str = "agent";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![running(facts)];
    findings.extend(itself(facts));
    findings.extend(facts.units.as_deref().and_then(modes));
    findings
}

fn running(facts: &Facts) -> Finding {
    let unit = |name: &str| facts.units.iter().flatten().find(|unit| unit.name == name);
    let is = |unit: Option<&Unit>, state: &str| unit.is_some_and(|unit| unit.active == state);
    let (agent, scan) = (unit(AGENT_UNIT), unit(SCAN_UNIT));
    if facts.agent_runs {
        let how = match (agent, is(agent, "active")) {
            (_, true) => format!(" ({AGENT_UNIT})"),
            (Some(_), false) => ", not by its unit".to_owned(),
            (None, _) => String::new(),
        };
        return Finding::ok(CHECK, format!("an agent runs here{how}"));
    }
    if is(agent, "active") || is(agent, "activating") {
        let text = format!("{AGENT_UNIT} is {}, and no agent runs in this network namespace", {
            agent.map(|unit| unit.active.as_str()).unwrap_or_default()
        });
        return Finding::problem(CHECK, text, format!("see 'journalctl -u {AGENT_UNIT}'"));
    }
    if is(agent, "failed") {
        let fix = format!("see 'journalctl -u {AGENT_UNIT}', and start it again");
        return Finding::problem(CHECK, format!("{AGENT_UNIT} has failed"), fix);
    }
    if is(scan, "failed") {
        let fix = format!("see 'journalctl -u {SCAN_UNIT}', and start it again");
        return Finding::problem(CHECK, format!("{SCAN_UNIT} has failed"), fix);
    }
    if is(scan, "active") {
        return Finding::ok(CHECK, format!("no agent: udev has interfaces plugged ({SCAN_UNIT})"));
    }
    let start = match agent.is_some_and(|unit| !unit.enabled.is_empty()) {
        true => format!("systemctl enable --now {AGENT_UNIT}"),
        false => "start 'jackfield run', or run 'jackfield scan' whenever something changed".into(),
    };
    Finding::warning(CHECK, "no agent runs here: nothing is plugged by itself", start)
}

/// What the agent says of itself.
fn itself(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(agent) = &facts.agent else {
        if facts.agent_runs && facts.privileged {
            let text = "the agent does not answer within 2 s: what it leaves alone is not known";
            findings.push(Finding::warning(CHECK, text, "see its log; ask again"));
        }
        return findings;
    };
    if let Some(error) = &agent.configuration_error {
        let text = format!("the agent goes on with the configuration of before: {error}");
        findings.push(Finding::problem(CHECK, text, "correct it, then 'jackfield reload'"));
    }
    let own = env!("CARGO_PKG_VERSION");
    if let Some(version) = agent.version.as_deref().filter(|version| *version != own) {
        let text = format!("the agent is of version {version}, and this is {own}");
        findings.push(Finding::warning(CHECK, text, "start the agent again"));
    }
    findings
}

/// One of the two, not both.
fn modes(units: &[Unit]) -> Option<Finding> {
    const CHECK: &str = "mode";
    let on = |name: &str| {
        let unit = units.iter().find(|unit| unit.name == name)?;
        (unit.enabled == "enabled" || unit.active == "active").then_some(unit)
    };
    let installed = units.iter().any(|unit| !unit.enabled.is_empty());
    match (on(AGENT_UNIT), on(SCAN_UNIT)) {
        (Some(_), Some(_)) => Some(Finding::problem(
            CHECK,
            format!("{AGENT_UNIT} and {SCAN_UNIT} are both on"),
            format!("switch one off: systemctl disable --now {SCAN_UNIT}"),
        )),
        (None, None) if installed => Some(Finding::warning(
            CHECK,
            format!("neither {AGENT_UNIT} nor {SCAN_UNIT} is on: after a boot nothing is plugged"),
            format!("systemctl enable --now {AGENT_UNIT}"),
        )),
        (None, None) => None,
        (Some(unit), None) | (None, Some(unit)) => {
            Some(Finding::ok(CHECK, format!("{} is {}", unit.name, unit.enabled)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome::{Ok, Problem, Warning};
    use crate::doctor::tests::results;
    use crate::status::AgentStatus;

    fn agent() -> AgentStatus {
        AgentStatus {
            pid: Some(1),
            answers: true,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            uptime_s: Some(1),
            configuration_error: None,
        }
    }

    #[test]
    fn an_agent_that_is_out_of_date_or_silent_is_told_of() {
        let with = |agent| Facts { agent_runs: true, privileged: true, agent, ..Facts::default() };
        assert_eq!(results(&check(&with(Some(agent())))), [("agent", Ok)]);
        assert_eq!(results(&check(&with(None))), [("agent", Ok), ("agent", Warning)]);
        let old = AgentStatus { version: Some("0.0.1".to_owned()), ..agent() };
        assert_eq!(results(&check(&with(Some(old)))), [("agent", Ok), ("agent", Warning)]);
        let error = Some("line 2".to_owned());
        let wrong = AgentStatus { configuration_error: error, ..agent() };
        let found = check(&with(Some(wrong)));
        assert_eq!(results(&found), [("agent", Ok), ("agent", Problem)]);
        assert!(found[1].fix.contains("jackfield reload"), "{found:?}");
    }

    fn facts(agent_runs: bool, agent: [&str; 2], scan: [&str; 2]) -> Facts {
        let unit = |name: &str, [enabled, active]: [&str; 2]| Unit {
            name: name.to_owned(),
            enabled: enabled.to_owned(),
            active: active.to_owned(),
            ..Unit::default()
        };
        let units = Some(vec![unit(AGENT_UNIT, agent), unit(SCAN_UNIT, scan)]);
        Facts { agent_runs, units, ..Facts::default() }
    }

    #[test]
    fn one_of_the_two_modes_is_on() {
        let (off, none) = (["disabled", "inactive"], ["", "inactive"]);
        let on = ["enabled", "active"];
        for (facts, expected) in [
            (facts(true, on, off), vec![("agent", Ok), ("mode", Ok)]),
            (facts(false, off, on), vec![("agent", Ok), ("mode", Ok)]),
            (facts(true, on, on), vec![("agent", Ok), ("mode", Problem)]),
            (facts(false, off, off), vec![("agent", Warning), ("mode", Warning)]),
            (facts(false, none, none), vec![("agent", Warning)]),
            (facts(true, none, none), vec![("agent", Ok)]),
            (facts(false, ["enabled", "failed"], off), vec![("agent", Problem), ("mode", Ok)]),
            (facts(false, on, off), vec![("agent", Problem), ("mode", Ok)]),
            (facts(false, off, ["enabled", "failed"]), vec![("agent", Problem), ("mode", Ok)]),
        ] {
            assert_eq!(results(&check(&facts)), expected, "{:?}", facts.units);
        }
        let without_systemd = Facts { agent_runs: true, ..Facts::default() };
        assert_eq!(results(&check(&without_systemd)), [("agent", Ok)]);
    }
}
