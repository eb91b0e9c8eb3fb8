//! What the agent answers, when it has nothing more urgent to do.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jackfield_kernel::Error as KernelError;
use jackfield_metadata::Error as MetadataError;
use log::{debug, info, warn};
use serde_json::{Value, json};

use super::{Agent, AgentError, Made};
use crate::api::{Reply, Request};
use crate::change::Change;
use crate::desired::Scope;
use crate::machine::{Answer, View};
use crate::metrics::{self, Facts};
use crate::schedule::Round;
use crate::status::{AgentStatus, MetadataStatus, Status, put_together};

/// For so long a look at everything counts for whoever asks. What is notified is seen at once; this is
/// about what is not, and keeps those who ask without end from having everything listed without end.
const FRESH: Duration = Duration::from_millis(250);

/// For so long after the start, what metadata says first is waited for.
const FIRST: Duration = Duration::from_secs(1);

/// For so long who asks waits for an interface that is on its way: a look holds the lock that it needs.
const COURTESY: Duration = Duration::from_millis(50);

/// When the agent began.
#[derive(Debug)]
pub(super) struct Began {
    at: Instant,
    /// Seconds since 1970.
    time: u64,
}

impl Began {
    pub(super) fn now() -> Self {
        Began { at: Instant::now(), time: time() }
    }
}

/// Seconds since 1970.
pub(super) fn time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What all who ask are told while nothing happens.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The state of all interfaces.
    status: Option<Reply>,
    metrics: Option<String>,
    /// What metrics were told of last, however long ago.
    last: Option<Status>,
}

impl Told {
    /// Something happened.
    pub(super) fn forget(&mut self) {
        (self.status, self.metrics) = (None, None);
    }
}

/// What is known of the metadata service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// Why it did not answer when it was last asked.
    error: Option<MetadataError>,
    /// When it last answered.
    heard: Option<Instant>,
}

impl Service {
    fn status(&self, now: Instant) -> MetadataStatus {
        let asked = self.error.is_some() || self.heard.is_some();
        MetadataStatus {
            reachable: asked.then_some(self.error.is_none()),
            age_s: self.heard.map(|heard| now.saturating_duration_since(heard).as_secs()),
            error: self.error.as_ref().map(ToString::to_string),
        }
    }
}

impl Agent {
    /// Takes note of whether the metadata service answered, and says so where that is new.
    pub(super) fn take_note_of_service(&mut self, now: Instant, answer: &Answer, round: &Round) {
        // One that no thread could ask told nothing.
        let asked = answer.primary.is_some()
            || round.macs().any(|mac| answer.interfaces.contains_key(&mac));
        if !asked {
            return;
        }
        let failing = self.metadata.error.is_some();
        match answer.error() {
            Some(error) if !failing => warn!(
                event = "metadata-unreachable",
                code = error.kind();
                "{error}; what works stays as it is, and it is asked again"
            ),
            None if failing => {
                info!(event = "metadata-reachable"; "the metadata service answers again");
            }
            _ => {}
        }
        self.metadata.error = answer.error().cloned();
        if self.metadata.error.is_none() {
            self.metadata.heard = Some(now);
        }
    }

    /// When who asks is answered; `None`: nobody asks. What has just been changed is left in peace, what
    /// is about to be plugged comes first, and before metadata has said anything there is little to tell.
    pub(super) fn serves_from(&self) -> Option<Instant> {
        let made = self.made.as_ref().map(Made::peace);
        let heard = self.metadata.error.is_some() || self.metadata.heard.is_some();
        let first = (!heard).then(|| self.began.at + FIRST);
        // Who asked for a reload waits until it is in effect.
        let waits = |id: u64| !self.is_in_effect() && self.configuration.answering.contains(&id);
        let asked = self.server.asked(|id| !waits(id))?;
        let is_busy = self.meeting.is_some() || self.schedule.is_asking();
        let held = is_busy.then(|| asked + COURTESY);
        [made, first, held].into_iter().flatten().max().or(Some(asked))
    }

    /// Whether the configuration that was read last is in effect.
    fn is_in_effect(&self) -> bool {
        self.configuration.is_in_effect && !self.look && self.made.is_none()
    }

    /// Answers who asks, one request of each.
    pub(super) fn serve(&mut self) -> Result<(), AgentError> {
        if self.serves_from().is_none_or(|from| Instant::now() < from) {
            return Ok(());
        }
        // One look is enough for all of them.
        let mut view = None;
        let requests = self.server.requests();
        self.configuration.answering.retain(|waits| requests.iter().any(|(id, _)| id == waits));
        for (id, request) in requests {
            if self.configuration.answering.contains(&id) {
                if self.is_in_effect() {
                    self.configuration.answering.remove(&id);
                    self.server.answer(id, &Reply::Object(json!({})));
                }
                continue;
            }
            let reply = match self.reply(&request, &mut view) {
                Ok(None) => {
                    self.configuration.answering.insert(id);
                    continue;
                }
                Ok(Some(reply)) => reply,
                Err(AgentError::Kernel(error @ KernelError::Unsettled { .. })) => {
                    debug!("{error}");
                    Reply::Error("Busy", error.to_string())
                }
                Err(error) => return Err(error),
            };
            self.server.answer(id, &reply);
        }
        if let Some(view) = view {
            // What nobody notified.
            self.look |= !view.plan.is_empty() && self.made.is_none() && self.retry.is_none();
            self.seen.get_or_insert(view.snapshot);
        }
        Ok(())
    }

