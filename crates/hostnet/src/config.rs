//! Configuration: the TOML file, read into types that cannot be wrong.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_metadata::{InterfaceId, MacAddr};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::render::Manager;

/// Where the configuration is where nobody says otherwise. It may be missing: that means defaults.
pub const DEFAULT_PATH: &str = "/etc/jackfield/config.toml";

/// The last rule priority that is ours; the first is [`AgentConfig::rule_priority`].
pub const LAST_RULE_PRIORITY: u32 = 29_999;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the whole host is handled.
    pub agent: AgentConfig,
    /// What holds for every interface for which nothing else is said.
    pub defaults: InterfaceConfig,
    /// Programs that are run after interfaces changed.
    pub hooks: HooksConfig,
    /// Exceptions: the first that matches wins.
    #[serde(rename = "interface")]
    pub interfaces: Vec<InterfaceOverride>,
}

/// How the whole host is handled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Time between two refreshes of metadata.
    #[serde(deserialize_with = "duration")]
    pub refresh: Duration,
    /// Kinds of device that may be cloud interfaces: `physical`, or the kernel's name of a virtual
    /// kind (`veth`).
    #[serde(deserialize_with = "device_kinds")]
    pub device_kinds: Vec<String>,
    /// The link group that marks cloud interfaces.
    #[serde(deserialize_with = "link_group")]
    pub link_group: u32,
    /// The routing table of card 0, device 0; see [`Slot::table`](crate::Slot::table).
    #[serde(deserialize_with = "table_base")]
    pub table_base: u32,
    /// Priority of the first of our rules.
    #[serde(deserialize_with = "rule_priority")]
    pub rule_priority: u32,
    /// The bits of packet marks and connection marks that are ours.
    #[serde(deserialize_with = "mark_mask")]
    pub mark_mask: u32,
    /// Where the API has a socket besides; see [`AgentConfig::api_path`].
    #[serde(deserialize_with = "socket_path")]
    pub api: Option<PathBuf>,
    /// Where metrics are told.
    #[serde(deserialize_with = "metrics_address")]
    pub metrics: Option<MetricsAddress>,
}

/// Where metrics are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricsAddress {
    /// A TCP port of an address.
    Tcp(SocketAddr),
    /// A Unix socket at a path.
    Unix(PathBuf),
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricsAddress::Tcp(address) => write!(f, "{address}"),
            MetricsAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Default for AgentConfig {
    fn default() -> Self {
        AgentConfig {
            refresh: Duration::from_secs(30),
            device_kinds: vec!["physical".to_owned()],
            link_group: 106,
            table_base: 10_000,
            rule_priority: 14_000,
            mark_mask: 0x7f,
            api: None,
            metrics: None,
        }
    }
}

impl AgentConfig {
    /// Where the API has a socket at a path: as configured, or in the service's runtime directory
    /// (`RuntimeDirectory=` in systemd.exec(5)).
    pub fn api_path(&self) -> Option<PathBuf> {
        let directory = || {
            let directories = std::env::var_os("RUNTIME_DIRECTORY")?.into_string().ok()?;
            let first = directories.split(':').next().filter(|it| it.starts_with('/'))?;
            Some(Path::new(first).join(crate::api::INTERFACE))
        };
        self.api.clone().or_else(directory)
    }
}

/// Programs that are run after interfaces changed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HooksConfig {
    /// Where they are; there need not be such a directory.
    #[serde(deserialize_with = "absolute_path")]
    pub directory: PathBuf,
    /// How long one may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        HooksConfig {
            directory: PathBuf::from("/etc/jackfield/hooks.d"),
            timeout: Duration::from_secs(30),
        }
    }
}

/// How one interface is handled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterfaceConfig {
    /// Whether it is configured at all.
    pub manage: bool,
    /// Its MTU.
    pub mtu: Mtu,
    /// Its default route in table main.
    pub main_route: MainRoute,
    /// Connection marks for containers.
    pub containers: Containers,
    /// What becomes of its delegated prefixes.
    pub prefixes: Prefixes,
    /// Who carries the configuration out.
    pub backend: Backend,
}

