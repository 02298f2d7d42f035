//! Answers that are kept for a while: a request with the same bytes gets the same answer.
//!
//! What a request means follows from its head. A request without wishes about freshness gets a fresh stored response until that
//! is fresh no longer, and all that changes in the answer are two numbers, `Age` and the time left. So a fresh hit is
//! worked out once for each different head, and is then one look-up. Clients of one kind that install the same things send the
//! same heads; where all heads differ, this saves nothing and costs one insertion.
//!
//! Invariants:
//! * An answer is used only while the index says what it said (the entry is still held), so a change that somebody was told
//!   of is never missed; only while its body is held; and only while the stored response is fresh.
//! * Neither entry nor body is kept alive for longer than the memory tier keeps it: bodies are referred to weakly.
//! * Each generation of the settings has answers of its own.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Method, StatusCode, response};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::head::Template;
use crate::{
    admission::Slot,
    deliver::{Record, Span},
    metrics::{Counted, Metrics, Outcome},
    pipeline::{Lasting, LastingBody},
    policy::Aged,
    recent::{Held, Recent},
    route::Target,
    store::{Content, Responses, Store},
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
    aged: Aged,
    entry: Responses,
    body: LastingBody,
    target: Arc<Target>,
    head: Template,
    about: About,
}

/// What the access log and the counters say about it.
#[derive(Debug, Clone)]
struct About {
    method: Method,
    status: StatusCode,
    outcome: Outcome,
    target: Arc<str>,
    counted: Counted,
}

/// An answer that only has to be written; its head is where it was asked to be.
#[derive(Debug)]
pub struct Ready {
    /// The body.
    pub body: ReadyBody,
    /// Its entry in the access log.
    pub record: Record,
    /// Its place among the requests that are being answered.
    pub slot: Slot,
}

/// The body of an answer that only has to be written.
#[derive(Debug)]
pub enum ReadyBody {
    /// There is none.
    Empty,
    /// All of it in memory.
    Memory(Arc<Held<Bytes>>),
    /// Part of a file.
    File(Span),
}

impl Prepared {
    /// The answer to a request with this head at `now`.
    pub fn get(&self, head: &[u8], now: Timestamp) -> Option<Arc<Held<Again>>> {
        let again = self.lock().get(head)?;
        (again.from <= now && now < again.until && again.entry.is_held()).then_some(again)
    }

    /// Keeps `answer`, the head of what `record` is about.
    pub fn keep(&self, asked: &[u8], answer: &response::Parts, lasting: Lasting, record: &Record) {
        let Some(head) = Template::of(answer) else { return };
        let weight = OVERHEAD + asked.len() + head.len();
        if weight > LIMIT / 64 {
            return;
        }
        let again = Again {
            from: lasting.from,
            until: lasting.until,
            aged: lasting.aged,
            entry: lasting.entry,
            body: lasting.body,
            target: lasting.target,
            head,
            about: About {
                method: record.method.clone(),
                status: record.status,
                outcome: record.outcome,
                target: Arc::clone(&record.target),
                counted: record.counted.clone(),
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

    /// The body, if it is still at hand.
    pub fn body(&self, store: &Store) -> Option<ReadyBody> {
        match &self.body {
            LastingBody::Empty => Some(ReadyBody::Empty),
            LastingBody::Memory(body) => {
                let body = body.upgrade().filter(|body| body.is_held())?;
                body.note_use();
                Some(ReadyBody::Memory(body))
            }
            LastingBody::File { content, bytes } => match store.content_at_hand(*content)? {
                Content::File { file, in_use, .. } => Some(ReadyBody::File(Span {
                    file,
                    next: bytes.start,
                    end: bytes.end,
                    in_use: Some(in_use),
                })),
                Content::Memory(_) => None,
            },
        }
    }

    /// The answer with `body` for `client` at `now`, with its head in `head`.
    pub fn ready(
        &self,
        body: ReadyBody,
        (client, metrics, slot): (IpAddr, &Metrics, Slot),
        (started, now): (Instant, Timestamp),
        head: &mut Vec<u8>,
    ) -> Ready {
        self.entry.note_use();
        let aged = Aged {
            age: self.aged.age.saturating_add(now.duration_since(self.from)),
            ..self.aged
        };
        let whole = |time: SignedDuration| u64::try_from(time.as_secs()).unwrap_or_default();
        head.clear();
        self.head.write(whole(aged.age), whole(aged.ttl()), head);
        let about = self.about.clone();
        Ready {
            slot,
            body,
            record: Record {
                method: about.method,
                target: about.target,
                client,
                counted: about.counted,
                in_flight: metrics.in_flight(),
                started,
                outcome: about.outcome,
                status: about.status,
                sent: 0,
                is_complete: false,
                metrics: metrics.clone(),
            },
        }
    }
}
