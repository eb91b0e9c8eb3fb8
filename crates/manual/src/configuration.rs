//! The page about the configuration, and the file with its defaults.
//!
//! The code is asked which keys there are, by a key that cannot be one: the answer names those that can.

use std::path::{Path, PathBuf};

use jackfield_hostnet::config::Config;

use crate::markdown::{self, Section};
use crate::{Error, Files, title};

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// What is no key anywhere.
const NO_KEY: &str = "no_such_key";

/// How a document says that a key has no default.
const NONE: [&str; 4] = ["none", "–", "-", ""];

/// The widest line of the file.
const WIDTH: usize = 100;

const SEE_ALSO: &str = ".SH SEE ALSO\n\\fBjackfield\\fR(1),\n\\fBjackfield.service\\fR(8)\n";

const FILE: &str = "\
# The configuration of jackfield: see jackfield.toml(5). What is commented out is the default.
";

/// A table of the configuration, as TOML heads it, with its keys. Those of a table within are said with
/// its name: `match.mac`.
struct Table {
    head: String,
    keys: Vec<String>,
}

/// What the document says of a key.
struct Row {
    key: String,
    /// In TOML; `None` where there is none.
    default: Option<String>,
    means: String,
}

pub(crate) fn files() -> Result<Files, Error> {
    let sections = markdown::sections(DOCUMENT);
    let mut file = String::from(FILE);
    for table in tables() {
        let rows = rows(&table, &sections)?;
        if rows.iter().all(|row| row.default.is_none()) {
            continue;
        }
        file.push_str(&format!("\n{}\n", table.head));
        for row in rows {
            let Some(default) = row.default else { continue };
            file.push_str(&format!("\n{}#{} = {default}\n", commented(&row.means), row.key));
        }
    }
    Ok(vec![
        (PathBuf::from("man/man5/jackfield.toml.5"), page(&sections).into_bytes()),
        (PathBuf::from("config.toml"), file.into_bytes()),
    ])
}

