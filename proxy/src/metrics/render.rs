//! The counters in the text format that Prometheus reads.
//!
//! Every family has a help text and a type, counters end in `_total`, and units are seconds and bytes. Label values come from closed
//! enums and from the settings, never from a request.

use std::{
    fmt::Write as _,
    sync::{PoisonError, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use super::{
    Event, Gauges, Metrics, Outcome, UpstreamCounters, gauges,
    histogram::{BUCKETS, Histogram},
};
use crate::{
    origin::ErrorKind,
    store::{Store, Trouble},
};

/// A counter or gauge without labels: name, help, value.
type Plain = (&'static str, &'static str, u64);

impl Metrics {
    /// The metrics page.
    pub fn render(&self, now: &Gauges) -> String {
        let mut page = Page(String::new());
        self.render_requests(&mut page, now);
        self.render_times(&mut page);
        self.render_events(&mut page);
        self.render_upstreams(&mut page);
        render_totals(&mut page, now);
        render_mirrors(&mut page, now);
        render_process(&mut page);
        page.0
    }

    fn render_requests(&self, page: &mut Page, now: &Gauges) {
        let all = &self.0;
        let of = |counters: &[AtomicU64], outcome: Outcome| counters[outcome as usize].load(Relaxed);
        page.family(
            "kato_proxy_requests_total",
            "counter",
            "Requests answered, by outcome.",
        );
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.label())];
            page.sample("kato_proxy_requests_total", &labels, of(&all.requests, outcome));
        }
        page.plain(
            "counter",
            &[
                (
                    "kato_proxy_lan_bytes_total",
                    "Body bytes sent to clients.",
                    self.lan_bytes(),
                ),
                (
                    "kato_proxy_tunnel_bytes_total",
                    "Bytes through CONNECT tunnels.",
                    all.tunnel_bytes.load(Relaxed),
                ),
                (
                    "kato_proxy_connections_total",
                    "Client connections accepted.",
                    all.connections.load(Relaxed),
                ),
            ],
        );
        page.plain(
            "gauge",
            &[
                (
                    "kato_proxy_open_connections",
                    "Client connections that are open.",
                    all.open_connections.load(Relaxed),
                ),
                (
                    "kato_proxy_in_flight_requests",
                    "Requests whose answers are under way.",
                    now.in_flight,
                ),
            ],
        );
    }

    fn render_times(&self, page: &mut Page) {
        let all = &self.0;
        let name = "kato_proxy_first_byte_seconds";
        page.family(
            name,
            "histogram",
            "Time until the response head was ready, by outcome.",
        );
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.label())];
            page.histogram(name, &labels, &all.first_byte[outcome as usize]);
        }
        let name = "kato_proxy_fill_seconds";
        page.family(
            name,
            "histogram",
            "Time from the head of a response to the end of its download.",
        );
        page.histogram(name, &[], &all.fill);
        let name = "kato_proxy_join_wait_seconds";
        page.family(
            name,
            "histogram",
            "Time that a request waited for the head of another one's download.",
        );
        page.histogram(name, &[], &all.join_wait);
    }

    fn render_events(&self, page: &mut Page) {
        page.family(
            "kato_proxy_events_total",
            "counter",
            "Things that happen now and then.",
        );
        for event in Event::ALL {
            page.sample(
                "kato_proxy_events_total",
                &[("event", event.label())],
                self.0.events[event as usize].load(Relaxed),
            );
        }
        page.family(
            "kato_proxy_not_stored_total",
            "counter",
            "Bodies that were passed through because of the store, by what ailed it.",
        );
        for trouble in Trouble::ALL {
            page.sample(
                "kato_proxy_not_stored_total",
                &[("reason", trouble.label())],
                self.0.not_stored[trouble as usize].load(Relaxed),
            );
        }
    }

    fn render_upstreams(&self, page: &mut Page) {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let single: [(&str, &str, Reading); 2] = [
            (
                "kato_proxy_upstream_requests_total",
                "Requests sent to upstreams.",
                |counters| &counters.requests,
            ),
            (
                "kato_proxy_wan_bytes_total",
                "Body bytes received from upstreams.",
                |counters| &counters.bytes,
            ),
        ];
        for (name, help, reading) in single {
            page.family(name, "counter", help);
            for (upstream, counters) in upstreams.iter() {
                page.sample(name, &[("upstream", upstream)], reading(counters).load(Relaxed));
            }
        }
        let name = "kato_proxy_upstream_failures_total";
        page.family(
            name,
            "counter",
            "Requests that brought no answer, by kind of error.",
        );
        for (upstream, counters) in upstreams.iter() {
            for kind in ErrorKind::ALL {
                let labels = [("upstream", upstream.as_str()), ("kind", kind.label())];
                page.sample(name, &labels, counters.failures[kind as usize].load(Relaxed));
            }
        }
        let by_outcome: [(&str, &str, Readings); 2] = [
            (
                "kato_proxy_upstream_answers_total",
                "Answers to clients about resources of an upstream, by outcome.",
                |counters| &counters.answers,
            ),
            (
                "kato_proxy_upstream_answer_bytes_total",
                "Body bytes of these answers.",
                |counters| &counters.answer_bytes,
            ),
        ];
        for (name, help, reading) in by_outcome {
            page.family(name, "counter", help);
            for (upstream, counters) in upstreams.iter() {
                for outcome in Outcome::ALL {
                    let labels = [("upstream", upstream.as_str()), ("outcome", outcome.label())];
                    page.sample(name, &labels, reading(counters)[outcome as usize].load(Relaxed));
                }
            }
        }
    }
}

