//! Answers that are kept for the rest of a second: a request with the same bytes gets the same bytes.
//!
//! What a request means follows from its head, and what its answer says changes once a second (`Age`). So a fresh hit is
//! worked out once for each different head and second, and is then one look-up. Clients of one kind that install the same
//! things send the same heads; where all heads differ, this saves nothing and costs one insertion.
//!
//! Invariants:
//! * An answer is used only while the index says what it said (the entry is still held), so a change that somebody was told
//!   of is never missed; only while its body is held; and only within the time for which every number in it is right.
//! * Neither entry nor body is kept alive for longer than the memory tier keeps it: bodies are referred to weakly.
//! * Each generation of the settings has answers of its own.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    deliver::Record,
    metrics::{Metrics, Outcome, UrlCounters},
    pipeline::Lasting,
    recent::{Held, Recent},
    route::Target,
    store::Responses,
};

/// The most bytes of all heads, of requests and of answers, roughly.
const LIMIT: usize = 4 << 20;
/// What one answer is taken to weigh beside its texts, in bytes.
const OVERHEAD: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub struct Prepared(Mutex<Recent<Box<[u8]>, Again>>);

/// One answer that is good for a while.
#[derive(Debug)]
pub struct Again {
    from: Timestamp,
    until: Timestamp,
    entry: Responses,
    body: Option<Weak<Held<Bytes>>>,
    target: Arc<Target>,
    head: Bytes,
    about: About,
}

/// What the access log and the counters say about it.
#[derive(Debug, Clone)]
struct About {
    method: Method,
    status: StatusCode,
    outcome: Outcome,
    target: Arc<str>,
    url: Option<Arc<UrlCounters>>,
}

/// An answer that only has to be written.
#[derive(Debug)]
pub struct Ready {
    /// The head.
    pub head: Bytes,
    /// The body, if there is one.
    pub body: Option<Arc<Held<Bytes>>>,
    /// Its entry in the access log.
    pub record: Record,
}

impl Prepared {
    /// The answer to a request with this head at `now`.
    pub fn get(&self, head: &[u8], now: Timestamp) -> Option<Arc<Held<Again>>> {
        let again = self.lock().get(head)?;
        (again.from <= now && now < again.until && again.entry.is_held()).then_some(again)
    }

    /// Keeps `answer`, the head of what `record` is about.
    pub fn keep(&self, asked: &[u8], answer: &Bytes, lasting: Lasting, record: &Record) {
        let weight = OVERHEAD + asked.len() + answer.len();
        if weight > LIMIT / 64 {
            return;
        }
        let again = Again {
            from: lasting.from,
            until: lasting.until,
            entry: lasting.entry,
            body: lasting.body.as_ref().map(Arc::downgrade),
            target: lasting.target,
            head: answer.clone(),
            about: About {
                method: record.method.clone(),
                status: record.status,
                outcome: record.outcome,
                target: Arc::clone(&record.target),
                url: record.url.clone(),
            },
        };
        let mut kept = self.lock();
        kept.insert(asked.into(), Arc::new(Held::new(again)), weight);
        while kept.weight() > LIMIT && kept.push_out() {}
    }

    fn lock(&self) -> MutexGuard<'_, Recent<Box<[u8]>, Again>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Again {
    /// The cache key.
    pub fn key(&self) -> &str {
        self.target.key.as_str()
    }

    /// The answer for `client`; `None` when its body is gone.
    pub fn ready(&self, client: IpAddr, started: Instant, metrics: &Metrics) -> Option<Ready> {
        let body = match &self.body {
            Some(body) => Some(body.upgrade().filter(|body| body.is_held())?),
            None => None,
        };
        self.entry.note_use();
        if let Some(body) = &body {
            body.note_use();
        }
        let about = self.about.clone();
        Some(Ready {
            head: self.head.clone(),
            body,
            record: Record {
                method: about.method,
                target: about.target,
                client,
                url: about.url,
                started,
                outcome: about.outcome,
                status: about.status,
                sent: 0,
                is_complete: false,
                metrics: metrics.clone(),
            },
        })
    }
}
