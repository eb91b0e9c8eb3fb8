//! Columns for people.

use std::fmt::Write;

use anstyle::Style;

/// Rows of cells; each cell has a style of its own.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// A table with a heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        let row = heading.iter().map(|cell| ((*cell).to_owned(), Style::new().bold())).collect();
        Table { rows: vec![row] }
    }

    pub(crate) fn row(&mut self, cells: Vec<(String, Style)>) {
        self.rows.push(cells);
    }

    /// The table as text, each column as wide as its widest cell.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, ((text, style), width)) in row.iter().zip(&widths).enumerate() {
                let padding =
                    if at + 1 == row.len() { 0 } else { width - text.chars().count() + 2 };
                // Writing to a String cannot fail.
                let _ = write!(line, "{style}{text}{style:#}{}", " ".repeat(padding));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}
