//! The counters in the text format that Prometheus reads.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed, time::Duration};

use kato_shared::api::UpstreamStats;

use super::{BUCKETS, Event, Metrics, Outcome};
use crate::store::{Store, Trouble};

impl Metrics {
    /// The metrics page; `stored` are the store's responses and bytes.
    pub fn render(&self, stored: (u64, u64)) -> String {
        let mut page = Page(String::new());
        page.family(
            "kato_proxy_requests_total",
            "counter",
            "Requests answered, by outcome.",
        );
        for outcome in Outcome::ALL {
            page.sample(
                "kato_proxy_requests_total",
                Some(("outcome", outcome.label())),
                self.0.requests[outcome as usize].load(Relaxed),
            );
        }
        self.render_events(&mut page);
        for (name, help, value) in [
            (
                "kato_proxy_lan_bytes_total",
                "Body bytes sent to clients.",
                self.lan_bytes(),
            ),
            (
                "kato_proxy_tunnel_bytes_total",
                "Bytes through CONNECT tunnels.",
                self.0.tunnel_bytes.load(Relaxed),
            ),
            (
                "kato_proxy_connections_total",
                "Client connections accepted.",
                self.0.connections.load(Relaxed),
            ),
        ] {
            page.family(name, "counter", help);
            page.sample(name, None, value);
        }
        page.family(
            "kato_proxy_stored_responses",
            "gauge",
            "Cache keys with a stored response.",
        );
        page.sample("kato_proxy_stored_responses", None, stored.0);
        page.family(
            "kato_proxy_stored_bytes",
            "gauge",
            "Bytes of distinct content in the store.",
        );
        page.sample("kato_proxy_stored_bytes", None, stored.1);
        self.render_upstreams(&mut page);
        self.render_first_byte(&mut page);
        page.0
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
                Some(("event", event.label())),
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
                Some(("reason", trouble.label())),
                self.0.not_stored[trouble as usize].load(Relaxed),
            );
        }
    }

    fn render_upstreams(&self, page: &mut Page) {
        let stats = self.upstreams();
        let families: [(&str, &str, Reading); 3] = [
            (
                "kato_proxy_upstream_requests_total",
                "Requests sent to upstreams.",
                |stats| stats.requests,
            ),
            (
                "kato_proxy_wan_bytes_total",
                "Body bytes received from upstreams.",
                |stats| stats.bytes,
            ),
            (
                "kato_proxy_upstream_failures_total",
                "Requests that brought no answer.",
                |stats| stats.failures,
            ),
        ];
        for (name, help, value) in families {
            page.family(name, "counter", help);
            for upstream in &stats {
                page.sample(name, Some(("upstream", &upstream.name)), value(upstream));
            }
        }
    }

    fn render_first_byte(&self, page: &mut Page) {
        let name = "kato_proxy_first_byte_seconds";
        page.family(name, "histogram", "Time until the response head was ready.");
        for outcome in Outcome::ALL {
            let (histogram, label) = (&self.0.first_byte[outcome as usize], outcome.label());
            let count = histogram.count.load(Relaxed);
            let mut below = 0;
            for (bound, bucket) in BUCKETS.iter().zip(&histogram.buckets) {
                below += bucket.load(Relaxed);
                page.line(&format!(
                    "{name}_bucket{{outcome=\"{label}\",le=\"{bound}\"}} {below}"
                ));
            }
            let sum = Duration::from_micros(histogram.sum_micros.load(Relaxed)).as_secs_f64();
            page.line(&format!(
                "{name}_bucket{{outcome=\"{label}\",le=\"+Inf\"}} {count}"
            ));
            page.line(&format!("{name}_sum{{outcome=\"{label}\"}} {sum}"));
            page.line(&format!("{name}_count{{outcome=\"{label}\"}} {count}"));
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
        page.sample(name, None, value);
    }
    page.0
}

/// One counter of an upstream.
type Reading = fn(&UpstreamStats) -> u64;

/// The page being written. Writing to a `String` cannot fail.
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        let _infallible = writeln!(self.0, "{line}");
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, label: Option<(&str, &str)>, value: u64) {
        match label {
            Some((key, text)) => self.line(&format!("{name}{{{key}=\"{text}\"}} {value}")),
            None => self.line(&format!("{name} {value}")),
        }
    }
}
