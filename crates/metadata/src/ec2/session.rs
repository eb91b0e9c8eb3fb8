//! The session token: one for all threads, made when it is needed, renewed before it ends.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// The longest token accepted, in bytes. EC2's have 56.
const MAX_TOKEN: usize = 2048;
/// A token is renewed this long before it ends, or at a tenth of its life where that is shorter.
const EARLY: Duration = Duration::from_secs(300);

/// A session token. It can be sent, and not be printed.
#[derive(Clone)]
pub(super) struct Token {
    secret: Arc<str>,
    generation: u64,
}

impl Token {
    /// The token as it goes into a request, and nowhere else.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// A token as the service gave it, and how long it lasts.
pub(super) struct Grant {
    pub(super) secret: String,
    pub(super) lasts: Duration,
}

impl Grant {
    /// Checks that the token can go into a header field.
    pub(super) fn parse(body: Vec<u8>, lasts: Duration) -> Result<Self, &'static str> {
        let valid = (1..=MAX_TOKEN).contains(&body.len())
            && body.iter().all(|byte| byte.is_ascii_graphic());
        match String::from_utf8(body) {
            Ok(secret) if valid => Ok(Self { secret, lasts }),
            _ => Err("the session token is garbage"),
        }
    }
}

/// The session of a client.
#[derive(Default)]
pub(super) struct Session {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    token: Option<(Token, Instant)>,
    generation: u64,
    asking: bool,
    /// How many times the service was asked, and how the last time failed.
    rounds: u64,
    failure: Option<Error>,
}

impl Session {
    /// The token: the one that there is, or one that `ask` gets. Only one thread asks; the others
    /// wait for what it gets, be it a failure, but not beyond their own deadline.
    pub(super) fn token(
        &self,
        deadline: Instant,
        ask: impl FnOnce() -> Result<Grant, Error>,
    ) -> Result<Token, Waited> {
        let mut state = self.lock();
        let mut seen = state.rounds;
        loop {
            let now = Instant::now();
            if let Some((token, renew_at)) = &state.token
                && now < *renew_at
            {
                return Ok(token.clone());
            }
            if state.rounds != seen {
                if let Some(failure) = &state.failure {
                    return Err(Waited::Failed(failure.clone()));
                }
                seen = state.rounds;
            }
            if !state.asking {
                break;
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Waited::TooLate);
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.asking = true;
        drop(state);
        let granted = ask();
        let mut state = self.lock();
        state.asking = false;
        state.rounds += 1;
        let result = match granted {
            Ok(grant) => {
                state.generation += 1;
                let token = Token { secret: grant.secret.into(), generation: state.generation };
                let life = grant.lasts.saturating_sub(EARLY.min(grant.lasts / 10));
                state.token = Some((token.clone(), Instant::now() + life));
                state.failure = None;
                Ok(token)
            }
            Err(error) => {
                state.failure = Some(error.clone());
                Err(Waited::Failed(error))
            }
        };
        drop(state);
        self.changed.notify_all();
        result
    }

    /// The token, where there is one.
    pub(super) fn current(&self) -> Option<Token> {
        let state = self.lock();
        let (token, renew_at) = state.token.as_ref()?;
        (Instant::now() < *renew_at).then(|| token.clone())
    }

    /// The service refused this token. A newer one stays.
    pub(super) fn expire(&self, refused: &Token) {
        let mut state = self.lock();
        if state.token.as_ref().is_some_and(|(token, _)| token.generation == refused.generation) {
            state.token = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no token.
pub(super) enum Waited {
    /// The deadline passed while another thread asked.
    TooLate,
    /// Asking failed.
    Failed(Error),
}
