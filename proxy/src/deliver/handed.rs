//! Whether a body waits for its client, for those who must not let it wait for ever.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{task_local, time::Instant};

task_local! {
    /// Of the task that sends a body, where somebody observes it.
    static OBSERVED: Handed;
}

/// When a body handed out bytes that it has not been asked to follow up since. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Handed(Arc<Mutex<Option<Instant>>>);

impl Handed {
    /// Runs `task`, whose body tells here.
    pub async fn observe<F: Future>(self, task: F) -> F::Output {
        OBSERVED.scope(self, task).await
    }

    /// Since when the client has been due; `None` while it waits for us.
    pub fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body was asked for more.
    pub(super) fn asked() {
        Self::note(None);
    }

    /// The body has handed out bytes.
    pub(super) fn handed_out() {
        Self::note(Some(Instant::now()));
    }

    fn note(since: Option<Instant>) {
        // Without an observer there is nobody to tell.
        let _not_observed =
            OBSERVED.try_with(|observed| *observed.0.lock().unwrap_or_else(PoisonError::into_inner) = since);
    }
}
