//! Downloads that broke off, kept so that the next request for the same goes on where they end.
//!
//! "A cache can complete a stored incomplete response by making a subsequent range request and combining the successful
//! response with the stored response" ([RFC 9111 §3.3, §3.4]). Only a beginning of a 200 under a strong validator is kept, so
//! that the rest can be asked for with `Range` and `If-Range` and nobody has to guess whether both belong together.
//!
//! Bounds: [`Partials::MOST`] of them, a share of the store's quota together, [`Partials::LIFETIME`] each. They live as long as
//! the process: the files are temporary ones, which the next start clears.
//!
//! Deliberately absent: parts that do not begin at 0, and partial responses to the range of one client: a download is always of
//! the whole.
//!
//! [RFC 9111 §3.3, §3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-3.3

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::tally::{Lane, Tally};
use crate::{policy::Stored, store::Temporary};

/// The beginning of a body: a file, its digest so far, and how many bytes it has.
#[derive(Debug)]
pub struct Partial {
    pub(super) temporary: Temporary,
    pub(super) tally: Tally,
    pub(super) received: u64,
}

impl Partial {
    /// Nothing yet.
    pub fn new(temporary: Temporary, lane: &Lane) -> Self {
        let tally = Tally::new(std::sync::Arc::clone(temporary.file()), lane);
        Self {
            temporary,
            tally,
            received: 0,
        }
    }

    /// Bytes that are there.
    pub const fn received(&self) -> u64 {
        self.received
    }
}

/// A download that broke off, and what it takes to go on.
#[derive(Debug)]
pub struct Kept {
    /// What came.
    pub partial: Partial,
    /// The head of the 200 that it began with.
    pub head: Stored,
    /// What `If-Range` carries; strong.
    pub validator: HeaderValue,
    /// The size of the whole.
    pub total: u64,
}

/// The downloads that broke off.
#[derive(Debug)]
pub struct Partials {
    most_bytes: u64,
    kept: Mutex<VecDeque<(String, Instant, Kept)>>,
}

impl Partials {
    /// The most downloads kept.
    const MOST: usize = 64;
    /// How long one is kept: a client that retries does so sooner, and the room is worth more to others later.
    const LIFETIME: Duration = Duration::from_secs(3600);
    /// Less than this is fetched again: a resumption costs about as much.
    pub const LEAST: u64 = 64 << 10;

    /// None yet; together at most `most_bytes`.
    pub fn new(most_bytes: u64) -> Self {
        Self {
            most_bytes,
            kept: Mutex::default(),
        }
    }

    /// Keeps a download under its key; the oldest go when there are too many.
    pub fn keep(&self, key: String, kept: Kept, now: Instant) {
        if kept.partial.received < Self::LEAST || kept.partial.received >= kept.total {
            return;
        }
        let mut all = self.lock();
        all.retain(|(known, _, other)| *known != key || other.head.selecting != kept.head.selecting);
        all.push_back((key, now, kept));
        let mut bytes: u64 = all.iter().map(|(_, _, kept)| kept.partial.received).sum();
        while bytes > self.most_bytes || all.len() > Self::MOST {
            let Some((_, _, oldest)) = all.pop_front() else {
                return;
            };
            bytes -= oldest.partial.received;
        }
    }

    /// Takes out the download of `key` that a request with these fields may go on with. Those that are too old go by the way.
    pub fn take(&self, key: &str, request: &HeaderMap, now: Instant) -> Option<Kept> {
        let mut all = self.lock();
        all.retain(|(_, since, _)| now < *since + Self::LIFETIME);
        let index = all
            .iter()
            .position(|(known, _, kept)| known == key && kept.head.selecting.matches(request))?;
        all.remove(index).map(|(_, _, kept)| kept)
    }

    /// Forgets what is kept under `key`: an unsafe request may have changed what it names.
    pub fn forget(&self, key: &str) {
        self.lock().retain(|(known, _, _)| known != key);
    }

    /// Gives all room back; whether there was any.
    pub fn clear(&self) -> bool {
        let all = std::mem::take(&mut *self.lock());
        !all.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, Instant, Kept)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
