//! The generation of the settings that is in force.
//!
//! `arc-swap` rather than a lock: every request of every worker thread reads it, and a reader of a lock writes to a cache line that all
//! of them share. Here a reader writes to nothing that others read, and the rare writer waits for no reader.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Layers, Pipeline};
use crate::{origin::OriginError, settings::Settings, tls::authority::Authority};

/// Where requests find the [`Pipeline`] in force; clones share it.
#[derive(Debug, Clone)]
pub struct Current(Arc<ArcSwap<Layers>>);

impl Current {
    /// `pipeline` is in force.
    pub fn new(pipeline: Pipeline) -> Self {
        Self(Arc::new(ArcSwap::new(pipeline.0)))
    }

    /// The pipeline in force. Take it once for a request: two calls may tell of different settings.
    pub fn load(&self) -> Pipeline {
        Pipeline(self.0.load_full())
    }

    /// Puts `settings`, with what opens CONNECT under them, in force for requests that come from now on. Callers are one at a time; of two at once, one is lost.
    ///
    /// # Errors
    /// [`OriginError`] when their origins cannot be set up; the settings before stay in force.
    pub fn replace(&self, settings: Settings, authority: Option<Authority>) -> Result<(), OriginError> {
        let next = self.load().under(settings, authority)?;
        self.0.store(next.0);
        Ok(())
    }
}