fn page(sections: &[Section<'_>]) -> String {
    let mut page = title("jackfield.toml", 5);
    page.push_str(".SH NAME\njackfield.toml \\- configuration of jackfield\n");
    page.push_str(".SH SYNOPSIS\n/etc/jackfield/config.toml\n.SH DESCRIPTION\n");
    let (first, others): (Vec<_>, Vec<_>) = sections.iter().partition(|section| section.level == 1);
    first.iter().for_each(|section| page.push_str(&section.own().roff()));
    for section in others.iter().filter(|section| section.level == 2) {
        page.push_str(&section.headed());
    }
    page + SEE_ALSO
}

/// The tables of the configuration.
fn tables() -> Vec<Table> {
    let table = |name: String| {
        let heads = [format!("[{name}]"), format!("[[{name}]]")];
        let (head, keys) = heads.into_iter().find_map(|head| {
            let keys = keys_after(&format!("{head}\n"), "");
            (!keys.is_empty()).then_some((head, keys))
        })?;
        let within = |key: String| {
            let inner = keys_after(&format!("{head}\n{key} = {{ "), " }");
            match inner.is_empty() {
                true => vec![key],
                false => inner.iter().map(|inner| format!("{key}.{inner}")).collect(),
            }
        };
        Some(Table { keys: keys.into_iter().flat_map(within).collect(), head })
    };
    keys_after("", "").into_iter().filter_map(table).collect()
}

/// The keys that may stand between these; none where there may be none.
fn keys_after(before: &str, behind: &str) -> Vec<String> {
    let text = format!("{before}{NO_KEY} = 1{behind}\n");
    let Err(error) = Config::parse(&text, Path::new("asked")) else { return Vec::new() };
    let error = error.to_string();
    let Some((_, expected)) = error.split_once(&format!("unknown field `{NO_KEY}`, expected "))
    else {
        return Vec::new();
    };
    expected.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// What the document says of each key of a table, in the code's order: below a heading that names the
/// table, in tables whose first column is headed 'key'.
fn rows(table: &Table, sections: &[Section<'_>]) -> Result<Vec<Row>, Error> {
    let section = || table.head.clone();
    let about = sections.iter().filter(|section| section.level == 2 && names(section, &table.head));
    let tables: Vec<Vec<Vec<String>>> = about.flat_map(Section::tables).collect();
    let mut told = Vec::new();
    for rows in &tables {
        let Some((head, rows)) = rows.split_first() else { continue };
        let column = |name: &str| head.iter().position(|head| head == name);
        if column("key") != Some(0) {
            continue;
        }
        let (default, means) = (column("default"), head.len() - 1);
        told.extend(rows.iter().filter_map(|row| {
            let default = default
                .and_then(|column| row.get(column))
                .filter(|text| !NONE.contains(&text.as_str()));
            let (key, means) = (row.first()?.clone(), row.get(means)?.clone());
            Some(Row { key, default: default.cloned(), means })
        }));
    }
    // The document says once what tables have in common.
    let shared = tables_named_with(table, sections);
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    if let Some(row) = told.iter().find(|row| !shared.iter().any(|key| last(key) == row.key)) {
        return Err(Error::NoKey { section: section(), key: row.key.clone() });
    }
    let row = |key: &String| {
        let missing = || Error::NoRow { section: section(), key: key.clone() };
        let at = told.iter().position(|row| row.key == last(key)).ok_or_else(missing)?;
        Ok(told.swap_remove(at))
    };
    let mut rows = table.keys.iter().map(row).collect::<Result<Vec<Row>, Error>>()?;
    // Of a list there may be none, and what its entries leave out is as elsewhere.
    if table.head.starts_with("[[") {
        rows.iter_mut().for_each(|row| row.default = None);
    }
    rows.iter().try_for_each(|row| is_the_default(table, row))?;
    Ok(rows)
}

fn names(section: &Section<'_>, head: &str) -> bool {
    section.heading.split([' ', ':', ',']).any(|word| word == head)
}

/// The keys of all tables that share a heading with this one.
fn tables_named_with(table: &Table, sections: &[Section<'_>]) -> Vec<String> {
    let shares = |other: &Table| {
        sections.iter().any(|section| names(section, &table.head) && names(section, &other.head))
    };
    tables().into_iter().filter(shares).flat_map(|other| other.keys).collect()
}

fn is_the_default(table: &Table, row: &Row) -> Result<(), Error> {
    let Some(value) = &row.default else { return Ok(()) };
    let wrong = |why: String| Error::NotTheDefault {
        section: table.head.clone(),
        key: row.key.clone(),
        value: value.clone(),
        why,
    };
    let text = format!("{}\n{} = {value}\n", table.head, row.key);
    match Config::parse(&text, Path::new("docs/configuration.md")) {
        Ok(config) if config == Config::default() => Ok(()),
        Ok(_) => Err(wrong("that is another one".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// A text as comment lines.
fn commented(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_names_its_keys() {
        let told: Vec<(String, Vec<String>)> =
            tables().into_iter().map(|table| (table.head, table.keys)).collect();
        let keys =
            |head: &str| told.iter().find(|(is, _)| is == head).map(|(_, keys)| keys.clone());
        assert!(
            keys("[agent]").is_some_and(|keys| keys.contains(&"refresh".to_owned())),
            "{told:?}"
        );
        let interface = keys("[[interface]]").unwrap_or_default();
        for key in ["match.mac", "match.name", "manage", "backend"] {
            assert!(interface.iter().any(|is| is == key), "{interface:?}");
        }
    }

    #[test]
    fn a_key_that_no_document_tells_of_is_an_error() {
        let table = |keys: &[&str]| Table {
            head: "[agent]".to_owned(),
            keys: keys.iter().map(ToString::to_string).collect(),
        };
        let text = "## `[agent]`: all\n| key | default | means |\n|---|---|---|\n";
        let whole = format!("{text}| `refresh` | `\"30s\"` | Time |\n");
        let sections = markdown::sections(&whole);
        let of = |keys: &[&str]| rows(&table(keys), &sections).err().map(|error| error.to_string());
        assert_eq!(of(&["refresh"]), None);
        assert!(of(&["refresh", "colour"]).is_some_and(|error| error.contains("'colour'")));
        let wrong = whole.replace("30s", "20s");
        let error = rows(&table(&["refresh"]), &markdown::sections(&wrong)).err();
        assert!(error.is_some_and(|error| error.to_string().contains("another one")));
        let stale = whole.replace("refresh", "colour");
        let error = rows(&table(&["refresh"]), &markdown::sections(&stale)).err();
        assert!(error.is_some_and(|error| error.to_string().contains("no key")));
    }

    #[test]
    fn the_file_says_nothing_but_the_defaults() {
        let files = files().unwrap_or_else(|error| panic!("{error}"));
        let (_, file) = files.iter().find(|(name, _)| *name == Path::new("config.toml")).unwrap();
        let file = String::from_utf8(file.clone()).unwrap();
        let parse = |text: &str| Config::parse(text, Path::new("config.toml")).unwrap();
        assert_eq!(parse(&file), Config::default());
        // Also where each key is given.
        let given: Vec<&str> = file
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.starts_with(' ') => key,
                _ => line,
            })
            .collect();
        assert_eq!(parse(&given.join("\n")), Config::default());
        assert!(given.len() > file.lines().filter(|line| !line.starts_with('#')).count());
    }
}
