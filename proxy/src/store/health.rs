//! What ails the store: told to clients in `Cache-Status`, to operators by `/-/healthz`, and gone as soon as writing works again.
//!
//! Flow: whoever fails to write says so ([`Health::failed`]), whoever succeeds says that, too ([`Health::well`]). While the store
//! ails, the write-behind thread tries it every second ([`Store::probe`]), so that it recovers without waiting for a request.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kato_shared::{chain::Chain, durable};
use tokio::time::Instant;

use super::{NoRoom, Store, StoreError, layout::remove_if_there};

/// How long a disk that was too slow for a download is left alone.
const REST: Duration = Duration::from_secs(5);

/// What can ail a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The disk or the quota is full, and nothing can be evicted.
    Full,
    /// The file system or the folder cannot be written.
    ReadOnly,
    /// Writes do not keep up with the clients.
    Slow,
    /// The disk or the index fails otherwise.
    Failing,
}

impl Trouble {
    /// Every trouble, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Full, Self::ReadOnly, Self::Slow, Self::Failing];

    /// A token for `Cache-Status`, metrics and health.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "enospc",
            Self::ReadOnly => "read-only",
            Self::Slow => "slow-disk",
            Self::Failing => "io-error",
        }
    }

    /// What an error of the operating system means for the store.
    pub fn of(error: &io::Error) -> Self {
        let kind = error.kind();
        if durable::is_disk_full(error) {
            Self::Full
        } else if [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied].contains(&kind) {
            Self::ReadOnly
        } else {
            Self::Failing
        }
    }
}

impl StoreError {
    /// What this error means for the store.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::File(error) => Trouble::of(&error.source),
            Self::Read { source, .. } => Trouble::of(source),
            Self::Index { source, .. } => {
                if let redb::Error::Io(error) = &**source {
                    Trouble::of(error)
                } else {
                    Trouble::Failing
                }
            }
            Self::ReadOnly => Trouble::ReadOnly,
            Self::Row { .. } | Self::Closing => Trouble::Failing,
        }
    }
}

impl NoRoom {
    /// What this means for the store.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Quota { .. } | Self::Pinned { .. } => Trouble::Full,
            Self::Disk(error) => error.trouble(),
            Self::Slow => Trouble::Slow,
            Self::Closing => Trouble::Failing,
        }
    }
}

/// The state of the store.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Ailment>>);

#[derive(Debug)]
struct Ailment {
    trouble: Trouble,
    cause: String,
    since: Instant,
}

impl Health {
    /// Writing failed.
    pub(super) fn failed(&self, error: &NoRoom) {
        let trouble = error.trouble();
        let mut ailment = self.lock();
        if ailment.as_ref().is_none_or(|known| known.trouble != trouble) {
            tracing::warn!(trouble = trouble.label(), cause = %Chain(error), "the store ails; what it cannot take is passed through");
        }
        *ailment = Some(Ailment {
            trouble,
            cause: Chain(error).to_string(),
            since: Instant::now(),
        });
    }

    /// Writing worked.
    pub(super) fn well(&self) {
        if let Some(ailment) = self.lock().take() {
            tracing::info!(trouble = ailment.trouble.label(), "the store takes bodies again");
        }
    }

    /// What ails the store, and why.
    pub(super) fn trouble(&self) -> Option<(Trouble, String)> {
        let ailment = self.lock();
        ailment.as_ref().map(|known| (known.trouble, known.cause.clone()))
    }

    pub(super) fn is_well(&self) -> bool {
        self.lock().is_none()
    }

    /// Whether the disk was too slow a moment ago, so that nothing should wait for it.
    pub(super) fn rests(&self) -> bool {
        let ailment = self.lock();
        ailment
            .as_ref()
            .is_some_and(|known| known.trouble == Trouble::Slow && known.since.elapsed() < REST)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ailment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// What ails the store, and why; `None` when it takes bodies.
    pub fn trouble(&self) -> Option<(Trouble, String)> {
        self.0.health.trouble()
    }

    /// Notes that writing could not keep up with a download.
    pub fn is_too_slow(&self) {
        self.0.health.failed(&NoRoom::Slow);
    }

    /// Tries whether a store that ails can be written again. Blocks.
    pub(super) fn probe(&self) {
        if self.0.health.is_well() || self.0.health.rests() {
            return;
        }
        if let Err(error) = self.try_writing() {
            self.0.health.failed(&error);
        } else {
            self.0.health.well();
        }
    }

    fn try_writing(&self) -> Result<(), NoRoom> {
        self.restore_reserve();
        self.make_room(PROBE.len() as u64)?;
        let path = self.0.layout.new_temp();
        let written = durable::create_new(&path)
            .map_err(StoreError::from)
            .and_then(|mut file| {
                io::Write::write_all(&mut file, &PROBE)
                    .and_then(|()| file.sync_all())
                    .map_err(|source| StoreError::Read {
                        path: path.clone(),
                        source: source.into(),
                    })
            });
        // What stays is removed at the next start.
        let _left = remove_if_there(&path);
        written
            .and_then(|()| self.0.index.submit_blocking(Vec::new()))
            .map_err(NoRoom::Disk)
    }
}

/// As much as the smallest body takes on a usual file system.
static PROBE: [u8; 4096] = [0; 4096];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ailing_store_says_what_ails_it_until_writing_works() {
        let health = Health::default();
        assert!(health.is_well());
        let full = io::Error::from(io::ErrorKind::StorageFull);
        health.failed(&NoRoom::Disk(StoreError::Read {
            path: "/cache".into(),
            source: full.into(),
        }));
        let (trouble, cause) = health.trouble().unwrap();
        assert_eq!((trouble, trouble.label()), (Trouble::Full, "enospc"));
        assert!(cause.contains("/cache"), "{cause}");
        assert!(!health.rests());
        health.failed(&NoRoom::Slow);
        assert!(health.rests());
        health.well();
        assert!(health.is_well() && !health.rests());
    }

    #[test]
    fn errors_of_the_system_are_told_apart() {
        let of = |errno: rustix::io::Errno| Trouble::of(&errno.into());
        assert_eq!(of(rustix::io::Errno::NOSPC), Trouble::Full);
        assert_eq!(of(rustix::io::Errno::DQUOT), Trouble::Full);
        assert_eq!(of(rustix::io::Errno::ROFS), Trouble::ReadOnly);
        assert_eq!(of(rustix::io::Errno::ACCESS), Trouble::ReadOnly);
        assert_eq!(of(rustix::io::Errno::IO), Trouble::Failing);
    }
}
