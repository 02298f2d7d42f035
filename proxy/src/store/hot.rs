//! The memory tier: stored responses and small bodies that are asked for often, bounded in bytes.
//!
//! Coherence: every change of the index ends with [`Hot::forget`], which also moves the epoch on. A reader notes the epoch
//! before it reads the index and hands it to [`Hot::remember`]; if a change came in between, what it read is not kept.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kato_shared::Digest;

use super::Entry;

/// Bodies up to this many bytes are held; larger ones are served from the page cache, where copying them costs less
/// than the memory would.
pub(super) const MAX_BODY: u64 = 256 << 10;

/// What a stored response is taken to weigh beside its fields, in bytes.
const RESPONSE_OVERHEAD: usize = 512;

/// The stored responses of one key.
pub type Responses = Arc<Entry>;

#[derive(Debug)]
pub(super) struct Hot(Mutex<Tier>);

#[derive(Debug)]
struct Tier {
    epoch: u64,
    responses: Lru<String, Responses>,
    bodies: Lru<Digest, Bytes>,
}

impl Hot {
    /// A tier of at most `limit` bytes; a quarter of it is for heads.
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self(Mutex::new(Tier {
            epoch: 0,
            responses: Lru::new(limit / 4),
            bodies: Lru::new(limit - limit / 4),
        }))
    }

    /// The responses of `key`, or the epoch to remember them with.
    pub(super) fn responses(&self, key: &str) -> Result<Responses, u64> {
        let mut tier = self.lock();
        let epoch = tier.epoch;
        tier.responses.get(key).ok_or(epoch)
    }

    /// Keeps what was read from the index, unless the index has changed since `epoch`.
    pub(super) fn remember(&self, key: &str, responses: &Responses, epoch: u64) {
        let mut tier = self.lock();
        if tier.epoch == epoch {
            let fields = responses.heads().iter().flat_map(|head| head.headers.iter());
            let weight: usize = fields
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum();
            let weight = weight + key.len() + RESPONSE_OVERHEAD * (1 + responses.heads().len());
            tier.responses
                .insert(key.to_owned(), Arc::clone(responses), weight);
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
    pub(super) fn body(&self, digest: &Digest) -> Option<Bytes> {
        self.lock().bodies.get(digest)
    }

    /// Holds a body; the caller has checked that it is what `digest` names and not above [`MAX_BODY`].
    pub(super) fn hold(&self, digest: Digest, body: Bytes) {
        let weight = body.len() + RESPONSE_OVERHEAD;
        self.lock().bodies.insert(digest, body, weight);
    }

    /// Lets go of a body.
    pub(super) fn release(&self, digest: &Digest) {
        self.lock().bodies.remove(digest);
    }

    fn lock(&self) -> MutexGuard<'_, Tier> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A map that lets the least recently used go when its weight passes the limit.
#[derive(Debug)]
struct Lru<K, V> {
    limit: usize,
    weight: usize,
    tick: u64,
    entries: HashMap<K, Slot<V>>,
    by_use: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            weight: 0,
            tick: 0,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.entries.get_mut(key)?;
        self.tick += 1;
        if let Some(key) = self.by_use.remove(&slot.used) {
            self.by_use.insert(self.tick, key);
        }
        slot.used = self.tick;
        Some(slot.value.clone())
    }

    fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.limit {
            return;
        }
        self.tick += 1;
        self.weight += weight;
        self.by_use.insert(self.tick, key.clone());
        let used = self.tick;
        self.entries.insert(key, Slot { value, weight, used });
        while self.weight > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            if let Some(slot) = self.entries.remove(&oldest) {
                self.weight -= slot.weight;
            }
        }
    }

    fn remove<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(slot) = self.entries.remove(key) {
            self.by_use.remove(&slot.used);
            self.weight -= slot.weight;
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
        self.weight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::stored::sample;

    #[test]
    fn the_least_recently_used_goes_first_and_the_weight_stays_bounded() {
        let mut lru = Lru::new(10);
        lru.insert("a", 1, 4);
        lru.insert("b", 2, 4);
        assert_eq!(lru.get("a"), Some(1));
        lru.insert("c", 3, 4);
        assert_eq!(
            (lru.get("a"), lru.get("b"), lru.get("c")),
            (Some(1), None, Some(3))
        );
        lru.insert("huge", 9, 11);
        assert_eq!((lru.get("huge"), lru.weight), (None, 8));
        lru.insert("a", 5, 1);
        assert_eq!((lru.get("a"), lru.weight), (Some(5), 5));
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let hot = Hot::new(1 << 20);
        let responses: Responses = Arc::new(vec![sample(b"old")].into());
        let epoch = hot.responses("k").unwrap_err();
        hot.forget(["k"]);
        hot.remember("k", &responses, epoch);
        assert!(hot.responses("k").is_err());
        let epoch = hot.responses("k").unwrap_err();
        hot.remember("k", &responses, epoch);
        assert!(hot.responses("k").is_ok());
    }
}
