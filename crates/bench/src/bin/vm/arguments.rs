//! What can be written on the command line.

use std::path::PathBuf;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The plugin beside the floor.
    Plugin,
    /// `jackfield vm` beside a script.
    Chain,
    /// Both, while VMs become more and more.
    Many,
}

/// What to measure, and how thoroughly.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// What.
    pub(crate) subject: Subject,
    /// Pairs of turns; with [`Subject::Many`], how many VMs.
    pub(crate) pairs: usize,
    /// The jackfield to measure; the release build of this workspace where not given.
    pub(crate) jackfield: Option<PathBuf>,
    /// The plugin to measure; the release build of this workspace where not given.
    pub(crate) plugin: Option<PathBuf>,
    /// The compiler of the floor; musl-gcc where there is one, else cc.
    pub(crate) compiler: Option<String>,
}

impl Arguments {
    pub(crate) const USAGE: &'static str = "usage: vm [plugin|chain|many] [--quick] [--pairs N] [--plugin PATH] [--jackfield PATH] \
         [--cc COMPILER]";

    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (subject, plugin, jackfield, compiler) = (Subject::Plugin, None, None, None);
        let mut arguments = Arguments { subject, pairs: 0, plugin, jackfield, compiler };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "plugin" => arguments.subject = Subject::Plugin,
                "chain" => arguments.subject = Subject::Chain,
                "many" => arguments.subject = Subject::Many,
                "--quick" => arguments.pairs = 10,
                "--pairs" => arguments.pairs = positive(&value()?)?,
                "--jackfield" => arguments.jackfield = Some(value()?.into()),
                "--plugin" => arguments.plugin = Some(value()?.into()),
                "--cc" => arguments.compiler = Some(value()?),
                other => return Err(format!("{other} is not known")),
            }
        }
        if arguments.pairs == 0 {
            arguments.pairs = if arguments.subject == Subject::Many { 1000 } else { 200 };
        }
        Ok(arguments)
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is no positive number"))
}
