//! Killed at any system call: a later DEL ends clean, a later ADD works.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::harness::*;

const SIGKILL: i32 = 9;

fn require_strace() {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "strace is missing, by which these tests kill at a chosen system call: install Debian's \
         package strace, as .ci/run does"
    );
}

/// How many of each system call this makes, which must succeed.
fn system_calls(call: &Call<'_>) -> BTreeMap<String, u32> {
    let output = call.output_under(&["strace", "-f", "-qq"]);
    assert!(output.status.success(), "{output:?}");
    let mut counts = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let name = line.split('(').next().unwrap_or_default();
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// False: it did not come to that call, and succeeded.
fn is_killed(call: &Call<'_>, name: &str, nth: u32) -> bool {
    let inject = format!("inject={name}:signal=KILL:when={nth}");
    let output = call.output_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject]);
    if output.status.signal() == Some(SIGKILL) {
        return true;
    }
    assert!(output.status.success(), "to be killed at {name} {nth}: {output:?}");
    false
}

/// Kills a command at each of its system calls, and then looks, with that call's name.
fn killed_at_each(
    prepare: impl Fn() -> Place,
    command: &str,
    calls: &[&str],
    after: impl Fn(&mut Place, &str),
) -> u32 {
    require_strace();
    let place = prepare();
    let mut names = system_calls(&place.call(command));
    names.retain(|name, _| calls.is_empty() || calls.contains(&name.as_str()));
    let mut kills = 0;
    for name in names.keys() {
        for nth in 1.. {
            let mut place = prepare();
            if !is_killed(&place.call(command), name, nth) {
                break;
            }
            kills += 1;
            after(&mut place, &format!("{command} killed at {name} {nth}"));
        }
    }
    println!("{command}: killed at {kills} of {names:?}");
    kills
}

/// What changes something, or is between two changes.
const TELLING: &[&str] =
    &["sendto", "recvfrom", "ioctl", "setns", "openat", "open", "write", "close"];
const ALL: &[&str] = &[];

fn add_is_killed(calls: &[&str]) -> u32 {
    let prepare = Place::new;
    let clean = |place: &mut Place, when: &str| {
        place.call("DEL").field("prevResult", serde_json::Value::Null).succeed();
        assert_eq!(place.taps(), [], "{when}");
        assert_eq!(place.filters("eth0"), [], "{when}");
        assert!(!place.has_qdisc("eth0"), "{when}");
    };
    let kills = killed_at_each(prepare, "ADD", calls, |place, when| clean(place, when));
    killed_at_each(prepare, "ADD", calls, |place, when| {
        let result = place.add();
        place.call("CHECK").prev_result(&result).succeed();
        assert_eq!(place.taps().len(), 1, "{when}");
        assert_eq!(place.filters("eth0").len(), 1, "{when}");
        clean(place, when);
    });
    // In the place of others too, whose qdisc stays as it is.
    let with_others = || {
        let place = Place::new();
        place.run("tc qdisc add dev eth0 clsact");
        place
            .run("tc filter add dev eth0 ingress protocol ip pref 5 u32 match u32 0 0 classid 1:1");
        place
    };
    killed_at_each(with_others, "ADD", calls, |place, when| {
        place.call("DEL").succeed();
        assert_eq!(place.taps(), [], "{when}");
        assert_eq!(place.filters("eth0").len(), 1, "{when}");
        assert!(place.has_qdisc("eth0"), "{when}");
    });
    kills
}

fn del_is_killed(calls: &[&str]) -> u32 {
    let prepare = || {
        let place = Place::new();
        place.add();
        place
    };
    killed_at_each(prepare, "DEL", calls, |place, when| {
        place.call("DEL").succeed();
        assert_eq!(place.taps(), [], "{when}");
        assert!(!place.has_qdisc("eth0"), "{when}");
        let result = place.add();
        place.call("CHECK").prev_result(&result).succeed();
    })
}

#[test]
fn an_add_that_is_killed_is_undone_by_a_del_and_finished_by_an_add() {
    assert!(add_is_killed(TELLING) > 10);
}

#[test]
fn a_del_that_is_killed_is_finished_by_the_next() {
    assert!(del_is_killed(TELLING) > 5);
}

#[test]
#[ignore = "long: killed at every system call"]
fn an_add_that_is_killed_at_any_system_call_is_undone_by_a_del_and_finished_by_an_add() {
    assert!(add_is_killed(ALL) > 50);
}

#[test]
#[ignore = "long: killed at every system call"]
fn a_del_that_is_killed_at_any_system_call_is_finished_by_the_next() {
    assert!(del_is_killed(ALL) > 30);
}
