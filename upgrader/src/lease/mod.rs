//! Who may change the cluster: a lease on Core for the orchestrator, and on every node the highest token that was seen there.
//!
//! ```text
//!  orchestrator ── take ──► flock + lease.json {token n} ── renewed every quarter of its term
//!       │ every command to a node carries `--fence n`
//!       ▼
//!  node: n < highest seen ⇒ refused (25); n > highest ⇒ written down, then obeyed
//! ```
//!
//! The kernel's lock (`flock`) says that a process has the lease; the record beside it says who, for what, and when it last
//! showed that it is at work. One that is stopped, or hangs, keeps the kernel's lock and renews nothing: it may be broken by
//! `kato lock break --cluster`, and by nothing else. When it wakes up it finds its lease gone ([`Lease::lost`]); and should it
//! not look, the nodes refuse it, because the next orchestrator has a greater token and has shown it to all of them before
//! it changes anything ([`fence`]).
//!
//! Deliberately absent: a take-over by time alone (a lock that opens by itself in the middle of an upgrade opens for the wrong
//! one), and clocks of two machines compared with each other. Silence is measured by Core's time since boot, which nobody sets.
//!
//! Invariants: tokens grow, also when Core's record is lost (then they begin at the seconds since 1970, beyond all counts); a
//! token is durable on Core before any node sees it, and durable on a node before the node acts on it.

pub mod fence;
mod record;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use kato_shared::{
    chain::Chain,
    clock::Clock,
    durable::{self, DurableError},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::record::{Record, Standing};
use crate::{
    exit::{Exit, Failure},
    failpoint,
    lock::{self, Holder, Lock, LockError},
    paths::NodePaths,
    run::remedy,
};

/// How long a silent holder keeps the lease from being broken, unless the settings say otherwise. Four missed renewals: far
/// longer than a disk hangs, far shorter than an operator waits.
pub const TERM: Duration = Duration::from_secs(60);

/// How often the lease is renewed within its term.
const RENEWALS: u32 = 4;

/// What the lease is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The run, as the lock names it.
    pub run: String,
    /// For people: what is being done.
    pub about: String,
    /// How long it lasts without being renewed.
    pub term: Duration,
}

/// Why the lease was not taken or not broken.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another orchestrator has it.
    #[error("another orchestrator has the lock of the cluster: {record}; {}", standing.text())]
    Held {
        /// What it says of itself.
        record: Box<Record>,
        /// What is known about it.
        standing: Standing,
    },
    /// The lock cannot be used, or its holder has not written its record yet.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The record cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        let (exit, hint) = match &error {
            LeaseError::Held { standing, .. } if standing.may_be_broken() => (
                Exit::LockHeld,
                "look whether it is still wanted; `kato lock break --cluster --reason TEXT` takes it away, then the same command goes on".to_owned(),
            ),
            LeaseError::Held { record, .. } => (
                Exit::LockHeld,
                format!(
                    "wait for it; `kato status` shows how far it is. `kill {}` ends it in order, and the nodes go on by themselves",
                    record.holder.pid
                ),
            ),
            LeaseError::Lock(LockError::Held { .. }) => (
                Exit::LockHeld,
                "wait for it; `kato status` shows how far it is. A run that was killed holds no lock".into(),
            ),
            LeaseError::Lock(LockError::Io { source, .. }) => {
                (Exit::Preflight, remedy::of_io(source).into())
            }
            LeaseError::Lock(LockError::Durable(error)) | LeaseError::Durable(error) => {
                (Exit::Preflight, remedy::of_io(&error.source).into())
            }
        };
        Self::new(exit, error).hint(hint)
    }
}

/// The right to change the cluster. It ends when it is dropped, however the process ends.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
    lost: CancellationToken,
    /// Ends with the lease.
    _renewing: JoinSet<()>,
}

#[derive(Debug)]
struct Held {
    lock: Lock,
    paths: NodePaths,
    token: u64,
    clock: Clock,
}

