//! What an orchestrator says of its lease, and what follows from it. The judgement is a pure function of the record and of what
//! the machine says.

use std::{fmt, path::Path, time::Duration};

use jiff::Timestamp;
use kato_shared::durable::{self, DurableError};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::{
    document::{self, DocumentError},
    lock::{self, Holder},
    paths::NodePaths,
};

/// The version of the document.
const SCHEMA: u32 = 1;

/// The lease on Core: `state/cluster-lease.json`. It stays when the lease ends, because the next token follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub schema: u32,
    /// The number that nodes compare.
    pub token: u64,
    /// The process.
    pub holder: Holder,
    /// The machine's name.
    pub host: String,
    /// What is being done.
    pub about: String,
    /// When it last showed that it is at work, for people.
    pub renewed: Timestamp,
    /// The same in seconds since the boot of `holder`, which no setting of a clock changes.
    pub renewed_uptime_secs: u64,
    /// How long it may be silent, in seconds.
    pub term_secs: u64,
}

/// What is known about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Standing {
    /// Nobody has it.
    Free,
    /// Its holder is at work.
    AtWork,
    /// Its holder is there and has been silent for longer than the term: stopped, or hanging.
    Silent {
        /// For how long, in seconds.
        secs: u64,
    },
    /// Its holder is dead, and something keeps its lock open.
    Dead,
}

impl Standing {
    /// Whether an operator may break it.
    pub const fn may_be_broken(self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Dead)
    }

    /// For people.
    pub fn text(self) -> String {
        match self {
            Self::Free => "nobody has it now".into(),
            Self::AtWork => "it is at work".into(),
            Self::Silent { secs } => {
                let silent = humantime::format_duration(Duration::from_secs(secs));
                format!("it has been silent for {silent}, so that it is stopped or hangs")
            }
            Self::Dead => "it is dead".into(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token,
            holder,
            host,
            about,
            renewed,
            ..
        } = self;
        write!(
            f,
            "{about}, process {} on {host} since {}, last seen {renewed}, token {token}",
            holder.pid, holder.started
        )
    }
}

impl Record {
    /// The record of `holder`, who begins now.
    pub(super) fn new(holder: Holder, wanted: &Wanted, token: u64, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            token,
            holder,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            about: wanted.about.clone(),
            renewed: now,
            renewed_uptime_secs: uptime_secs(),
            term_secs: wanted.term.as_secs().max(1),
        }
    }

    /// The same, seen at work now.
    pub(super) fn renewed(self, now: Timestamp) -> Self {
        Self {
            renewed: now,
            renewed_uptime_secs: uptime_secs(),
            ..self
        }
    }

    /// The record of the last lease.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn load(paths: &NodePaths) -> Result<Option<Self>, DocumentError> {
        document::read(&paths.cluster_lease(), "the lease of an orchestrator")
    }

    /// # Errors
    /// [`DurableError`].
    pub(super) fn save(&self, paths: &NodePaths) -> Result<(), DurableError> {
        durable::write_json(&paths.cluster_lease(), self, 0o644)
    }

    /// What is known about it on the machine with `root`, when its lock `is_held`.
    pub fn standing(&self, root: &Path, is_held: bool) -> Standing {
        if !is_held {
            return Standing::Free;
        }
        judge(
            self,
            self.holder.standing(root),
            &lock::boot_id(root),
            uptime_secs(),
        )
    }
}

/// Pure part of [`Record::standing`], for a lock that somebody has open.
fn judge(record: &Record, process: lock::Standing, boot: &str, uptime_secs: u64) -> Standing {
    if process.is_dead() {
        return Standing::Dead;
    }
    let silent = uptime_secs.saturating_sub(record.renewed_uptime_secs);
    if record.holder.boot_id == boot && silent > record.term_secs {
        Standing::Silent { secs: silent }
    } else {
        Standing::AtWork
    }
}

/// Seconds since the boot, the time in which the machine slept included.
fn uptime_secs() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let root = Path::new("/");
        let wanted = Wanted {
            run: "r1".into(),
            about: "the upgrade to 2.0.0".into(),
            term: Duration::from_secs(60),
        };
        let holder = Holder {
            boot_id: "b1".into(),
            ..Holder::here("r1", root, Timestamp::UNIX_EPOCH)
        };
        Record {
            renewed_uptime_secs: 100,
            ..Record::new(holder, &wanted, 7, Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn c03_silence_is_measured_from_boot_and_only_within_the_same_boot() {
        let judged = |process, boot, uptime| judge(&record(), process, boot, uptime);
        let alive = lock::Standing::Alive;
        assert_eq!(judged(alive, "b1", 160), Standing::AtWork);
        assert_eq!(judged(alive, "b1", 161), Standing::Silent { secs: 61 });
        assert_eq!(
            judged(lock::Standing::Unknown, "b1", 161),
            Standing::Silent { secs: 61 }
        );
        // A count of another boot says nothing.
        assert_eq!(judged(alive, "b2", 9_999), Standing::AtWork);
        // The count went back: another boot that could not be told apart.
        assert_eq!(judged(alive, "b1", 5), Standing::AtWork);
        assert_eq!(judged(lock::Standing::OtherBoot, "b2", 0), Standing::Dead);
        assert_eq!(judged(lock::Standing::Gone, "b1", 100), Standing::Dead);
    }

    #[test]
    fn c03_the_holder_is_described_with_all_that_finds_it() {
        let text = record().to_string();
        for part in [
            "the upgrade to 2.0.0",
            "process ",
            " on ",
            "since 1970",
            "token 7",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
