//! The counters in the text format that Prometheus reads.
//!
//! Every family has a help text and a type, counters end in `_total`, and units are seconds and bytes. Label values come from closed
//! enums and from the settings, never from a request.

use std::sync::{
    PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Event, Gauges, Metrics, Outcome, UpstreamCounters, gauges, page::Page, store};
use crate::{origin::ErrorKind, store::Trouble};

impl Metrics {
    /// The metrics page.
    pub fn render(&self, now: &Gauges) -> String {
        let mut page = Page::default();
        self.render_requests(&mut page);
        self.render_times(&mut page);
        self.render_events(&mut page);
        self.render_upstreams(&mut page);
        self.render_rates(&mut page);
        store::render(&mut page, now);
        render_mirrors(&mut page, now);
        render_process(&mut page);
        page.finish()
    }

    fn render_requests(&self, page: &mut Page) {
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
                    all.in_flight.load(Relaxed),
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
        let single: [(&str, &str, Reading); 3] = [
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
            (
                "kato_proxy_upstream_tunnel_bytes_total",
                "Bytes through CONNECT tunnels to hosts of an upstream.",
                |counters| &counters.tunnel_bytes,
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

    /// Upstreams that have said nothing have no sample.
    fn render_rates(&self, page: &mut Page) {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let told: [(&str, &str, Told); 2] = [
            (
                "kato_proxy_upstream_rate_limit",
                "RateLimit-Limit: how many questions a registry answers in its window.",
                |(limit, _)| limit,
            ),
            (
                "kato_proxy_upstream_rate_limit_remaining",
                "RateLimit-Remaining: how many of them are left, as of its last answer.",
                |(_, remaining)| Some(remaining),
            ),
        ];
        for (name, help, reading) in told {
            page.family(name, "gauge", help);
            for (upstream, counters) in upstreams.iter() {
                let rate = *counters.rate.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(value) = rate.and_then(reading) {
                    page.sample(name, &[("upstream", upstream)], value);
                }
            }
        }
    }
}

/// What an upstream has said about its limits.
type Told = fn((Option<u64>, u64)) -> Option<u64>;

/// A counter of an upstream for each outcome.
type Readings = fn(&UpstreamCounters) -> &[AtomicU64];

/// One counter of an upstream.
type Reading = fn(&UpstreamCounters) -> &AtomicU64;

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
