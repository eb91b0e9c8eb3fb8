//! `jackfield explain`.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jackfield_hostnet::explain::{
    ExplainError, Explanation, Facts, Leg, Obstacle, StepResult, explain as put_together,
};
use jackfield_kernel::Rtnetlink;

use crate::arguments::Arguments;
use crate::arguments::explain::Explain;
use crate::commands::{config, print, print_json};
use crate::failure::Failure;
use crate::table::Table;

pub(crate) fn explain(arguments: &Arguments, explain: &Explain) -> Result<(), Failure> {
    let config = config(arguments)?;
    let question = explain.question();
    question.check()?;
    let mut kernel = Rtnetlink::open().map_err(ExplainError::Kernel)?;
    let ends = [question.source, question.destination];
    let facts = Facts::read(&mut kernel, ends, &config.agent).map_err(ExplainError::Kernel)?;
    let explanation = put_together(&question, &facts, &mut kernel)?;
    if explain.output.json {
        return print_json(&serde_json::to_value(&explanation).unwrap_or_default());
    }
    print(&render(&explanation))
}

fn render(explanation: &Explanation) -> String {
    let style = color(if explanation.delivers { AnsiColor::Green } else { AnsiColor::Red });
    let mut out = format!("{style}{}{style:#}\n", explanation.summary);
    heading(&mut out, "why");
    for reason in &explanation.why {
        line(&mut out, reason);
    }
    heading(&mut out, "rules");
    out.push_str(&rules(&explanation.way));
    if let Some(answer) = &explanation.answer {
        heading(&mut out, "rules for the answer");
        out.push_str(&rules(answer));
    }
    let (now, would): (Vec<&Obstacle>, Vec<&Obstacle>) =
        explanation.obstacles.iter().partition(|is| is.stops.is_some());
    for (name, obstacles, style) in
        [("stops it now", now, color(AnsiColor::Red)), ("could stop it", would, Style::new())]
    {
        if obstacles.is_empty() {
            continue;
        }
        heading(&mut out, name);
        for obstacle in obstacles {
            line(&mut out, &format!("{style}{}{style:#} [{}]", obstacle.text, obstacle.code));
            if !obstacle.fix.is_empty() {
                line(&mut out, &format!("  {}", obstacle.fix));
            }
        }
    }
    out
}

/// The rules that matched; of the others how many there are.
fn rules(leg: &Leg) -> String {
    let mut table = Table::default();
    let plain = Style::new();
    let mut skipped = 0_usize;
    for step in &leg.rules {
        if step.result == StepResult::Skipped {
            skipped += 1;
            continue;
        }
        let style = match step.result {
            StepResult::Taken => color(AnsiColor::Green),
            StepResult::Refused => color(AnsiColor::Red),
            _ => plain,
        };
        table.row(vec![
            (format!("  {}", step.priority), plain.bold()),
            (step.rule.clone(), plain),
            (step.text.clone(), style),
        ]);
    }
    let mut out = table.render();
    match skipped {
        0 => {}
        1 => line(&mut out, "1 more does not match"),
        more => line(&mut out, &format!("{more} more do not match")),
    }
    out
}

fn heading(out: &mut String, text: &str) {
    let bold = Style::new().bold();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{bold}{text}{bold:#}");
}

fn line(out: &mut String, text: &str) {
    out.push_str("  ");
    out.push_str(text);
    out.push('\n');
}

fn color(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(color.into()))
}
