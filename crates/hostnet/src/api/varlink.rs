//! Messages of the API: what is asked, and how it is answered. <https://varlink.org/Method-Call>

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{DESCRIPTION, INTERFACE, Reply, Request};

/// What ends a message.
pub(super) const END: u8 = 0;
const SERVICE: &str = "org.varlink.service";
/// The description of the interface that every service has. <https://varlink.org/Service>
const SERVICE_DESCRIPTION: &str = "\
# What a varlink service says of itself
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied (text: string)
error ExpectedMore ()
";

#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(default)]
    oneway: bool,
}

/// What follows from a message.
#[derive(Debug, PartialEq)]
pub(super) enum Understood {
    /// To be asked of the agent.
    Request {
        request: Request,
        /// Nobody waits for the answer.
        oneway: bool,
    },
    /// Answered at once; `None`: nobody waits for it.
    Answer(Option<Vec<u8>>),
    /// It is no message: the answer to that, after which nothing more is listened to.
    Garbage(Vec<u8>),
}

/// Reads a message, without its end.
pub(super) fn understand(message: &[u8]) -> Understood {
    let Ok(call) = serde_json::from_slice::<Call>(message) else {
        return Understood::Garbage(invalid("method"));
    };
    let parameters = call.parameters.unwrap_or_default();
    let answer = match call.method.rsplit_once('.') {
        Some((INTERFACE, method)) => match request(method, &parameters) {
            Ok(request) => return Understood::Request { request, oneway: call.oneway },
            Err(answer) => answer,
        },
        Some((SERVICE, method)) => service(method, &parameters),
        Some((interface, _)) => {
            error("org.varlink.service.InterfaceNotFound", &json!({ "interface": interface }))
        }
        None => invalid("method"),
    };
    Understood::Answer((!call.oneway).then_some(answer))
}

fn request(method: &str, parameters: &Map<String, Value>) -> Result<Request, Vec<u8>> {
    let request = match method {
        "Info" => Request::Info,
        "Status" => Request::Status { interfaces: names(parameters)? },
        "Plan" => Request::Plan,
        "Reload" => Request::Reload,
        "Metrics" => Request::Metrics,
        _ => return Err(unknown_method(INTERFACE, method)),
    };
    Ok(request)
}

fn names(parameters: &Map<String, Value>) -> Result<Vec<String>, Vec<u8>> {
    match parameters.get("interfaces") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(names) => serde_json::from_value(names.clone()).map_err(|_| invalid("interfaces")),
    }
}

fn service(method: &str, parameters: &Map<String, Value>) -> Vec<u8> {
    match method {
        "GetInfo" => object(&json!({
            "vendor": "jackfield",
            "product": "jackfield agent",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [SERVICE, INTERFACE],
        })),
        "GetInterfaceDescription" => match parameters.get("interface").and_then(Value::as_str) {
            Some(INTERFACE) => object(&json!({ "description": DESCRIPTION })),
            Some(SERVICE) => object(&json!({ "description": SERVICE_DESCRIPTION })),
            Some(other) => {
                error("org.varlink.service.InterfaceNotFound", &json!({ "interface": other }))
            }
            None => invalid("interface"),
        },
        _ => unknown_method(SERVICE, method),
    }
}

/// The answer of the agent, as a message.
pub(super) fn answer(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Object(value) => object(value),
        Reply::Metrics(text) => object(&json!({ "text": text })),
        Reply::Error(name, text) => error(&format!("{INTERFACE}.{name}"), &json!({ "text": text })),
    }
}

/// Who may not ask is told so.
pub(super) fn denied() -> Vec<u8> {
    let text = "only root may ask the jackfield agent";
    error("org.varlink.service.PermissionDenied", &json!({ "text": text }))
}

/// A request is longer than any that there is.
pub(super) fn too_long() -> Vec<u8> {
    invalid("method")
}

fn invalid(parameter: &str) -> Vec<u8> {
    error("org.varlink.service.InvalidParameter", &json!({ "parameter": parameter }))
}

