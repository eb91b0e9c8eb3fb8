//! What can be written on the command line.

pub(crate) mod explain;
pub(crate) mod import;
pub(crate) mod vm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use jackfield_hostnet::config::Backend;
use jackfield_metadata::Endpoint;

/// Plugged-in network interfaces that work at once: hosts, containers and microVMs.
#[derive(Debug, Parser)]
#[command(name = "jackfield", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Configuration file [default: /etc/jackfield/config.toml, which may be missing]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Metadata service [default: http://169.254.169.254, then http://[fd00:ec2::254]]
    #[arg(long, global = true, value_name = "URL", env = "JACKFIELD_METADATA")]
    pub(crate) metadata: Option<Endpoint>,
    /// Say more; twice, even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// How messages are written to standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text each.
    Text,
    /// A JSON object a line each.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The agent, in the foreground: reacts to plug and unplug, keeps everything as desired
    Run,
    /// Have the agent read its configuration again; a wrong one is told of and changes nothing
    Reload,
    /// Configure interfaces now, once; returns when they are configured
    Plug(Plug),
    /// Remove everything of ours for interfaces, present or gone
    Unplug(Unplug),
    /// Plug every present interface that is not configured, clean up after every one that is gone
    Scan(Scan),
    /// Show what would change, change nothing
    Plan(Show),
    /// What is plugged, how, and what is wrong
    Status(Show),
    /// What is wrong with this host or may go wrong, and what to do; changes nothing
    Doctor(Doctor),
    /// Which rule, table, route and interface a packet takes, why, and what would make it fail
    Explain(explain::Explain),
    /// Print the files that another network manager would be given, change nothing
    Render(Render),
    /// Take over what ubuntu-ec2net or amazon-ec2-net-utils has configured; lists, unless told otherwise
    Import(import::Import),
    /// The network of microVMs: made by CNI plugins, told to guests in any form
    Vm(vm::Vm),
    /// The whole story in private namespaces: plug, traffic, move, unplug, without cloud
    Demo(Demo),
}

#[derive(Debug, Args)]
pub(crate) struct Plug {
    /// Name, alternative name or MAC
    #[arg(required = true, value_name = "IFACE")]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Unplug {
    /// Name, alternative name or MAC; one that is gone may be named too
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    pub(crate) interfaces: Vec<String>,
    /// Everything of ours, also what is on the primary: it is as before jackfield was there
    #[arg(long, conflicts_with = "interfaces")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Name, alternative name or MAC; all where none is given
    #[arg(value_name = "IFACE")]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Render {
    /// Who would carry the configuration out
    #[arg(long, value_enum, value_name = "B")]
    pub(crate) backend: RenderBackend,
    /// Name, alternative name or MAC; all where none is given
    #[arg(value_name = "IFACE")]
    pub(crate) interfaces: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The back-ends that are given files.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RenderBackend {
    /// Debian's ifupdown, with ISC's DHCP client.
    Ifupdown,
    /// systemd-networkd.
    Networkd,
}

impl From<RenderBackend> for Backend {
    fn from(backend: RenderBackend) -> Self {
        match backend {
            RenderBackend::Ifupdown => Backend::Ifupdown,
            RenderBackend::Networkd => Backend::Networkd,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Wait {
    /// How long to wait for metadata and udev
    #[arg(long = "wait", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) time: Duration,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// One JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Reads the command line. Help and version are printed; what is wrong is said in one line.
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Where standard output is closed there is nobody to tell.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        eprintln!("jackfield: {}; see 'jackfield --help'", reason(&error));
        ExitCode::from(2)
    })
}

/// What is wrong with the command line, in one line.
fn reason(error: &clap::Error) -> String {
    use clap::error::ErrorKind::{DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand};
    if [DisplayHelpOnMissingArgumentOrSubcommand, MissingSubcommand].contains(&error.kind()) {
        return "a command is missing".to_owned();
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // What is missing, what would be right and what may be meant are on lines of their own.
    let ends = |line: &&str| line.starts_with("Usage") || line.starts_with("For more");
    let listed = lines.take_while(|line| !ends(line));
    listed.fold(first.to_owned(), |text, line| match line.strip_prefix("tip: ") {
        Some(tip) => format!("{text}; {tip}"),
        None => format!("{text} {line}"),
    })
}
