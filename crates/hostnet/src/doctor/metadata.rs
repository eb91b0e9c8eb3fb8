//! The metadata service, and the interfaces that it knows.

use std::time::Duration;

use jackfield_metadata::{Error, MacAddr};

use super::{EndpointFacts, Facts, Finding, some};

const CHECK: &str = "metadata";
const LISTED: &str = "metadata-interfaces";
/// It answers within a few milliseconds.
const SLOW: Duration = Duration::from_millis(500);
/// A token and an answer.
const REQUESTS: u64 = 2;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let answers = facts.endpoints.iter().any(|endpoint| endpoint.answer.is_ok());
    let mut findings: Vec<Finding> =
        facts.endpoints.iter().map(|endpoint| judge(endpoint, answers)).collect();
    if !answers && findings.is_empty() {
        findings.push(Finding::problem(CHECK, "no metadata service was asked", "name one"));
    }
    findings.extend(listed(facts));
    findings
}

fn judge(endpoint: &EndpointFacts, another_answers: bool) -> Finding {
    let EndpointFacts { url, took, requests, .. } = endpoint;
    let milliseconds = took.as_millis();
    let error = match &endpoint.answer {
        Ok(_) if *requests > REQUESTS => {
            return Finding::warning(
                CHECK,
                format!(
                    "{url} answers, after {requests} requests in {milliseconds} ms where \
                     {REQUESTS} would do: it is throttled, or fails now and then"
                ),
                "look for who else asks it very often (1024 packets a second are let through; \
                 linklocal_allowance_exceeded of 'ethtool -S' counts others)",
            );
        }
        Ok(_) if *took > SLOW => {
            return Finding::warning(
                CHECK,
                format!("{url} answers, and takes {milliseconds} ms for it"),
                "look for who else asks it very often, and at the load of this host",
            );
        }
        Ok(_) => {
            return Finding::ok(CHECK, format!("{url} answers in {milliseconds} ms (IMDSv2)"));
        }
        Err(error) => error,
    };
    if another_answers {
        return Finding::not_applicable(CHECK, format!("not needed: {error}"));
    }
    let fix = match error {
        Error::Timeout { url, .. } if url.ends_with("/api/token") => {
            "it can be reached, or nobody refuses to, and the token does not arrive: in a container, \
             raise the hop limit (aws ec2 modify-instance-metadata-options \
             --http-put-response-hop-limit 2); on the host, look for a firewall or a route"
        }
        Error::Connection { .. } | Error::Timeout { .. } | Error::Deadline { .. } => {
            "switch the instance metadata service on, and make sure that neither a firewall nor a \
             route is in the way"
        }
        Error::Throttled { .. } => "look for who else asks it very often",
        Error::Refused { status: 403, .. } => {
            "switch it on: aws ec2 modify-instance-metadata-options --http-endpoint enabled"
        }
        Error::Refused { .. } | Error::Unauthorized { .. } | Error::NotFound { .. } => {
            "make sure that this is EC2's metadata service (IMDSv2), and no proxy of it"
        }
        Error::Server { .. } | Error::Malformed { .. } => {
            "ask again; see the provider's status page"
        }
    };
    Finding::problem(CHECK, error.to_string(), fix)
}

