//! What is counted, and how it is told: Prometheus's text format, version 0.0.4.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>
//!
//! What is true now follows from [`Status`] when somebody asks; only what would be over by then is
//! counted.

mod exposition;

use std::collections::BTreeMap;
use std::time::Duration;

use exposition::{Exposition, Kind};

use crate::status::{InterfaceStatus, State, Status};

/// The upper bounds of the times to ready, seconds.
const BOUNDS: [f64; 12] = [0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const STATES: [State; 6] = [
    State::Configured,
    State::Pending,
    State::Removing,
    State::Unmanaged,
    State::Foreign,
    State::Error,
];

/// What is counted from the agent's start on.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    time_to_ready: Histogram,
    gone: u64,
    changed: u64,
    /// Changes put back, by object.
    repaired: BTreeMap<&'static str, u64>,
    refused: u64,
    /// Times that something was given up, as somebody else undid it again and again.
    given_up: u64,
    reloads: u64,
    failed_reloads: u64,
}

impl Counts {
    /// An interface was plugged, and worked after this time.
    pub(crate) fn plugged(&mut self, took: Duration) {
        self.time_to_ready.observe(took.as_secs_f64());
    }

    /// An interface was pulled or released, and nothing of it is left.
    pub(crate) fn unplugged(&mut self) {
        self.gone += 1;
    }

    /// Something of an interface that works is different.
    pub(crate) fn changed(&mut self) {
        self.changed += 1;
    }

    /// A change of somebody else was put back.
    pub(crate) fn repaired(&mut self, object: &'static str) {
        *self.repaired.entry(object).or_default() += 1;
    }

    /// The kernel refused changes.
    pub(crate) fn refused(&mut self, changes: usize) {
        self.refused += changes as u64;
    }

    /// A change is left alone from now on.
    pub(crate) fn given_up(&mut self) {
        self.given_up += 1;
    }

    /// The configuration was read again.
    pub(crate) fn reloaded(&mut self, succeeded: bool) {
        let count = if succeeded { &mut self.reloads } else { &mut self.failed_reloads };
        *count += 1;
    }
}

/// What others count, and what is known besides.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) counts: &'a Counts,
    pub(crate) status: &'a Status,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// When the configuration that is in effect was read, seconds since 1970.
    pub(crate) configured_at: u64,
    pub(crate) left_alone: usize,
    pub(crate) netlink_writes: u64,
    pub(crate) metadata_requests: u64,
    pub(crate) metadata_retries: u64,
    pub(crate) metadata_errors: Vec<(&'static str, u64)>,
}

/// Tells all of it.
pub(crate) fn tell(facts: &Facts<'_>) -> String {
    let mut out = Exposition::default();
    of_the_agent(&mut out, facts);
    of_metadata(&mut out, facts);
    of_interfaces(&mut out, &facts.status.interfaces);
    out.text()
}

fn of_the_agent(out: &mut Exposition, facts: &Facts<'_>) {
    let counts = facts.counts;
    let version = env!("CARGO_PKG_VERSION");
    out.family("jackfield_build_info", Kind::Gauge, "Always 1; the label is the version.")
        .sample(&[("version", version)], 1.0);
    out.single(
        "jackfield_start_time_seconds",
        Kind::Gauge,
        "When the agent started, in seconds since 1970.",
        facts.started_at as f64,
    );
    let reloaded = facts.status.agent.as_ref();
    let in_effect = reloaded.is_none_or(|agent| agent.configuration_error.is_none());
    out.single(
        "jackfield_config_last_reload_successful",
        Kind::Gauge,
        "Whether the configuration that was read last is in effect.",
        f64::from(u8::from(in_effect)),
    );
    out.single(
        "jackfield_config_last_reload_success_timestamp_seconds",
        Kind::Gauge,
        "When the configuration that is in effect was read, in seconds since 1970.",
        facts.configured_at as f64,
    );
    out.family(
        "jackfield_config_reloads_total",
        Kind::Counter,
        "Times the configuration was read again.",
    )
    .sample(&[("result", "success")], counts.reloads as f64)
    .sample(&[("result", "failure")], counts.failed_reloads as f64);
    counts.time_to_ready.tell(
        out,
        "jackfield_time_to_ready_seconds",
        "Time from the device's appearance until all of the interface worked.",
    );
    for (name, help, value) in [
        ("plugs", "Interfaces that were plugged in and worked.", counts.time_to_ready.count),
        (
            "unplugs",
            "Interfaces that were pulled or released, of which nothing is left.",
            counts.gone,
        ),
        (
            "interface_changes",
            "Times something of a working interface became different.",
            counts.changed,
        ),
        (
            "left_alone",
            "Changes given up, as somebody else undid them again and again.",
            counts.given_up,
        ),
        ("changes_refused", "Changes that the kernel refused.", counts.refused),
        ("netlink_writes", "Requests to the kernel that change something.", facts.netlink_writes),
    ] {
        out.single(&format!("jackfield_{name}_total"), Kind::Counter, help, value as f64);
    }
    let mut repaired = out.family(
        "jackfield_drift_repaired_total",
        Kind::Counter,
        "Changes of somebody else that were put back, by object.",
    );
    for (object, count) in &counts.repaired {
        repaired.sample(&[("object", object)], *count as f64);
    }
    out.single(
        "jackfield_left_alone",
        Kind::Gauge,
        "Changes that are left alone now.",
        facts.left_alone as f64,
    );
}

