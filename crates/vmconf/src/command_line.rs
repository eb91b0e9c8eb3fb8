//! The kernel command line, as the kernel reads it.

use std::fmt;
use std::str::FromStr;

/// A kernel command line: arguments in order, and what belongs to init.
///
/// It is read as the kernel's `next_arg` does it: white space separates, unless it is between double
/// quotes, which cannot be escaped; an argument `--` ends the kernel's part. Order, duplicates,
/// quotes and init's part are kept; runs of white space between arguments become one space.
///
/// ```
/// use jackfield_vmconf::{Argument, KernelCommandLine};
///
/// let mut line: KernelCommandLine = "console=ttyS0 a=\"b c\" -- single".parse()?;
/// line.add([Argument::new("ip", "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off")?])?;
/// assert_eq!(
///     line.to_string(),
///     "console=ttyS0 a=\"b c\" ip=10.0.0.2::10.0.0.1:255.255.255.0::eth0:off -- single"
/// );
/// # Ok::<(), jackfield_vmconf::CommandLineError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelCommandLine {
    arguments: Vec<Argument>,
    /// What follows ` -- `, as it was given.
    init: Option<String>,
}

/// One argument of a kernel command line, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument(String);

/// Why a text is no kernel command line, or does not fit into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// A character that is no part of one.
    #[error("kernel command line: {character:?} at byte {position} is not printable ASCII")]
    Character {
        /// The character.
        character: char,
        /// Where it is, counted from 0.
        position: usize,
    },
    /// A quote that does not end would take in all that is added.
    #[error("kernel command line: the quote in {argument:?} has no end")]
    Quote {
        /// The argument.
        argument: String,
    },
    /// Something that would be more than one argument.
    #[error("kernel command line: {name}={value:?} would not be one argument")]
    Argument {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
    /// The kernel reads a second `ip=` into what the first left: nonsense.
    #[error("kernel command line: it has {present:?} already, so {added:?} cannot be added")]
    SecondIp {
        /// What is there.
        present: String,
        /// What would be added.
        added: String,
    },
    /// The kernel would cut it off.
    #[error("kernel command line: {length} bytes are too many: {limit}")]
    TooLong {
        /// How long it is, in bytes.
        length: usize,
        /// How long it may be.
        limit: LengthLimit,
    },
}

impl Argument {
    /// An argument with a value.
    ///
    /// # Errors
    ///
    /// [`CommandLineError::Argument`] where the name or the value holds white space, a quote, or anything
    /// else than printable ASCII.
    pub fn new(name: &str, value: &str) -> Result<Self, CommandLineError> {
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"';
        let name_is_plain = !name.is_empty() && name.bytes().all(|b| plain(b) && b != b'=');
        if name_is_plain && value.bytes().all(plain) {
            return Ok(Self(format!("{name}={value}")));
        }
        Err(CommandLineError::Argument { name: name.to_owned(), value: value.to_owned() })
    }

    /// The argument as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name: what stands before the first `=`, without a quote that encloses all.
    #[must_use]
    pub fn name(&self) -> &str {
        let unquoted = self.0.strip_prefix('"').unwrap_or(&self.0);
        let name = unquoted.split_once('=').map_or(unquoted, |(name, _)| name);
        name.strip_suffix('"').unwrap_or(name)
    }

    /// The kernel's own configuration of the network: `ip=`, of which `nfsaddrs=` is the old name.
    fn is_ip(&self) -> bool {
        matches!(self.name(), "ip" | "nfsaddrs")
    }
}

impl KernelCommandLine {
    /// The kernel's arguments, in order.
    #[must_use]
    pub fn arguments(&self) -> &[Argument] {
        &self.arguments
    }

    /// What follows ` -- `, for init.
    #[must_use]
    pub fn init(&self) -> Option<&str> {
        self.init.as_deref()
    }