impl Default for InterfaceConfig {
    fn default() -> Self {
        InterfaceConfig {
            manage: true,
            mtu: Mtu::Primary,
            main_route: MainRoute::LastResort,
            containers: Containers::Auto,
            prefixes: Prefixes::Route,
            backend: Backend::Kernel,
        }
    }
}

/// The MTU that an interface gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtu {
    /// The primary's, capped by what the device can do.
    Primary,
    /// What it has.
    Keep,
    /// This many octets.
    Octets(u32),
}

/// The default route that a secondary interface has in table main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MainRoute {
    /// One that every other default route is preferred to.
    LastResort,
    /// None.
    None,
}

/// When forwarded connections are answered by the interface by which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Containers {
    /// Where forwarding and destination NAT are in use.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What becomes of the prefixes that are delegated to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefixes {
    /// Their addresses are for whom somebody gives a route: VMs and containers.
    Route,
    /// The host itself answers on each of their addresses.
    Local,
}

/// Who carries the configuration out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// jackfield, in the kernel.
    Kernel,
    /// Debian's ifupdown.
    Ifupdown,
    /// systemd-networkd.
    Networkd,
}

impl Backend {
    /// As it is written.
    pub fn name(self) -> &'static str {
        self.manager().map_or("kernel", Manager::name)
    }

    /// Who is told to carry the configuration out; `None`: nobody else.
    pub fn manager(self) -> Option<Manager> {
        match self {
            Backend::Kernel => None,
            Backend::Ifupdown => Some(Manager::Ifupdown),
            Backend::Networkd => Some(Manager::Networkd),
        }
    }

    /// Whether a neighbour is the one who carries it out.
    pub(crate) fn is_of(self, neighbour: &str) -> bool {
        self.manager().is_some_and(|manager| neighbour == manager.neighbour())
    }
}

/// An exception from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceOverride {
    /// Which interfaces it is for.
    #[serde(rename = "match")]
    pub matches: Match,
    /// As [`InterfaceConfig::manage`].
    pub manage: Option<bool>,
    /// As [`InterfaceConfig::mtu`].
    pub mtu: Option<Mtu>,
    /// As [`InterfaceConfig::main_route`].
    pub main_route: Option<MainRoute>,
    /// As [`InterfaceConfig::containers`].
    pub containers: Option<Containers>,
    /// As [`InterfaceConfig::prefixes`].
    pub prefixes: Option<Prefixes>,
    /// As [`InterfaceConfig::backend`].
    pub backend: Option<Backend>,
}

/// What an interface must be like; all that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// MAC address.
    #[serde(deserialize_with = "parsed")]
    pub mac: Option<MacAddr>,
    /// Cloud interface ID, as `eni-…`.
    #[serde(deserialize_with = "parsed")]
    pub interface_id: Option<InterfaceId>,
    /// Device number on its network card.
    pub device_number: Option<u32>,
    /// Network card.
    pub network_card: Option<u32>,
    /// Name or alternative name.
    pub name: Option<String>,
}

/// What is known of an interface that a [`Match`] can ask about.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// MAC address.
    pub mac: MacAddr,
    /// Cloud interface ID, once known.
    pub interface_id: Option<&'a InterfaceId>,
    /// Device number, once known.
    pub device_number: Option<u32>,
    /// Network card, once known.
    pub network_card: Option<u32>,
    /// Name and alternative names.
    pub names: &'a [&'a str],
}

impl Match {
    /// True where all that is given holds. What is not known yet does not hold.
    pub fn holds(&self, identity: &Identity<'_>) -> bool {
        fn agrees<T: PartialEq>(wanted: Option<&T>, is: Option<&T>) -> bool {
            wanted.is_none() || wanted == is
        }
        agrees(self.mac.as_ref(), Some(&identity.mac))
            && agrees(self.interface_id.as_ref(), identity.interface_id)
            && agrees(self.device_number.as_ref(), identity.device_number.as_ref())
            && agrees(self.network_card.as_ref(), identity.network_card.as_ref())
            && self.name.as_ref().is_none_or(|name| identity.names.contains(&name.as_str()))
    }

