//! What the running agent is asked, by the socket whose name keeps it the only one. There is no file:
//! what it says is from its memory.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::contest::Left;

/// The agent's name among the abstract sockets of the network namespace.
pub(crate) const NAME: &str = "jackfield-agent";
/// How long an agent may take to answer; one that is busy is done without.
const PATIENCE: Duration = Duration::from_millis(300);
const QUESTION: &[u8] = b"jackfield: what is left alone";
const AT_ONCE: usize = 16;
/// More is not told of at once.
const MOST: usize = 100;
const LONGEST: usize = 65_536;

/// Answers who asked, a few at a time: whoever asks for ever keeps it from nothing else. The socket does
/// not wait.
pub(crate) fn answer(socket: &UnixDatagram, left: &[Left]) {
    let mut question = [0; 64];
    for _ in 0..AT_ONCE {
        let Ok((length, from)) = socket.recv_from(&mut question) else { return };
        if question.get(..length) != Some(QUESTION) {
            continue;
        }
        let told = left.iter().take(MOST).map(
            |left| json!({ "ifindex": left.interface, "change": left.change, "by": left.culprit }),
        );
        let told = Value::Array(told.collect()).to_string();
        // Who asked and does not listen any more misses it.
        let _ = socket.send_to_addr(told.as_bytes(), &from);
    }
}

/// What the agent of the calling thread's network namespace leaves alone; nothing where there is none,
/// or it does not answer.
pub(crate) fn left_alone() -> Vec<Left> {
    ask().unwrap_or_default()
}

/// Waits until the agent has ended what it was about, where one runs: it answers between two passes,
/// and what it looks at afterwards is as it is now. False where it does not in time.
pub(crate) fn agent_takes_note(patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while ask().is_none() {
        if !crate::agent::is_running() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
    }
    true
}

fn ask() -> Option<Vec<Left>> {
    let own = format!("jackfield-asks-{}-{:x}", std::process::id(), fastrand::u64(..));
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(own).ok()?).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    socket.connect_addr(&SocketAddr::from_abstract_name(NAME).ok()?).ok()?;
    socket.send(QUESTION).ok()?;
    let mut told = vec![0; LONGEST];
    let length = socket.recv(&mut told).ok()?;
    let told: Value = serde_json::from_slice(told.get(..length)?).ok()?;
    let left = told.as_array()?.iter().filter_map(|entry| {
        Some(Left {
            interface: entry.get("ifindex")?.as_u64().and_then(|index| index.try_into().ok()),
            change: entry.get("change")?.as_str()?.to_owned(),
            culprit: entry.get("by").and_then(Value::as_str).map(ToOwned::to_owned),
        })
    });
    Some(left.collect())
}
