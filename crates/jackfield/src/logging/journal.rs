//! Entries of the journal, by its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
//!
//! Nothing here waits: a journal that hangs, whose socket has one queue for everybody, costs messages
//! and no repair.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

use log::kv::{Error as KvError, Key, Value, VisitSource};
use log::{Level, Record};

use super::ToJson;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The most of one value: an entry has to fit into a socket's buffer.
const LONGEST: usize = 16 * 1024;

/// What the journal finds all messages of a kind by (`journalctl MESSAGE_ID=…`).
const MESSAGE_IDS: [(&str, &str); 4] = [
    ("plugged", "1546765731e44ec9973942b365ea29ee"),
    ("unplugged", "852943d6a588413e8a4ee36d922428c3"),
    ("repaired", "6100f86823464c0baaee4743e0212b7a"),
    ("left-alone", "d3533c613a924dca867647aaeb6aa515"),
];

/// The way to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// Messages that it did not take since it took one.
    lost: AtomicU64,
}

impl Journal {
    /// Where standard error leads there, as the service manager says in `JOURNAL_STREAM`.
    pub(super) fn behind_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = rustix::fs::fstat(io::stderr()).ok()?;
        if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Journal { socket, lost: AtomicU64::new(0) })
    }

    /// Sends a message, or counts it as lost.
    ///
    /// # Errors
    /// Where there is no journal.
    pub(super) fn send(&self, record: &Record<'_>) -> io::Result<()> {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let args = format_args!("{lost} messages lost: the journal did not take them");
            let told = Record::builder().args(args).level(Level::Warn).target("jackfield").build();
            if !self.send_entry(&entry(&told))? {
                self.lost.fetch_add(lost + 1, Ordering::Relaxed);
                return Ok(());
            }
        }
        if !self.send_entry(&entry(record))? {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether it was taken.
    fn send_entry(&self, entry: &[u8]) -> io::Result<bool> {
        match self.socket.send_to(entry, SOCKET) {
            Ok(_) => Ok(true),
            // Its queue is full, ours is, or there is no memory for it.
            Err(error) => match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(false),
                Some(rustix::io::Errno::MSGSIZE | rustix::io::Errno::NOMEM) => Ok(false),
                _ => Err(error),
            },
        }
    }
}

/// The fields of a message, by the journal's names for them; `docs/day-two.md` says what they are.
fn entry(record: &Record<'_>) -> Vec<u8> {
    // As syslog(3) numbers them.
    let priority = match record.level() {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    };
    let mut fields = Fields(Vec::with_capacity(512));
    fields.add("PRIORITY", priority);
    fields.add("SYSLOG_IDENTIFIER", "jackfield");
    fields.add("TARGET", record.target());
    fields.add("MESSAGE", &record.args().to_string());
    // The collector does not fail.
    let _ = record.key_values().visit(&mut fields);
    fields.0
}

struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let end = (0..=LONGEST).rev().find(|end| value.is_char_boundary(*end));
        let value = match end.and_then(|end| value.get(..end)) {
            Some(start) if value.len() > LONGEST => &format!("{start}…"),
            _ => value,
        };
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let mut told = ToJson(serde_json::Value::Null);
        value.visit(&mut told)?;
        let text = match told.0 {
            serde_json::Value::Null => return Ok(()),
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let id = MESSAGE_IDS.iter().find(|(event, _)| key.as_str() == "event" && *event == text);
        if let Some((_, id)) = id {
            self.add("MESSAGE_ID", id);
        }
        self.add(&format!("JACKFIELD_{}", key.as_str().to_ascii_uppercase()), &text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(level: Level, text: &str, fields: &[(&str, Value<'_>)]) -> Vec<u8> {
        let args = format_args!("{text}");
        entry(&Record::builder().args(args).level(level).key_values(&fields).target("t").build())
    }

    #[test]
    fn the_journal_is_given_its_own_names_and_the_message_s_id() {
        let fields = [
            ("event", Value::from("plugged")),
            ("interface", Value::from("eth1")),
            ("by", Value::null()),
            ("duration_s", Value::from(0.25)),
        ];
        let expected = "PRIORITY=6\nSYSLOG_IDENTIFIER=jackfield\nTARGET=t\nMESSAGE=eth1 works\n\
                        MESSAGE_ID=1546765731e44ec9973942b365ea29ee\nJACKFIELD_EVENT=plugged\n\
                        JACKFIELD_INTERFACE=eth1\nJACKFIELD_DURATION_S=0.25\n";
        let told = of(Level::Info, "eth1 works", &fields);
        assert_eq!(String::from_utf8(told).unwrap(), expected);
    }

    #[test]
    fn several_lines_have_their_length_before_them_and_a_long_value_is_cut() {
        let told = of(Level::Warn, "a\nb", &[]);
        assert!(told.starts_with(b"PRIORITY=4\n"));
        assert!(told.ends_with(b"\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"), "{told:?}");
        let told = String::from_utf8(of(Level::Debug, &"é".repeat(LONGEST), &[])).unwrap();
        assert!(told.starts_with("PRIORITY=7\n") && told.ends_with("é…\n"));
        assert!(told.len() < LONGEST + 100, "{}", told.len());
    }
}