fn of_metadata(out: &mut Exposition, facts: &Facts<'_>) {
    for (name, help, value) in [
        (
            "requests",
            "HTTP requests to the metadata service, for tokens included.",
            facts.metadata_requests,
        ),
        (
            "retries",
            "Requests that were sent once more because they had failed.",
            facts.metadata_retries,
        ),
    ] {
        out.single(&format!("jackfield_metadata_{name}_total"), Kind::Counter, help, value as f64);
    }
    let mut errors = out.family(
        "jackfield_metadata_errors_total",
        Kind::Counter,
        "Requests that failed, by kind; throttled: the service asked for fewer.",
    );
    for (kind, count) in &facts.metadata_errors {
        errors.sample(&[("kind", kind)], *count as f64);
    }
    let metadata = &facts.status.metadata;
    if let Some(reachable) = metadata.reachable {
        let help = "Whether the metadata service answered when it was last asked.";
        let value = f64::from(u8::from(reachable));
        out.single("jackfield_metadata_reachable", Kind::Gauge, help, value);
    }
    if let Some(age) = metadata.age_s {
        let help = "Time since the metadata service last answered.";
        out.single("jackfield_metadata_age_seconds", Kind::Gauge, help, age as f64);
    }
}

fn of_interfaces(out: &mut Exposition, interfaces: &[InterfaceStatus]) {
    let mut states = out.family(
        "jackfield_interface_state",
        Kind::Gauge,
        "1 for the state that the interface is in, 0 for every other.",
    );
    for interface in interfaces {
        for state in STATES {
            let value = f64::from(u8::from(interface.state == state));
            states.sample(&[of(interface), ("state", state.name())], value);
        }
    }
    let mut info = out.family(
        "jackfield_interface_info",
        Kind::Gauge,
        "Always 1; the labels are what the interface is.",
    );
    for interface in interfaces {
        let id = interface.interface_id.as_deref().unwrap_or_default();
        let role = if interface.primary { "primary" } else { "secondary" };
        let labels = [
            of(interface),
            ("mac", &interface.mac),
            ("interface_id", id),
            ("role", role),
            ("owner", &interface.owner),
            ("backend", &interface.backend),
        ];
        info.sample(&labels, 1.0);
    }
    let number = |count: usize| Some(count as f64);
    type Value = fn(&InterfaceStatus) -> usize;
    let counted: [(&str, &str, Value); 2] = [
        ("addresses", "Addresses of ours on the interface; of the primary, all.", |it| {
            it.addresses.len()
        }),
        ("prefixes", "Delegated prefixes of the interface.", |it| it.prefixes.len()),
    ];
    for (name, help, value) in counted {
        let mut family = out.family(&format!("jackfield_interface_{name}"), Kind::Gauge, help);
        for interface in interfaces {
            family.sample(&[of(interface)], number(value(interface)).unwrap_or_default());
        }
    }
    let mut ages = out.family(
        "jackfield_interface_metadata_age_seconds",
        Kind::Gauge,
        "Time since metadata last told something of the interface.",
    );
    for interface in interfaces {
        if let Some(age) = interface.metadata_age_s {
            ages.sample(&[of(interface)], age as f64);
        }
    }
    let mut problems: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for interface in interfaces {
        for problem in &interface.problems {
            *problems.entry((&interface.name, &problem.code)).or_default() += 1;
        }
    }
    let mut family = out.family(
        "jackfield_problems",
        Kind::Gauge,
        "What is wrong with the interface, or what it waits for, by the code that status tells.",
    );
    for ((interface, code), count) in problems {
        family.sample(&[("interface", interface), ("code", code)], f64::from(count));
    }
}

fn of(interface: &InterfaceStatus) -> (&'static str, &str) {
    ("interface", &interface.name)
}

/// Times, counted by how long they were.
#[derive(Debug, Default)]
struct Histogram {
    /// Those of at most each of [`BOUNDS`], and above the one before.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        let bucket = self.buckets.iter_mut().zip(BOUNDS).find(|(_, bound)| seconds <= *bound);
        if let Some((count, _)) = bucket {
            *count += 1;
        }
    }

    fn tell(&self, out: &mut Exposition, name: &str, help: &str) {
        let mut family = out.family(name, Kind::Histogram, help);
        let mut below = 0;
        for (count, bound) in self.buckets.iter().zip(BOUNDS) {
            below += count;
            family.part("_bucket", &[("le", &bound.to_string())], below as f64);
        }
        family.part("_bucket", &[("le", "+Inf")], self.count as f64);
        family.part("_sum", &[], self.sum);
        family.part("_count", &[], self.count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_every_bucket_from_its_own_on() {
        let mut histogram = Histogram::default();
        for seconds in [0.01, 0.011, 3.0, 100.0] {
            histogram.observe(seconds);
        }
        let mut out = Exposition::default();
        histogram.tell(&mut out, "t", "Times.");
        let text = out.text();
        for line in [
            "t_bucket{le=\"0.01\"} 1",
            "t_bucket{le=\"0.02\"} 2",
            "t_bucket{le=\"2.5\"} 2",
            "t_bucket{le=\"5\"} 3",
            "t_bucket{le=\"60\"} 3",
            "t_bucket{le=\"+Inf\"} 4",
            "t_count 4",
            "t_sum 103.021",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is not in {text}");
        }
    }
}
