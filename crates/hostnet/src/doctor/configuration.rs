//! The configuration, and the programs that are run by it.

use super::{Facts, Finding};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![file(facts)];
    findings.extend(hooks(facts));
    findings
}

fn file(facts: &Facts) -> Finding {
    const CHECK: &str = "configuration";
    let path = facts.file.path.display();
    match (&facts.file.error, facts.file.there) {
        (Some(error), _) => Finding::problem(
            CHECK,
            format!("{error}; all else here is judged by the defaults"),
            "correct it: nothing is changed until then",
        ),
        (None, true) => Finding::ok(CHECK, format!("{path} is understood")),
        (None, false) => Finding::ok(CHECK, format!("{path} is not there: the defaults hold")),
    }
}

fn hooks(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "hooks";
    let directory = facts.config.hooks.directory.display();
    let Some(programs) = &facts.hooks else {
        return vec![Finding::not_applicable(CHECK, format!("there is no directory {directory}"))];
    };
    let mut findings: Vec<Finding> = programs
        .refused
        .iter()
        .map(|refused| {
            let text = format!("{} is not run: {}", refused.path.display(), refused.why);
            Finding::problem(CHECK, text, "see docs/hooks.md for what is run")
        })
        .collect();
    if findings.is_empty() {
        let text = format!("{} programs in {directory} are run", programs.run.len());
        findings.push(Finding::ok(CHECK, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::doctor::Outcome::{NotApplicable, Ok, Problem};
    use crate::doctor::tests::results;
    use crate::hooks::{Programs, Refused};

    #[test]
    fn a_file_that_is_not_understood_is_a_problem_and_one_that_is_missing_is_none() {
        let mut facts = Facts::default();
        assert_eq!(results(&check(&facts)), [("configuration", Ok), ("hooks", NotApplicable)]);
        facts.file.error = Some("/etc/jackfield/config.toml, line 2: no".to_owned());
        let findings = check(&facts);
        assert_eq!(findings[0].result, Problem);
        assert!(findings[0].text.contains("line 2"), "{findings:?}");
    }

    #[test]
    fn each_program_that_is_refused_is_a_problem() {
        let mut facts = Facts { hooks: Some(Programs::default()), ..Facts::default() };
        assert_eq!(results(&check(&facts))[1], ("hooks", Ok));
        let refused =
            Refused { path: PathBuf::from("/etc/jackfield/hooks.d/x"), why: "why".to_owned() };
        facts.hooks = Some(Programs { run: Vec::new(), refused: vec![refused; 2] });
        assert_eq!(results(&check(&facts))[1..], [("hooks", Problem); 2]);
    }
}
