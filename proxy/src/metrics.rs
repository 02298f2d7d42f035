//! Counters of the process, as the metrics page and the statistics show them.
//!
//! A small registry of its own: label values come from closed enums and from the settings, so that no client can make the
//! page grow. Requests per URL are bounded in number instead.

mod gauges;
mod histogram;
mod page;
mod render;
mod store;

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use kato_shared::api::{RequestStats, UpstreamStats};
use serde::Serialize;

use crate::{origin::ErrorKind, quick_map::QuickMap, settings::Settings, store::Trouble};
use histogram::Histogram;

pub use gauges::Gauges;

/// URLs whose requests are counted one by one; later ones are only in the totals.
const MAX_URLS: usize = 65_536;

/// How a request was answered; the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the store, fresh or validated or permitted to be stale.
    Hit,
    /// Nothing was stored.
    Miss,
    /// Something stale was stored and replaced.
    Stale,
    /// From a download that another request had begun.
    Collapsed,
    /// Forwarded without the store.
    Bypass,
    /// Refused before any forwarding.
    Refused,
    /// Ended in an error of the upstream or ours.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order of the counters.
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Miss,
        Self::Stale,
        Self::Collapsed,
        Self::Bypass,
        Self::Refused,
        Self::Failed,
    ];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Bypass => "bypass",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Things that happen now and then; the label `event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A response was stored.
    Stored,
    /// A whole body could not be stored and was passed through.
    PassedThrough,
    /// A download failed.
    FillFailed,
    /// A download was not what its digest promised.
    VerificationFailed,
    /// A client's body was cut short.
    BodyBroken,
    /// A stale response stood in for a failing upstream.
    StaleServed,
    /// What was stored was missing or damaged, and fetched again.
    Healed,
    /// A download went on where an earlier one had broken off.
    Resumed,
    /// A download was given up since nobody wanted it any more.
    Deserted,
}

impl Event {
    const ALL: [Self; 9] = [
        Self::Stored,
        Self::PassedThrough,
        Self::FillFailed,
        Self::VerificationFailed,
        Self::BodyBroken,
        Self::StaleServed,
        Self::Healed,
        Self::Resumed,
        Self::Deserted,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::PassedThrough => "passed_through",
            Self::FillFailed => "fill_failed",
            Self::VerificationFailed => "verification_failed",
            Self::BodyBroken => "body_broken",
            Self::StaleServed => "stale_served",
            Self::Healed => "healed",
            Self::Resumed => "resumed",
            Self::Deserted => "deserted",
        }
    }
}

/// The counters; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: [AtomicU64; Outcome::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
    not_stored: [AtomicU64; Trouble::ALL.len()],
    first_byte: [Histogram; Outcome::ALL.len()],
    lan_bytes: AtomicU64,
    tunnel_bytes: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
    in_flight: AtomicU64,
    fill: Histogram,
    join_wait: Histogram,
    /// By name, in the order in which they were configured. A replaced upstream keeps its counts; none is ever removed.
    upstreams: RwLock<Vec<(String, Arc<UpstreamCounters>)>>,
    urls: Mutex<QuickMap<String, Arc<UrlCounters>>>,
}

/// Counters of one upstream, shared with whoever answers for it.
#[derive(Debug, Default)]
pub struct UpstreamCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    /// Requests that brought no answer.
    failures: [AtomicU64; ErrorKind::ALL.len()],
    /// Bytes through tunnels to its hosts.
    tunnel_bytes: AtomicU64,
    /// Answers to clients, and their body bytes.
    answers: [AtomicU64; Outcome::ALL.len()],
    answer_bytes: [AtomicU64; Outcome::ALL.len()],
    /// What a registry has said last about how often it may be asked.
    rate: Mutex<Option<Rate>>,
}

/// The limit, where it was told, and what is left of it.
type Rate = (Option<u64>, u64);

/// The counters of a tunnel.
#[derive(Debug)]
pub struct Tunnelled {
    all: Arc<Counters>,
    upstream: Option<Arc<UpstreamCounters>>,
}

impl Tunnelled {
    /// Bytes went through it, in either direction.
    pub fn passed(&self, bytes: u64) {
        self.all.tunnel_bytes.fetch_add(bytes, Relaxed);
        if let Some(upstream) = &self.upstream {
            upstream.tunnel_bytes.fetch_add(bytes, Relaxed);
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct InFlight(Arc<Counters>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A client connection that is open.
#[derive(Debug)]
pub struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Relaxed);
    }
}

/// Counters of one URL, shared with whoever answers for it.
#[derive(Debug, Default)]
pub struct UrlCounters {
    requests: AtomicU64,
    origin_requests: AtomicU64,
    bytes: AtomicU64,
}

impl UrlCounters {
    /// A client's request was answered with `bytes` body bytes.
    pub fn answered(&self, bytes: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A request went to an upstream.
    pub fn asked_origin(&self) {
        self.origin_requests.fetch_add(1, Relaxed);
    }

    fn counts(&self) -> UrlCounts {
        UrlCounts {
            requests: self.requests.load(Relaxed),
            origin_requests: self.origin_requests.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

/// Where the answer to a request is counted beside the totals; both are missing where no upstream is meant.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    url: Option<Arc<UrlCounters>>,
    upstream: Option<Arc<UpstreamCounters>>,
}

impl Counted {
    /// A client has its whole answer, or what it took of it: `bytes` of its body.
    pub fn served(&self, outcome: Outcome, bytes: u64) {
        if let Some(url) = &self.url {
            url.answered(bytes);
        }
        if let Some(upstream) = &self.upstream {
            upstream.answers[outcome as usize].fetch_add(1, Relaxed);
            upstream.answer_bytes[outcome as usize].fetch_add(bytes, Relaxed);
        }
    }
}

/// Requests for one URL since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UrlCounts {
    /// Requests of clients.
    pub requests: u64,
    /// Requests that went to an upstream for it, validations and resumptions included.
    pub origin_requests: u64,
    /// Body bytes sent to clients.
    pub bytes: u64,
}

impl Metrics {
    /// Counters at zero, with one set for each upstream of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let metrics = Self(Arc::default());
        metrics.add_upstreams(settings);
        metrics
    }

    /// Counters at zero for the upstreams of `settings` that have none yet: the settings were replaced while serving.
    pub fn add_upstreams(&self, settings: &Settings) {
        let mut known = self.0.upstreams.write().unwrap_or_else(PoisonError::into_inner);
        for upstream in &settings.upstreams {
            let name = upstream.name.to_string();
            if !known.iter().any(|(known, _)| *known == name) {
                known.push((name, Arc::default()));
            }
        }
    }

    /// A request was answered; `first_byte` is the time until its head was ready.
    pub fn answered(&self, outcome: Outcome, first_byte: Duration) {
        self.0.requests[outcome as usize].fetch_add(1, Relaxed);
        self.0.first_byte[outcome as usize].observe(first_byte);
    }

    /// Where answers about `url` of `upstream` are counted beside the totals.
    pub fn counted(&self, url: &str, upstream: &str) -> Counted {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let known = upstreams.iter().find(|(known, _)| known == upstream);
        Counted {
            upstream: known.map(|(_, counters)| Arc::clone(counters)),
            url: self.url(url),
        }
    }

    /// A download has ended, well or badly; `took` began with the head of the response.
    pub fn filled(&self, took: Duration) {
        self.0.fill.observe(took);
    }

    /// A request waited so long for the download of another one to begin.
    pub fn joined(&self, waited: Duration) {
        self.0.join_wait.observe(waited);
    }

    /// A request is being answered until the value is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.0))
    }

    /// A client connection was accepted, and is open until the value is dropped.
    pub fn connected(&self) -> Open {
        self.0.connections.fetch_add(1, Relaxed);
        self.0.open_connections.fetch_add(1, Relaxed);
        Open(Arc::clone(&self.0))
    }

    /// Something happened.
    pub fn note(&self, event: Event) {
        self.0.events[event as usize].fetch_add(1, Relaxed);
    }

    /// A body that could be stored is only passed through.
    pub fn not_stored(&self, trouble: Trouble) {
        self.0.not_stored[trouble as usize].fetch_add(1, Relaxed);
    }

    /// Body bytes were handed to a client's connection.
    pub fn sent(&self, bytes: u64) {
        self.0.lan_bytes.fetch_add(bytes, Relaxed);
    }

    /// Where bytes through a tunnel to a host of the upstream `name` are counted, while they go.
    pub fn tunnel(&self, name: &str) -> Tunnelled {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let known = upstreams.iter().find(|(known, _)| known == name);
        Tunnelled {
            all: Arc::clone(&self.0),
            upstream: known.map(|(_, counters)| Arc::clone(counters)),
        }
    }

    /// Bytes through tunnels: what was not cached.
    pub fn tunnel_bytes(&self) -> u64 {
        self.0.tunnel_bytes.load(Relaxed)
    }

    /// The counters of one URL; `None` for those that are only in the totals.
    pub fn url(&self, url: &str) -> Option<Arc<UrlCounters>> {
        let mut urls = self.0.urls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = urls.get(url) {
            return Some(Arc::clone(counters));
        }
        (urls.len() < MAX_URLS).then(|| Arc::clone(urls.entry(url.to_owned()).or_default()))
    }

    /// The counts of all URLs that begin with `prefix`, sorted.
    pub fn urls(&self, prefix: &str) -> Vec<(String, UrlCounts)> {
        let urls = self.0.urls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = urls
            .iter()
            .filter(|(url, _)| url.starts_with(prefix))
            .map(|(url, counters)| (url.clone(), counters.counts()))
            .collect();
        drop(urls);
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// A request was sent to an upstream.
    pub fn upstream_request(&self, name: &str) {
        self.upstream(name, |upstream| &upstream.requests, 1);
    }

    /// Body bytes came from an upstream.
    pub fn upstream_bytes(&self, name: &str, bytes: u64) {
        self.upstream(name, |upstream| &upstream.bytes, bytes);
    }

    /// A request to an upstream brought no answer.
    pub fn upstream_failure(&self, name: &str, kind: ErrorKind) {
        self.upstream(name, |upstream| &upstream.failures[kind as usize], 1);
    }

    /// A registry has said how often it may be asked in a while, and how often still.
    pub fn rate_limited(&self, name: &str, rate: (Option<u64>, u64)) {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, upstream)) = upstreams.iter().find(|(known, _)| known == name) {
            *upstream.rate.lock().unwrap_or_else(PoisonError::into_inner) = Some(rate);
        }
    }

    fn upstream(&self, name: &str, counter: impl Fn(&UpstreamCounters) -> &AtomicU64, by: u64) {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, upstream)) = upstreams.iter().find(|(known, _)| known == name) {
            counter(upstream).fetch_add(by, Relaxed);
        }
    }

    /// Requests by outcome.
    pub fn requests(&self) -> RequestStats {
        let of = |outcome: Outcome| self.0.requests[outcome as usize].load(Relaxed);
        RequestStats {
            hit: of(Outcome::Hit),
            miss: of(Outcome::Miss),
            stale: of(Outcome::Stale),
            collapsed: of(Outcome::Collapsed),
            bypass: of(Outcome::Bypass),
            refused: of(Outcome::Refused),
            failed: of(Outcome::Failed),
        }
    }

    /// Body bytes sent to clients.
    pub fn lan_bytes(&self) -> u64 {
        self.0.lan_bytes.load(Relaxed)
    }

    /// Per upstream.
    pub fn upstreams(&self) -> Vec<UpstreamStats> {
        let upstreams = self.0.upstreams.read().unwrap_or_else(PoisonError::into_inner);
        let stats = upstreams.iter().map(|(name, upstream)| UpstreamStats {
            name: name.clone(),
            requests: upstream.requests.load(Relaxed),
            bytes: upstream.bytes.load(Relaxed),
            failures: upstream.failures.iter().map(|kind| kind.load(Relaxed)).sum(),
            tunnel_bytes: upstream.tunnel_bytes.load(Relaxed),
        });
        stats.collect()
    }
}

#[cfg(test)]
mod tests;
