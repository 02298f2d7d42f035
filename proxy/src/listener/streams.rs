//! The requests of an HTTP/2 connection: each is a task of its own, and one whose client takes nothing of its answer is ended.
//!
//! TCP knows of the connection alone; each stream of it has a window of its own, and a client can leave one shut while it uses the
//! others. hyper asks the body of a stream for more only when the window lets something through: a body that has handed out bytes and
//! is not asked again is one whose client does not take them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::deliver::Handed;

/// Runs the requests of one connection; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) tasks: TaskTracker,
    /// How long a stream may stand still because of its client.
    pub(super) patience: Duration,
    /// Cancelled when the connection is over.
    pub(super) over: CancellationToken,
    pub(super) use_of: Arc<Use>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (patience, over) = (self.patience, self.over.clone());
        let using = Using::begin(&self.use_of);
        self.tasks.spawn(async move {
            let handed = Handed::default();
            tokio::select! {
                _ = handed.clone().observe(stream) => {}
                () = stalled(&handed, patience) => {
                    tracing::debug!("an HTTP/2 stream was reset: its client takes nothing");
                }
                () = over.cancelled() => {}
            }
            drop(using);
        });
    }
}

/// Ends when what was handed out has not been taken for `patience`.
async fn stalled(handed: &Handed, patience: Duration) {
    let mut look = Instant::now() + patience;
    loop {
        sleep_until(look).await;
        look = match handed.since() {
            Some(since) if since + patience <= Instant::now() => return,
            Some(since) => since + patience,
            None => Instant::now() + patience,
        };
    }
}

/// How many requests a connection has, and since when it has none.
#[derive(Debug)]
pub(super) struct Use {
    begun: Instant,
    requests: AtomicUsize,
    /// Milliseconds after `begun` at which the last request ended.
    idle_since: AtomicU64,
}

impl Use {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
        })
    }

    /// Ends when the connection has been without requests for `patience`.
    pub(super) async fn idle(&self, patience: Duration) {
        let mut look = self.begun + patience;
        loop {
            sleep_until(look).await;
            let since = self.begun + Duration::from_millis(self.idle_since.load(Relaxed));
            look = if self.requests.load(Relaxed) > 0 {
                Instant::now() + patience
            } else if since + patience <= Instant::now() {
                return;
            } else {
                since + patience
            };
        }
    }
}

/// Keeps a connection from being idle until it is dropped.
pub(super) struct Using(Arc<Use>);

impl Using {
    pub(super) fn begin(of: &Arc<Use>) -> Self {
        of.requests.fetch_add(1, Relaxed);
        Self(Arc::clone(of))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let since = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(since, Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_idle_a_while_after_its_last_request() {
        let of = Use::new();
        let using = Using::begin(&of);
        let begun = Instant::now();
        let busy = async {
            sleep_until(begun + PATIENCE * 3).await;
            drop(using);
        };
        tokio::join!(busy, of.idle(PATIENCE));
        assert!(begun.elapsed() >= PATIENCE * 4);
    }
}
