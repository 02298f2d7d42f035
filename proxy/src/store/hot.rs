//! The memory tier: stored responses and small bodies that are asked for often, bounded in bytes.
//!
//! Coherence: every change of the index ends with [`Hot::forget`], which also moves the epoch on. A reader notes the epoch
//! before it reads the index and hands it to [`Hot::remember`]; if a change came in between, what it read is not kept.

use std::{
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kato_shared::Digest;

use super::Entry;
use crate::recent::{Held, Recent};

/// Bodies up to this many bytes are held; larger ones are served from the page cache, where copying them costs less
/// than the memory would.
pub(super) const MAX_BODY: u64 = 256 << 10;

/// Files of larger bodies that are kept open: what a request saves is a trip to a blocking thread.
const MAX_FILES: usize = 128;

/// What a stored response is taken to weigh beside its fields, in bytes.
const RESPONSE_OVERHEAD: usize = 512;

/// The stored responses of one key. While [`Held::is_held`] they are what the index says.
pub type Responses = Arc<Held<Entry>>;

#[derive(Debug)]
pub(super) struct Hot(Mutex<Tier>);

#[derive(Debug)]
struct Tier {
    epoch: u64,
    /// Bytes for heads and bodies together.
    limit: usize,
    responses: Recent<Arc<str>, Entry>,
    bodies: Recent<Digest, Bytes>,
    files: Recent<Digest, Arc<File>>,
}

impl Hot {
    /// A tier of at most `limit` bytes; heads get a quarter of it, and more while no body needs it.
    pub(super) fn new(limit: u64) -> Self {
        Self(Mutex::new(Tier {
            epoch: 0,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            responses: Recent::default(),
            bodies: Recent::default(),
            files: Recent::default(),
        }))
    }

    /// The responses of `key`, or the epoch to remember them with.
    pub(super) fn responses(&self, key: &str) -> Result<Responses, u64> {
        let tier = self.lock();
        tier.responses.get(key).ok_or(tier.epoch)
    }

    /// Keeps what was read from the index, unless the index has changed since `epoch`.
    pub(super) fn remember(&self, key: &str, responses: &Responses, epoch: u64) {
        let fields = responses.heads().iter().flat_map(|head| head.headers.iter());
        let weight: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let weight = weight + key.len() + RESPONSE_OVERHEAD * (1 + responses.heads().len());
        let mut tier = self.lock();
        if tier.epoch == epoch && weight <= tier.limit {
            tier.responses.insert(key.into(), Arc::clone(responses), weight);
            tier.shrink();
        }
    }

    /// Forgets the responses of `keys`, and all that is being read.
    pub(super) fn forget<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        let mut tier = self.lock();
        tier.epoch += 1;
        for key in keys {
            tier.responses.remove(key);
        }
    }

    /// Forgets everything but the bodies: which keys a change touched is not known.
    pub(super) fn forget_all(&self) {
        let mut tier = self.lock();
        tier.epoch += 1;
        tier.responses.clear();
    }

    /// The body `digest`, if it is held.
    pub(super) fn body(&self, digest: &Digest) -> Option<Arc<Held<Bytes>>> {
        self.lock().bodies.get(digest)
    }

    /// Holds a body; the caller has checked that it is what `digest` names and not above [`MAX_BODY`].
    pub(super) fn hold(&self, digest: Digest, body: Bytes) -> Arc<Held<Bytes>> {
        let weight = body.len() + RESPONSE_OVERHEAD;
        let body = Arc::new(Held::new(body));
        let mut tier = self.lock();
        if weight <= tier.limit {
            tier.bodies.insert(digest, Arc::clone(&body), weight);
            tier.shrink();
        }
        body
    }

    /// The file of the body `digest`, if it is open. It may have been changed since by somebody else: look at it.
    pub(super) fn file(&self, digest: &Digest) -> Option<Arc<File>> {
        self.lock().files.get(digest).map(|held| Arc::clone(&**held))
    }

    /// Keeps the file of a body open.
    pub(super) fn keep_open(&self, digest: Digest, file: &Arc<File>) {
        let mut tier = self.lock();
        let file = Arc::new(Held::new(Arc::clone(file)));
        tier.files.insert(digest, file, 1);
        while tier.files.len() > MAX_FILES && tier.files.push_out() {}
    }

    /// Lets go of a body.
    pub(super) fn release(&self, digest: &Digest) {
        let mut tier = self.lock();
        tier.bodies.remove(digest);
        tier.files.remove(digest);
    }

    fn lock(&self) -> MutexGuard<'_, Tier> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tier {
    /// Back below the limit.
    fn shrink(&mut self) {
        while self.responses.weight() + self.bodies.weight() > self.limit {
            let heads_go_first = self.responses.weight() > self.limit / 4;
            let is_less = heads_go_first && self.responses.push_out();
            if !is_less && !self.bodies.push_out() && !self.responses.push_out() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::stored::sample;

    #[test]
    fn heads_and_bodies_share_the_limit_and_neither_pushes_the_other_out_whole() {
        let limit = 64 << 10;
        let hot = Hot::new(limit);
        let name = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..1000 {
            let key = number.to_string();
            let epoch = hot.responses(&key).unwrap_err();
            hot.remember(&key, &Arc::new((vec![sample(b"a")], Vec::new()).into()), epoch);
            hot.hold(name(number), Bytes::from(vec![0; 1000]));
        }
        let tier = hot.lock();
        let (heads, bodies) = (tier.responses.weight(), tier.bodies.weight());
        assert!(heads + bodies <= 64 << 10, "{heads} + {bodies}");
        assert!(heads > 14 << 10 && bodies > 40 << 10, "{heads} + {bodies}");
        drop(tier);
        let large = hot.hold(name(1), Bytes::from(vec![0; 65 << 10]));
        assert!(!large.is_held() && large.len() == 65 << 10);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let hot = Hot::new(1 << 20);
        let responses: Responses = Arc::new((vec![sample(b"old")], Vec::new()).into());
        let epoch = hot.responses("k").unwrap_err();
        hot.forget(["k"]);
        hot.remember("k", &responses, epoch);
        assert!(hot.responses("k").is_err());
        let epoch = hot.responses("k").unwrap_err();
        hot.remember("k", &responses, epoch);
        assert!(hot.responses("k").is_ok());
    }
}
