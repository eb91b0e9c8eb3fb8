//! The configuration is read again, and the sockets that it names.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use log::{debug, info, warn};
use sd_notify::NotifyState;

use super::{Agent, notify, requests};
use crate::api::Door;
use crate::config::{AgentConfig, Config, MetricsAddress};
use crate::contest::Contest;

/// Where the configuration is, and what became of it.
#[derive(Debug)]
pub(super) struct Configuration {
    file: Option<PathBuf>,
    /// When the one that is in effect was read, seconds since 1970.
    pub(super) read_at: u64,
    /// Why the one that was read last is not in effect.
    pub(super) error: Option<String>,
    /// Whether what was read was looked at since.
    pub(super) is_in_effect: bool,
    /// Who asked for it, and is answered when it is in effect.
    pub(super) answering: BTreeSet<u64>,
    /// Why doors that are configured are not open.
    closed: BTreeSet<String>,
    /// Where the doors lead that are open.
    api: Option<PathBuf>,
    metrics: Option<MetricsAddress>,
}

impl Configuration {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Configuration {
            file,
            read_at: requests::time(),
            error: None,
            is_in_effect: false,
            answering: BTreeSet::new(),
            closed: BTreeSet::new(),
            api: None,
            metrics: None,
        }
    }

    /// Whether a door that is configured is not open.
    pub(super) fn lacks_doors(&self) -> bool {
        !self.closed.is_empty()
    }
}

/// What cannot be changed while an agent runs: everything that is plugged is built by these numbers, and
/// is told from what others have by them.
fn needs_a_restart(now: &AgentConfig, wanted: &AgentConfig) -> Option<&'static str> {
    let differ = [
        ("link_group", now.link_group != wanted.link_group),
        ("table_base", now.table_base != wanted.table_base),
        ("rule_priority", now.rule_priority != wanted.rule_priority),
        ("mark_mask", now.mark_mask != wanted.mark_mask),
        // Interfaces of one more kind are newcomers; what is plugged of one less would be nobody's.
        ("device_kinds", !now.device_kinds.iter().all(|kind| wanted.device_kinds.contains(kind))),
    ];
    differ.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
}

impl Agent {
    /// Opens the sockets that are configured, where they are not open. The network works without them.
    pub(super) fn open_doors(&mut self) {
        let config = self.machine.config().agent.clone();
        let mut failed = BTreeSet::new();
        let opened = [self.open_api(&config), self.open_metrics(&config)];
        for error in opened.into_iter().filter_map(Result::err) {
            if !self.configuration.closed.contains(&error) {
                warn!(event = "no-socket"; "{error}; it is tried again");
            }
            failed.insert(error);
        }
        self.configuration.closed = failed;
    }

    fn open_api(&mut self, config: &AgentConfig) -> Result<(), String> {
        let wanted = config.api_path();
        if self.configuration.api == wanted {
            return Ok(());
        }
        let open = |path: &PathBuf| {
            let failed = |error| format!("the API cannot listen on {}: {error}", path.display());
            Door::api(path).map_err(failed)
        };
        let before = self.configuration.api.take();
        let result = replace(&mut self.server.api, before.as_ref(), wanted.as_ref(), open);
        self.configuration.api = if result.is_ok() { wanted } else { before };
        self.configuration.api.take_if(|_| self.server.api.is_none());
        result
    }

    fn open_metrics(&mut self, config: &AgentConfig) -> Result<(), String> {
        let wanted = config.metrics.clone();
        if self.configuration.metrics == wanted {
            return Ok(());
        }
        let open = |address: &MetricsAddress| {
            let failed = |error| format!("agent.metrics: cannot listen on {address}: {error}");
            Door::metrics(address).map_err(failed)
        };
        let before = self.configuration.metrics.take();
        let result = replace(&mut self.server.metrics, before.as_ref(), wanted.as_ref(), open);
        self.configuration.metrics = if result.is_ok() { wanted } else { before };
        self.configuration.metrics.take_if(|_| self.server.metrics.is_none());
        result
    }