/// What the store tells about itself, as a part of the page.
pub fn render_store(store: &Store) -> String {
    let mut page = Page(String::new());
    let scrub = store.scrub_figures();
    for (name, kind, help, value) in [
        (
            "kato_proxy_scrub_bytes_total",
            "counter",
            "Bytes of content that the scrub has read.",
            scrub.bytes,
        ),
        (
            "kato_proxy_scrub_passes_total",
            "counter",
            "Times that the scrub has read all content.",
            scrub.passes,
        ),
        (
            "kato_proxy_damaged_total",
            "counter",
            "Contents that were found damaged.",
            scrub.damaged,
        ),
        (
            "kato_proxy_quarantined",
            "gauge",
            "Damaged contents that are kept for somebody to look at.",
            store.quarantined().len() as u64,
        ),
        (
            "kato_proxy_queued_responses",
            "gauge",
            "Stored responses that are not durable yet.",
            store.queued(),
        ),
        (
            "kato_proxy_store_ails",
            "gauge",
            "1 while the store takes nothing new.",
            u64::from(store.trouble().is_some()),
        ),
    ] {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
    page.0
}

/// A counter of an upstream for each outcome.
type Readings = fn(&UpstreamCounters) -> &[AtomicU64];

/// One counter of an upstream.
type Reading = fn(&UpstreamCounters) -> &AtomicU64;

fn render_totals(page: &mut Page, now: &Gauges) {
    page.plain(
        "gauge",
        &[
            (
                "kato_proxy_stored_responses",
                "Cache keys with a stored response.",
                now.responses,
            ),
            (
                "kato_proxy_stored_bytes",
                "Bytes of distinct content in the store.",
                now.bytes,
            ),
        ],
    );
}

fn render_mirrors(page: &mut Page, now: &Gauges) {
    let name = "kato_proxy_mirror_down";
    page.family(
        name,
        "gauge",
        "1 while requests with a stored response to stand in do not wait for this mirror.",
    );
    for (upstream, mirror, is_down) in &now.mirrors {
        let labels = [("upstream", upstream.as_str()), ("mirror", mirror.as_str())];
        page.sample(name, &labels, u64::from(*is_down));
    }
}

fn render_process(page: &mut Page) {
    let (resident, descriptors) = gauges::process();
    let readings = [
        ("process_resident_memory_bytes", "Resident memory.", resident),
        ("process_open_fds", "Open file descriptors.", descriptors),
    ];
    for (name, help, value) in readings {
        if let Some(value) = value {
            page.plain("gauge", &[(name, help, value)]);
        }
    }
    let name = "kato_proxy_build_info";
    page.family(name, "gauge", "1, with the version of this program.");
    page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// The page being written. Writing to a `String` cannot fail.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        let _infallible = writeln!(self.0, "{line}");
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// Families of one sample each.
    fn plain(&mut self, kind: &str, samples: &[Plain]) {
        for (name, help, value) in samples {
            self.family(name, kind, help);
            self.sample(name, &[], *value);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.line(&format!("{name}{} {value}", shown(labels)));
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
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
