//! Which rule, table, route, mark and interface a packet takes, why, and what makes it fail.
//!
//! Where a packet goes is the kernel's own answer ([`jackfield_kernel::RouteQuery`]). Why it goes there
//! is told by a walk through the rules beside it, which is checked against the answer. [`explain`] is
//! pure but for what it asks the [`Oracle`]; [`Facts::read`] looks at the machine. Nothing is changed,
//! no privilege is needed, and jackfield need not have configured anything.
//!
//! What firewalls do with a packet, and what translates addresses, is not looked at.

mod facts;
mod leg;
mod obstacles;
mod walk;
mod words;

use std::net::IpAddr;
use std::str::FromStr;

use jackfield_kernel::{Error, Family, Link, RouteKind, RouteQuery};
use serde::Serialize;

pub use facts::{Facts, Oracle, Settings};
pub use leg::Leg;
pub use obstacles::{Obstacle, Stops};
pub use walk::{Step, StepResult};

use walk::Flow;

/// An IP protocol of which the kernel can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, or ICMPv6 between IPv6 addresses.
    Icmp,
}

impl Protocol {
    fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Protocol::Tcp, _) => 6,
            (Protocol::Udp, _) => 17,
            (Protocol::Icmp, Family::V4) => 1,
            (Protocol::Icmp, Family::V6) => 58,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "icmp" | "icmpv6" => Ok(Protocol::Icmp),
            _ => Err("expected tcp, udp or icmp".to_owned()),
        }
    }
}

/// A packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// IP protocol; UDP where `None`.
    pub protocol: Option<Protocol>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Its mark.
    pub mark: u32,
    /// The sender's user; the asking process's where `None`.
    pub user: Option<u32>,
    /// Name of the interface by which it comes in; worked out where `None`.
    pub input: Option<String>,
}

impl Question {
    /// A packet of which nothing else is known.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        Question {
            source,
            destination,
            protocol: None,
            source_port: None,
            destination_port: None,
            mark: 0,
            user: None,
            input: None,
        }
    }

    /// Whether it can be asked.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub fn check(&self) -> Result<(), ExplainError> {
        let Question { source, destination, .. } = *self;
        if Family::of(source) != Family::of(destination) {
            return Err(ExplainError::MixedFamilies(source, destination));
        }
        let group = |ip: IpAddr| ip.is_multicast() || ip.is_unspecified();
        if let Some(ip) = [source, destination].into_iter().find(|ip| group(*ip)) {
            return Err(ExplainError::NotOneHost(ip));
        }
        let link_local = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if let Some(ip) = [source, destination].into_iter().find(link_local) {
            return Err(ExplainError::LinkLocal(ip));
        }
        let port = self.source_port.or(self.destination_port);
        match (self.protocol, port) {
            (None, Some(port)) => Err(ExplainError::PortWithoutProtocol(port)),
            (Some(Protocol::Icmp), Some(port)) => Err(ExplainError::PortOfIcmp(port)),
            _ => Ok(()),
        }
    }
}

/// Why something cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// An address of each family.
    #[error("{0} and {1} are of different families")]
    MixedFamilies(IpAddr, IpAddr),
    /// A multicast or unspecified address.
    #[error("{0} is not the address of one host")]
    NotOneHost(IpAddr),
    /// Means something else on each interface.
    #[error("{0} is link-local: no rule and no table decides where it is")]
    LinkLocal(IpAddr),
    /// Ports of what?
    #[error("port {0} is given without a protocol")]
    PortWithoutProtocol(u16),
    /// ICMP has no ports.
    #[error("port {0} is given, and ICMP has no ports")]
    PortOfIcmp(u16),
    /// There is no such interface.
    #[error("there is no interface '{0}'")]
    NoSuchInterface(String),
    /// Nothing leads to the source.
    #[error("no route leads to {0}: by which interface it comes in is not known")]
    NoInput(IpAddr),
    /// The kernel cannot be talked to.
    #[error(transparent)]
    Kernel(#[from] Error),
}

impl ExplainError {
    /// Whether the question itself is wrong, whatever the machine is like.
    pub fn is_wrong_use(&self) -> bool {
        use ExplainError::{LinkLocal, MixedFamilies, NotOneHost, PortOfIcmp, PortWithoutProtocol};
        matches!(
            self,
            MixedFamilies(..)
                | NotOneHost(_)
                | LinkLocal(_)
                | PortWithoutProtocol(_)
                | PortOfIcmp(_)
        )
    }
}

/// What a packet is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Made here, for elsewhere.
    Out,
    /// From elsewhere, for this host.
    In,
    /// From elsewhere, for elsewhere.
    Forward,
    /// Between two addresses of this host.
    Inside,
}

/// What there is to say about a packet.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// 1.
    pub version: u32,
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: Protocol,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// What it is to this host.
    pub direction: Direction,
    /// Whether it gets where it is to go, as far as this host and what is known of the cloud decide.
    pub delivers: bool,
    /// The same for people, in one line.
    pub summary: String,
    /// Its way.
    pub way: Leg,
    /// The way of what answers it, where that passes this host.
    pub answer: Option<Leg>,
    /// Of what is forwarded: the ways that answers take whose connection came in by an interface
    /// that has a mark.
    pub marked: Vec<Marked>,
    /// Why it takes its way.
    pub why: Vec<String>,
    /// What stops it, and what would.
    pub obstacles: Vec<Obstacle>,
}

