//! What a flight makes known to everybody who waits for it.

use std::sync::{Arc, atomic::AtomicU32};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};

use crate::{
    fill::{Fill, FillError, collapse::Answers},
    origin::OriginError,
    policy::{NoStoreReason, Stored},
    store::{ContentRef, Trouble},
};

/// What a flight makes known.
#[derive(Debug)]
pub enum Shared {
    /// A response that may be stored, on its way.
    Filling(Box<Filling>),
    /// A small response that may be stored and is there already, whole.
    Whole(Box<Whole>),
    /// A response that is not stored, for those who wait for it just now.
    HandedOn {
        /// What came.
        whole: Box<Whole>,
        /// Why it is not stored.
        reason: NoStoreReason,
    },
    /// The stored response is good again.
    Validated {
        /// Its new head.
        head: Box<Stored>,
        /// Its content.
        content: ContentRef,
    },
    /// No answer from the origin.
    Failed {
        /// Why.
        error: Arc<OriginError>,
    },
    /// The content is not what its URL promises, and was not when it was fetched again either.
    Mismatch {
        /// The two digests.
        error: Arc<FillError>,
    },
    /// A new document came whose group is not complete: the stored one is still the one to be sent.
    Withheld,
    /// A 5xx, for which a stored response stands in.
    Overloaded {
        /// Its status code.
        status: StatusCode,
    },
}

/// A response on its way into the store.
#[derive(Debug)]
pub struct Filling {
    /// Its head, as it will be stored.
    pub head: Stored,
    /// Its content.
    pub fill: Fill,
    /// The HTTP version it came in.
    pub version: Version,
    /// Why it is not stored, when it is not.
    pub not_stored: Option<Trouble>,
    /// Ranges that were fetched beside it, see `side_trip`.
    pub side_trips: AtomicU32,
}

/// A small response, whole.
#[derive(Debug)]
pub struct Whole {
    /// Its head, as it is stored.
    pub head: Stored,
    /// Its content.
    pub body: Bytes,
    /// The HTTP version it came in.
    pub version: Version,
}

impl Shared {
    /// The head of a response that is new, and whether all of it has been received.
    pub fn new_head(&self) -> Option<(&Stored, bool)> {
        match self {
            Self::Filling(filling) => Some((&filling.head, filling.fill.is_received())),
            Self::Whole(whole) => Some((&whole.head, true)),
            // Nothing of it waits to be stored, and nobody joins late.
            Self::HandedOn { whole, .. } => Some((&whole.head, false)),
            Self::Validated { .. }
            | Self::Failed { .. }
            | Self::Mismatch { .. }
            | Self::Withheld
            | Self::Overloaded { .. } => None,
        }
    }
}

impl Answers for Shared {
    fn answers(&self, request: &HeaderMap) -> bool {
        match self {
            Self::Filling(filling) => filling.head.selecting.matches(request),
            Self::Whole(whole) | Self::HandedOn { whole, .. } => whole.head.selecting.matches(request),
            Self::Validated { head, .. } => head.selecting.matches(request),
            Self::Failed { .. } | Self::Mismatch { .. } | Self::Withheld | Self::Overloaded { .. } => true,
        }
    }

    fn is_received(&self) -> bool {
        self.new_head().is_some_and(|(_, is_received)| is_received)
    }

    fn is_failure(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Mismatch { .. } | Self::Overloaded { .. } | Self::HandedOn { .. } => {
                true
            }
            Self::Filling(_) | Self::Whole(_) | Self::Validated { .. } | Self::Withheld => false,
        }
    }
}
