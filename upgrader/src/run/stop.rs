//! An operator's signal to stop, and how long what must be done before the end may take then.
//!
//! The first signal ends every wait that may be left in the middle. What takes a node out of service also puts it back
//! (`rejoin`), signal or not; but a platform that hangs must not hold the program for ever, so that all tries to put the node
//! back have [`PATIENCE`] together. Then the record of ownership stays, which says that the next command owes it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use kato_shared::shutdown;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::engine;
use crate::exit::Failure;

/// How long the platform has, after a signal, to put the node back. Far below the 90 seconds after which systemd kills.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The signal of one command.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    /// When the wait for the platform began that the signal bounds.
    since: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// Cancelled by the first signal.
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Whether a signal came and the patience after it is used up.
    pub fn is_over(&self) -> bool {
        self.token.is_cancelled() && self.since.get().is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// What `work` gives; `None` when a signal came and the patience after it is used up, by this work or by others before.
    ///
    /// # Cancel safety
    /// That of `work`.
    pub async fn patiently<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.patience() => None,
            done = work => Some(done),
        }
    }

    async fn patience(&self) {
        self.token.cancelled().await;
        let since = *self.since.get_or_init(Instant::now);
        sleep_until(since + PATIENCE).await;
    }

    /// What `work` gives, while the first signal cancels [`Stop::token`] and the second ends it at once, as a kill would.
    ///
    /// # Errors
    /// Those of `work`; [`engine::stopped`] after the second signal.
    pub async fn on_signals<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            _signals = shutdown::on_signals(self.token.clone()) => Err(engine::stopped()),
        }
    }

    /// What `work` gives, unless a signal comes first: for what may be left anywhere.
    ///
    /// # Errors
    /// Those of `work`, or [`engine::stopped`].
    pub async fn at_once<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        engine::unless_stopped(&self.token, true, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn c01_without_a_signal_the_platform_has_its_own_deadline() {
        let stop = Stop::default();
        let long = tokio::time::timeout(PATIENCE * 10, std::future::pending::<()>());
        assert!(stop.patiently(long).await.is_some_and(|ended| ended.is_err()));
        assert!(!stop.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn c01_after_a_signal_all_tries_have_one_patience_together() {
        let stop = Stop::default();
        stop.token().cancel();
        let began = Instant::now();
        assert_eq!(stop.patiently(async { 1 }).await, Some(1));
        assert_eq!(stop.patiently(std::future::pending::<()>()).await, None);
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(stop.patiently(async { 2 }).await, None);
        assert!(stop.is_over());
    }
}
