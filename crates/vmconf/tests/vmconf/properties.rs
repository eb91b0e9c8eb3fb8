//! For any configuration and any text: nothing panics, nothing is smuggled in, nothing is lost in
//! silence, and what is rendered is read back.

use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_cni::types::CniResult;
use jackfield_vmconf::formats::{json, networkd};
use jackfield_vmconf::{
    Argument, Attachment, CommandLineError, Format, IpForm, KernelCommandLine, Lost, Mtu,
    RenderError, Rendered, RouteAttributes, StaticNetworkConf, VmConf, VmIp, VmRoute, render,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8).prop_map(|(bits, prefix)| IpNet::new(
            IpAddr::V4(bits.into()),
            prefix
        )
        .unwrap()),
        (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| IpNet::new(
            IpAddr::V6(bits.into()),
            prefix
        )
        .unwrap()),
    ]
}

/// A gateway in the subnet, anywhere, or none.
fn vm_ip() -> impl Strategy<Value = VmIp> {
    let near = |net: IpNet| match net {
        IpNet::V4(net) => {
            let host = (u32::from(net.network())).saturating_add(1);
            IpAddr::V4(host.into())
        }
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).saturating_add(1).into()),
    };
    let gateway = option::of(prop_oneof![Just(None), net().prop_map(|net| Some(net.addr()))]);
    (net(), gateway).prop_filter_map("no address of a host", move |(net, gateway)| {
        VmIp::new(net, gateway.map(|far| far.unwrap_or_else(|| near(net)))).ok()
    })
}

fn vm_route() -> impl Strategy<Value = VmRoute> {
    let number = || option::of(1..2000_u32);
    (net(), option::of(net()), number(), number(), number(), option::of(0..255_u32))
        .prop_filter_map("no route", |(dst, gw, mtu, advmss, priority, scope)| {
            let attributes = RouteAttributes { mtu, advmss, priority, table: None, scope };
            VmRoute::new(dst, gw.map(|gw| gw.addr()), attributes).ok()
        })
}

prop_compose! {
    fn interface()(
        names in ("[a-z][a-z0-9]{0,14}", option::of("[a-z][a-z0-9._-]{0,14}")),
        device in (option::of(any::<[u8; 6]>()), option::of(68..65_536_u32)),
        vm_ips in vec(vm_ip(), 0..4),
        vm_routes in vec(vm_route(), 0..4),
        vm_nameservers in vec(net().prop_map(|net| net.addr()), 0..5),
        domains in (option::of("[a-z]{1,9}\\.[a-z]{2}"), vec("[a-z]{1,9}", 0..3)),
        options in vec("[a-z]{1,9}:[0-9]", 0..3),
    ) -> StaticNetworkConf {
        let mut conf = StaticNetworkConf::new(
            format!("t{}", &names.0[..names.0.len().min(14)]).parse().unwrap(),
            "/run/netns/x".parse().unwrap(),
        );
        conf.vm_if_name = names.1.and_then(|name| name.parse().ok());
        conf.vm_mac = device.0.and_then(|octets| jackfield_vmconf::MacAddr::new(octets).ok());
        conf.vm_mtu = device.1.map(|mtu| Mtu::new(mtu).unwrap());
        conf.vm_ips = vm_ips;
        conf.vm_routes = vm_routes;
        conf.vm_nameservers = vm_nameservers;
        conf.vm_domain = domains.0.map(|domain| domain.parse().unwrap());
        conf.vm_search_domains = domains.1.iter().map(|domain| domain.parse().unwrap()).collect();
        conf.vm_resolver_options = options.iter().map(|option| option.parse().unwrap()).collect();
        conf
    }
}

fn vm() -> impl Strategy<Value = VmConf> {
    vec(interface(), 1..3).prop_filter_map("two are alike", |all| VmConf::new(all).ok())
}

/// The words of all lists in a text, so that a value is found as itself, not as part of another.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c.is_whitespace() || "=,\"[]".contains(c)).collect()
}