/// The way of a packet that has the mark of a connection.
#[derive(Debug, Clone, Serialize)]
pub struct Marked {
    /// The interface by which the connection came in; `None` where it is gone.
    pub came_by: Option<String>,
    /// The way.
    pub way: Leg,
}

/// Explains where a packet goes.
///
/// # Errors
/// Where the question makes no sense, or the kernel cannot be talked to.
pub fn explain(
    question: &Question,
    facts: &Facts,
    oracle: &mut dyn Oracle,
) -> Result<Explanation, ExplainError> {
    question.check()?;
    let Question { source, destination, .. } = *question;
    let family = Family::of(source);
    let protocol = question.protocol.unwrap_or(Protocol::Udp);
    let flow = Flow {
        source,
        destination,
        input: input(question, facts, oracle)?,
        mark: question.mark,
        protocol: protocol.number(family),
        source_port: question.source_port.unwrap_or(0),
        destination_port: question.destination_port.unwrap_or(0),
        user: Some(question.user.unwrap_or(facts.user)),
    };
    let direction = match (flow.input.is_some(), facts.is_local(destination)) {
        (false, false) => Direction::Out,
        (false, true) => Direction::Inside,
        (true, true) => Direction::In,
        (true, false) => Direction::Forward,
    };
    let way = Leg::look(oracle, facts, &flow)?;
    let back = Flow {
        source: destination,
        destination: source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        mark: 0,
        input: answer_input(direction, facts, &way),
        ..flow
    };
    let answer = match direction {
        Direction::Inside => None,
        _ if !way.goes => None,
        _ => Some(Leg::look(oracle, facts, &back)?),
    };
    let mut marked = Vec::new();
    if direction == Direction::Forward {
        for (mark, table) in leg::marks(facts, family).into_iter().filter(|is| is.0 != flow.mark) {
            let came_by = leg::of_table(facts, table).map(|link| link.name.clone());
            let way = Leg::look(oracle, facts, &Flow { mark, ..flow })?;
            marked.push(Marked { came_by, way });
        }
    }
    let subject = Subject { facts, question, direction, flow: &flow, back: &back, way: &way };
    let obstacles = obstacles::obstacles(&subject, answer.as_ref(), oracle)?;
    let delivers = obstacles.iter().all(|is| is.stops != Some(Stops::Packet));
    Ok(Explanation {
        version: 1,
        source,
        destination,
        protocol,
        source_port: question.source_port,
        destination_port: question.destination_port,
        direction,
        delivers,
        summary: words::summary(&subject, answer.as_ref(), delivers),
        why: words::why(&subject, answer.as_ref(), &marked),
        obstacles,
        way,
        answer,
        marked,
    })
}

/// What is being explained.
pub(super) struct Subject<'a> {
    facts: &'a Facts,
    question: &'a Question,
    direction: Direction,
    flow: &'a Flow<'a>,
    /// Its answer.
    back: &'a Flow<'a>,
    way: &'a Leg,
}

/// The interface by which the packet comes in; `None`: it is made here.
fn input<'a>(
    question: &Question,
    facts: &'a Facts,
    oracle: &mut dyn Oracle,
) -> Result<Option<&'a Link>, ExplainError> {
    let Question { source, destination, .. } = *question;
    if let Some(name) = &question.input {
        let link = facts.link_named(name);
        let link = link.ok_or_else(|| ExplainError::NoSuchInterface(name.clone()))?;
        // That is how the rules call what is made here.
        return Ok((link.name != walk::LOOPBACK).then_some(link));
    }
    if facts.is_local(source) {
        return Ok(None);
    }
    let loops = |link: &&Link| link.name == walk::LOOPBACK;
    if facts.is_local(destination)
        && let Some(owner) = facts.owner(destination).filter(|link| !loops(link))
    {
        return Ok(Some(owner));
    }
    // It comes in where an answer would go out: seen from where it goes, or from here.
    let mut out = |query: &RouteQuery| -> Result<Option<&'a Link>, Error> {
        let way = oracle.way(query)?.ok().filter(|way| way.kind == RouteKind::Unicast);
        Ok(way.and_then(|way| facts.link(way.next_hop?.interface)))
    };
    let anyhow = |to: IpAddr| RouteQuery { source: None, ..RouteQuery::from_here(to, to) };
    let mut found = None;
    if facts.is_local(destination) {
        found = out(&RouteQuery::from_here(destination, source))?;
    } else if let Some(far) = out(&anyhow(destination))? {
        let back = RouteQuery::from_here(destination, source);
        found = out(&RouteQuery { input_interface: Some(far.index), ..back })?;
    }
    if found.is_none() {
        found = out(&anyhow(source))?;
    }
    found.map(Some).ok_or(ExplainError::NoInput(source))
}

/// The interface by which an answer comes in; `None`: it is made here.
fn answer_input<'a>(direction: Direction, facts: &'a Facts, way: &Leg) -> Option<&'a Link> {
    let by = way.hop.and_then(|hop| facts.link(hop.interface));
    match direction {
        Direction::In | Direction::Inside => None,
        Direction::Forward => by,
        // The cloud brings it to the interface that has the address.
        Direction::Out => facts.owner(way.source).filter(|link| link.name != walk::LOOPBACK).or(by),
    }
}
