//! All that the guest's kernel command line needs for its network, merged into a given one.
//!
//! That is one `ip=` where there is an address; what cannot be said by it is an error, as in
//! [`ip`]. Without an address nothing is added: the guest asks DHCP by itself.

use crate::command_line::{Argument, KernelCommandLine, LengthLimit};
use crate::conf::VmConf;
use crate::formats::ip::{self, IpForm};
use crate::render::{Format, RenderError, Rendered};

/// What to merge into, and how long the line may get.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command line that the guest has otherwise.
    pub given: KernelCommandLine,
    /// The form of `ip=`.
    pub form: IpForm,
    /// How long the whole line may be.
    pub limit: LengthLimit,
}

impl Default for Options {
    /// Nothing given, the form that every reader reads, and the length that the common machines have.
    fn default() -> Self {
        Self {
            given: KernelCommandLine::default(),
            form: IpForm::default(),
            limit: LengthLimit::X86_64_OR_ARM64,
        }
    }
}

/// The whole command line.
///
/// # Errors
///
/// [`RenderError`] as [`ip::render`]; for a second `ip=`, and where the line gets too long.
pub fn render(vm: &VmConf, options: &Options) -> Result<Rendered, RenderError> {
    let mut line = options.given.clone();
    let warnings = match vm.interfaces() {
        [conf] if conf.vm_ips.is_empty() => ip::nothing_to_say(Format::KernelArgs, conf),
        _ => {
            let Rendered { text, warnings } = ip::render_as(Format::KernelArgs, vm, options.form)?;
            line.add([Argument::new("ip", text.trim_end())?])?;
            warnings
        }
    };
    line.check_length(options.limit)?;
    let mut text = line.to_string();
    if !text.is_empty() {
        text.push('\n');
    }
    Ok(Rendered { text, warnings })
}
