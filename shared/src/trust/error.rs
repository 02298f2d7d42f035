//! Why a repository cannot be used: which failures are an attack or a mistake that must be refused, and which pass.
//!
//! `tough`'s errors are told apart by their variants and sources, never by their texts. What is not known to be
//! harmless is a refusal.

use std::path::PathBuf;

use jiff::Timestamp;
use semver::Version;
use tough::{TransportError, TransportErrorKind, error::Error as Tough};

use crate::{clock::Clock, durable::DurableError, release::ReadError};

/// A repository, or a document in it, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not signed by enough of the keys that are trusted for the role.
    #[error("the {role} metadata is not signed by enough of the trusted keys")]
    Signature {
        /// The role.
        role: String,
        /// How many signatures are valid and how many are needed.
        #[source]
        source: Box<Tough>,
    },
    /// An older version than one that was seen before.
    #[error("the {role} metadata went back from version {seen} to {offered}")]
    Rollback {
        /// The role.
        role: String,
        /// The version that was seen before.
        seen: u64,
        /// The version that is offered now.
        offered: u64,
    },
    /// Metadata whose time has passed.
    #[error("the {role} metadata is expired (this machine's clock says {now})")]
    Expired {
        /// The role.
        role: String,
        /// When it was looked at.
        now: Timestamp,
    },
    /// Other bytes than were signed.
    #[error("{url}: digest mismatch: expected sha256:{expected}, received sha256:{received}")]
    Mismatch {
        /// What was fetched.
        url: String,
        /// The signed digest.
        expected: String,
        /// The digest of what arrived.
        received: String,
    },
    /// More bytes than were signed or are sensible.
    #[error("{url}: more than the expected {limit} bytes")]
    TooLarge {
        /// What was fetched.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not TUF metadata.
    #[error("what is served as {role} metadata cannot be read as such")]
    Malformed {
        /// The role.
        role: String,
        /// What does not fit.
        #[source]
        source: Box<Tough>,
    },
    /// The metadata contradict each other or themselves.
    #[error("the metadata are inconsistent")]
    Inconsistent {
        /// What does not fit together.
        #[source]
        source: Box<Tough>,
    },
    /// The pinned root itself is not root metadata signed by its own keys.
    #[error("the pinned root is not valid root metadata")]
    PinnedRoot {
        /// What does not fit.
        #[source]
        source: Box<Tough>,
    },
    /// The repository, or the way to it, does not answer.
    #[error("fetching {url} failed")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why; the transport's own error is below it.
        #[source]
        source: Box<TransportError>,
    },
    /// The server answers that a file that must be there is not.
    #[error("{url} was not found")]
    Missing {
        /// What was asked for.
        url: String,
    },
    /// The release is not published.
    #[error("release {version} is not published; published: {}", list(published))]
    NoSuchRelease {
        /// The wanted version.
        version: Version,
        /// What there is, ascending.
        published: Vec<Version>,
    },
    /// The signed metadata do not list the target.
    #[error("the repository has no target `{name}`")]
    NoSuchTarget {
        /// The target name.
        name: String,
    },
    /// A document is authentic, but this build cannot use it.
    #[error("the document is signed, but cannot be used here")]
    Unusable(#[source] Box<ReadError>),
    /// This machine's clock went back since the last contact.
    #[error("this machine's clock says {now}, but at an earlier contact it said {latest}")]
    Clock {
        /// The clock now.
        now: Timestamp,
        /// The clock at the last contact.
        latest: Timestamp,
    },
    /// The node's memory of the repository was changed by something else, or the disk lost it.
    #[error(
        "the record of trusted metadata `{path}` is damaged: expected the highest versions that this node has accepted"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The node's memory of the repository cannot be used.
    #[error("the record of trusted metadata `{path}` cannot be used")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a [`TrustError`] means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustKind {
    /// Refused: signature, threshold, rollback, expiry, size or digest.
    Refused,
    /// Nothing was learned; the same command may succeed later.
    Unreachable,
    /// Authentic, but not for this node or this build.
    Unusable,
    /// This machine's clock or disk is in the way.
    Local,
    /// What this node remembers is damaged. To forget it would open the door to a rollback, so that a person decides.
    Damaged,
}