fn unknown_method(interface: &str, method: &str) -> Vec<u8> {
    let method = format!("{interface}.{method}");
    error("org.varlink.service.MethodNotFound", &json!({ "method": method }))
}

fn error(name: &str, parameters: &Value) -> Vec<u8> {
    message(&json!({ "error": name, "parameters": parameters }))
}

fn object(parameters: &Value) -> Vec<u8> {
    message(&json!({ "parameters": parameters }))
}

fn message(value: &Value) -> Vec<u8> {
    let mut message = value.to_string().into_bytes();
    message.push(END);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &[u8]) -> Value {
        let Understood::Answer(Some(answer)) = understand(message) else { panic!("no answer") };
        serde_json::from_slice(answer.strip_suffix(&[END]).unwrap()).unwrap()
    }

    #[test]
    fn what_the_agent_is_asked_is_understood() {
        let asked = |text: &str| match understand(text.as_bytes()) {
            Understood::Request { request, oneway } => (request, oneway),
            other => panic!("{other:?}"),
        };
        let everything = Request::Status { interfaces: Vec::new() };
        assert_eq!(asked(r#"{"method":"org.jackfield.Status"}"#), (everything.clone(), false));
        let null = r#"{"method":"org.jackfield.Status","parameters":{"interfaces":null}}"#;
        assert_eq!(asked(null), (everything, false));
        let one = r#"{"method":"org.jackfield.Status","parameters":{"interfaces":["eth1"]}}"#;
        assert_eq!(asked(one).0, Request::Status { interfaces: vec!["eth1".to_owned()] });
        let oneway = r#"{"method":"org.jackfield.Reload","oneway":true,"more":false}"#;
        assert_eq!(asked(oneway), (Request::Reload, true));
    }

    #[test]
    fn what_is_wrong_is_answered_by_the_error_that_varlink_has_for_it() {
        for (text, name) in [
            (r#"{"method":"org.jackfield.Nothing"}"#, "MethodNotFound"),
            (r#"{"method":"org.varlink.service.Nothing"}"#, "MethodNotFound"),
            (r#"{"method":"org.example.Status"}"#, "InterfaceNotFound"),
            (r#"{"method":"Status"}"#, "InvalidParameter"),
            (r#"{"method":"org.varlink.service.GetInterfaceDescription"}"#, "InvalidParameter"),
            (
                r#"{"method":"org.jackfield.Status","parameters":{"interfaces":"eth1"}}"#,
                "InvalidParameter",
            ),
        ] {
            let error = format!("org.varlink.service.{name}");
            assert_eq!(told(text.as_bytes())["error"], error, "{text}");
        }
        let deep = "[".repeat(10_000);
        for text in ["", "{}", "[]", "\"", "{\"method\":1}", "\u{1}\u{2}", deep.as_str()] {
            let understood = understand(text.as_bytes());
            assert!(matches!(understood, Understood::Garbage(_)), "{text}: {understood:?}");
        }
    }

    #[test]
    fn the_service_describes_what_it_has() {
        let info = told(br#"{"method":"org.varlink.service.GetInfo"}"#);
        for interface in info["parameters"]["interfaces"].as_array().unwrap() {
            let method = "org.varlink.service.GetInterfaceDescription";
            let call = json!({ "method": method, "parameters": { "interface": interface } });
            let told = told(call.to_string().as_bytes());
            let description = told["parameters"]["description"].as_str().unwrap();
            let heading = format!("interface {}", interface.as_str().unwrap());
            assert!(description.lines().any(|line| line == heading), "{description}");
        }
        let methods = DESCRIPTION.lines().filter_map(|line| line.strip_prefix("method "));
        let methods: Vec<&str> = methods.filter_map(|line| Some(line.split_once('(')?.0)).collect();
        assert_eq!(methods, ["Info", "Status", "Plan", "Reload", "Metrics"]);
        for method in methods {
            let call = json!({ "method": format!("{INTERFACE}.{method}") });
            let understood = understand(call.to_string().as_bytes());
            assert!(matches!(understood, Understood::Request { .. }), "{method}: {understood:?}");
        }
    }
}