    /// Adds arguments behind those that there are, and before init's.
    ///
    /// # Errors
    ///
    /// [`CommandLineError::SecondIp`] where an `ip=` would be added to one that is there. Several that
    /// are added at once are for readers that take several.
    pub fn add(
        &mut self,
        added: impl IntoIterator<Item = Argument>,
    ) -> Result<(), CommandLineError> {
        let present = self.arguments.iter().find(|argument| argument.is_ip()).cloned();
        for argument in added {
            if let Some(present) = present.as_ref().filter(|_| argument.is_ip()) {
                let (present, added) = (present.0.clone(), argument.0);
                return Err(CommandLineError::SecondIp { present, added });
            }
            self.arguments.push(argument);
        }
        Ok(())
    }

    /// # Errors
    ///
    /// [`CommandLineError::TooLong`].
    pub fn check_length(&self, limit: LengthLimit) -> Result<(), CommandLineError> {
        let length = self.to_string().len();
        if length > limit.available() {
            return Err(CommandLineError::TooLong { length, limit });
        }
        Ok(())
    }
}

impl FromStr for KernelCommandLine {
    type Err = CommandLineError;

    fn from_str(text: &str) -> Result<Self, CommandLineError> {
        check_characters(text)?;
        let mut arguments = Vec::new();
        let mut rest = text.trim_ascii_start();
        while !rest.is_empty() {
            let (argument, after) = next_argument(rest)?;
            rest = after.trim_ascii_start();
            if argument.as_str() == "--" || argument.as_str() == "\"--\"" {
                return Ok(Self { arguments, init: Some(rest.trim_ascii_end().to_owned()) });
            }
            arguments.push(argument);
        }
        Ok(Self { arguments, init: None })
    }
}

/// The kernel takes a byte of 0xA0 for a space, so that text that is not ASCII can fall apart.
fn check_characters(text: &str) -> Result<(), CommandLineError> {
    let allowed = |c: char| c.is_ascii_graphic() || c == ' ' || c.is_ascii_whitespace();
    match text.char_indices().find(|(_, c)| !allowed(*c)) {
        Some((position, character)) => Err(CommandLineError::Character { character, position }),
        None => Ok(()),
    }
}

fn next_argument(text: &str) -> Result<(Argument, &str), CommandLineError> {
    let mut quoted = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if byte.is_ascii_whitespace() && !quoted => {
                let (argument, rest) = text.split_at(position);
                return Ok((Argument(argument.to_owned()), rest));
            }
            _ => {}
        }
    }
    if quoted {
        return Err(CommandLineError::Quote { argument: text.to_owned() });
    }
    Ok((Argument(text.to_owned()), ""))
}

impl fmt::Display for KernelCommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, argument) in self.arguments.iter().enumerate() {
            let separator = if position > 0 { " " } else { "" };
            write!(f, "{separator}{}", argument.0)?;
        }
        let Some(init) = &self.init else { return Ok(()) };
        let before = if self.arguments.is_empty() { "" } else { " " };
        write!(f, "{before}--")?;
        if init.is_empty() { Ok(()) } else { write!(f, " {init}") }
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a kernel command line may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    /// The size of the kernel's buffer in bytes, with the zero byte at its end.
    buffer: usize,
    /// What the VMM adds by itself, in bytes.
    reserved: usize,
}

impl LengthLimit {
    /// Linux on x86-64 and arm64: 2048 bytes.
    pub const X86_64_OR_ARM64: Self = Self { buffer: 2048, reserved: 0 };
    /// Linux on 32-bit arm and on riscv: 1024 bytes.
    pub const ARM_OR_RISCV: Self = Self { buffer: 1024, reserved: 0 };

    /// Firecracker: 2048 bytes, of which it takes what it appends, `pci=off`, the root device (with
    /// a partition's UUID) and one `virtio_mmio.device=` a device.
    #[must_use]
    pub fn firecracker(devices: usize) -> Self {
        const ROOT_AND_PCI: usize = " pci=off root=PARTUUID=".len() + 36 + " rw".len();
        const DEVICE: usize = " virtio_mmio.device=4K@0xffffffffffffffff:999".len();
        Self::X86_64_OR_ARM64.reserving(ROOT_AND_PCI.saturating_add(devices.saturating_mul(DEVICE)))
    }

    /// The same, with room for what others add.
    #[must_use]
    pub fn reserving(self, bytes: usize) -> Self {
        Self { reserved: self.reserved.saturating_add(bytes), ..self }
    }

