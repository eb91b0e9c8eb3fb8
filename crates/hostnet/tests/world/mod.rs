//! Random machines, clouds and configurations, and a model of the kernel to try plans on.

// Each test program uses its part of this.
#![allow(dead_code)]

pub(crate) mod case;
pub(crate) mod dice;
pub(crate) mod kernel;
pub(crate) mod lookup;
pub(crate) mod sources;
