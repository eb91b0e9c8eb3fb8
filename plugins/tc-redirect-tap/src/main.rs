//! A CNI plugin that puts a tap device for a microVM in the place of a container's interface.
//!
//! It stands last in a chain, after a plugin that has made the interface `CNI_IFNAME` in the
//! namespace. ADD makes a tap device beside it and redirects every frame that arrives by the one to
//! the other, so that the VM is in the interface's place: with its MAC, its MTU, its addresses.
//!
//! A drop-in for the Go plugin of the same name: the same configuration, `CNI_ARGS` and result.
//!
//! What is made here says so, and nothing else is changed or removed: see [`mark`]. So a DEL finds it
//! without a result, without a configuration, and after a crash at any instant.

// The program begins with `entry`; tests begin with their own.
#![cfg_attr(not(test), no_main)]

mod add;
mod check;
mod del;
mod failure;
mod gc;
mod mark;
mod result;
mod sandbox;
mod settings;
mod status;
mod survey;
mod work;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use jackfield_cni::plugin::{
    self, DelRequest, ErrorCode, GcRequest, Plugin, PluginError, Request, StatusRequest,
};
use jackfield_cni::types::{CniResult, Version};
use jackfield_kernel::ShortLivedAllocator;

#[global_allocator]
static ALLOCATOR: ShortLivedAllocator = ShortLivedAllocator::new();

#[cfg(not(test))]
mod entry {
    jackfield_kernel::short_lived_main!(super::main);
}

struct TcRedirectTap;

impl Plugin for TcRedirectTap {
    fn about(&self) -> String {
        format!("CNI plugin tc-redirect-tap {}", env!("CARGO_PKG_VERSION"))
    }

    /// Those that know chains of plugins.
    fn versions(&self) -> &[Version] {
        &[Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0]
    }

    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add::add(request)
    }

    fn del(&self, request: &DelRequest) -> Result<(), PluginError> {
        del::del(request)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check::check(request)
    }

    fn gc(&self, request: &GcRequest) -> Result<(), PluginError> {
        gc::gc(request)
    }

    fn status(&self, _: &StatusRequest) -> Result<(), PluginError> {
        status::status()
    }
}

#[cfg_attr(test, allow(dead_code))]
fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some_and(|command| command == "DEL") {
        del_in_any_case()
    } else {
        plugin::run(&TcRedirectTap)
    }
}

/// A DEL finds what is ours by the environment alone, so a configuration that cannot be read is no
/// reason to leave it there.
fn del_in_any_case() -> ExitCode {
    let mut config = Vec::new();
    let mut answer = Vec::new();
    let variable = |name: &str| -> Option<OsString> { std::env::var_os(name) };
    let read = io::stdin().lock().read_to_end(&mut config);
    let mut done = plugin::run_with(&TcRedirectTap, variable, config.as_slice(), &mut answer);
    let unreadable = |error: &PluginError| {
        [ErrorCode::DECODING_FAILURE, ErrorCode::INVALID_CONFIGURATION].contains(&error.code)
    };
    if read.is_err() || done.as_ref().is_err_and(unreadable) {
        answer.clear();
        let stand_in = br#"{"cniVersion":"1.0.0","name":"unknown"}"#;
        done = plugin::run_with(&TcRedirectTap, variable, stand_in.as_slice(), &mut answer);
    }
    // The exit status still tells of it where it cannot be written.
    let _ = io::stdout().lock().write_all(&answer);
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