    /// How long the text may be, in bytes.
    #[must_use]
    pub fn available(self) -> usize {
        self.buffer.saturating_sub(1).saturating_sub(self.reserved)
    }
}

impl fmt::Display for LengthLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fit", self.available())?;
        match self.reserved {
            0 => Ok(()),
            reserved => write!(f, " beside {reserved} that are added later"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(text: &str) -> KernelCommandLine {
        text.parse().unwrap()
    }

    fn with_ip(text: &str) -> Result<String, CommandLineError> {
        let mut line: KernelCommandLine = text.parse()?;
        line.add([Argument::new("ip", "10.0.0.2")?])?;
        Ok(line.to_string())
    }

    #[test]
    fn order_duplicates_and_quotes_are_kept() {
        let text = "b a console=ttyS0 console=tty0 a=\"x  y\" \"c d\"=e";
        assert_eq!(line(text).to_string(), text);
        assert_eq!(with_ip(text).unwrap(), format!("{text} ip=10.0.0.2"));
        assert_eq!(line("  a\t b\n").to_string(), "a b");
    }

    #[test]
    fn what_belongs_to_init_stays_behind() {
        assert_eq!(with_ip("a -- b  \"c\" ip=1").unwrap(), "a ip=10.0.0.2 -- b  \"c\" ip=1");
        assert_eq!(with_ip("-- b").unwrap(), "ip=10.0.0.2 -- b");
        assert_eq!(with_ip("a --").unwrap(), "a ip=10.0.0.2 --");
        assert_eq!(with_ip("a \"--\" b").unwrap(), "a ip=10.0.0.2 -- b");
        assert_eq!(with_ip("a --b x=-- c").unwrap(), "a --b x=-- c ip=10.0.0.2");
        assert_eq!(with_ip("a=\" -- \" c").unwrap(), "a=\" -- \" c ip=10.0.0.2");
    }

    #[test]
    fn a_second_ip_is_refused() {
        for text in ["ip=dhcp", "a ip= b", "\"ip=1 2\"", "ip", "nfsaddrs=1", "ip=\"x\""] {
            assert!(matches!(with_ip(text), Err(CommandLineError::SecondIp { .. })), "{text}");
        }
        for text in
            ["ipv6.disable=1", "a.ip=1", "ip6=1", "a -- ip=dhcp", "x=\"ip=1\"", "\"a ip=1\""]
        {
            assert!(with_ip(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_quote_without_end_is_refused() {
        for text in ["a=\"b c", "\"", "a\" -- b"] {
            assert!(matches!(with_ip(text), Err(CommandLineError::Quote { .. })), "{text}");
        }
    }

    #[test]
    fn characters_that_fall_apart_are_refused() {
        for text in ["a\0", "a=\u{e0}", "a\u{a0}b", "a\u{7f}", "a\u{1b}[0m"] {
            assert!(matches!(with_ip(text), Err(CommandLineError::Character { .. })), "{text}");
        }
    }

    #[test]
    fn an_argument_is_one() {
        assert!(Argument::new("ip", "").is_ok());
        for value in ["a b", "a\nb", "a\"b", "a\tb", "ä", "\0"] {
            assert!(Argument::new("ip", value).is_err(), "{value:?}");
        }
        for name in ["", "a b", "a=b", "a\"", "\n"] {
            assert!(Argument::new(name, "x").is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_length_has_a_limit() {
        let fits = line(&"a".repeat(2047));
        assert!(fits.check_length(LengthLimit::X86_64_OR_ARM64).is_ok());
        assert!(line(&"a".repeat(2048)).check_length(LengthLimit::X86_64_OR_ARM64).is_err());
        assert!(line(&"a".repeat(1023)).check_length(LengthLimit::ARM_OR_RISCV).is_ok());
        assert!(line(&"a".repeat(1024)).check_length(LengthLimit::ARM_OR_RISCV).is_err());
        let error = fits.check_length(LengthLimit::firecracker(3)).unwrap_err().to_string();
        assert!(error.contains("2047 bytes are too many: 1850 fit beside 197"), "{error}");
    }
}
