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
        "journalctl --boot --unit {UNIT} _PID=1 --output json --output-fields MESSAGE --no-pager"
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

/// The agent ends by `end`, while packets flow and an interface is plugged in: all of that goes on, and
/// the next agent takes up what there is.
#[track_caller]
fn survives(end: impl FnOnce(&Machine, u32) -> Attached, how: &str) {
    let Some((machine, one)) = machine() else { return };
    let streams = machine.streams(&[&one]);
    let pid = machine.main_process(UNIT);
    let two = end(&machine, pid);
    wait_for_another(&machine, pid);
    let took = from_until_started(&machine, how);
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
    let kill = |machine: &Machine, pid| {
        let start = Instant::now();
        machine.shell(&format!("kill -KILL {pid}"));
        let two = machine.attach(2);
        wait_for_another(machine, pid);
        assert!(start.elapsed() < BACK, "{:?}", start.elapsed());
        two
    };
    survives(kill, "Main process exited, code=killed, status=9/KILL");
}

#[test]
#[ignore = "long: boots Debian"]
fn hung_the_agent_is_killed_by_the_watchdog_and_back_within_two_seconds() {
    // Sooner than in the unit, whose own time is as long as a busy machine needs.
    let hang = |machine: &Machine, _| {
        machine.disk().write(
            "/etc/systemd/system/jackfield.service.d/watchdog.conf",
            "[Service]\nWatchdogSec=1s\n",
        );
        machine.shell("systemctl daemon-reload; systemctl restart jackfield");
        let pid = machine.main_process(UNIT);
        machine.shell(&format!("kill -STOP {pid}"));
        let two = machine.attach(2);
        wait_for_another(machine, pid);
        two
    };
    survives(hang, "Watchdog timeout");
}

#[test]
#[ignore = "long: boots Debian"]
fn killed_for_its_memory_the_agent_is_back_within_two_seconds() {
    let Some((machine, one)) = machine() else { return };
    let Some(memory) = machine.memory() else { return };
    let streams = machine.streams(&[&one]);
    let pid = machine.main_process(UNIT);
    memory.let_have_none(pid);
    // It needs memory for whatever it does.
    let start = Instant::now();
    let two = machine.attach(2);
    wait_for_another(&machine, pid);
    let took = from_until_started(&machine, "Main process exited, code=killed, status=9/KILL");
    assert_eq!(memory.killed(), 1, "{:#?}", journal(&machine));
    assert!(took < BACK, "{took:?}: {:#?}", journal(&machine));
    eprintln!("out of memory: back after {took:?}, {:?} after the event", start.elapsed());
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
        let status = machine.shell("systemctl status --full jackfield || true");
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
