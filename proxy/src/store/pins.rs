//! Pins: what the operator wants kept, whatever else is asked for.
//!
//! A pin names a cache key, a prefix of cache keys, or content by digest. It is durable, holds what is there and what
//! comes later, and stands for the time from `pin` to `unpin`. Pinned content counts in the quota like any other; what
//! it takes is not there for the rest. It is kept from eviction, not from the operator's own `purge`.
//!
//! Invariant: content is held exactly when its digest is pinned or a pin covers one of the keys that name it.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    ops::Bound,
    str::FromStr,
};

use kato_shared::Digest;

/// What is pinned. Display is the text that the index keeps, and [`FromStr`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pin {
    /// The responses of one cache key.
    Key(String),
    /// The responses of all cache keys that begin so.
    Prefix(String),
    /// Content, under whatever key.
    Content(Digest),
}

/// A text that is no pin.
#[derive(Debug, thiserror::Error)]
#[error("expected `key …`, `prefix …` or `content sha256:…`, got `{0}`")]
pub struct NoPin(String);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Content(digest) => write!(f, "content {digest}"),
        }
    }
}

impl FromStr for Pin {
    type Err = NoPin;

    fn from_str(text: &str) -> Result<Self, NoPin> {
        match text.split_once(' ') {
            Some(("key", key)) => Ok(Self::Key(key.to_owned())),
            Some(("prefix", prefix)) => Ok(Self::Prefix(prefix.to_owned())),
            Some(("content", digest)) => digest
                .parse()
                .map(Self::Content)
                .map_err(|_not_a_digest| NoPin(text.to_owned())),
            _ => Err(NoPin(text.to_owned())),
        }
    }
}

/// All pins, for looking things up.
#[derive(Debug, Default)]
pub(super) struct Pins {
    keys: HashSet<String>,
    prefixes: BTreeSet<String>,
    contents: HashSet<Digest>,
}

impl Pins {
    pub(super) fn add(&mut self, pin: Pin) {
        match pin {
            Pin::Key(key) => self.keys.insert(key),
            Pin::Prefix(prefix) => self.prefixes.insert(prefix),
            Pin::Content(digest) => self.contents.insert(digest),
        };
    }

    pub(super) fn remove(&mut self, pin: &Pin) {
        match pin {
            Pin::Key(key) => self.keys.remove(key),
            Pin::Prefix(prefix) => self.prefixes.remove(prefix),
            Pin::Content(digest) => self.contents.remove(digest),
        };
    }

    /// Whether a pin covers what is stored under `key`.
    pub(super) fn covers(&self, key: &str) -> bool {
        self.keys.contains(key)
            || self
                .prefixes
                .range::<str, _>((Bound::Unbounded, Bound::Included(key)))
                .any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// Whether content is pinned by itself.
    pub(super) fn names(&self, digest: &Digest) -> bool {
        self.contents.contains(digest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty() && self.contents.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p23_a_pin_covers_its_key_its_prefix_and_its_content() {
        let digest = Digest::of(b"x");
        let all = [
            Pin::Key("GET http://a/1".into()),
            Pin::Prefix("GET http://b/ubuntu/".into()),
            Pin::Content(digest),
        ];
        let mut pins = Pins::default();
        for pin in &all {
            assert_eq!(pin.to_string().parse::<Pin>().unwrap(), *pin);
            pins.add(pin.clone());
        }
        assert!(pins.covers("GET http://a/1") && !pins.covers("GET http://a/11"));
        assert!(pins.covers("GET http://b/ubuntu/x") && !pins.covers("GET http://b/ubuntu"));
        assert!(pins.names(&digest));
        for pin in &all {
            pins.remove(pin);
        }
        assert!(pins.is_empty() && !pins.covers("GET http://a/1"));
        assert!("url http://a/".parse::<Pin>().is_err());
    }
}
