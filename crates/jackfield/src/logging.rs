//! Messages: a line of text or a JSON object each on standard error, or entries of the journal where
//! that is behind standard error.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::kv::{Error as KvError, Key, Source, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, json};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::arguments::{Arguments, Command, LogFormat};

/// The journal's name of each field of a message; `docs/day-two.md` says what they are.
const FIELDS: [(&str, &str); 7] = [
    ("event", "JACKFIELD_EVENT"),
    ("interface", "JACKFIELD_INTERFACE"),
    ("mac", "JACKFIELD_MAC"),
    ("code", "JACKFIELD_CODE"),
    ("change", "JACKFIELD_CHANGE"),
    ("by", "JACKFIELD_BY"),
    ("duration_s", "JACKFIELD_DURATION_S"),
];

/// What the journal finds all messages of a kind by (`journalctl MESSAGE_ID=…`).
const MESSAGE_IDS: [(&str, &str); 4] = [
    ("plugged", "1546765731e44ec9973942b365ea29ee"),
    ("unplugged", "852943d6a588413e8a4ee36d922428c3"),
    ("repaired", "6100f86823464c0baaee4743e0212b7a"),
    ("left-alone", "d3533c613a924dca867647aaeb6aa515"),
];

enum Logger {
    Stderr(LogFormat),
    Journal(JournalLog),
}

/// Starts logging as the command line says. The agent tells what it does; one-shot commands print
/// that as their result, and log only what is wrong.
pub(crate) fn start(arguments: &Arguments) {
    let usual = match arguments.command {
        Command::Run => LevelFilter::Info,
        _ => LevelFilter::Warn,
    };
    let level = match (arguments.quiet, arguments.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => usual,
        (false, 1) => LevelFilter::Debug,
        (false, _) => LevelFilter::Trace,
    };
    // Fails only where a logger was set before.
    if log::set_boxed_logger(Box::new(Logger::new(arguments.log_format))).is_ok() {
        log::set_max_level(level);
    }
}

impl Logger {
    fn new(format: LogFormat) -> Self {
        // Who asks for JSON shall have it.
        let journal = (format == LogFormat::Text && connected_to_journal())
            .then(|| JournalLog::empty().ok())
            .flatten();
        match journal {
            Some(log) => Logger::Journal(log.with_syslog_identifier("jackfield".to_owned())),
            None => Logger::Stderr(format),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = match self {
            Logger::Journal(journal) => {
                let fields = JournalFields(record.key_values());
                let entry = record.to_builder().key_values(&fields).build();
                match journal.journal_send(&entry) {
                    Ok(()) => return,
                    // It has gone; its end of standard error may be there still.
                    Err(_) => text(record),
                }
            }
            Logger::Stderr(LogFormat::Text) => text(record),
            Logger::Stderr(LogFormat::Json) => json(record),
        };
        // One write a line; where standard error is closed there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn text(record: &Record<'_>) -> String {
    format!("jackfield: {}: {}\n", name(record.level()), record.args())
}

fn json(record: &Record<'_>) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(time.as_secs_f64()));
    line.insert("level".to_owned(), json!(name(record.level())));
    line.insert("target".to_owned(), json!(record.target()));
    line.insert("message".to_owned(), json!(record.args().to_string()));
    // The collector does not fail.
    let _ = record.key_values().visit(&mut JsonFields(&mut line));
    format!("{}\n", serde_json::Value::Object(line))
}

/// Adds the fields of a message that have a value.
struct JsonFields<'m>(&'m mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonFields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let mut told = ToJson(serde_json::Value::Null);
        value.visit(&mut told)?;
        if !told.0.is_null() {
            self.0.entry(key.as_str()).or_insert(told.0);
        }
        Ok(())
    }
}

/// A value as JSON has it.
struct ToJson(serde_json::Value);

impl VisitValue<'_> for ToJson {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), KvError> {
        self.0 = json!(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), KvError> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), KvError> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), KvError> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), KvError> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), KvError> {
        self.0 = json!(value);
        Ok(())
    }
}

/// The fields of a message by the journal's names for them.
struct JournalFields<'s>(&'s dyn Source);

impl Source for JournalFields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), KvError> {
        self.0.visit(&mut Renamed(visitor))
    }
}

struct Renamed<'v, 'kvs>(&'v mut dyn VisitSource<'kvs>);

impl<'kvs> VisitSource<'kvs> for Renamed<'_, 'kvs> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let mut told = ToJson(serde_json::Value::Null);
        value.visit(&mut told)?;
        if told.0.is_null() {
            return Ok(());
        }
        let named = |pairs: &'static [(&str, &str)], is: &str| {
            pairs.iter().find(|(name, _)| *name == is).map(|(_, other)| *other)
        };
        let id = match (key.as_str(), told.0.as_str()) {
            ("event", Some(event)) => named(&MESSAGE_IDS, event),
            _ => None,
        };
        if let Some(id) = id {
            self.0.visit_pair(Key::from_str("MESSAGE_ID"), Value::from(id))?;
        }
        let key = named(&FIELDS, key.as_str()).map_or(key, Key::from_str);
        self.0.visit_pair(key, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGGED: [(&str, &str); 2] = [("event", "plugged"), ("interface", "eth1")];

    fn with<T>(fields: &dyn Source, look: impl FnOnce(&Record<'_>) -> T) -> T {
        let args = format_args!("eth1 works");
        look(&Record::builder().args(args).level(Level::Info).key_values(fields).build())
    }

    #[test]
    fn a_json_line_has_the_fields_that_have_a_value() {
        let fields = [
            ("interface", Value::from("eth1")),
            ("duration_s", Value::from(0.25)),
            ("by", Value::null()),
            ("level", Value::from("not mine")),
        ];
        let line: serde_json::Value = serde_json::from_str(&with(&fields, json)).unwrap();
        assert_eq!((&line["interface"], &line["duration_s"]), (&json!("eth1"), &json!(0.25)));
        assert_eq!((&line["level"], &line["message"]), (&json!("info"), &json!("eth1 works")));
        assert_eq!(line.get("by"), None);
    }

    #[test]
    fn the_journal_is_given_its_own_names_and_the_message_s_id() {
        struct Collected(Vec<(String, String)>);
        impl<'kvs> VisitSource<'kvs> for Collected {
            fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
                self.0.push((key.to_string(), value.to_string()));
                Ok(())
            }
        }
        let mut collected = Collected(Vec::new());
        JournalFields(&PLUGGED).visit(&mut collected).unwrap();
        let expected = [
            ("MESSAGE_ID", "1546765731e44ec9973942b365ea29ee"),
            ("JACKFIELD_EVENT", "plugged"),
            ("JACKFIELD_INTERFACE", "eth1"),
        ];
        assert_eq!(collected.0, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_line_of_text_is_as_it_was() {
        assert_eq!(with(&PLUGGED, text), "jackfield: info: eth1 works\n");
    }
}
