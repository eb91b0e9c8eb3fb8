//! The agent dies, hangs, or is not let start; nothing that works stops working.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, packages};

/// Within this it has to be back.
const BACK: Duration = Duration::from_secs(2);
const UNIT: &str = "jackfield.service";

/// A machine whose agent has plugged an interface.
fn machine() -> Option<(Machine, Attached)> {
    packages()?;
    let mut machine = Machine::new()?;
    machine.boot();
    machine.install(Mode::Agent);
    let interface = machine.attach(1);
    machine.is_configured(&interface);
    Some((machine, interface))
}

/// Waits until another process than this one runs, and is ready.
#[track_caller]
fn wait_for_another(machine: &Machine, old: u32) {
    let show = format!("systemctl show --property MainPID,ActiveState --value {UNIT}");
    eventually("another agent is ready", PATIENCE, || {
        let shown = machine.shell(&show);
        let (pid, state) = shown.split_once('\n').unwrap();
        pid != "0" && pid != old.to_string() && state == "active"
    });
}

/// What systemd said of the unit since the boot, with the times, microseconds.
fn journal(machine: &Machine) -> Vec<(u64, String)> {
    let command = format!(
        "journalctl --sync; \
         journalctl --boot --unit {UNIT} _PID=1 --output json --output-fields MESSAGE --no-pager"
    );
    let text = machine.shell(&command);
    let lines = text.lines().map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let time = entry["__MONOTONIC_TIMESTAMP"].as_str().unwrap().parse().unwrap();
        (time, entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
    });
    lines.collect()
}

/// From the last line with this to the next that says that the unit was started.
#[track_caller]
fn from_until_started(machine: &Machine, what: &str) -> Duration {
    let lines = journal(machine);
    let from = lines.iter().rposition(|(_, line)| line.contains(what));
    let from = from.unwrap_or_else(|| panic!("{what} is not in {lines:#?}"));
    let mut after = lines[from..].iter();
    let started = after.find(|(_, line)| line.starts_with("Started "));
    let started = started.unwrap_or_else(|| panic!("not started after {what}: {lines:#?}"));
    Duration::from_micros(started.0 - lines[from].0)
}

/// The agent, whose process it is, ends by `end`, while packets flow and an interface is plugged in: all of
/// that goes on, and the next agent takes up what there is. Systemd says `how` at that moment.
#[track_caller]
fn survives(machine: Machine, one: Attached, end: &str, how: impl FnOnce(u32) -> String) {
    let streams = machine.streams(&[&one]);
    let pid = machine.main_process(UNIT);
    let how = how(pid);
    machine.shell(&format!("kill -{end} {pid}"));
    let two = machine.attach(2);
    wait_for_another(&machine, pid);
    let took = from_until_started(&machine, &how);
    eprintln!("{how}: back after {took:?}");
    assert!(took < BACK, "{took:?}: {:#?}", journal(&machine));
    machine.is_configured(&two);
    machine.is_configured(&one);
    streams.lose_nothing();
    machine.talks(&[&one, &two]);
    machine.close();
}

#[test]
#[ignore = "long: boots Debian"]
fn killed_the_agent_is_back_within_two_seconds() {
    let Some((machine, one)) = machine() else { return };
    survives(machine, one, "KILL", |_| {
        "Main process exited, code=killed, status=9/KILL".to_owned()
    });
}

#[test]
#[ignore = "long: boots Debian"]
fn hung_the_agent_is_killed_by_the_watchdog_and_back_within_two_seconds() {
    let Some((machine, one)) = machine() else { return };
    // Sooner than in the unit, whose own time is as long as a busy machine needs.
    machine.disk().write(
        "/etc/systemd/system/jackfield.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=3s\n",
    );
    machine.shell("systemctl daemon-reload; systemctl restart jackfield");
    machine.is_configured(&one);
    // As soon as the watchdog has expired, and of this process alone.
    survives(machine, one, "STOP", |pid| {
        format!("Killing process {pid} (jackfield) with signal SIGABRT")
    });
}

#[test]
#[ignore = "long: boots Debian"]
fn killed_for_its_memory_the_agent_is_back_within_two_seconds() {
    let Some((machine, one)) = machine() else { return };
    let Some(memory) = machine.memory() else { return };
    let streams = machine.streams(&[&one]);
    let pid = machine.main_process(UNIT);
    let start = Instant::now();
    memory.let_have_none(pid);
    // It needs memory for whatever it does.
    let two = machine.attach(2);
    memory.wait_until_killed();
    wait_for_another(&machine, pid);
    let took = from_until_started(&machine, "Main process exited, code=killed, status=9/KILL");
    assert!(took < BACK, "{took:?}: {:#?}", journal(&machine));
    eprintln!("out of memory: back after {took:?}, {:?} after it had none", start.elapsed());
    drop(memory);
    machine.is_configured(&two);
    streams.lose_nothing();
    machine.talks(&[&one, &two]);
    machine.close();
}

#[test]
#[ignore = "long: boots Debian"]
fn a_configuration_that_is_wrong_stops_neither_the_boot_nor_an_interface() {
    let Some((mut machine, one)) = machine() else { return };
    let wrong = [
        ("[agent\n", "config.toml, line 1"),
        ("[agent]\nrefresh = \"30s\"\nrefesh = \"30s\"\n", "refesh"),
    ];
    for (text, told) in wrong {
        machine.disk().write("/etc/jackfield/config.toml", text);
        let streams = machine.streams(&[&one]);
        machine.command("systemctl").args(["restart", "jackfield"]).output().unwrap();
        eventually("it has failed", PATIENCE, || {
            machine.shell("systemctl is-failed jackfield || true") == "failed"
        });
        streams.lose_nothing();

        machine.shut_down();
        machine.stage.a.power_cycle().unwrap();
        machine.power_on();
        assert_eq!(machine.wait_until_settled(), "degraded");
        let failed = machine.shell("systemctl --failed --no-legend --plain");
        assert_eq!(failed.lines().count(), 1, "{failed}");
        assert!(failed.starts_with(UNIT), "{failed}");
        assert_eq!(machine.shell("systemctl is-active multi-user.target"), "active");
        machine.talks(&[]);
        let status = machine.shell("journalctl --sync; systemctl status --full jackfield || true");
        let said: Vec<_> = status.lines().filter(|line| line.contains(told)).collect();
        assert_eq!(said.len(), 1, "{status}");

        machine.disk().write("/etc/jackfield/config.toml", LAB_CONFIG);
        machine.shell("systemctl start jackfield");
        machine.is_configured(&one);
        machine.talks(&[&one]);
        assert_eq!(machine.wait_until_settled(), "running");
    }
    machine.close();
}
