//! What is asked of the index, and what it did.

use kato_shared::Digest;

use super::{Generation, StoredResponse, eviction::Standing, pins::Pin};
use crate::ecosystem::Known;

/// One change to the index.
#[derive(Debug)]
pub(super) enum Change {
    /// Stores a response under a key, in the place of the one with the same selector.
    Put {
        key: String,
        response: Box<StoredResponse>,
    },
    /// Forgets all responses of a key.
    Remove { key: String },
    /// Forgets content and every response that names it.
    Evict { digest: Digest },
    /// Writes down what eviction knows about content.
    Stand { digest: Digest, standing: Standing },
    /// Pins, in seconds since 1970.
    Pin { pin: Pin, since: u64 },
    /// Takes a pin away.
    Unpin { pin: Pin },
    /// Writes down what a document teaches about keys; it does not count before `Graduate`.
    Teach {
        number: u64,
        lessons: Vec<(String, Known)>,
    },
    /// All that a document teaches is written down.
    Graduate { number: u64, generation: Generation },
    /// Forgets what documents that are gone have taught, by number.
    Forget { gone: Vec<u64> },
    /// Removes keys about which nothing is taught any more.
    Sweep { keys: Vec<String> },
    /// Writes down that content is what was promised by another function than SHA-256.
    Prove { name: String, digest: Digest },
    /// Removes proofs of content that is gone.
    SweepProofs,
}

/// What a change did to content, for the memory of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// `key` names content of `length` bytes.
    Named {
        key: String,
        digest: Digest,
        length: u64,
        /// Seconds since 1970.
        at: i64,
    },
    /// `key` has no response any more.
    Gone { key: String },
    /// A key names content no more.
    Unnamed { digest: Digest, is_orphan: bool },
    /// The content is gone from the index.
    Dropped { digest: Digest },
    /// Something is pinned.
    Pinned(Pin),
    /// Something is pinned no more.
    Unpinned(Pin),
}
