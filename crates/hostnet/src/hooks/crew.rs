//! Who runs programs: threads that end when nothing is left to run. What is to be told of one
//! interface is told in order; interfaces do not wait for each other, as long as there are threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, warn};
use rustix::event::{EventfdFlags, eventfd};

use super::events::{Event, Queue};
use super::programs::Programs;
use super::run::run;
use crate::config::HooksConfig;

/// So many programs run at once.
const AT_ONCE: usize = 16;
const STACK: usize = 128 * 1024;
/// How long programs have to end when their agent does: what they get after being asked to, and then
/// some.
const LAST: Duration = Duration::from_secs(4);

/// Runs programs.
#[derive(Default)]
pub(super) struct Crew(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Queue>,
    /// Interfaces of which there is something to tell and nothing is being told, in the order in
    /// which they came.
    waiting: VecDeque<String>,
    /// Interfaces of which something is being told.
    busy: BTreeSet<String>,
    threads: usize,
    config: HooksConfig,
    /// Becomes readable when all is to end.
    stop: Option<Arc<OwnedFd>>,
    stopping: bool,
    /// Refusals that were told of.
    said: BTreeSet<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crew {
    /// Adds what is to be told, and returns at once.
    pub(super) fn add(&self, config: &HooksConfig, event: Event) {
        let key = event.interface.key();
        debug!("hooks: {} {}", event.kind.name(), event.interface.called());
        let mut state = self.0.state();
        if state.stop.is_none() {
            match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
                Ok(stop) => state.stop = Some(Arc::new(stop)),
                Err(error) => return warn!("no hook is run, nobody could end it: {error}"),
            }
        }
        state.config.clone_from(config);
        state.queues.entry(key.clone()).or_default().push(event);
        if !state.busy.contains(&key) && !state.waiting.contains(&key) {
            state.waiting.push_back(key);
        } else if state.threads > 0 {
            // Who tells of the interface goes on with it.
            return;
        }
        if state.threads >= AT_ONCE {
            return;
        }
        // Counted before it runs: it may have ended before this thread goes on.
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("hooks".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || work(&shared)) {
            warn!("hooks have to wait, no thread can be started: {error}");
            self.0.state().threads -= 1;
        }
    }

    /// Waits until nothing is left to run. Where no thread could be started, this one runs it.
    pub(super) fn wait(&self) {
        let mut state = self.0.state();
        while state.threads > 0 || !state.waiting.is_empty() {
            if state.threads == 0 {
                state.threads += 1;
                drop(state);
                work(&self.0);
                state = self.0.state();
                continue;
            }
            state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Crew {
    /// What runs is told to end; nothing else is begun.
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.stopping = true;
        if let Some(stop) = &state.stop {
            let _ = rustix::io::write(&**stop, &1_u64.to_ne_bytes());
        }
        let at_work = |state: &mut State| state.threads > 0;
        // One that does not end dies with the thread that started it.
        drop(self.0.ended.wait_timeout_while(state, LAST, at_work));
    }
}

/// Tells what there is to tell, until nothing is left.
fn work(shared: &Shared) {
    let mut state = shared.state();
    while let (false, Some(key)) = (state.stopping, state.waiting.pop_front()) {
        let event = state.queues.get_mut(&key).and_then(Queue::pop);
        let (config, stop) = (state.config.clone(), state.stop.clone());
        if let (Some(event), Some(stop)) = (event, stop) {
            state.busy.insert(key.clone());
            drop(state);
            tell(shared, &config, &event, &stop);
            state = shared.state();
            state.busy.remove(&key);
        }
        match state.queues.get(&key) {
            Some(queue) if !queue.is_empty() => state.waiting.push_back(key),
            _ => {
                state.queues.remove(&key);
            }
        }
    }
    state.threads -= 1;
    drop(state);
    shared.ended.notify_all();
}

/// Runs every program, one after the other; none is kept from running by one before it.
fn tell(shared: &Shared, config: &HooksConfig, event: &Event, stop: &OwnedFd) {
    let (user, _) = jackfield_kernel::effective_user_and_group();
    let programs = Programs::in_directory(&config.directory, user);
    for refused in programs.refused {
        let text = format!("hook {} is not run: {}", refused.path.display(), refused.why);
        if shared.state().said.insert(text.clone()) {
            warn!("{text}");
        }
    }
    for program in programs.run {
        if shared.state().stopping {
            return;
        }
        run(&program, event, config.timeout, stop.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::hooks::events::Kind;
    use crate::hooks::facts::Facts;

    #[test]
    fn who_waits_runs_what_no_thread_could_be_started_for() {
        let name = format!("jackfield-crew-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let out = directory.join("out.d");
        let hook = directory.join("10-a");
        let script = format!("#!/bin/sh\necho $JACKFIELD_EVENT >> {}\n", out.display());
        std::fs::write(&hook, script).unwrap();
        for path in [&directory, &hook] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let config = HooksConfig { directory: directory.clone(), ..HooksConfig::default() };
        let crew = Crew::default();
        // As after a thread that did not start.
        let mut state = crew.0.state();
        state.stop = Some(Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
        state.config = config;
        for kind in [Kind::Gone, Kind::Ready] {
            let event = Event { kind, interface: Facts::default(), before: None };
            state.queues.entry("eth1".to_owned()).or_default().push(event);
        }
        state.waiting.push_back("eth1".to_owned());
        drop(state);
        crew.wait();
        let told = std::fs::read_to_string(&out);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(told.unwrap(), "gone\nready\n");
    }
}
