//! Whether packets leave where they shall: what is measured is worth nothing otherwise.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use jackfield_kernel::Family;

use crate::Failure;
use crate::place::{Place, remote};
use crate::site::Site;

/// Packets from each address: more than an interface sends by itself meanwhile.
const PACKETS: u64 = 16;

/// Sends from every address, and fails where an interface has sent less than what is from its own.
pub(crate) fn check(place: &Place, site: Site) -> Result<(), Failure> {
    place.near.run(|| {
        let before = sent()?;
        for family in Family::BOTH {
            let to = remote(family, false);
            for source in site.all(family) {
                let socket = UdpSocket::bind((source, 0))?;
                for _ in 0..PACKETS {
                    socket.send_to(&[], to)?;
                }
            }
        }
        let after = sent()?;
        for number in site.numbers() {
            let name = format!("eth{number}");
            let of = |counts: &BTreeMap<String, u64>| counts.get(&name).copied().unwrap_or(0);
            let (is, wanted) = (of(&after) - of(&before), PACKETS * 2 * u64::from(site.addresses));
            if is < wanted {
                return Err(format!("{name} sent {is} packets of {wanted}").into());
            }
        }
        Ok(())
    })?
}

/// How many packets each device of the calling thread's namespace has sent so far.
fn sent() -> Result<BTreeMap<String, u64>, Failure> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string("/proc/thread-self/net/dev")?.lines() {
        let Some((name, figures)) = line.split_once(':') else { continue };
        // Eight figures of what was received come first, then octets.
        let packets = figures.split_whitespace().nth(9).ok_or("no figures in net/dev")?;
        counts.insert(name.trim().to_owned(), packets.parse()?);
    }
    Ok(counts)
}
