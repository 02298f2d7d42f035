//! The access log: one event per answer, written when its body ends or breaks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::{
    metrics::{Event, InFlight, Metrics, Outcome},
    settings::Upstream,
};

/// One request and its answer so far. Dropped, it is logged and counted.
#[derive(Debug)]
pub struct Record {
    /// The method.
    pub method: Method,
    /// The target, redacted.
    pub target: String,
    /// The client.
    pub client: IpAddr,
    /// The cache key's URI, under which requests are counted.
    pub url: Option<String>,
    /// The upstream that it is about.
    pub upstream: Option<Arc<Upstream>>,
    /// When the request arrived.
    pub started: Instant,
    /// How it was answered.
    pub outcome: Outcome,
    /// The status code.
    pub status: StatusCode,
    /// Body bytes handed to the connection.
    pub sent: u64,
    /// Whether the body has come to its end.
    pub is_complete: bool,
    /// Where to count.
    pub metrics: Metrics,
    /// Counts it among those under way.
    pub in_flight: InFlight,
}

impl Record {
    /// Notes bytes that were handed to the connection.
    pub fn add(&mut self, bytes: u64) {
        self.sent += bytes;
        self.metrics.sent(bytes);
    }

    fn took(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_complete {
            self.metrics.note(Event::BodyBroken);
        }
        if let Some(url) = &self.url {
            self.metrics.url(url, |counts| {
                counts.requests += 1;
                counts.bytes += self.sent;
            });
        }
        if let Some(upstream) = &self.upstream {
            self.metrics
                .served(upstream.name.as_str(), self.outcome, self.sent);
        }
        tracing::info!(
            target: "access",
            client = %self.client,
            method = %self.method,
            url = %self.target,
            status = self.status.as_u16(),
            outcome = self.outcome.label(),
            bytes = self.sent,
            complete = self.is_complete,
            seconds = self.took().as_secs_f64(),
            "answered"
        );
    }
}
