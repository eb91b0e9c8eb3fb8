//! `jackfield render`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jackfield_hostnet::once::{OnceError, Session, find};
use jackfield_hostnet::render::render as files;
use jackfield_hostnet::{Managers, Role, Scope};
use serde_json::json;

use crate::arguments::{Arguments, Render};
use crate::commands::{client_options, config, print, print_json};
use crate::failure::Failure;

/// How long metadata may take.
const WAIT: Duration = Duration::from_secs(5);

/// Prints the files that another manager would be given, and changes nothing.
pub(crate) fn render(arguments: &Arguments, render: &Render) -> Result<(), Failure> {
    let mut config = config(arguments)?;
    config.defaults.backend = render.backend.into();
    for exception in &mut config.interfaces {
        exception.backend = None;
    }
    let mut session = Session::open(config, client_options(arguments))?;
    session.crawl(Instant::now() + WAIT)?.map_err(OnceError::Metadata)?;
    let machine = session.machine();
    let (mut snapshot, _) = machine.look().map_err(OnceError::Kernel)?;
    // What is printed may be for another place: which programs and files there are here is all one.
    snapshot.managers = Managers::default();
    let view = machine.view(snapshot, &Scope::Everything);
    let mut named = BTreeSet::new();
    for name in &render.interfaces {
        let link = find(&view.snapshot, name);
        named.insert(link.ok_or_else(|| OnceError::NoSuchInterface(name.clone()))?.index);
    }
    for interface in view.desired.interfaces.iter().filter(|it| named.contains(&it.index)) {
        let name = interface.name.clone();
        match (interface.role, interface.problems.first().cloned()) {
            (Role::Plugged, _) => {}
            (Role::Primary, _) => return Err(Failure::PrimaryIsNotRendered(name)),
            (_, Some(problem)) => {
                let (text, fix) = (problem.text, problem.fix);
                return Err(OnceError::InTheWay { name, text, fix }.into());
            }
            (_, None) => return Err(OnceError::Unmanaged(name).into()),
        }
    }
    let printed: Vec<_> = view
        .desired
        .carried
        .iter()
        .filter(|carried| named.is_empty() || named.contains(&carried.index))
        .flat_map(|carried| files(carried).into_iter().map(|file| (&carried.name, file)))
        .collect();
    if render.output.json {
        let json = |(name, file)| {
            let jackfield_hostnet::render::File { path, text } = file;
            json!({ "interface": name, "path": path, "text": text })
        };
        let files: Vec<_> = printed.into_iter().map(json).collect();
        return print_json(&json!({ "version": 1, "files": files }));
    }
    let texts: Vec<String> =
        printed.iter().map(|(_, file)| format!("# {}\n{}", file.path, file.text)).collect();
    print(&texts.join("\n"))
}
