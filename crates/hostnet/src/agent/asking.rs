//! What metadata is asked, and what becomes of its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_kernel::Error as KernelError;
use jackfield_metadata::{Conversation, Listing, MacAddr, Progress};
use log::{debug, warn};

use super::{Agent, AgentError};
use crate::machine::{Answer, TOGETHER, ask_in_parts};
use crate::schedule::{Outcome, Round};

/// How long one round of requests may take. What is not known by then is asked again.
const ROUND: Duration = Duration::from_secs(2);
/// The stack of a thread that only asks metadata.
const STACK: usize = 256 * 1024;

/// A round that is under way.
pub(super) struct Asking {
    pub(super) conversation: Conversation,
    round: Round,
    /// The instance's own MAC, which is known.
    primary: MacAddr,
}

/// What a round told, with the devices that it was about.
pub(super) struct Answered {
    answer: Answer,
    round: Round,
}

impl Agent {
    pub(super) fn ask_what_is_due(&mut self) {
        if let Some(round) = self.schedule.due(Instant::now(), &mut fastrand::f64) {
            self.ask(round);
        }
    }

    fn ask(&mut self, round: Round) {
        debug!("asking metadata: {round:?}");
        let deadline = Instant::now() + ROUND;
        match self.client.known_primary() {
            Some(primary)
                if self.asking.is_none()
                    && round.search.is_empty()
                    && round.asks.len() <= TOGETHER =>
            {
                let conversation = self.client.begin(&round.asks, deadline);
                self.asking = Some(Asking { conversation, round, primary });
                self.carry_on();
            }
            _ => {
                let (client, asked) = (Arc::clone(&self.client), round.clone());
                self.leave(round, move |tell| ask_in_parts(&client, &asked, ROUND, tell));
            }
        }
    }

    /// Carries on the round that this thread asks, as far as is possible without waiting.
    pub(super) fn carry_on(&mut self) {
        let Some(mut asking) = self.asking.take() else { return };
        let progress = asking.conversation.advance();
        if progress == Progress::Waiting {
            self.asking = Some(asking);
            return;
        }
        let Asking { conversation, round, primary } = asking;
        let finish = move || {
            let interfaces = conversation.finish();
            Answer { primary: Some(Ok(primary)), interfaces }
        };
        if progress == Progress::Done {
            // We hold the receiver.
            let _ = self.answers.0.send(Answered { answer: finish(), round });
        } else {
            let asked = round.clone();
            self.leave(round, move |tell| tell(asked, finish()));
        }
    }

    /// Leaves a round to a thread of its own, which tells what was answered, at once or in parts.
    fn leave(
        &mut self,
        round: Round,
        ask: impl FnOnce(&mut dyn FnMut(Round, Answer)) + Send + 'static,
    ) {
        let sender = self.answers.0.clone();
        let wake = Arc::clone(&self.wake);
        let work = move || {
            ask(&mut |round, answer| {
                // The agent is gone where nobody receives.
                if sender.send(Answered { answer, round }).is_ok() {
                    let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("metadata".to_owned()).stack_size(STACK).spawn(work);
        if let Err(error) = thread {
            // A machine that is out of threads keeps its network: as if nobody had answered.
            warn!("cannot ask metadata, no thread can be started: {error}");
            self.look = true;
            self.take_answer(Answered { answer: Answer::default(), round });
        }
    }

    pub(super) fn take_answers(&mut self) -> Result<(), AgentError> {
        let answers: Vec<Answered> = self.answers.1.try_iter().collect();
        if !answers.is_empty() && !self.news.is_empty() {
            // What is told of a device that nobody has seen yet counts for nothing.
            match self.see() {
                Ok(snapshot) => self.seen = Some(snapshot),
                // The look that follows says so.
                Err(AgentError::Kernel(KernelError::Unsettled { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        if !answers.is_empty() && self.configuration.lacks_doors() {
            self.open_doors();
        }
        for answered in answers {
            if answered.round.macs().any(|mac| self.schedule.is_content(mac)) {
                // What nobody notified is made good by the refresh, also where that tells nothing
                // new.
                self.seen = None;
                self.machine.forget_neighbours();
            }
            self.look = true;
            self.take_answer(answered);
        }
        Ok(())
    }

    fn take_answer(&mut self, Answered { answer, round }: Answered) {
        let now = Instant::now();
        self.told.forget();
        self.machine.learn(now, &answer);
        let cloud = self.machine.memory().cloud();
        self.take_note_of_service(now, &answer, &round);
        for mac in round.macs() {
            let outcome = match answer.interfaces.get(&mac) {
                None | Some(Err(_)) => Outcome::Failed,
                Some(Ok(Listing::NotListed)) => Outcome::NotListed,
                Some(Ok(Listing::Listed(facts))) if !facts.is_complete() => Outcome::Faulty,
                Some(Ok(Listing::Listed(_))) if cloud.is_content(mac) => Outcome::Content,
                Some(Ok(Listing::Listed(_))) => Outcome::Lagging,
            };
            debug!("metadata on {mac}: {outcome:?}");
            self.schedule.answered(now, mac, outcome, &mut fastrand::f64);
        }
    }
}
