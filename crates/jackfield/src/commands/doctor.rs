//! `jackfield doctor`.

use anstyle::{AnsiColor, Style};
use jackfield_hostnet::config::Config;
use jackfield_hostnet::doctor::{Diagnosis, Facts, Outcome, diagnose};

use crate::arguments::{Arguments, Output};
use crate::commands::{client_options, print, print_json};
use crate::failure::Failure;
use crate::table::Table;

/// Returns whether there is no problem.
pub(crate) fn doctor(arguments: &Arguments, output: Output) -> Result<bool, Failure> {
    let file = arguments.config.as_deref();
    let facts = Facts::read(Config::load(file), file, &client_options(arguments))?;
    let diagnosis = diagnose(&facts);
    if output.json {
        print_json(&serde_json::to_value(&diagnosis).unwrap_or_default())?;
    } else {
        print(&render(&diagnosis))?;
    }
    Ok(diagnosis.healthy)
}

fn render(diagnosis: &Diagnosis) -> String {
    let mut table = Table::default();
    for finding in &diagnosis.checks {
        let style = color(finding.result);
        let word = match finding.result {
            Outcome::NotApplicable => "-",
            other => other.name(),
        };
        table.row(vec![
            (word.to_owned(), style),
            (finding.check.to_owned(), Style::new().bold()),
            (finding.text.clone(), Style::new()),
        ]);
        if !finding.fix.is_empty() {
            let empty = || (String::new(), Style::new());
            table.row(vec![empty(), empty(), (format!("→ {}", finding.fix), style)]);
        }
    }
    let count = |result| diagnosis.checks.iter().filter(|it| it.result == result).count();
    let several = |count: usize, what: &str| match count {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    };
    let problems = several(count(Outcome::Problem), "problem");
    let warnings = several(count(Outcome::Warning), "warning");
    format!("{}\n{problems}, {warnings}\n", table.render())
}

fn color(result: Outcome) -> Style {
    let color = match result {
        Outcome::Ok => AnsiColor::Green,
        Outcome::Warning => AnsiColor::Yellow,
        Outcome::Problem => AnsiColor::Red,
        Outcome::NotApplicable => AnsiColor::BrightBlack,
    };
    Style::new().fg_color(Some(color.into()))
}
