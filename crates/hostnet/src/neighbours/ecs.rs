//! Amazon ECS: its agent moves the interface of a task from the host into the task's namespace, some
//! time after it appeared. It keeps its state in /var/lib/ecs/data/agent.db, and the first task with
//! an interface of its own makes the bridge `ecs-bridge` (amazon-ecs-agent, ecs-agent's `ecscni`).

use jackfield_kernel::Link;

use super::Hold;
use crate::snapshot::Snapshot;

const STATE: &str = "/var/lib/ecs/data/agent.db";
const BRIDGE: &str = "ecs-bridge";

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    if snapshot.links.iter().any(|link| link.name == BRIDGE) {
        return Some(format!("device {BRIDGE}"));
    }
    snapshot.neighbours.text(STATE).map(|_| STATE.to_owned())
}

pub(super) fn hold(snapshot: &Snapshot, _: &Link) -> Option<Hold> {
    presence(snapshot).map(Hold::Owns)
}
