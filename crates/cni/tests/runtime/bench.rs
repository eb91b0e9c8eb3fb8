//! Plugins made for the tests: shell scripts that note what they are asked, and do as they are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jackfield_cni::config::NetworkList;
use jackfield_cni::runtime::{Runtime, RuntimeConf};
use jackfield_cni::{Error, PluginFailure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A runtime with a directory of its own, and plugins that note each call in `calls`.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) runtime: Runtime,
}

/// What a plugin was asked.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) plugin: String,
    pub(crate) command: String,
    pub(crate) environment: Vec<String>,
    pub(crate) stdin: Value,
}

pub(crate) const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}"#;

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let plugins = directory.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        fs::create_dir(directory.path().join("calls")).unwrap();
        let mut runtime = Runtime::new(vec!["/nowhere".into(), plugins]);
        runtime.cache_dir = directory.path().join("cache");
        runtime.deadline = Duration::from_secs(30);
        Self { directory, runtime }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A plugin that notes the call, then does as the script says.
    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let calls = self.path("calls");
        let calls = calls.display();
        let script = format!(
            "#!/bin/sh\n\
             n=$(ls {calls} | wc -l)\n\
             note={calls}/$(printf %04d \"$n\")\n\
             printf '%s\\n' \"{name}\" \"$CNI_COMMAND\" \"id=$CNI_CONTAINERID\" \"ns=$CNI_NETNS\" \
             \"if=$CNI_IFNAME\" \"args=$CNI_ARGS\" \"path=$CNI_PATH\" >\"$note\"\n\
             cat >>\"$note\"\n\
             {script}\n"
        );
        let path = self.path("plugins").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A plugin that succeeds.
    pub(crate) fn good(&self, name: &str) {
        self.plugin(name, &format!("[ $CNI_COMMAND != ADD ] || echo '{RESULT}'"));
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut paths: Vec<_> =
            fs::read_dir(self.path("calls")).unwrap().map(|it| it.unwrap().path()).collect();
        paths.sort();
        let calls = paths.iter().map(|path| {
            let text = fs::read_to_string(path).unwrap();
            fs::remove_file(path).unwrap();
            let mut lines = text.splitn(8, '\n').map(str::to_owned);
            Call {
                plugin: lines.next().unwrap(),
                command: lines.next().unwrap(),
                environment: lines.by_ref().take(5).collect(),
                stdin: serde_json::from_str(&lines.next().unwrap()).unwrap(),
            }
        });
        calls.collect()
    }

    /// `PLUGIN COMMAND` of the calls since the last time.
    pub(crate) fn sequence(&self) -> Vec<String> {
        let calls = self.calls();
        calls.iter().map(|call| format!("{} {}", call.plugin, call.command)).collect()
    }

    pub(crate) fn entry(&self) -> PathBuf {
        self.path("cache/results/net-vm1-eth0")
    }
}

pub(crate) fn network(version: &str, plugins: &[&str]) -> NetworkList {
    let plugins: Vec<_> = plugins.iter().map(|name| json!({"type": name})).collect();
    let list = json!({"name": "net", "cniVersion": version, "plugins": plugins});
    NetworkList::parse(list.to_string()).unwrap()
}

pub(crate) fn conf() -> RuntimeConf {
    conf_of("vm1")
}

pub(crate) fn conf_of(container: &str) -> RuntimeConf {
    RuntimeConf::new(
        container.parse().unwrap(),
        Some("/run/netns/vm1".into()),
        "eth0".parse().unwrap(),
    )
}

pub(crate) fn failure(
    result: Result<impl std::fmt::Debug, Error>,
) -> (String, &'static str, PluginFailure) {
    match result.unwrap_err() {
        Error::Plugin { plugin, command, failure, .. } => (plugin, command, *failure),
        other => panic!("{other}"),
    }
}
