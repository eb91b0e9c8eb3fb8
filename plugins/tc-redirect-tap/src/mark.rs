//! By what we know what is ours.
//!
//! - A tap device by its alias, which names the attachment and the redirected interface:
//!   `tc-redirect-tap: network=N container=C interface=eth0 index=2`.
//! - A filter by the cookie of its action, 16 octets: `jft`, a flag, and hashes of the network and
//!   of the attachment. The flag says whether the qdisc that the filter hangs on was added with it.
//!
//! The redirected interface belongs to somebody else and gets no mark. The tap stays only once all
//! else is done, so after a crash there is either a marked tap, or none and perhaps a marked filter.

use jackfield_cni::NetworkName;
use jackfield_cni::plugin::Attachment;
use jackfield_kernel::Cookie;

/// The kernel takes so many octets.
const MAX_ALIAS: usize = 255;
const ALIAS: &str = "tc-redirect-tap:";
const COOKIE: [u8; 3] = *b"jft";
const QDISC_IS_OURS: u8 = 1;

/// What a tap's alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TapMark {
    /// The network.
    pub(crate) network: String,
    /// Container and interface.
    pub(crate) attachment: Attachment,
    /// The index of the redirected interface, whose name may have changed since.
    pub(crate) index: u32,
}

impl TapMark {
    /// `None`: not ours.
    pub(crate) fn read(alias: &str) -> Option<Self> {
        let mut fields = alias.strip_prefix(ALIAS)?.split_ascii_whitespace();
        let mut field = |key: &str| fields.next()?.strip_prefix(key)?.strip_prefix('=');
        Some(TapMark {
            network: field("network")?.to_owned(),
            attachment: Attachment {
                container_id: field("container")?.parse().ok()?,
                ifname: field("interface")?.parse().ok()?,
            },
            index: field("index")?.parse().ok()?,
        })
    }

    /// `None`: the names are longer than the kernel takes.
    pub(crate) fn alias(&self) -> Option<String> {
        let TapMark { network, attachment: Attachment { container_id, ifname }, index } = self;
        let alias = format!(
            "{ALIAS} network={network} container={container_id} interface={ifname} index={index}"
        );
        (alias.len() <= MAX_ALIAS).then_some(alias)
    }
}

/// What a filter's cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterMark {
    /// Whether the qdisc was added with the filter.
    pub(crate) qdisc_is_ours: bool,
    network: u32,
    attachment: u64,
}

impl FilterMark {
    pub(crate) fn new(network: &NetworkName, attachment: &Attachment, qdisc_is_ours: bool) -> Self {
        let network = network_hash(network);
        FilterMark { qdisc_is_ours, network, attachment: attachment_hash(attachment) }
    }

    /// `None`: not ours.
    pub(crate) fn read(cookie: &Cookie) -> Option<Self> {
        let [a, b, c, flags, n0, n1, n2, n3, attachment @ ..] = *cookie;
        ([a, b, c] == COOKIE).then(|| FilterMark {
            qdisc_is_ours: flags & QDISC_IS_OURS != 0,
            network: u32::from_be_bytes([n0, n1, n2, n3]),
            attachment: u64::from_be_bytes(attachment),
        })
    }

    pub(crate) fn cookie(self) -> Cookie {
        let [a, b, c] = COOKIE;
        let [n0, n1, n2, n3] = self.network.to_be_bytes();
        let [h0, h1, h2, h3, h4, h5, h6, h7] = self.attachment.to_be_bytes();
        let flags = if self.qdisc_is_ours { QDISC_IS_OURS } else { 0 };
        [a, b, c, flags, n0, n1, n2, n3, h0, h1, h2, h3, h4, h5, h6, h7]
    }

    pub(crate) fn is_of(self, attachment: &Attachment) -> bool {
        self.attachment == attachment_hash(attachment)
    }

    pub(crate) fn is_in(self, network: &NetworkName) -> bool {
        self.network == network_hash(network)
    }
}

fn attachment_hash(Attachment { container_id, ifname }: &Attachment) -> u64 {
    // The names hold no '/'.
    hash(&[container_id.as_str(), "/", ifname.as_str()])
}

fn network_hash(network: &NetworkName) -> u32 {
    let hash = hash(&[network.as_str()]);
    (hash >> 32) as u32 ^ hash as u32
}

/// FNV-1a. It has to be the same in every version of this program, and to tell the few attachments
/// apart that ever share an interface.
fn hash(parts: &[&str]) -> u64 {
    let octets = parts.iter().flat_map(|part| part.bytes());
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment { container_id: container.parse().unwrap(), ifname: ifname.parse().unwrap() }
    }

    #[test]
    fn an_alias_is_read_back() {
        let mark =
            TapMark { network: "fcnet".into(), attachment: attachment("vm-1", "eth0"), index: 2 };
        let alias = mark.alias().unwrap();
        assert_eq!(alias, "tc-redirect-tap: network=fcnet container=vm-1 interface=eth0 index=2");
        assert_eq!(TapMark::read(&alias), Some(mark));
    }

    #[test]
    fn aliases_of_others_are_not_ours() {
        for alias in ["", "jackfield: table=1", "tc-redirect-tap: network=x", "tc-redirect-tap:"] {
            assert_eq!(TapMark::read(alias), None, "{alias}");
        }
    }

    #[test]
    fn names_that_the_kernel_has_no_room_for_are_told() {
        let mark = |length| TapMark {
            network: "n".into(),
            attachment: attachment(&"c".repeat(length), "eth0"),
            index: 2,
        };
        assert!(mark(190).alias().is_some());
        assert!(mark(250).alias().is_none());
    }

    #[test]
    fn a_cookie_is_read_back_and_known_by_its_attachment() {
        let network: NetworkName = "fcnet".parse().unwrap();
        for ours in [false, true] {
            let mark = FilterMark::new(&network, &attachment("a", "eth0"), ours);
            let read = FilterMark::read(&mark.cookie()).unwrap();
            assert_eq!(read, mark);
            assert!(read.is_of(&attachment("a", "eth0")) && read.is_in(&network));
            assert!(!read.is_of(&attachment("a", "eth1")));
            assert!(!read.is_of(&attachment("b", "eth0")));
            assert!(!read.is_in(&"other".parse().unwrap()));
        }
        assert_eq!(FilterMark::read(&[0; 16]), None);
    }

    #[test]
    fn hashes_stay_what_they_are() {
        let mark = FilterMark::new(&"fcnet".parse().unwrap(), &attachment("vm-1", "eth0"), true);
        let expected = [
            0x6a, 0x66, 0x74, 0x01, 0x3e, 0x14, 0x4e, 0xa3, 0x3c, 0x2a, 0x0e, 0x85, 0x7a, 0xec,
            0x17, 0x52,
        ];
        assert_eq!(mark.cookie(), expected);
    }
}