    /// The answer; none where it follows later.
    fn reply(
        &mut self,
        request: &Request,
        view: &mut Option<View>,
    ) -> Result<Option<Reply>, AgentError> {
        Ok(Some(match request {
            Request::Info => Reply::Object(self.info()),
            Request::Status { interfaces } => {
                let of_all = interfaces.is_empty();
                if let Some(told) =
                    self.told.status.as_ref().filter(|_| of_all && self.is_fresh(view))
                {
                    return Ok(Some(told.clone()));
                }
                let (view, mut status) = self.status(view)?;
                match status.select(view, interfaces) {
                    Ok(()) => {
                        let told = Reply::Object(serde_json::to_value(&status).unwrap_or_default());
                        if of_all {
                            self.told.status = Some(told.clone());
                        }
                        told
                    }
                    Err(name) => {
                        let text = format!("there is no interface '{name}'");
                        Reply::Error("NoSuchInterface", text)
                    }
                }
            }
            Request::Plan => {
                let changes = &self.view(view)?.plan.changes;
                let changes: Vec<Value> = changes.iter().map(Change::to_json).collect();
                Reply::Object(json!({ "version": 1, "changes": changes }))
            }
            Request::Reload => {
                // What was seen was seen by the old one.
                *view = None;
                match self.reload_and_log() {
                    Ok(()) => return Ok(None),
                    Err(error) => Reply::Error("ConfigurationInvalid", error),
                }
            }
            Request::Metrics => Reply::Metrics(self.metrics(view)?),
        }))
    }

    fn info(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started_at": self.began.time,
            "uptime_s": self.began.at.elapsed().as_secs(),
        })
    }

    /// Whether everything was looked at a moment ago.
    fn has_just_looked(&self) -> bool {
        self.looked.is_some_and(|looked| looked.elapsed() <= FRESH)
    }

    /// Whether what was told is what would be told now.
    fn is_fresh(&self, view: &Option<View>) -> bool {
        let nothing_new = self.seen.is_some() && self.news.is_empty() && !self.look;
        view.is_some() || nothing_new && self.made.is_none() && self.has_just_looked()
    }

    /// What the machine is like, looked at for the first who asks.
    fn view<'v>(&mut self, view: &'v mut Option<View>) -> Result<&'v View, AgentError> {
        let view = match view.take() {
            Some(seen) => view.insert(seen),
            None => {
                let snapshot = match self.has_just_looked() {
                    true => self.see()?,
                    false => self.see_afresh()?,
                };
                view.insert(self.machine.view(snapshot, &Scope::Everything))
            }
        };
        Ok(view)
    }

    fn status<'v>(&mut self, view: &'v mut Option<View>) -> Result<(&'v View, Status), AgentError> {
        let view = self.view(view)?;
        let now = Instant::now();
        let metadata = self.metadata.status(now);
        let left = self.contest.left();
        let mut status = put_together(&self.machine, view, metadata, &left, now);
        status.agent = Some(AgentStatus {
            pid: Some(std::process::id()),
            answers: true,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            uptime_s: Some(self.began.at.elapsed().as_secs()),
            configuration_error: self.configuration.error.clone(),
        });
        Ok((view, status))
    }

    fn metrics(&mut self, view: &mut Option<View>) -> Result<String, AgentError> {
        if let Some(told) = self.told.metrics.as_ref().filter(|_| self.is_fresh(view)) {
            return Ok(told.clone());
        }
        let looked = match self.status(view) {
            Ok((view, mut status)) => {
                // None is named, so that none is missing.
                let _ = status.select(view, &[]);
                self.told.last = Some(status);
                true
            }
            // A network that changes all the time is no agent that is gone.
            Err(AgentError::Kernel(error @ KernelError::Unsettled { .. })) => {
                debug!("metrics are told of what was seen last: {error}");
                false
            }
            Err(error) => return Err(error),
        };
        let metadata = self.metadata.status(Instant::now());
        let status = match self.told.last.take() {
            Some(last) => Status { metadata, ..last },
            None => Status {
                version: 1,
                interfaces: Vec::new(),
                neighbours: Vec::new(),
                agent: None,
                metadata,
            },
        };
        let text = metrics::tell(&Facts {
            counts: &self.counts,
            status: &status,
            started_at: self.began.time,
            configured_at: self.configuration.read_at,
            left_alone: self.contest.left().len(),
            netlink_writes: self.machine.writes(),
            metadata_requests: self.client.requests(),
            metadata_retries: self.client.retries(),
            metadata_errors: self.client.errors().collect(),
        });
        self.told.metrics = looked.then(|| text.clone());
        self.told.last = Some(status);
        Ok(text)
    }
}