    /// True where it asks about something that only metadata knows and that is not known yet: which
    /// exception holds cannot be said then.
    pub fn is_open(&self, identity: &Identity<'_>) -> bool {
        (self.interface_id.is_some() && identity.interface_id.is_none())
            || (self.device_number.is_some() && identity.device_number.is_none())
            || (self.network_card.is_some() && identity.network_card.is_none())
    }
}

impl Config {
    /// Reads the file; where it is the default one and missing, the defaults.
    ///
    /// # Errors
    /// Where the file cannot be read, or says something that is not understood.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Unreadable { file: file.to_owned(), source }),
        }
    }

    /// Reads a text; `file` is for errors.
    ///
    /// # Errors
    /// Where the text says something that is not understood.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            // The key is named here, whatever the reason is.
            let written = text.lines().nth(line - 1).unwrap_or_default().trim();
            let reason = error.message().replace('\n', " ");
            ConfigError::Invalid {
                file: file.to_owned(),
                line,
                written: written.chars().take(120).collect(),
                reason,
            }
        })
    }

    /// What holds for an interface.
    pub fn for_interface(&self, identity: &Identity<'_>) -> InterfaceConfig {
        let base = &self.defaults;
        match self.interfaces.iter().find(|exception| exception.matches.holds(identity)) {
            None => base.clone(),
            Some(exception) => InterfaceConfig {
                manage: exception.manage.unwrap_or(base.manage),
                mtu: exception.mtu.unwrap_or(base.mtu),
                main_route: exception.main_route.unwrap_or(base.main_route),
                containers: exception.containers.unwrap_or(base.containers),
                prefixes: exception.prefixes.unwrap_or(base.prefixes),
                backend: exception.backend.unwrap_or(base.backend),
            },
        }
    }

    /// True where an exception for the interface says that it is managed: also where it is somebody
    /// else's.
    pub fn insists(&self, identity: &Identity<'_>) -> bool {
        let exception = self.interfaces.iter().find(|it| it.matches.holds(identity));
        exception.is_some_and(|exception| exception.manage == Some(true))
    }

    /// True where it depends on what is not known yet whether the interface is managed.
    pub fn is_open(&self, identity: &Identity<'_>) -> bool {
        self.interfaces
            .iter()
            .take_while(|exception| !exception.matches.holds(identity))
            .any(|exception| exception.matches.is_open(identity))
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file says something that is not understood.
    #[error("{}, line {line}, at '{written}': {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What stands there.
        written: String,
        /// What was expected.
        reason: String,
    },
}

impl<'de> Deserialize<'de> for Mtu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MtuVisitor;
        impl Visitor<'_> for MtuVisitor {
            type Value = Mtu;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"primary\", \"keep\", or a number of octets from 1280 to 65535")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Mtu, E> {
                match text {
                    "primary" => Ok(Mtu::Primary),
                    "keep" => Ok(Mtu::Keep),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Mtu, E> {
                match u32::try_from(number) {
                    // IPv6 needs 1280 (RFC 8200, section 5).
                    Ok(octets @ 1280..=65_535) => Ok(Mtu::Octets(octets)),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(MtuVisitor)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct DurationVisitor;
    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time from 1 s to 1 h, as \"30s\", \"2m\" or \"1500ms\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, unit) = text.split_at(digits);
            let factor = match unit.trim() {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                _ => 0,
            };
            let number = number.parse::<u64>().ok();
            match number.and_then(|number| number.checked_mul(factor)) {
                Some(milliseconds @ 1_000..=3_600_000) => Ok(Duration::from_millis(milliseconds)),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_str(DurationVisitor)
}

fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        return Ok(path);
    }
    let written = path.to_string_lossy();
    Err(de::Error::invalid_value(de::Unexpected::Str(&written), &"an absolute path"))
}

fn device_kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let kinds = Vec::<String>::deserialize(deserializer)?;
    let sound = |kind: &String| {
        !kind.is_empty()
            && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    match kinds.iter().find(|kind| !sound(kind)) {
        None => Ok(kinds),
        Some(kind) => Err(de::Error::invalid_value(
            de::Unexpected::Str(kind),
            &"\"physical\" or the kernel's name of a kind of device, as \"veth\"",
        )),
    }
}

fn number_in<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: std::ops::RangeInclusive<u32>,
    expected: &str,
) -> Result<u32, D::Error> {
    struct NumberVisitor<'a>(std::ops::RangeInclusive<u32>, &'a str);
    impl Visitor<'_> for NumberVisitor<'_> {
        type Value = u32;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u32, E> {
            match u32::try_from(number) {
                Ok(value) if self.0.contains(&value) => Ok(value),
                _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
            }
        }
    }
    deserializer.deserialize_i64(NumberVisitor(range, expected))
}

