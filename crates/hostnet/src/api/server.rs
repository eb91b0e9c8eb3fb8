//! Everybody who asks, and how many there may be.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jackfield_kernel::Peer;
use log::debug;
use rustix::event::{PollFd, PollFlags};

use super::sockets::{Door, Speaks, is_trusted};
use super::visitor::{Fate, Visitor};
use super::{Reply, Request};

/// The most who are let in by one door at once…
const MOST: usize = 16;
/// …of those who are only told that they may not ask.
const MOST_REFUSED: usize = 4;
/// How long nobody is let in where that fails for want of something.
const REST: Duration = Duration::from_secs(1);

/// Everybody who asks.
#[derive(Debug)]
pub(crate) struct Server {
    /// Whose name keeps other agents from starting.
    name: Door,
    /// The API's socket at a path.
    pub(crate) api: Option<Door>,
    /// The socket of metrics.
    pub(crate) metrics: Option<Door>,
    visitors: BTreeMap<u64, Visitor>,
    /// How many have been let in.
    count: u64,
    /// Until when nobody is let in.
    rest: Option<Instant>,
}

impl Server {
    /// A server that is reached by its name alone.
    pub(crate) fn new(name: Door) -> Self {
        Server { name, api: None, metrics: None, visitors: BTreeMap::new(), count: 0, rest: None }
    }

    fn doors(&self) -> impl Iterator<Item = &Door> {
        [Some(&self.name), self.api.as_ref(), self.metrics.as_ref()].into_iter().flatten()
    }

    /// What is to be waited for…
    pub(crate) fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        let doors = self.doors().filter(|_| self.rest.is_none());
        let doors = doors.map(|door| PollFd::new(door, PollFlags::IN));
        // One whose request is not answered yet can only go, which would be told again and again.
        let visitors = self.visitors.values().filter(|visitor| visitor.request().is_none());
        doors.chain(visitors.map(|visitor| PollFd::new(visitor, visitor.awaits())))
    }

    /// …and until when at most. `None`: nobody is here.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.visitors.values().map(Visitor::until).chain(self.rest).min()
    }

    /// Lets in who waits, and gets on with everybody as far as is possible without waiting.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.rest = self.rest.filter(|rest| now < *rest);
        if self.rest.is_none() {
            self.let_in(now);
        }
        self.visitors
            .retain(|_, visitor| visitor.advance(now) == Fate::Stays && now < visitor.until());
    }

    fn let_in(&mut self, now: Instant) {
        let (mut came, mut failed) = (Vec::new(), false);
        for door in self.doors() {
            for _ in 0..MOST {
                match door.accept() {
                    Ok(None) => break,
                    Ok(Some(socket)) => came.push((socket, door.speaks)),
                    // Gone before it was let in.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        debug!("nobody is let in for {REST:?}: {error}");
                        failed = true;
                        break;
                    }
                }
            }
        }
        self.rest = failed.then_some(now + REST);
        for (socket, speaks) in came {
            let admitted = match speaks {
                Speaks::Http => true,
                Speaks::Varlink => Peer::of(&socket).is_ok_and(is_trusted),
            };
            self.visit(socket, speaks, admitted, now);
        }
    }

    /// Where there are too many, who got nowhere for longest has to go.
    fn visit(&mut self, socket: OwnedFd, speaks: Speaks, admitted: bool, now: Instant) {
        let most = if admitted { MOST } else { MOST_REFUSED };
        let like = |visitor: &&Visitor| (visitor.speaks, visitor.admitted) == (speaks, admitted);
        if self.visitors.values().filter(like).count() >= most {
            let of_them = self.visitors.iter().filter(|(_, visitor)| like(visitor));
            let longest = of_them.min_by_key(|(_, visitor)| visitor.active).map(|(id, _)| *id);
            longest.and_then(|id| self.visitors.remove(&id));
        }
        self.count += 1;
        self.visitors.insert(self.count, Visitor::new(socket, speaks, admitted, now));
    }

    /// Since when one of these waits for the agent's answer; `None`: none does.
    pub(crate) fn asked(&self, by: impl Fn(u64) -> bool) -> Option<Instant> {
        let visitors = self.visitors.iter();
        let asked = visitors.filter(|(id, visitor)| visitor.request().is_some() && by(**id));
        asked.map(|(_, visitor)| visitor.active).min()
    }

    /// What is asked, by whom: no more than one request of each.
    pub(crate) fn requests(&self) -> Vec<(u64, Request)> {
        let asked = self.visitors.iter();
        asked.filter_map(|(id, visitor)| Some((*id, visitor.request()?.clone()))).collect()
    }

    /// Answers one.
    pub(crate) fn answer(&mut self, id: u64, reply: &Reply) {
        let Some(visitor) = self.visitors.get_mut(&id) else { return };
        visitor.answer(reply);
        if visitor.advance(Instant::now()) == Fate::Goes {
            self.visitors.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
