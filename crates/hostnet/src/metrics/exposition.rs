//! The text format: families of samples, escaped as it asks for.

use std::fmt::Write;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows by families.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

/// A family to which samples are added.
pub(super) struct Family<'e> {
    out: &'e mut String,
    name: String,
}

impl Exposition {
    /// Begins a family; a name is used once.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { out: &mut self.0, name: name.to_owned() }
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.part("", labels, value)
    }

    /// Adds a sample whose name has this at its end.
    pub(super) fn part(&mut self, end: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.out.push_str(&self.name);
        self.out.push_str(end);
        for (number, (name, text)) in labels.iter().enumerate() {
            self.out.push(if number == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{name}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str(r"\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str(r"\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_labels_are_written_as_the_format_asks_for() {
        let mut out = Exposition::default();
        out.single("a_total", Kind::Counter, "First\\line.\nSecond.", 18_000_000.0);
        let labels = [("interface", "a\"b\\c\nd"), ("state", "é")];
        out.family("b", Kind::Gauge, "B.").sample(&labels, 0.25).sample(&[], 0.0);
        let expected = "# HELP a_total First\\\\line.\\nSecond.\n# TYPE a_total counter\n\
                        a_total 18000000\n\
                        # HELP b B.\n# TYPE b gauge\n\
                        b{interface=\"a\\\"b\\\\c\\nd\",state=\"é\"} 0.25\nb 0\n";
        assert_eq!(out.text(), expected);
    }
}
