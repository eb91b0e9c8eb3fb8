//! What is wrong with a machine, or may go wrong, and what to do about it: the answer of
//! `jackfield doctor`.
//!
//! [`Facts::read`] looks, and changes nothing; [`diagnose`] is pure. Each topic is a file, which takes
//! the facts and returns findings. What is known elsewhere is asked there: interfaces of
//! [`status`](crate::status), other managers of [`neighbours`](crate::neighbours).

mod agent;
mod configuration;
mod facts;
mod firewall;
mod interfaces;
mod kernel;
mod marks;
mod metadata;
mod neighbours;
mod rules;
mod settings;
mod user;

use serde::Serialize;

pub use facts::{ConfigurationFile, EndpointFacts, Facts, Installed, Unit};
pub use firewall::MarkUse;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is nothing here to look at, or it could not be looked at.
    NotApplicable,
    /// As it should be.
    Ok,
    /// It works, and may not for ever.
    Warning,
    /// Something does not work.
    Problem,
}

impl Outcome {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::NotApplicable => "not-applicable",
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Problem => "problem",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a stable word to match on. One check may find several things.
    pub check: &'static str,
    /// How it came out.
    pub result: Outcome,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Finding { check, result: Outcome::Ok, text: text.into(), fix: String::new() }
    }

    fn not_applicable(check: &'static str, text: impl Into<String>) -> Self {
        Finding { check, result: Outcome::NotApplicable, text: text.into(), fix: String::new() }
    }

    fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { check, result: Outcome::Warning, text: text.into(), fix: fix.into() }
    }

    fn problem(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { check, result: Outcome::Problem, text: text.into(), fix: fix.into() }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Version of the format: 1.
    pub version: u32,
    /// Whether there is no problem. There may be warnings.
    pub healthy: bool,
    /// What was found, by topic.
    pub checks: Vec<Finding>,
}

/// Judges.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let topics: [fn(&Facts) -> Vec<Finding>; 9] = [
        kernel::check,
        configuration::check,
        agent::check,
        metadata::check,
        interfaces::check,
        neighbours::check,
        rules::check,
        settings::check,
        marks::check,
    ];
    let checks: Vec<Finding> = topics.iter().flat_map(|check| check(facts)).collect();
    let healthy = checks.iter().all(|finding| finding.result != Outcome::Problem);
    Diagnosis { version: 1, healthy, checks }
}

/// A few of many, and how many more there are.
fn some<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 4;
    let mut items = items.into_iter();
    let shown: Vec<String> = items.by_ref().take(SHOWN).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a check finds, in short.
    pub(super) fn results(findings: &[Finding]) -> Vec<(&'static str, Outcome)> {
        findings.iter().map(|finding| (finding.check, finding.result)).collect()
    }

    #[test]
    fn a_warning_is_no_problem() {
        let facts = Facts { privileged: false, ..Facts::default() };
        let diagnosis = diagnose(&facts);
        assert!(diagnosis.checks.iter().any(|finding| finding.result == Outcome::Warning));
        // Nothing of an empty machine answers.
        assert!(!diagnosis.healthy);
        for finding in &diagnosis.checks {
            let bad = [Outcome::Warning, Outcome::Problem].contains(&finding.result);
            assert_eq!(bad, !finding.fix.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn of_many_a_few_are_told() {
        assert_eq!(some([1, 2]), "1, 2");
        assert_eq!(some(1..=9), "1, 2, 3, 4 and 5 more");
    }
}