impl Lease {
    /// Takes the lease of the cluster whose Core is the node at `paths`.
    ///
    /// # Errors
    /// [`LeaseError::Held`] with the other one and what is known about it.
    pub async fn take(paths: &NodePaths, wanted: &Wanted, clock: &Clock) -> Result<Self, LeaseError> {
        let holder = Holder::here(&wanted.run, paths.root(), clock.now());
        let lock = match Lock::take(&paths.cluster_lock(), &holder).await {
            Ok(lock) => lock,
            Err(error @ LockError::Held { .. }) => {
                return Err(
                    look(paths).map_or(error.into(), |(record, standing)| LeaseError::Held {
                        record: Box::new(record),
                        standing,
                    }),
                );
            }
            Err(error) => return Err(error.into()),
        };
        let record = Record::new(holder, wanted, next_token(paths, clock), clock.now());
        record.save(paths)?;
        failpoint::hit("lease.taken");
        let held = Arc::new(Held {
            lock,
            paths: paths.clone(),
            token: record.token,
            clock: clock.clone(),
        });
        let lost = CancellationToken::new();
        let mut renewing = JoinSet::new();
        renewing.spawn(renew(Arc::downgrade(&held), wanted.term / RENEWALS, lost.clone()));
        Ok(Self {
            held,
            lost,
            _renewing: renewing,
        })
    }

    /// The number that nodes compare: greater than that of every lease before.
    pub fn token(&self) -> u64 {
        self.held.token
    }

    /// Whether it is still ours: nobody has broken it and nobody else has taken it.
    pub fn holds(&self) -> bool {
        self.held.is_ours().is_some()
    }

    /// Ends when the lease was lost, which is noticed at the next renewal.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Says more exactly what is being done, e.g. with the plan's id. A disk that takes no note is no reason to stop.
    pub fn say(&self, about: &str) {
        if let Some(mut record) = self.held.is_ours() {
            about.clone_into(&mut record.about);
            if let Err(error) = record.save(&self.held.paths) {
                tracing::warn!(error = %Chain(&error), "the lease does not say what it is for");
            }
        }
    }

    /// What an operator reads whose orchestrator has lost its lease.
    pub fn failure() -> Failure {
        Failure::new(
            Exit::LockHeld,
            anyhow::anyhow!("the lock of the cluster was broken while this run was silent; it changes nothing more"),
        )
        .hint("`kato lock show` says who has it now; what this run started on nodes goes on, and the other one finds it")
    }
}

impl Held {
    /// The record, when it is ours and the lock is still the one that everybody sees.
    fn is_ours(&self) -> Option<Record> {
        let record = Record::load(&self.paths).ok().flatten()?;
        (record.token == self.token && self.lock.is_at(&self.paths.cluster_lock())).then_some(record)
    }

    /// Shows that we are at work; `false` when the lease is no longer ours.
    fn renew(&self) -> bool {
        let Some(record) = self.is_ours() else {
            return false;
        };
        if let Err(error) = record.renewed(self.clock.now()).save(&self.paths) {
            // It is ours until somebody takes it. Others see a silent holder, and a person decides.
            tracing::warn!(error = %Chain(&error), "the lock of the cluster could not be renewed");
        }
        true
    }
}

/// Does not hold the lease itself: it ends at once when its owner drops it.
async fn renew(held: Weak<Held>, pause: Duration, lost: CancellationToken) {
    loop {
        sleep(pause).await;
        if !held.upgrade().is_some_and(|held| held.renew()) {
            lost.cancel();
            return;
        }
    }
}

/// Greater than the last one, and than every one before Core lost its record.
fn next_token(paths: &NodePaths, clock: &Clock) -> u64 {
    let last = Record::load(paths).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "the record of the last lease is replaced");
        None
    });
    let now = u64::try_from(clock.now().as_second()).unwrap_or(0);
    last.map_or(now, |last| now.max(last.token.saturating_add(1)))
}

/// The lease of the cluster as its record says, and what is known about its holder; `None` when there never was one.
pub fn look(paths: &NodePaths) -> Option<(Record, Standing)> {
    let record = Record::load(paths).ok().flatten()?;
    let standing = record.standing(paths.root(), lock::is_held(&paths.cluster_lock()));
    Some((record, standing))
}

/// Takes the lease away from a holder that is dead or silent for longer than its term; gives what it said of itself. `None`
/// when nobody holds it.
///
/// # Errors
/// [`LeaseError::Held`] when the holder is at work.
pub fn break_silent(paths: &NodePaths) -> Result<Option<Record>, LeaseError> {
    let path = paths.cluster_lock();
    if !lock::is_held(&path) {
        return Ok(None);
    }
    match look(paths) {
        // Who has only just taken the lock has not written its record yet: the one that is there is another's.
        Some((record, _)) if lock::last_holder(&path).is_none_or(|holder| holder != record.holder) => {
            lock::break_stale(&path, paths.root())?;
            Ok(Some(record))
        }
        Some((record, standing)) if standing.may_be_broken() => {
            durable::remove(&path)?;
            Ok(Some(record))
        }
        Some((record, standing)) => Err(LeaseError::Held {
            record: Box::new(record),
            standing,
        }),
        None => {
            lock::break_stale(&path, paths.root())?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