impl TrustError {
    /// What it means for the caller.
    pub const fn kind(&self) -> TrustKind {
        match self {
            Self::Signature { .. }
            | Self::Rollback { .. }
            | Self::Expired { .. }
            | Self::Mismatch { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Inconsistent { .. }
            | Self::PinnedRoot { .. } => TrustKind::Refused,
            Self::Unreachable { .. } | Self::Missing { .. } => TrustKind::Unreachable,
            Self::NoSuchRelease { .. } | Self::NoSuchTarget { .. } | Self::Unusable(_) => TrustKind::Unusable,
            Self::Clock { .. } | Self::State { .. } => TrustKind::Local,
            Self::Damaged { .. } => TrustKind::Damaged,
        }
    }

    /// Whether the repository was reached and refused.
    pub fn is_refusal(&self) -> bool {
        self.kind() == TrustKind::Refused
    }

    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Signature { .. } => {
                "check that `[release].url` and the pinned root (`[release].trusted_root`) belong to the same repository; if they do, somebody between here and there alters it"
            }
            Self::Rollback { .. } => {
                "a mirror or cache serves old metadata; compare with the publisher's server before anything else"
            }
            Self::Expired { .. } => {
                "compare this machine's clock; if it is right, the publisher must run `kato release refresh`"
            }
            Self::Mismatch { .. } | Self::TooLarge { .. } => {
                "fetch the same URL from the publisher's server; if it differs, purge it from the cache (`kato-proxy purge`) and try again"
            }
            Self::Malformed { .. } => {
                "look at what the URL serves: a login page or an error page instead of the repository?"
            }
            Self::Inconsistent { .. } | Self::NoSuchTarget { .. } => {
                "ask the publisher to run `kato release verify`"
            }
            Self::PinnedRoot { .. } => {
                "install the publisher's `root.json` again, from a trusted source, as `[release].trusted_root`"
            }
            Self::Unreachable { .. } => "check the network and the server, then run the same command again",
            Self::Missing { .. } => {
                "check `[release].url`: `metadata/` and `targets/` must be below it; if it is right, a publication may be under way"
            }
            Self::NoSuchRelease { .. } => "choose one of the published versions",
            Self::Unusable(_) => "upgrade `kato` first, or ask the publisher",
            Self::Clock { .. } => {
                "set the clock; if it is right now and was wrong then, remove `latest_known_time.json` in the trust folder"
            }
            Self::State { .. } => {
                "check the disk and the permissions of the folder, then run the same command again"
            }
            Self::Damaged { .. } => {
                "compare with the publisher which release is current; if what this server offers is not older, move the file away: the next command remembers anew"
            }
        }
    }

    /// A document that is signed and contradicts what else is signed.
    pub fn contradiction(subject: &str, problem: &str) -> Self {
        Self::Unusable(Box::new(ReadError::Contradiction {
            subject: subject.to_owned(),
            problem: problem.to_owned(),
        }))
    }

    /// The meaning of a failed transport: size and digest verdicts of `tough` travel inside it.
    pub(super) fn from_transport(error: TransportError) -> Self {
        let url = error.url().to_owned();
        let verdict = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Tough>());
        match verdict {
            Some(Tough::HashMismatch {
                calculated, expected, ..
            }) => Self::Mismatch {
                url,
                expected: expected.clone(),
                received: calculated.clone(),
            },
            Some(Tough::MaxSizeExceeded { max_size, .. }) => Self::TooLarge {
                url,
                limit: *max_size,
            },
            _ if error.kind() == TransportErrorKind::FileNotFound => Self::Missing { url },
            _ => Self::Unreachable {
                url,
                source: Box::new(error),
            },
        }
    }

    /// The meaning of an error of `tough`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is non-exhaustive; whatever is not known to be harmless is a refusal"
    )]
    pub(super) fn from_tough(error: Tough) -> Self {
        match error {
            Tough::Transport { source, .. } => Self::from_transport(source),
            Tough::VerifyMetadata { role, .. } => Self::Signature {
                role: role.to_string(),
                source: Box::new(error),
            },
            Tough::OlderMetadata {
                role,
                current_version,
                new_version,
                ..
            } => Self::rollback(&role.to_string(), current_version, new_version),
            Tough::OlderSnapshotInTimestamp {
                snapshot_new,
                snapshot_old,
                ..
            } => Self::rollback("snapshot", snapshot_old, snapshot_new),
            Tough::SnapshotRoleRollback {
                role,
                old_role_version,
                new_role_version,
                ..
            } => Self::rollback(role.trim_end_matches(".json"), old_role_version, new_role_version),
            Tough::ExpiredMetadata { role, .. } => Self::Expired {
                role: role.to_string(),
                now: Clock::system().now(),
            },
            Tough::ParseMetadata { role, .. } => Self::Malformed {
                role: role.to_string(),
                source: Box::new(error),
            },
            Tough::ParseTrustedMetadata { .. } | Tough::VerifyTrustedMetadata { .. } => Self::PinnedRoot {
                source: Box::new(error),
            },
            Tough::SystemTimeSteppedBackward {
                sys_time,
                latest_known_time,
            } => Self::Clock {
                now: sys_time,
                latest: latest_known_time,
            },
            Tough::DatastoreCreate { path, source, .. }
            | Tough::DatastoreOpen { path, source, .. }
            | Tough::DatastoreRemove { path, source, .. } => Self::State { path, source },
            other => Self::Inconsistent {
                source: Box::new(other),
            },
        }
    }

    fn rollback(role: &str, seen: u64, offered: u64) -> Self {
        Self::Rollback {
            role: role.to_owned(),
            seen,
            offered,
        }
    }
}

impl From<ReadError> for TrustError {
    fn from(error: ReadError) -> Self {
        Self::Unusable(Box::new(error))
    }
}

impl From<DurableError> for TrustError {
    fn from(error: DurableError) -> Self {
        Self::State {
            path: error.path,
            source: error.source,
        }
    }
}

fn list(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "none".into();
    }
    let texts: Vec<_> = versions.iter().map(Version::to_string).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_down_is_no_refusal_and_a_verdict_inside_it_is() {
        let down = TransportError::new(TransportErrorKind::Other, "https://h.example/x");
        assert_eq!(TrustError::from_transport(down).kind(), TrustKind::Unreachable);
        let absent = TransportError::new(TransportErrorKind::FileNotFound, "https://h.example/x");
        assert!(matches!(
            TrustError::from_transport(absent),
            TrustError::Missing { .. }
        ));
    }
}