fn link_group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number_in(deserializer, 1..=0x7fff_ffff, "a link group from 1 to 2147483647")
}

fn table_base<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    // 253 to 255 are the system's; below the base lies the table of markers.
    number_in(deserializer, 300..=2_000_000_000, "a table number from 300 to 2000000000")
}

fn rule_priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number_in(deserializer, 1..=28_000, "a rule priority from 1 to 28000")
}

fn mark_mask<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    number_in(deserializer, 1..=u32::MAX, "a packet mark mask from 0x1 to 0xffffffff")
}

/// A path that the address of a Unix socket has room for (unix(7)).
fn is_socket_path(text: &str) -> bool {
    text.starts_with('/') && !text.ends_with('/') && text.len() < 108 && !text.contains('\0')
}

fn socket_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_socket_path(&text) {
        return Ok(Some(text.into()));
    }
    let expected = "the path of a Unix socket, as \"/run/jackfield/api\", of less than 108 octets";
    Err(de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
}

fn metrics_address<'de, D>(deserializer: D) -> Result<Option<MetricsAddress>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    let address = match text.strip_prefix("unix:") {
        Some(path) => is_socket_path(path).then(|| MetricsAddress::Unix(path.into())),
        None => text.parse().ok().filter(|it: &SocketAddr| it.port() != 0).map(MetricsAddress::Tcp),
    };
    address.map(Some).ok_or_else(|| {
        let expected = "an IP address and a port, as \"127.0.0.1:9106\" or \"[::1]:9106\", or a Unix \
                        socket, as \"unix:/run/jackfield/metrics\"";
        de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
    })
}

fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/jackfield/config.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn the_documented_example_says_the_defaults_and_one_exception() {
        let text = r#"
            [agent]
            refresh = "30s"
            device_kinds = ["physical"]
            link_group = 106
            table_base = 10000
            rule_priority = 14000
            mark_mask = 0x7f

            [defaults]
            manage = true
            mtu = "primary"
            main_route = "last-resort"
            containers = "auto"
            prefixes = "route"
            backend = "kernel"

            [[interface]]
            match = { mac = "02:ec:20:00:00:01" }
            manage = false
        "#;
        let config = parse(text).unwrap();
        assert_eq!(config.agent, AgentConfig::default());
        assert_eq!(config.defaults, InterfaceConfig::default());
        let identity = |mac: &str| Identity {
            mac: mac.parse().unwrap(),
            interface_id: None,
            device_number: None,
            network_card: None,
            names: &["eth1"],
        };
        assert!(!config.for_interface(&identity("02:ec:20:00:00:01")).manage);
        assert!(config.for_interface(&identity("02:ec:20:00:00:02")).manage);
    }

    #[test]
    fn sockets_are_where_they_are_configured_to_be() {
        let config = parse("[agent]\napi = \"/run/x\"\nmetrics = \"[::1]:9106\"\n").unwrap().agent;
        assert_eq!(config.api_path(), Some("/run/x".into()));
        let address = "[::1]:9106".parse().unwrap();
        assert_eq!(config.metrics, Some(MetricsAddress::Tcp(address)));
        let config = parse("[agent]\nmetrics = \"unix:/run/m\"\n").unwrap().agent;
        assert_eq!(config.metrics, Some(MetricsAddress::Unix("/run/m".into())));
    }

    #[test]
    fn all_that_a_match_gives_must_hold() {
        let text = "[[interface]]\nmatch = { name = \"eth1\", device_number = 2 }\nmtu = 1500\n";
        let config = parse(text).unwrap();
        let identity = |device_number| Identity {
            mac: "02:ec:20:00:00:01".parse().unwrap(),
            interface_id: None,
            device_number,
            network_card: None,
            names: &["ens6", "eth1"],
        };
        assert_eq!(config.for_interface(&identity(Some(2))).mtu, Mtu::Octets(1500));
        assert_eq!(config.for_interface(&identity(Some(1))).mtu, Mtu::Primary);
        assert!(config.is_open(&identity(None)));
        assert!(!config.is_open(&identity(Some(1))));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_key_and_what_was_expected() {
        for (text, line, parts) in [
            ("[agent]\nrefrehs = \"30s\"\n", 2, vec!["refrehs", "refresh"]),
            ("[agent]\nrefresh = \"soon\"\n", 2, vec!["refresh", "soon", "\"30s\""]),
            ("[agent]\nrefresh = 30\n", 2, vec!["refresh", "30s"]),
            ("\n[agent]\nlink_group = 0\n", 3, vec!["link_group", "from 1"]),
            ("[agent]\ntable_base = 254\n", 2, vec!["table_base", "300"]),
            ("[agent]\nmark_mask = -1\n", 2, vec!["mark_mask", "0x1"]),
            ("[agent]\nrule_priority = 29000\n", 2, vec!["rule_priority", "28000"]),
            ("[agent]\ndevice_kinds = [\"Physical!\"]\n", 2, vec!["device_kinds", "veth"]),
            ("[agent]\napi = \"api\"\n", 2, vec!["api", "Unix socket", "/run/jackfield"]),
            ("[agent]\nmetrics = \"9106\"\n", 2, vec!["metrics", "9106", "127.0.0.1:9106"]),
            ("[agent]\nmetrics = \"[::1]:0\"\n", 2, vec!["metrics", "a port"]),
            ("[agent]\nmetrics = \"unix:x\"\n", 2, vec!["metrics", "unix:/run"]),
            ("[agent]\nmetrics = 9106\n", 2, vec!["metrics"]),
            ("[defaults]\nmtu = 100\n", 2, vec!["mtu", "100", "1280"]),
            ("[defaults]\nmtu = \"big\"\n", 2, vec!["mtu", "big", "primary"]),
            ("[defaults]\nmain_route = \"first\"\n", 2, vec!["main_route", "first", "last-resort"]),
            ("[defaults]\nprefixes = \"on\"\n", 2, vec!["prefixes", "on", "route", "local"]),
            ("[defaults]\nbackend = \"nm\"\n", 2, vec!["backend", "nm", "kernel", "networkd"]),
            ("[[interface]]\nmanage = false\n", 1, vec!["match"]),
            ("[[interface]]\nmatch = { mac = \"02:ec\" }\n", 2, vec!["mac", "02:ec"]),
            ("[[interface]]\nmatch = { mca = \"x\" }\n", 2, vec!["mca", "interface_id"]),
            ("[hooks]\ndirectory = \"hooks.d\"\n", 2, vec!["hooks.d", "absolute path"]),
            ("[hooks]\ntimeout = \"0s\"\n", 2, vec!["timeout", "0s", "from 1 s"]),
            ("[hooks]\ndir = \"/x\"\n", 2, vec!["dir", "directory"]),
            ("[interfaces]\n", 1, vec!["interfaces", "interface"]),
            ("[agent\n", 1, vec!["agent"]),
        ] {
            let error = parse(text).unwrap_err();
            let start = format!("/etc/jackfield/config.toml, line {line}, ");
            assert!(error.starts_with(&start), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
            for part in parts {
                assert!(error.contains(part), "{text:?}: {error} does not say {part}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_an_error_only_where_it_was_named() {
        let missing = Path::new("/nowhere/jackfield.toml");
        let error = Config::load(Some(missing)).unwrap_err().to_string();
        assert!(error.contains("/nowhere/jackfield.toml"), "{error}");
    }
}
