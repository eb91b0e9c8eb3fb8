//! Messages on standard error: a line of text or a JSON object each.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::json;

use crate::arguments::{Arguments, Command, LogFormat};

struct Logger(LogFormat);

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
    if log::set_boxed_logger(Box::new(Logger(arguments.log_format))).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let line = match self.0 {
            LogFormat::Text => format!("jackfield: {level}: {}\n", record.args()),
            LogFormat::Json => {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let line = json!({
                    "time": time.as_secs_f64(),
                    "level": level,
                    "target": record.target(),
                    "message": record.args().to_string(),
                });
                format!("{line}\n")
            }
        };
        // One write a line; where standard error is closed there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
