//! Messages: a line of text or a JSON object each on standard error, or entries of the journal where
//! that is behind standard error.

mod journal;

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::kv::{Error as KvError, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, json};

use self::journal::Journal;
use crate::arguments::{Arguments, Command, LogFormat};

enum Logger {
    Stderr(LogFormat),
    Journal(Journal),
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
        let journal = match format {
            LogFormat::Text => Journal::behind_stderr(),
            LogFormat::Json => None,
        };
        journal.map_or(Logger::Stderr(format), Logger::Journal)
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = match self {
            Logger::Journal(journal) => match journal.send(record) {
                Ok(()) => return,
                // It has gone; its end of standard error may be there still.
                Err(_) => text(record),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    const PLUGGED: [(&str, &str); 2] = [("event", "plugged"), ("interface", "eth1")];

    fn with<T>(fields: &dyn log::kv::Source, look: impl FnOnce(&Record<'_>) -> T) -> T {
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
    fn a_line_of_text_is_as_it_was() {
        assert_eq!(with(&PLUGGED, text), "jackfield: info: eth1 works\n");
    }
}