fn is_lost(rendered: &Rendered, wanted: impl Fn(&Lost) -> bool) -> bool {
    rendered.warnings.iter().any(|warning| wanted(&warning.lost))
}

proptest! {
    #[test]
    fn json_is_read_back(vm in vm()) {
        prop_assert_eq!(json::parse(json::render(&vm).unwrap().text).unwrap(), vm);
    }

    /// An address is printed or an error, in every format of a guest's addresses.
    #[test]
    fn no_address_is_missing(vm in vm()) {
        for format in [Format::Ip, Format::KernelArgs, Format::Networkd, Format::CloudInit, Format::Dracut] {
            let Ok(rendered) = render(&vm, format) else { continue };
            let words = words(&rendered.text).join("\n");
            for ip in vm.interfaces().iter().flat_map(|conf| &conf.vm_ips) {
                prop_assert!(words.contains(&ip.address().addr().to_string()), "{}", rendered.text);
            }
        }
    }

    /// Every name server is printed or told of.
    #[test]
    fn no_name_server_is_lost_in_silence(vm in vm()) {
        for format in [Format::Ip, Format::KernelArgs, Format::Networkd, Format::CloudInit, Format::Dracut, Format::ResolvConf] {
            let Ok(rendered) = render(&vm, format) else { continue };
            let text = rendered.text.replace(':', " ");
            for server in vm.interfaces().iter().flat_map(|conf| &conf.vm_nameservers) {
                let printed = words(&rendered.text).contains(&server.to_string().as_str())
                    || (server.is_ipv4() && words(&text).contains(&server.to_string().as_str()));
                let told = is_lost(&rendered, |lost| *lost == Lost::NameServer(*server));
                prop_assert!(printed || told, "{format} {server}: {}", rendered.text);
            }
        }
    }

    /// Every MTU is printed or told of, by formats of devices and of guests.
    #[test]
    fn no_mtu_is_lost_in_silence(vm in vm()) {
        for format in Format::ALL {
            if format == Format::ResolvConf { continue }
            let Ok(rendered) = render(&vm, format) else { continue };
            for mtu in vm.interfaces().iter().filter_map(|conf| conf.vm_mtu) {
                let told = is_lost(&rendered, |lost| *lost == Lost::Mtu(mtu));
                prop_assert!(told || rendered.text.contains(&mtu.to_string()), "{format}");
            }
        }
    }

    /// The kernel's part of a line is one `ip=` whose fields are what they should be.
    #[test]
    fn ip_is_one_argument_that_is_read_back(conf in interface()) {
        for form in [IpForm::EveryReader, IpForm::GoSdk] {
            let Ok(value) = conf.ip_boot_param_as(form) else { continue };
            let line: KernelCommandLine = format!("ip={value}").parse().unwrap();
            prop_assert_eq!(line.arguments().len(), 1);
            let fields: Vec<&str> = value.split(':').collect();
            prop_assert!(fields.len() >= 7 && fields.len() <= 10);
            let [ip] = conf.vm_ips.as_slice() else { panic!("{value}") };
            prop_assert_eq!(fields[0], ip.address().addr().to_string());
            prop_assert_eq!(fields[2], ip.gateway().map_or(String::new(), |gw| gw.to_string()));
            prop_assert_eq!(fields[3], ip.address().netmask().to_string());
            prop_assert_eq!(fields[5], conf.vm_if_name.as_ref().map_or("", |name| name.as_str()));
            prop_assert_eq!(fields[6], "off");
        }
    }

    /// A text for a command line is words of printable ASCII; none is `--`.
    #[test]
    fn command_lines_hold_arguments_only(vm in vm()) {
        for format in [Format::KernelArgs, Format::Dracut, Format::Qemu, Format::CloudHypervisor] {
            match render(&vm, format) {
                Ok(rendered) => {
                    let line: KernelCommandLine = rendered.text.parse().unwrap();
                    prop_assert_eq!(line.init(), None);
                    prop_assert_eq!(line.to_string(), rendered.text.trim_end());
                }
                Err(RenderError::CommandLine(CommandLineError::TooLong { .. })) => {}
                Err(RenderError::CommandLine(error)) => panic!("{error}"),
                Err(_) => {}
            }
        }
    }

    /// Unit files hold sections and settings that systemd has, and no specifiers.
    #[test]
    fn unit_files_hold_known_settings_only(vm in vm()) {
        let Ok((files, _)) = networkd::files(&vm) else { return Ok(()) };
        for line in files.iter().flat_map(|file| file.text.lines()) {
            let known = line.is_empty()
                || ["[Match]", "[Link]", "[Network]", "[Address]", "[Route]"].contains(&line)
                || line.split_once('=').is_some_and(|(key, value)| {
                    key.bytes().all(|b| b.is_ascii_alphanumeric())
                        && !value.is_empty()
                        && !value.contains(['%', '\\', '"', '\''])
                });
            prop_assert!(known, "{line}");
        }
    }

    #[test]
    fn strict_is_all_or_nothing(vm in vm()) {
        for format in Format::ALL {
            let Ok(rendered) = render(&vm, format) else { continue };
            let complete = rendered.warnings.is_empty();
            prop_assert_eq!(rendered.strict().is_ok(), complete);
        }
    }

    /// Arguments are added, and all else stays.
    #[test]
    fn merging_keeps_what_was_there(text in "[ -~\t\n]{0,80}", value in "[!#-~]{0,20}") {
        let Ok(mut line) = text.parse::<KernelCommandLine>() else { return Ok(()) };
        let before = line.clone();
        prop_assert_eq!(&before.to_string().parse::<KernelCommandLine>().unwrap(), &before);
        if line.add([Argument::new("ip", &value).unwrap()]).is_err() {
            prop_assert_eq!(line, before);
            return Ok(());
        }
        let read: KernelCommandLine = line.to_string().parse().unwrap();
        let (last, others) = read.arguments().split_last().unwrap();
        prop_assert_eq!(last.as_str(), format!("ip={value}"));
        prop_assert_eq!(others, before.arguments());
        prop_assert_eq!(read.init(), before.init());
    }

    #[test]
    fn any_text_is_a_command_line_or_an_error(text in any::<String>()) {
        let _ = text.parse::<KernelCommandLine>();
    }

    /// Whatever a result says, what comes of it is an error or renders without a panic, and the line
    /// for the kernel is one `ip=`.
    #[test]
    fn any_texts_in_a_result_are_refused_or_harmless(
        name in "\\PC{0,16}", mac in "[0-9a-f:]{0,18}", server in "[0-9a-f:. ]{0,16}",
        domain in "[a-z. \n\"%-]{0,12}", option in "\\PC{0,8}", index in option::of(0..4_u32),
        address in net(), gateway in option::of(net()),
    ) {
        let result = serde_json::json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": name, "sandbox": "/run/netns/x" },
                { "name": name, "mac": mac, "sandbox": "id" },
            ],
            "ips": [{ "address": address, "gateway": gateway.map(|g| g.addr()), "interface": index }],
            "routes": [{ "dst": address }],
            "dns": { "nameservers": [server], "domain": domain, "options": [option] },
        });
        let Ok(result) = CniResult::parse(result.to_string()) else { return Ok(()) };
        let Ok(conf) = StaticNetworkConf::from_result(&result, &Attachment::of("id")) else {
            return Ok(());
        };
        let vm = VmConf::from(conf);
        for format in Format::ALL {
            if let Ok(rendered) = render(&vm, format) {
                prop_assert!(rendered.text.is_ascii());
            }
        }
        if let Ok(rendered) = render(&vm, Format::KernelArgs) {
            let line: KernelCommandLine = rendered.text.parse().unwrap();
            prop_assert!(line.arguments().iter().all(|argument| argument.name() == "ip"));
        }
    }
}
