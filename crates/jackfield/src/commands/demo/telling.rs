//! How the story is told: as it happens to people, in one JSON document to programs.

use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::commands::{print, print_json};
use crate::failure::Failure;

/// What a step proved, and how long the part of it took that matters.
pub(super) struct Proven {
    pub(super) took: Duration,
    /// A line each; the first says what happened, the others how that is known.
    pub(super) lines: Vec<String>,
}

pub(super) struct Telling {
    json: bool,
    began: Instant,
    steps: Vec<Value>,
}

impl Telling {
    pub(super) fn new(json: bool) -> Self {
        Telling { json, began: Instant::now(), steps: Vec::new() }
    }

    pub(super) fn heading(&self, how: &str) -> Result<(), Failure> {
        let bold = Style::new().bold();
        self.print(&format!("{bold}jackfield demo{bold:#}: a cloud on this machine, {how}\n\n"))
    }

    /// Takes one step of the story. A step that fails ends it.
    pub(super) fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(T, Proven), String>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        match work() {
            Ok((value, proven)) => {
                self.tell(name, true, proven.took, &proven.lines)?;
                Ok(value)
            }
            Err(reason) => {
                self.tell(name, false, began.elapsed(), std::slice::from_ref(&reason))?;
                Err(Failure::Demo { step: name, reason })
            }
        }
    }

    fn tell(
        &mut self,
        name: &str,
        ok: bool,
        took: Duration,
        lines: &[String],
    ) -> Result<(), Failure> {
        let milliseconds = milliseconds(took);
        self.steps.push(json!({
            "name": name,
            "milliseconds": milliseconds,
            "ok": ok,
            "text": lines,
        }));
        let (word, color) = if ok { ("ok", AnsiColor::Green) } else { ("failed", AnsiColor::Red) };
        let (style, bold) = (Style::new().fg_color(Some(color.into())), Style::new().bold());
        let dim = Style::new().dimmed();
        let mut lines = lines.iter();
        let first = lines.next().map_or("", String::as_str);
        let mut text = format!(
            "{style}{word:>6}{style:#} {bold}{name:<8}{bold:#}{milliseconds:>7.1} ms  {first}\n"
        );
        for line in lines {
            text.push_str(&format!("{:27}{dim}{line}{dim:#}\n", ""));
        }
        self.print(&text)
    }

    /// The end of the story, good or bad.
    pub(super) fn end(self, told: Result<(), Failure>) -> Result<(), Failure> {
        let total = milliseconds(self.began.elapsed());
        if self.json {
            print_json(&json!({
                "version": 1,
                "ok": told.is_ok(),
                "milliseconds": total,
                "steps": self.steps,
            }))?;
        } else if told.is_ok() {
            let bold = Style::new().bold();
            self.print(&format!(
                "\n{bold}All of it held{bold:#}, in {:.1} s. The namespaces end with this process.\n",
                total / 1000.0
            ))?;
        }
        told
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(text) }
    }
}

/// To a tenth.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
