//! The form in which a guest's configuration is printed.

use jackfield_vmconf::formats::{dracut, firecracker, ip, kernel_args, qemu};
use jackfield_vmconf::{Format, IpForm, LengthLimit, RenderError, Rendered, VmConf, render};

use crate::arguments::vm::{self, Form, QemuDevice};
use crate::failure::Failure;

impl Form {
    /// Refuses options of other formats: they would do nothing.
    pub(super) fn check(&self) -> Result<(), Failure> {
        use Format::{Dracut, Firecracker, Ip, KernelArgs, Qemu};
        let options: [(&str, bool, &[Format]); 8] = [
            ("--kernel-args", self.kernel_args.is_some(), &[KernelArgs, Dracut]),
            ("--ip-form", self.ip_form.is_some(), &[Ip, KernelArgs]),
            ("--firecracker-version", self.firecracker_version.is_some(), &[Firecracker]),
            ("--mmds", self.mmds.is_some(), &[Firecracker]),
            ("--rx-rate-limiter", self.rx_rate_limiter.is_some(), &[Firecracker]),
            ("--tx-rate-limiter", self.tx_rate_limiter.is_some(), &[Firecracker]),
            ("--snapshot", self.snapshot, &[Firecracker]),
            ("--qemu-device", self.qemu_device.is_some(), &[Qemu]),
        ];
        for (name, given, formats) in options {
            if given && !formats.contains(&self.format) {
                let formats = formats.iter().map(|format| format.name()).collect::<Vec<_>>();
                let (format, of) = (self.format, formats.join(" and "));
                return Err(Failure::Usage(format!("{name} is of format {of}, not of {format}")));
            }
        }
        let others = self.firecracker_version.is_some()
            || self.mmds.is_some()
            || self.rx_rate_limiter.is_some()
            || self.tx_rate_limiter.is_some();
        if self.snapshot && others {
            let reason =
                "--snapshot names taps alone: the other options of firecracker do not apply";
            return Err(Failure::Usage(reason.to_owned()));
        }
        Ok(())
    }

    /// The text; what it does not carry is said, or with `--strict` an error.
    pub(super) fn text(&self, conf: &VmConf) -> Result<String, Failure> {
        let rendered = self.rendered(conf)?;
        if self.strict {
            return Ok(rendered.strict()?);
        }
        for warning in &rendered.warnings {
            log::warn!("{warning}");
        }
        Ok(rendered.text)
    }

    fn rendered(&self, conf: &VmConf) -> Result<Rendered, RenderError> {
        let ip_form = match self.ip_form {
            Some(vm::IpForm::GoSdk) => IpForm::GoSdk,
            Some(vm::IpForm::EveryReader) | None => IpForm::EveryReader,
        };
        match self.format {
            Format::Ip => ip::render(conf, ip_form),
            Format::KernelArgs => {
                let given = self.kernel_args.clone().unwrap_or_default();
                let limit = LengthLimit::X86_64_OR_ARM64;
                kernel_args::render(conf, &kernel_args::Options { given, form: ip_form, limit })
            }
            Format::Dracut => self.dracut(conf),
            Format::Firecracker if self.snapshot => Ok(firecracker::render_snapshot_load(conf)),
            Format::Firecracker => firecracker::render(conf, &self.firecracker()),
            Format::Qemu => {
                let device = match self.qemu_device {
                    Some(QemuDevice::Mmio) => qemu::Device::Mmio,
                    Some(QemuDevice::Pci) | None => qemu::Device::Pci,
                };
                Ok(qemu::render(conf, device))
            }
            format => render(conf, format),
        }
    }

    fn dracut(&self, conf: &VmConf) -> Result<Rendered, RenderError> {
        let Some(given) = &self.kernel_args else { return dracut::render(conf) };
        let (arguments, warnings) = dracut::arguments(conf)?;
        let mut line = given.clone();
        line.add(arguments)?;
        line.check_length(LengthLimit::X86_64_OR_ARM64)?;
        Ok(Rendered { text: format!("{line}\n"), warnings })
    }

    fn firecracker(&self) -> firecracker::Options {
        let defaults = firecracker::Options::default();
        firecracker::Options {
            version: self.firecracker_version.unwrap_or(defaults.version),
            rx_rate_limiter: self.rx_rate_limiter,
            tx_rate_limiter: self.tx_rate_limiter,
            mmds: self.mmds.map(|version| firecracker::Mmds {
                version: match version {
                    vm::Mmds::V1 => firecracker::MmdsVersion::V1,
                    vm::Mmds::V2 => firecracker::MmdsVersion::V2,
                },
                ipv4_address: self.mmds_address,
            }),
        }
    }
}
