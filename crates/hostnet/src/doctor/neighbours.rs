//! Other managers of networks, and what is installed to get on with them.

use super::{Facts, Finding, Installed, some};

const CHECK: &str = "neighbour";

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let plugged = |name: &&String| facts.plugged().any(|is| is.name == **name);
    let mut findings: Vec<Finding> = facts
        .neighbours
        .iter()
        .map(|neighbour| {
            let too: Vec<&String> = neighbour.interfaces.iter().filter(plugged).collect();
            let (name, evidence) = (&neighbour.name, &neighbour.evidence);
            if !too.is_empty() {
                let text = format!("{name} is here ({evidence}), and configures {} too", some(too));
                return Finding::warning(CHECK, text, "see 'jackfield status' for how to stop it");
            }
            let what = match neighbour.interfaces.is_empty() {
                true => "and leaves interfaces alone".to_owned(),
                false => format!("and has {}, which is left to it", some(&neighbour.interfaces)),
            };
            Finding::ok(CHECK, format!("{name} is here ({evidence}), {what}"))
        })
        .collect();
    if let Some((text, cure)) = &facts.deleter {
        findings.push(Finding::warning(CHECK, text.clone(), cure.clone()));
    }
    if !facts.predecessors.is_empty() {
        findings.push(Finding::warning(
            CHECK,
            format!("scripts of ubuntu-ec2net are here ({})", some(&facts.predecessors)),
            "remove them: both would configure the same interfaces",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "no other manager of networks is known to be here"));
    }
    findings.extend(facts.installed.iter().map(|file| installed(facts, file)));
    findings
}

/// A file for another manager, which matters where that is here.
fn installed(facts: &Facts, file: &Installed) -> Finding {
    const CHECK: &str = "installed";
    let name = file.name;
    let whom = match name {
        "86-jackfield.rules" => &["systemd-networkd", "NetworkManager"][..],
        _ => &["systemd-networkd"],
    };
    let matters = facts.neighbours.iter().any(|is| whom.contains(&is.name.as_ref()));
    match (&file.path, file.same) {
        (Some(path), true) => Finding::ok(CHECK, format!("{path} is the one of this version")),
        (Some(path), false) => Finding::warning(
            CHECK,
            format!("{path} is not the one of this version"),
            "install the package once more, or take over what is new in it",
        ),
        (None, _) if matters => Finding::warning(
            CHECK,
            format!("{name} is not installed, and {} is here", some(whom)),
            format!(
                "install it (docs/neighbours.md): {}",
                match name {
                    "86-jackfield.rules" => "it tells them which interfaces are jackfield's",
                    _ => "it keeps networkd from deleting rules and routes of others",
                }
            ),
        ),
        (None, _) => {
            Finding::not_applicable(CHECK, format!("{name} is not installed, and nobody reads it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{DesiredInterface, Role};
    use crate::doctor::Outcome::{NotApplicable, Ok, Warning};
    use crate::doctor::tests::results;
    use crate::neighbours::Presence;

    fn here(name: &'static str, interfaces: &[&str]) -> Facts {
        let interfaces = interfaces.iter().map(ToString::to_string).collect();
        let presence = Presence { name: name.into(), evidence: "evidence".to_owned(), interfaces };
        Facts { neighbours: vec![presence], ..Facts::default() }
    }

    #[test]
    fn a_neighbour_is_a_warning_where_it_works_on_the_same_interface() {
        assert_eq!(results(&check(&Facts::default())), [(CHECK, Ok)]);
        let mut facts = here("NetworkManager", &["eth1"]);
        assert_eq!(results(&check(&facts)), [(CHECK, Ok)]);
        let mac = [2, 0, 0, 0, 0, 1].into();
        facts.interfaces = vec![DesiredInterface::with_role(3, "eth1", mac, Role::Plugged)];
        assert_eq!(results(&check(&facts)), [(CHECK, Warning)]);
        let text = "deletes rules".to_owned();
        let facts = Facts { deleter: Some((text, "cure".to_owned())), ..facts };
        assert_eq!(results(&check(&facts)), [(CHECK, Warning), (CHECK, Warning)]);
    }

    #[test]
    fn scripts_of_before_are_a_warning() {
        let predecessors = vec!["/etc/network/ec2net.hotplug".to_owned()];
        let facts = Facts { predecessors, ..Facts::default() };
        assert_eq!(results(&check(&facts)), [(CHECK, Warning)]);
    }

    #[test]
    fn a_file_for_a_manager_matters_where_that_is_here() {
        let file = |name, path: Option<&str>, same| Installed {
            name,
            path: path.map(ToOwned::to_owned),
            same,
        };
        let (rule, conf) = ("86-jackfield.rules", "50-jackfield.conf");
        let manager = here("NetworkManager", &[]);
        let nobody = Facts::default();
        for (facts, file, expected) in [
            (&nobody, file(rule, None, false), NotApplicable),
            (&manager, file(rule, None, false), Warning),
            (&manager, file(conf, None, false), NotApplicable),
            (&manager, file(rule, Some("/etc/udev/rules.d/86-jackfield.rules"), true), Ok),
            (&nobody, file(rule, Some("/etc/udev/rules.d/86-jackfield.rules"), false), Warning),
        ] {
            assert_eq!(installed(facts, &file).result, expected, "{file:?}");
        }
    }
}
