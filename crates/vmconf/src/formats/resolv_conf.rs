//! resolv.conf(5): name servers, domain, search domains and options of all interfaces together.
//!
//! It describes name resolution alone. `domain` stands before `search`, so that resolvers that know one
//! of them take the latter, as the CNI specification has it.

use crate::conf::VmConf;
use crate::render::{Format, Lost, Rendered, Warning};

/// What the GNU C library reads (`MAXNS`).
const NAME_SERVERS: usize = 3;

/// The file; nothing where there is nothing to say.
pub fn render(vm: &VmConf) -> Rendered {
    let mut warnings = Vec::new();
    let (mut servers, mut domain, mut search, mut options) = (vec![], None, vec![], vec![]);
    for conf in vm.interfaces() {
        let warn = |lost, reason| Warning::new(Format::ResolvConf, conf, lost, reason);
        for server in &conf.vm_nameservers {
            if add(&mut servers, server) && servers.len() > NAME_SERVERS {
                let reason = "resolvers read the first three";
                warnings.push(warn(Lost::NameServer(*server), reason));
            }
        }
        match (&conf.vm_domain, domain) {
            (Some(new), Some(old)) if new != old => {
                let reason = "another interface says another";
                warnings.push(warn(Lost::Domain(new.clone()), reason));
            }
            (Some(new), _) => domain = Some(new),
            (None, _) => {}
        }
        for name in &conf.vm_search_domains {
            add(&mut search, name);
        }
        for option in &conf.vm_resolver_options {
            add(&mut options, option);
        }
    }
    servers.truncate(NAME_SERVERS);

    let mut lines: Vec<String> = servers.iter().map(|s| format!("nameserver {s}")).collect();
    lines.extend(domain.map(|domain| format!("domain {domain}")));
    lines.extend(line("search", search.iter().map(ToString::to_string).collect()));
    lines.extend(line("options", options.iter().map(ToString::to_string).collect()));
    let text = lines.into_iter().map(|line| line + "\n").collect();
    Rendered { text, warnings }
}

/// Adds what is not there; whether it was not.
fn add<'a, T: PartialEq>(list: &mut Vec<&'a T>, value: &'a T) -> bool {
    let new = !list.contains(&value);
    if new {
        list.push(value);
    }
    new
}

fn line(keyword: &str, words: Vec<String>) -> Option<String> {
    (!words.is_empty()).then(|| format!("{keyword} {}", words.join(" ")))
}
