//! The access log: one event per answer, written when its body ends or breaks.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::metrics::{Event, Metrics, Outcome, UrlCounters};

/// One request and its answer so far. Dropped, it is logged and counted.
#[derive(Debug)]
pub struct Record {
    /// The method.
    pub method: Method,
    /// The target, redacted; nothing where nobody reads it, see [`Record::is_wanted`].
    pub target: Arc<str>,
    /// The client.
    pub client: IpAddr,
    /// Where requests for this URL are counted.
    pub url: Option<Arc<UrlCounters>>,
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
}

impl Record {
    /// Whether somebody reads the access log: if not, nothing need be made ready for it.
    pub fn is_wanted() -> bool {
        tracing::enabled!(target: "access", tracing::Level::INFO)
    }

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
            url.answered(self.outcome, self.sent);
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
