//! Who works with a store while a bundle comes into it.

use std::fmt;

use crate::snapshot::Record;

/// Hears how far an import is, and is asked what it has to spare. Nobody, by default.
pub trait Host: fmt::Debug + Sync {
    /// `stored` bytes of `of` have come.
    fn progress(&self, _stored: u64, _of: u64) {}

    /// Another snapshot is active now, and what the ones before have is about to go: the moment to serve it.
    fn activated(&self) {}

    /// The snapshot that is served. It stays, however many are kept: requests for it are under way.
    fn serves(&self) -> Option<Record> {
        None
    }
}

/// Nobody: the store is the import's alone.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Host for Alone {}