/// What it lists, beside what is here.
fn listed(facts: &Facts) -> Vec<Finding> {
    let Some(listed) = &facts.listed else { return Vec::new() };
    let here: Vec<(MacAddr, &str)> =
        facts.snapshot.candidates().map(|is| (is.mac, is.link.name.as_str())).collect();
    let mut findings = Vec::new();
    let not_here: Vec<&MacAddr> =
        listed.iter().filter(|mac| here.iter().all(|(is, _)| is != *mac)).collect();
    if !not_here.is_empty() {
        findings.push(Finding::warning(
            LISTED,
            format!("metadata lists {}, and no such device is here", some(not_here)),
            "wait, where it was attached or detached a moment ago; otherwise it is in another \
             network namespace, or has no driver (see 'lspci', 'dmesg')",
        ));
    }
    let not_listed = here.iter().filter(|(mac, _)| !listed.contains(mac));
    let not_listed: Vec<&str> = not_listed.map(|(_, name)| *name).collect();
    if !not_listed.is_empty() {
        findings.push(Finding::warning(
            LISTED,
            format!("metadata does not list {}", some(not_listed)),
            "wait: a new attachment is listed within some 30 s; a device that is no cloud interface \
             is left alone, and agent.device_kinds can leave out its kind",
        ));
    }
    if findings.is_empty() {
        let text = format!("metadata lists the {} interfaces that are here", listed.len());
        findings.push(Finding::ok(LISTED, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome::{NotApplicable, Ok as Fine, Problem, Warning};
    use crate::doctor::tests::results;
    use crate::neighbours::tests::link;

    fn endpoint(answer: Result<(), Error>, requests: u64, milliseconds: u64) -> EndpointFacts {
        EndpointFacts {
            url: "http://169.254.169.254".to_owned(),
            answer: answer.map(|()| "02:ec:20:00:00:01".parse().unwrap()),
            took: Duration::from_millis(milliseconds),
            requests,
        }
    }

    fn judged(endpoints: Vec<EndpointFacts>) -> Vec<Finding> {
        check(&Facts { endpoints, ..Facts::default() })
    }

    #[test]
    fn a_service_that_answers_well_is_fine_and_what_is_odd_is_told() {
        assert_eq!(results(&judged(vec![endpoint(Ok(()), 2, 3)])), [(CHECK, Fine)]);
        assert_eq!(results(&judged(vec![endpoint(Ok(()), 2, 900)])), [(CHECK, Warning)]);
        let throttled = judged(vec![endpoint(Ok(()), 5, 30)]);
        assert_eq!(results(&throttled), [(CHECK, Warning)]);
        assert!(throttled[0].text.contains("throttled"), "{throttled:?}");
    }

    #[test]
    fn an_endpoint_that_does_not_answer_matters_where_no_other_does() {
        let url = |path: &str| format!("http://169.254.169.254/latest/{path}");
        let refused = || Err(Error::Refused { url: url("api/token"), status: 403 });
        let both = judged(vec![endpoint(Ok(()), 2, 3), endpoint(refused(), 0, 3)]);
        assert_eq!(results(&both), [(CHECK, Fine), (CHECK, NotApplicable)]);
        let after = Duration::from_secs(1);
        let none = Error::Connection { url: url("api/token"), reason: "refused".into() };
        for (error, says) in [
            (Error::Timeout { url: url("api/token"), after }, "hop limit"),
            (Error::Timeout { url: url("meta-data/mac"), after }, "firewall"),
            (none, "firewall"),
            (Error::Throttled { url: url("api/token"), status: 503 }, "very often"),
            (Error::Refused { url: url("api/token"), status: 403 }, "http-endpoint enabled"),
        ] {
            let alone = judged(vec![endpoint(Err(error), 1, 1000)]);
            assert_eq!(results(&alone), [(CHECK, Problem)]);
            assert!(alone[0].fix.contains(says), "{alone:?}");
        }
    }

    #[test]
    fn what_is_listed_is_here_and_the_other_way_round() {
        let mut facts = Facts { endpoints: vec![endpoint(Ok(()), 2, 3)], ..Facts::default() };
        facts.snapshot.device_kinds = vec!["physical".to_owned()];
        facts.snapshot.links = vec![link(2, "eth0"), link(3, "eth1")];
        let macs = |last: &[u8]| {
            let mac = |last: &u8| MacAddr::from([0x02, 0xec, 0x20, 0, 0, *last]);
            Some(last.iter().map(mac).collect())
        };
        facts.listed = macs(&[2, 3]);
        assert_eq!(results(&check(&facts))[1..], [(LISTED, Fine)]);
        facts.listed = macs(&[2, 9]);
        let findings = check(&facts);
        assert_eq!(results(&findings)[1..], [(LISTED, Warning), (LISTED, Warning)]);
        assert!(findings[1].text.contains("02:ec:20:00:00:09"), "{findings:?}");
        assert!(findings[2].text.contains("eth1"), "{findings:?}");
    }
}
