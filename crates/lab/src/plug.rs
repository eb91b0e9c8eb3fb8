//! How an interface is plugged in, and when it was.

use crate::emulator::Lag;
use std::time::Instant;

/// How an interface is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    pub(crate) device_number: u32,
    pub(crate) network_card: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) lag: Lag,
}

impl Plug {
    /// As this device, named `ethN` after it, its metadata there at once.
    #[must_use]
    pub fn new(device_number: u32) -> Self {
        Self { device_number, network_card: None, name: None, lag: Lag::none() }
    }

    /// On this network card.
    #[must_use]
    pub fn on_card(mut self, network_card: u32) -> Self {
        self.network_card = Some(network_card);
        self
    }

    /// Named so by the kernel.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// With metadata that lags.
    #[must_use]
    pub fn with_lag(mut self, lag: Lag) -> Self {
        self.lag = lag;
        self
    }
}

/// An interface that was plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// The name that the kernel gave it.
    pub name: String,
    /// Just before the kernel was told to make it.
    pub began: Instant,
    /// When it was there.
    pub appeared: Instant,
}
