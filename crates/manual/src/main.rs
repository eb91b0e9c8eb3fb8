//! Makes the man pages, the completions of shells and the default configuration file.
//!
//! Which commands, flags and keys there are is asked of the code; what they mean is in the documents. One
//! that a document does not tell of is an error, so that nothing is published without.

#![forbid(unsafe_code)]

mod commands;
mod configuration;
mod documents;
mod markdown;

/// The command line of `jackfield`, of which nothing is called but what describes it.
#[path = "../../jackfield/src"]
mod program {
    #[allow(dead_code)]
    pub(crate) mod arguments;
}

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;

/// What is made, by its place below the directory.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Why something cannot be made.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The document has no section about a command.
    #[error("docs/interface.md has no section about '{0}': add one, headed by the command")]
    NoSection(String),
    /// The document has no row about a key.
    #[error("docs/configuration.md has no row about '{key}' below a heading that names {section}")]
    NoRow {
        /// The table of the configuration.
        section: String,
        /// The key.
        key: String,
    },
    /// The document has a row about what is no key.
    #[error("docs/configuration.md tells of '{key}' in {section}, which is no key")]
    NoKey {
        /// The table of the configuration.
        section: String,
        /// What the row is about.
        key: String,
    },
    /// A default value in the document is not the default.
    #[error(
        "docs/configuration.md says that the default of '{key}' in {section} is {value}: {why}"
    )]
    NotTheDefault {
        /// The table of the configuration.
        section: String,
        /// The key.
        key: String,
        /// What the document says.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: manual DIRECTORY");
        return ExitCode::from(2);
    };
    match files().and_then(|files| write(Path::new(&directory), files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything.
fn files() -> Result<Files, Error> {
    let mut command = program::arguments::Arguments::command();
    let mut files = commands::completions(&mut command);
    command.build();
    files.extend(commands::pages(&command)?);
    files.extend(configuration::files()?);
    files.extend(documents::pages());
    Ok(files)
}

fn write(directory: &Path, files: Files) -> Result<(), Error> {
    for (name, contents) in files {
        let path = directory.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = made.and_then(|()| std::fs::write(&path, contents));
        written.map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// The first line of a page.
fn title(name: &str, section: u8) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".TH \"{}\" \"{section}\" \"\" \"jackfield {version}\" \"jackfield\"\n",
        name.to_uppercase()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_can_be_made() {
        let files = files().unwrap_or_else(|error| panic!("{error}"));
        for page in ["man1/jackfield.1", "man1/jackfield-vm-up.1", "man5/jackfield.toml.5"] {
            let path = Path::new("man").join(page);
            assert!(files.iter().any(|(name, _)| *name == path), "{page}");
        }
    }
}
