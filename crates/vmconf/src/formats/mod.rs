//! The formats, a module each: what each carries, who reads it, and what it loses.

pub mod cloud_hypervisor;
pub mod cloud_init;
pub mod dracut;
pub mod firecracker;
pub mod ip;
pub mod json;
pub mod kernel_args;
pub mod networkd;
pub mod qemu;
pub mod resolv_conf;
