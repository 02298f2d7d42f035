//! The text format that Prometheus reads: families with help and type, then their samples.

use std::fmt::Write as _;

use super::histogram::{BUCKETS, Histogram};

/// A counter or gauge without labels: name, help, value.
pub(super) type Plain = (&'static str, &'static str, u64);

/// The page being written. Writing to a `String` cannot fail.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// The whole page.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: &str) {
        let _infallible = writeln!(self.0, "{line}");
    }

    /// The head of a family; its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// Families of one sample each.
    pub(super) fn plain(&mut self, kind: &str, samples: &[Plain]) {
        for (name, help, value) in samples {
            self.family(name, kind, help);
            self.sample(name, &[], *value);
        }
    }

    /// One sample of the family begun last.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(&format!("{name}{} {value}", shown(labels)));
    }

    /// A histogram of the family begun last.
    pub(super) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let now = histogram.snapshot();
        for (bound, count) in BUCKETS.iter().zip(now.cumulative) {
            let bound = bound.to_string();
            self.sample(&format!("{name}_bucket"), &with(labels, ("le", &bound)), count);
        }
        self.sample(
            &format!("{name}_bucket"),
            &with(labels, ("le", "+Inf")),
            now.count,
        );
        self.line(&format!("{name}_sum{} {}", shown(labels), now.sum.as_secs_f64()));
        self.sample(&format!("{name}_count"), labels, now.count);
    }
}

fn with<'l>(labels: &[(&'l str, &'l str)], last: (&'l str, &'l str)) -> Vec<(&'l str, &'l str)> {
    labels.iter().copied().chain([last]).collect()
}

/// `{name="value",…}`, or nothing.
fn shown(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// "`label_value` … has to escape backslash, double-quote, and line feed".
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
