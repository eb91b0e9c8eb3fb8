//! Pages and completions of the commands.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::markdown::{self, Section};
use crate::{Error, Files, title};

/// What each command does, at length.
const INTERFACE: &str = include_str!("../../../docs/interface.md");

/// What holds for all commands.
const EVERYWHERE: &str = "Everywhere";

const FILES: &str = ".SH FILES
.TP
.I /etc/jackfield/config.toml
The configuration: \\fBjackfield.toml\\fR(5). It may be missing.
.SH SEE ALSO
";

pub(crate) fn completions(command: &mut Command) -> Files {
    let shells = [
        (Shell::Bash, "bash/jackfield"),
        (Shell::Zsh, "zsh/_jackfield"),
        (Shell::Fish, "fish/jackfield.fish"),
    ];
    let script = |(shell, name): (Shell, &str)| {
        let mut script = Vec::new();
        clap_complete::generate(shell, command, "jackfield", &mut script);
        (Path::new("completions").join(name), script)
    };
    shells.map(script).into()
}

/// A page for each command and sub-command; the command is built.
pub(crate) fn pages(command: &Command) -> Result<Files, Error> {
    let sections = markdown::sections(INTERFACE);
    let mut files = Files::new();
    page(command, &mut vec![command.get_name()], &sections, &mut files)?;
    Ok(files)
}

fn page<'a>(
    command: &'a Command,
    path: &mut Vec<&'a str>,
    sections: &[Section<'_>],
    files: &mut Files,
) -> Result<(), Error> {
    let name = path.join("-");
    let subcommands = || command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    let section = section_of(path, sections)?;
    // A command's name lives as long as the program.
    let static_name: &'static str = name.clone().leak();
    let man = Man::new(command.clone().name(static_name).bin_name(path.join(" ")));
    let mut text = title(&name, 1);
    text.push_str(&part(|out| man.render_name_section(out)));
    text.push_str(&part(|out| man.render_synopsis_section(out)));
    text.push_str(".SH DESCRIPTION\n");
    if path.len() == 1 {
        text.push_str(
            &part(|out| man.render_description_section(out)).replace(".SH DESCRIPTION\n", ""),
        );
    }
    // Sub-commands have pages of their own.
    text.push_str(&section.own().roff());
    text.push_str(&part(|out| man.render_options_section(out)));
    if subcommands().next().is_some() {
        text.push_str(".SH COMMANDS\n");
        for subcommand in subcommands() {
            let name = markdown::escaped(&format!("{name}-{}", subcommand.get_name()));
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!(".TP\n\\fB{name}\\fR(1)\n{}\n", markdown::escaped(&about)));
        }
    }
    text.push_str(FILES);
    let parent = path.len().checked_sub(1).and_then(|last| path.get(..last)).unwrap_or_default();
    let mut others = vec![("jackfield.toml".to_owned(), 5), ("jackfield.service".to_owned(), 8)];
    if !parent.is_empty() {
        others.insert(0, (parent.join("-"), 1));
    }
    let others = others
        .iter()
        .map(|(name, section)| format!("\\fB{}\\fR({section})", markdown::escaped(name)));
    text.push_str(&format!("{}\n", others.collect::<Vec<_>>().join(",\n")));
    files.push((PathBuf::from(format!("man/man1/{name}.1")), text.into_bytes()));
    for subcommand in subcommands() {
        path.push(subcommand.get_name());
        page(subcommand, path, sections, files)?;
        path.pop();
    }
    Ok(())
}

/// The section about a command: its heading is the command with its arguments.
fn section_of<'a, 's>(
    path: &[&str],
    sections: &'a [Section<'s>],
) -> Result<&'a Section<'s>, Error> {
    let command = path.join(" ");
    let about = |section: &&Section<'_>| match path.len() {
        1 => section.heading == EVERYWHERE,
        _ => match section.heading.strip_prefix(&command) {
            // Behind it stand arguments, not another command.
            Some(rest) => rest.is_empty() || rest.starts_with(" [") || is_argument(rest),
            None => false,
        },
    };
    sections.iter().find(about).ok_or(Error::NoSection(command))
}

fn is_argument(rest: &str) -> bool {
    rest.strip_prefix(' ')
        .is_some_and(|rest| rest.starts_with(|c: char| c == '-' || c.is_uppercase()))
}

fn part(render: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    // Nothing can fail that writes to memory.
    let _ = render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
