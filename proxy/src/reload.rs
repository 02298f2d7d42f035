//! Replacing the settings while serving.
//!
//! Flow: whoever asks for it (SIGHUP) reads the settings again and hands them to [`Reloader::apply`], which validates them, keeps what
//! only a restart can change, puts the next generation in force, and tells the listeners their new bounds. No connection is dropped:
//! a request that is being answered, and a download that it began, end under the settings that they began with.
//!
//! Invariant: all or nothing. Settings that are refused change nothing.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::{
    listener::Bounds,
    origin::OriginError,
    pipeline::Current,
    settings::{InvalidSettings, Settings},
};

/// Why settings were not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They contradict themselves.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// Their origins cannot be set up.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

/// The way to replace the settings of a running proxy; clones reach the same one.
#[derive(Debug, Clone)]
pub struct Reloader {
    current: Current,
    bounds: Arc<watch::Sender<Bounds>>,
    /// One at a time.
    turn: Arc<Mutex<()>>,
}

impl Reloader {
    /// For what `current` serves, whose listeners watch `bounds`.
    pub(crate) fn new(current: Current, bounds: watch::Sender<Bounds>) -> Self {
        Self {
            current,
            bounds: Arc::new(bounds),
            turn: Arc::default(),
        }
    }

    /// Puts `settings` in force and returns the keys that keep their running values until a restart.
    ///
    /// # Errors
    /// [`ReloadError`]; the settings before stay in force.
    pub async fn apply(&self, mut settings: Settings) -> Result<Vec<&'static str>, ReloadError> {
        settings.validate()?;
        let _turn = self.turn.lock().await;
        let kept = settings.keep_fixed(self.current.load().settings());
        let bounds = Bounds::of(&settings.limits);
        self.current.replace(settings)?;
        self.bounds.send_replace(bounds);
        Ok(kept)
    }
}
