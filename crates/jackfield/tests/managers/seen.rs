//! What is seen of a host from outside: the kernel's notifications, and what `status` says.

use jackfield_kernel::{Monitor, Notification, Subject};
use jackfield_lab::Instance;
use serde_json::Value;

use crate::harness::jackfield;

const OURS: u8 = 106;

/// Rules and routes of ours that were removed while `work` was done.
pub(crate) fn removed_while(a: &Instance, work: impl FnOnce()) -> Vec<Subject> {
    let mut monitor = a.run(Monitor::open).unwrap().unwrap();
    work();
    let mut removed = Vec::new();
    monitor
        .receive(|notification| match notification {
            Notification::Changed { subject, removed: true, .. } if is_ours(&subject) => {
                removed.push(subject);
            }
            Notification::Changed { .. } => {}
            Notification::Lost => panic!("notifications were lost"),
        })
        .unwrap();
    removed
}

pub(crate) fn is_ours(subject: &Subject) -> bool {
    match subject {
        Subject::Rule(rule) => rule.protocol == OURS,
        Subject::Route(route) => route.protocol == OURS,
        Subject::Address(address) => address.protocol == OURS,
        Subject::Link(_) | Subject::Settings(_) => false,
    }
}

/// What status says of an interface.
pub(crate) fn interface(status: &Value, name: &str) -> Value {
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|it| it["name"] == name).unwrap().clone()
}

/// One of its problems.
pub(crate) fn problem(interface: &Value, code: &str) -> Option<Value> {
    let problems = interface["problems"].as_array().unwrap();
    problems.iter().find(|problem| problem["code"] == code).cloned()
}

/// What `jackfield doctor` finds wrong: check, result, and what it says.
pub(crate) fn wrong(a: &Instance) -> Vec<(String, String, String)> {
    let output = jackfield(a, &["doctor", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = found["checks"].as_array().unwrap().iter();
    findings
        .filter(|it| it["result"] == "warning" || it["result"] == "problem")
        .map(|it| (field(it, "check"), field(it, "result"), field(it, "text")))
        .collect()
}
