//! What a packet costs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use jackfield_kernel::Family;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::Failure;
use crate::place::{Place, remote, stranger};
use crate::statistics::median;

/// Sockets from which packets are sent in turn, each from an address that is drawn anew for each slot.
const POOL: usize = 64;
/// How long a contestant's turn is, about.
const TURN: Duration = Duration::from_millis(6);
/// Packets between two looks at the clock. A turn's figure is the median of its strides: what takes the
/// processor away for a while does not count.
const STRIDE: usize = 32;
/// The same of connections.
const CONNECTIONS: u32 = 8;
const PAYLOAD: [u8; 32] = [0; 32];

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// UDP, each packet with its destination.
    Unconnected,
    /// UDP by sockets that are connected.
    Connected,
    /// TCP: a connection is begun and ended.
    Connection,
    /// UDP from behind the host, from addresses of delegated prefixes.
    ForwardedPrefix,
    /// UDP from behind the host, from an address in nobody's prefix.
    ForwardedOther,
}

impl Traffic {
    pub(crate) const ALL: [Traffic; 5] = [
        Traffic::Unconnected,
        Traffic::Connected,
        Traffic::Connection,
        Traffic::ForwardedPrefix,
        Traffic::ForwardedOther,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Traffic::Unconnected => "UDP unconnected",
            Traffic::Connected => "UDP connected",
            Traffic::Connection => "TCP connect",
            Traffic::ForwardedPrefix => "forwarded, prefix",
            Traffic::ForwardedOther => "forwarded, other",
        }
    }
}

/// Nanoseconds a packet, or a connection, in one turn.
pub(crate) fn cost(
    place: &Place,
    traffic: Traffic,
    family: Family,
    random: &mut fastrand::Rng,
) -> Result<f64, Failure> {
    let [v4, v6] = match traffic {
        Traffic::ForwardedPrefix => &place.delegated,
        _ => &place.sources,
    };
    let from = if family == Family::V4 { v4 } else { v6 };
    let mut sources: Vec<IpAddr> =
        (0..POOL).filter_map(|_| from.get(random.usize(0..from.len().max(1))).copied()).collect();
    let host = match traffic {
        Traffic::ForwardedPrefix | Traffic::ForwardedOther => &place.inner,
        _ => &place.near,
    };
    if traffic == Traffic::ForwardedOther {
        sources.fill(stranger(family));
    }
    if sources.is_empty() {
        return Err("there is no address to send from".into());
    }
    host.run(|| match traffic {
        Traffic::Connection => connections(place, family, &sources),
        Traffic::Connected => packets(&sources, remote(family, false), true),
        _ => packets(&sources, remote(family, false), false),
    })?
}

fn packets(sources: &[IpAddr], to: SocketAddr, connected: bool) -> Result<f64, Failure> {
    let mut sockets = Vec::new();
    for source in sources {
        let socket = UdpSocket::bind((*source, 0))?;
        if connected {
            socket.connect(to)?;
        }
        sockets.push(socket);
    }
    let send = |socket: &UdpSocket| {
        if connected { socket.send(&PAYLOAD) } else { socket.send_to(&PAYLOAD, to) }
    };
    // What is asked for the first time is not in the caches yet.
    for socket in sockets.iter().take(STRIDE) {
        send(socket)?;
    }
    let began = Instant::now();
    let (mut sent, mut strides) = (0, Vec::new());
    while began.elapsed() < TURN {
        let stride = Instant::now();
        for socket in sockets.iter().cycle().skip(sent % POOL).take(STRIDE) {
            send(socket)?;
        }
        strides.push(stride.elapsed().as_nanos() as f64 / STRIDE as f64);
        sent += STRIDE;
    }
    Ok(median(&strides))
}

/// Only beginning and end of the near side count; the far side takes the connection in between
/// two of them.
fn connections(place: &Place, family: Family, sources: &[IpAddr]) -> Result<f64, Failure> {
    let [v4, v6] = &place.listeners;
    let (listener, wire) = match family {
        Family::V4 => (v4, AddressFamily::INET),
        Family::V6 => (v6, AddressFamily::INET6),
    };
    let to = remote(family, true);
    let (mut took, mut made, mut strides) = (Duration::ZERO, 0, Vec::new());
    let began = Instant::now();
    for source in sources.iter().cycle() {
        let socket = socket(wire, SocketType::STREAM, None)?;
        // Ended by a reset, so that no port has to wait.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        bind(&socket, &SocketAddr::new(*source, 0))?;
        let one = Instant::now();
        connect(&socket, &to)?;
        drop(socket);
        took += one.elapsed();
        made += 1;
        drop(listener.accept()?);
        if made == CONNECTIONS {
            strides.push(took.as_nanos() as f64 / f64::from(CONNECTIONS));
            (took, made) = (Duration::ZERO, 0);
            if began.elapsed() > 2 * TURN {
                break;
            }
        }
    }
    Ok(median(&strides))
}
