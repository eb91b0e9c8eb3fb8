//! A plugin's environment and standard input: the first line is the command, the second `CNI_ARGS`,
//! the rest standard input. Whatever it is, the answer is JSON.

#![no_main]

use jackfield_cni::plugin::{DelRequest, Plugin, PluginError, Request, run_with};
use jackfield_cni::types::CniResult;
use libfuzzer_sys::fuzz_target;

struct Echo;

impl Plugin for Echo {
    fn about(&self) -> String {
        String::from("echo")
    }

    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        Ok(request.prev_result.clone().unwrap_or_default())
    }

    fn del(&self, _: &DelRequest) -> Result<(), PluginError> {
        Ok(())
    }

    fn check(&self, _: &Request) -> Result<(), PluginError> {
        Ok(())
    }
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (command, args, stdin) = (next(), next(), next());
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => &command,
            "CNI_ARGS" => &args,
            "CNI_NETNS_OVERRIDE" => "",
            _ => "a",
        };
        Some(value.into())
    };
    let mut output = Vec::new();
    let failed = run_with(&Echo, variable, stdin.as_bytes(), &mut output).is_err();
    if failed || command == "ADD" {
        let text = String::from_utf8(output).expect("text");
        assert!(text.starts_with('{') && text.ends_with("}\n"), "{text}");
    }
});
