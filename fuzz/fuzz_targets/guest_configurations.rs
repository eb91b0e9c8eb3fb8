//! Results that become a guest's configuration: every format is an error or plain text, the kernel
//! gets one `ip=`, JSON is read back the same. Container ID and namespace are those of the seeds.

#![no_main]

use jackfield_cni::types::CniResult;
use jackfield_vmconf::formats::{json, networkd};
use jackfield_vmconf::{
    Attachment, Format, IpForm, KernelCommandLine, StaticNetworkConf, VmConf, render,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|result: &[u8]| {
    let Ok(result) = CniResult::parse(result) else { return };
    let name = "eth0".parse().expect("it is a name");
    for attachment in [
        Attachment::of("vm1"),
        Attachment::of("vm1").named(Some(&name)).in_namespace("/run/netns/vm1"),
    ] {
        let Ok(conf) = StaticNetworkConf::from_result(&result, &attachment) else { continue };
        for form in [IpForm::EveryReader, IpForm::GoSdk] {
            let Ok(value) = conf.ip_boot_param_as(form) else { continue };
            let line: KernelCommandLine = format!("ip={value}").parse().expect("it is one");
            assert_eq!(line.arguments().len(), 1);
            assert!((7..=10).contains(&value.split(':').count()));
        }
        check_formats(&VmConf::from(conf));
    }
});

fn check_formats(vm: &VmConf) {
    for format in Format::ALL {
        let Ok(rendered) = render(vm, format) else { continue };
        let plain = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ';
        assert!(format == Format::Json || rendered.text.chars().all(plain), "{}", rendered.text);
        assert!(rendered.text.is_empty() || rendered.text.ends_with('\n'));
        match format {
            Format::Json => assert_eq!(json::parse(&rendered.text).expect("it is ours"), *vm),
            Format::KernelArgs | Format::Dracut => {
                let line: KernelCommandLine = rendered.text.parse().expect("it is one");
                assert_eq!(line.to_string(), rendered.text.trim_end());
            }
            _ => {}
        }
    }
    let Ok((files, _)) = networkd::files(vm) else { return };
    for line in files.iter().flat_map(|file| file.text.lines()) {
        assert!(line.is_empty() || line.starts_with('[') || line.contains('='), "{line}");
        assert!(!line.contains(['%', '\\', '"']), "{line}");
    }
}
