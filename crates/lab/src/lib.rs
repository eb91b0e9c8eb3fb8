//! Instances that hot-plug, made of network namespaces, with a metadata service emulator.
//!
//! * [`emulator`] — the metadata service of EC2: state changed at run time, propagation lag,
//!   faults, and a log of every request. It runs on any listener, loopback included.

pub mod emulator;
