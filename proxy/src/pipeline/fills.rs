//! What downloads remember of one another; all generations of the settings share it.

use std::sync::Arc;

use super::{
    deviations::Deviations, groups::Seen, lessons::Lessons, mismatches::Mismatches, negatives::Negatives,
    prime::Manifests, tag_heads::TagHeads,
};
use crate::{
    fill::{partial::Partials, tally::Lane},
    offline::{Misses, Serving},
    settings::Settings,
};

/// Downloads that broke off take at most one part in this many of the store's quota.
const PARTIAL_SHARE: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Fills {
    /// Those that broke off.
    pub(super) partials: Partials,
    /// Those that brought nothing.
    pub(super) negatives: Negatives,
    /// Those that brought something else than they should.
    pub(super) mismatches: Mismatches,
    /// Documents that are about to teach.
    pub(super) lessons: Arc<Lessons>,
    /// Which generation of a group each client has seen.
    pub(super) seen: Seen,
    /// The manifests that were asked for of late.
    pub(super) manifests: Manifests,
    /// Questions about tags that are under way.
    pub(super) tag_heads: TagHeads,
    /// Which rules of the settings were said aloud.
    pub(super) deviations: Deviations,
    /// Notes about what was asked for in vain.
    pub(super) misses: Arc<Misses>,
    /// The snapshot that is served without a network.
    pub(super) serving: Arc<Serving>,
    /// Where the digests are computed that nobody waits for.
    pub(super) digests: Lane,
    /// Where those are computed that hold a client's last byte back.
    pub(super) urgent_digests: Lane,
}

impl Fills {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            partials: Partials::new(settings.cache.max_size.bytes() / PARTIAL_SHARE),
            negatives: Negatives::default(),
            mismatches: Mismatches::default(),
            lessons: Arc::default(),
            seen: Seen::default(),
            manifests: Manifests::default(),
            tag_heads: TagHeads::default(),
            deviations: Deviations::default(),
            serving: Arc::default(),
            misses: Arc::new(Misses::new(&settings.cache.dir)),
            digests: Lane::default(),
            urgent_digests: Lane::urgent(),
        }
    }
}