    /// Reads the configuration again, and says so.
    pub(super) fn reload_and_log(&mut self) -> Result<(), String> {
        // systemd counts from this on (sd_notify(3)).
        let since = NotifyState::monotonic_usec_now();
        match since {
            Ok(since) => notify(&[NotifyState::Reloading, since]),
            Err(error) => debug!("cannot tell the service manager of a reload: {error}"),
        }
        let result = self.reload();
        self.told.forget();
        self.counts.reloaded(result.is_ok());
        match &result {
            Ok(()) => {
                self.configuration.read_at = requests::time();
                info!(event = "reloaded"; "the configuration was read again");
            }
            Err(error) => {
                warn!(event = "reload-failed"; "{error}; the configuration stays as it was");
            }
        }
        self.configuration.error = result.as_ref().err().cloned();
        if self.started {
            notify(&[NotifyState::Ready]);
        }
        result
    }

    fn reload(&mut self) -> Result<(), String> {
        let config =
            Config::load(self.configuration.file.as_deref()).map_err(|error| error.to_string())?;
        let before = self.machine.config().agent.clone();
        if let Some(key) = needs_a_restart(&before, &config.agent) {
            return Err(format!(
                "agent.{key} cannot change while the agent runs: restart it, or change it back"
            ));
        }
        // What could not be opened before and is wanted still is no fault of the file.
        let opened = match before.api_path() == config.agent.api_path() {
            true => Ok(()),
            false => self.open_api(&config.agent),
        };
        let opened = opened.and_then(|()| match before.metrics == config.agent.metrics {
            true => Ok(()),
            false => self.open_metrics(&config.agent),
        });
        if let Err(error) = opened {
            // Back to what was there.
            if before.api_path() != config.agent.api_path()
                && let Err(error) = self.open_api(&before)
            {
                warn!("{error}");
            }
            return Err(error);
        }
        let now = Instant::now();
        if before.refresh != config.agent.refresh {
            self.schedule.set_refresh(now, config.agent.refresh);
        }
        self.machine.configure(config);
        self.open_doors();
        // What differs from now on, nobody else has changed; and what is left alone is tried again.
        (self.settled, self.wanted, self.retry) = (None, None, None);
        self.contest = Contest::default();
        self.machine.forget_neighbours();
        self.configuration.is_in_effect = false;
        self.look_afresh();
        Ok(())
    }
}

/// Closes a door and opens another one, which may be at the same port. Where that fails, the first is
/// opened again.
fn replace<A>(
    door: &mut Option<Door>,
    before: Option<&A>,
    wanted: Option<&A>,
    open: impl Fn(&A) -> Result<Door, String>,
) -> Result<(), String> {
    *door = None;
    let opened = wanted.map(&open).transpose();
    match opened {
        Ok(opened) => *door = opened,
        Err(error) => {
            *door = before.and_then(|before| open(before).ok());
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_everything_is_built_by_need_a_restart() {
        let now = AgentConfig::default();
        let differs = |wanted: AgentConfig| needs_a_restart(&now, &wanted);
        let default = AgentConfig::default;
        assert_eq!(differs(default()), None);
        assert_eq!(differs(AgentConfig { table_base: 20_000, ..default() }), Some("table_base"));
        assert_eq!(differs(AgentConfig { link_group: 7, ..default() }), Some("link_group"));
        assert_eq!(differs(AgentConfig { rule_priority: 9, ..default() }), Some("rule_priority"));
        assert_eq!(differs(AgentConfig { mark_mask: 1, ..default() }), Some("mark_mask"));
        let kinds = |kinds: &[&str]| AgentConfig {
            device_kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ..default()
        };
        assert_eq!(differs(kinds(&["veth"])), Some("device_kinds"));
        assert_eq!(differs(kinds(&["veth", "physical"])), None);
        let metrics = Some(MetricsAddress::Unix("/run/m".into()));
        assert_eq!(differs(AgentConfig { metrics, ..default() }), None);
    }
}
