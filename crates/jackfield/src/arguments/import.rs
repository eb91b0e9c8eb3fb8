//! `jackfield import`.

use clap::{Args, ValueEnum};
use jackfield_hostnet::import::Tool;

use super::{Output, Wait};

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Whose configuration
    #[arg(value_enum, default_value_t = From::Auto, value_name = "TOOL")]
    pub(crate) from: From,
    /// Take it over, and remove what is theirs; without it, only list
    #[arg(long)]
    pub(crate) remove: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Whose configuration is looked for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum From {
    /// Whoever is here.
    Auto,
    /// ubuntu-ec2net and its forks.
    UbuntuEc2net,
    /// amazon-ec2-net-utils, and ec2-net-utils before it.
    AmazonEc2NetUtils,
}

impl From {
    /// The tools; `None`: all.
    pub(crate) fn tools(self) -> Option<&'static [Tool]> {
        match self {
            From::Auto => None,
            From::UbuntuEc2net => Some(&[Tool::UbuntuEc2net]),
            From::AmazonEc2NetUtils => Some(&[Tool::Ec2NetUtils1, Tool::Ec2NetUtils2]),
        }
    }
}
