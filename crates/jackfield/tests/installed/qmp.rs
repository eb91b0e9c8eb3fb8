//! QEMU's monitor: <https://www.qemu.org/docs/master/interop/qmp-spec.html>.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU, or the guest by it, may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Monitor {
    socket: BufReader<UnixStream>,
    /// What happened and was not waited for yet.
    events: Vec<Value>,
}

impl Monitor {
    /// Connects as soon as QEMU listens there.
    pub(crate) fn connect(path: &Path) -> Self {
        let end = Instant::now() + PATIENCE;
        let socket = loop {
            match UnixStream::connect(path) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < end, "QEMU does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Monitor { socket: BufReader::new(socket), events: Vec::new() };
        assert!(monitor.read()["QMP"].is_object());
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("QEMU answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Executes a command, which must succeed.
    #[track_caller]
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.socket.get_mut(), "{request}").unwrap();
        loop {
            let mut answer = self.read();
            if answer["event"].is_string() {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{request}: {answer}");
            return answer["return"].take();
        }
    }

    /// Waits until this has happened, whose data has these members.
    pub(crate) fn wait_for(&mut self, event: &str, members: &[(&str, &str)]) {
        let is_it = |it: &Value| {
            it["event"] == event && members.iter().all(|(key, value)| it["data"][key] == *value)
        };
        loop {
            if let Some(position) = self.events.iter().position(is_it) {
                self.events.remove(position);
                return;
            }
            let read = self.read();
            self.events.push(read);
        }
    }
}
