//! What a flight makes known to everybody who waits for it.

use std::sync::{Arc, atomic::AtomicU32};

use http::{HeaderMap, StatusCode, Version};

use crate::{
    fill::{Fill, collapse::Answers},
    origin::OriginError,
    policy::Stored,
    store::{ContentRef, Trouble},
};

/// What a flight makes known.
#[derive(Debug)]
pub enum Shared {
    /// A response that may be stored, on its way.
    Filling(Box<Filling>),
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

impl Answers for Shared {
    fn answers(&self, request: &HeaderMap) -> bool {
        match self {
            Self::Filling(filling) => filling.head.selecting.matches(request),
            Self::Validated { head, .. } => head.selecting.matches(request),
            Self::Failed { .. } | Self::Overloaded { .. } => true,
        }
    }

    fn is_received(&self) -> bool {
        matches!(self, Self::Filling(filling) if filling.fill.is_received())
    }
}
