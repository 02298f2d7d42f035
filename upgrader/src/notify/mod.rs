//! Notifications: what happens to a node is told to web hooks, without ever holding an upgrade up.
//!
//! Flow: the event stream of a run → [`story`] (pure: which events are worth telling, and the document) → [`spool`] (on the
//! disk before anything is sent) → deliveries beside the run, by [`crate::fetch::post`]. What could not be delivered stays in
//! the spool, and the next run tries it again. The end of a run waits for its deliveries, for `[notify] timeout` in all.
//!
//! A receiver may get a document twice (the answer was lost): its `id`, which is also a header field, stays the same.
//! With a secret every document is signed: `X-Kato-Signature-256: sha256=<HMAC-SHA-256 of the body>`.
//!
//! Deliberately absent: anything that makes a run fail or wait because nobody listens, redirects (a document goes where the
//! settings say and nowhere else), and the content of the node's files.
//!
//! Invariants: the spool is bounded in number and age; a document never changes once it has an id.

mod deliver;
pub mod settings;
mod spool;
mod story;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use kato_shared::{chain::Chain, clock::Clock};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    deliver::{Couriers, Delivery},
    settings::NotifySettings,
    spool::{Pending, Spool},
    story::{Anchor, Story},
};
pub use story::{Document, Kind, SCHEMA};

use crate::{
    audit::AuditLog,
    jsonl,
    run::{Node, event::Event},
};

/// What sees the events of a run.
#[derive(Debug, Clone)]
pub struct Watcher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    story: Mutex<Story>,
    spool: Spool,
    settings: NotifySettings,
    audit: AuditLog,
    clock: Clock,
    /// Documents for which the disk had no room.
    unspooled: Mutex<Vec<Pending>>,
    /// There is something to deliver.
    news: Notify,
    /// Another step is at hand.
    steps: Notify,
}

/// Delivers what a [`Watcher`] sees.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Notifier {
    /// Starts to deliver for the run `run` of `node`; `None` when the settings name nobody to tell.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn start(node: &Node, run: &str) -> Option<Self> {
        let settings = node.settings.notify.clone();
        if settings.urls.is_empty() {
            return None;
        }
        let mut story = Story::new(&node.id, node.roles(), run, settings.waiting.get());
        // A program that updated itself goes on with a run whose beginning the one before it told.
        for event in told_before(&node.paths.events(), run) {
            story.recall(&event);
        }
        let shared = Arc::new(Shared {
            story: Mutex::new(story),
            spool: Spool::in_folder(node.paths.notifications()),
            settings,
            audit: AuditLog::of(node),
            clock: node.clock.clone(),
            unspooled: Mutex::default(),
            news: Notify::new(),
            steps: Notify::new(),
        });
        // What an earlier run left.
        shared.news.notify_one();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(work(Arc::clone(&shared), stop.clone()));
        Some(Self { shared, stop, tasks })
    }

    /// What the run's events are shown to.
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }

    /// Waits for the deliveries of the run, no longer than one may take.
    pub async fn close(mut self) {
        self.stop.cancel();
        let limit = self.shared.settings.timeout.get();
        let ended = tokio::time::timeout(limit, async { while self.tasks.join_next().await.is_some() {} });
        // Whether in time or not, what is left in the spool is what was not delivered.
        let _in_time = ended.await;
        self.tasks.abort_all();
        let left = self.shared.spool.pending(self.shared.clock.now()).len();
        if left > 0 {
            tracing::warn!(
                left,
                "notifications could not be delivered; the next run tries them again"
            );
        }
    }
}

impl Watcher {
    /// Sees an event. Never fails and never waits for anybody but the disk.
    pub fn see(&self, event: &Event) {
        let shared = &self.0;
        let told = {
            let mut story = shared.story();
            story.see(event, Instant::now())
        };
        if let Some(document) = told {
            shared.tell(document);
        }
        shared.steps.notify_one();
    }
}

impl Shared {
    /// Puts `document` into the spool, once for each address.
    fn tell(&self, mut document: Document) {
        if !self.settings.events.contains(&document.event) {
            return;
        }
        let head = self.audit.head().ok().flatten();
        document.audit = head.map(|head| Anchor {
            seq: head.seq,
            sha256: head.sha256,
        });
        for url in &self.settings.urls {
            if let Err((pending, error)) = self.spool.put(url, &document) {
                tracing::warn!(error = %Chain(&error), "a notification could not be spooled; it is sent at once or not at all");
                self.unspooled
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(*pending);
            }
        }
        self.news.notify_one();
    }

    /// What waits to be delivered to the addresses that `is_free` says; oldest first.
    fn pending(&self, is_free: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let mut pending = self.spool.pending(self.clock.now());
        pending.retain(&is_free);
        let mut unspooled = self.unspooled.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, later) = unspooled.drain(..).partition(is_free);
        *unspooled = later;
        drop(unspooled);
        pending.extend::<Vec<_>>(now);
        pending
    }

    fn story(&self) -> std::sync::MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers until it is told to stop, and then what is left.
async fn work(shared: Arc<Shared>, stop: CancellationToken) {
    let delivery = match Delivery::new(&shared.settings) {
        Ok(delivery) => delivery,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "notifications cannot be delivered; they are kept for the next run");
            return;
        }
    };
    let mut couriers = Couriers::new(delivery);
    let mut stopping = false;
    loop {
        couriers.send(&shared);
        if stopping && couriers.are_idle() {
            return;
        }
        let waits_until = shared.story().waits_until();
        tokio::select! {
            // The last news come before the end, and are to be seen before it.
            biased;
            () = shared.news.notified() => couriers.news(),
            () = stop.cancelled(), if !stopping => stopping = true,
            () = shared.steps.notified() => {}
            () = couriers.back() => {}
            () = at(waits_until) => {
                let waiting = shared.story().waiting(Instant::now(), shared.clock.now());
                if let Some(document) = waiting {
                    shared.tell(document);
                }
            }
        }
    }
}

/// Ends at `when`; never for `None`.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// What the stream holds of the run already. A stream that cannot be read tells nothing; the run itself complains.
fn told_before(events: &Path, run: &str) -> Vec<Event> {
    let mut told = jsonl::read::<Event>(events).map_or_else(|_unreadable| Vec::new(), |(events, _)| events);
    told.retain(|event| event.run == run);
    told
}
