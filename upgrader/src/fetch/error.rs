//! Why a download failed, how the command ends, and what to do next. The cache, its upstream, and the disk have
//! different remedies, so they are different errors.

use std::{error::Error, io, path::PathBuf};

use kato_shared::{Digest, trust::TrustError, verify::VerifyError};
use url::Url;

use crate::exit::Exit;

/// A download that failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The HTTP client cannot be set up.
    #[error("setting up the HTTP client failed")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server, or the cache itself, does not answer.
    #[error("{peer} does not answer ({url})")]
    Unreachable {
        /// `the cache http://…` or `the server h.example`.
        peer: String,
        /// Whether it is the cache.
        is_cache: bool,
        /// What was requested.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke off or fell silent in the middle of a body, too often without progress.
    #[error("{url} broke off after {received} of {size} bytes")]
    Interrupted {
        /// What was requested.
        url: String,
        /// What is there, in bytes.
        received: u64,
        /// What is expected, in bytes; 0 when unknown.
        size: u64,
        /// Why, when the connection said so.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The cache answers, but does not hold it and may not ask for it.
    #[error("the cache does not hold {url}: {detail}")]
    NotInCache {
        /// What was requested.
        url: String,
        /// The cache's words.
        detail: String,
    },
    /// The cache answers, but its upstream does not.
    #[error("the cache cannot get {url} from its upstream: {detail}")]
    Upstream {
        /// What was requested.
        url: String,
        /// The cache's words.
        detail: String,
        /// The cache's advice.
        advice: Option<String>,
    },
    /// Another answer than the file.
    #[error("{url} was answered with status {status}{}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Status {
        /// What was requested.
        url: String,
        /// The status code.
        status: u16,
        /// The problem detail of the answer.
        detail: Option<String>,
        /// The problem's advice.
        advice: Option<String>,
    },
    /// Other bytes than were signed.
    #[error("{url}: digest mismatch: expected {expected}, received {received}")]
    Mismatch {
        /// What was requested.
        url: String,
        /// The URL behind the cache's.
        origin: String,
        /// Whether it came through the cache.
        is_cache: bool,
        /// The signed digest.
        expected: Digest,
        /// The digest of what arrived.
        received: Digest,
    },
    /// Another size than was signed.
    #[error("{url}")]
    Size {
        /// What was requested.
        url: String,
        /// Expected and received.
        #[source]
        source: VerifyError,
    },
    /// The disk is full, or would be.
    #[error("no room for {path} on {mount}: {need} bytes needed, {have} free, {}", missing(*need, *have, *inodes))]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The mount point of its file system.
        mount: PathBuf,
        /// What is still to be written, in bytes.
        need: u64,
        /// What is free for this user, in bytes.
        have: u64,
        /// How many more files there can be; `None` where the file system does not count.
        inodes: Option<u64>,
    },
    /// The staging folder cannot be used.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn missing(need: u64, have: u64, inodes: Option<u64>) -> String {
    if inodes == Some(0) {
        "and no inode: the file system can hold no more files".to_owned()
    } else {
        format!("{} missing", need.saturating_sub(have))
    }
}

impl FetchError {
    /// How a command ends with it.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Client { .. } => Exit::Bug,
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::NotInCache { .. }
            | Self::Upstream { .. }
            | Self::Status { .. } => Exit::TryAgain,
            Self::Mismatch { .. } | Self::Size { .. } => Exit::Trust,
            Self::DiskFull { .. } | Self::Io { .. } => Exit::Preflight,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Client { .. } => "look for unusual proxy variables in the environment".into(),
            Self::Unreachable { is_cache: true, .. } => {
                "on Core, run `kato node upgrade --prepare` to start the cache; check `[cache].url` and the firewall between here and Core".into()
            }
            Self::Unreachable { is_cache: false, .. } => {
                "check the network, `[release].url` and the proxy variables, then run the same command again".into()
            }
            Self::Interrupted { .. } => {
                "run the same command again; it continues where this one stopped".into()
            }
            Self::NotInCache { .. } => {
                "on Core, run `kato node upgrade --prepare` while the upgrade host can be reached, then run the same command again".into()
            }
            Self::Upstream { advice, .. } => advice.clone().unwrap_or_else(|| {
                "check from Core that the upgrade host can be reached, run `kato node upgrade --prepare` there, then the same command again".into()
            }),
            Self::Status { advice: Some(advice), .. } => advice.clone(),
            Self::Status { .. } => "compare `[release].url` with the publisher's address; if it is right, a publication may be under way".into(),
            Self::Mismatch { is_cache: true, origin, .. } => {
                format!("the cache holds other bytes than were signed: on Core, run `kato-proxy purge --prefix {origin}`, then the same command again")
            }
            Self::Mismatch { is_cache: false, .. } | Self::Size { .. } => {
                "the server or something before it alters the file; ask the publisher to run `kato release verify`".into()
            }
            Self::DiskFull { mount, .. } => {
                format!("free space on {}, or move `[node].state_dir` to a larger file system", mount.display())
            }
            Self::Io { .. } => "check the permissions of the folder and the file system".into(),
        }
    }

    /// [`FetchError::Io`] as a `map_err` argument.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<FetchError> for crate::exit::Failure {
    fn from(error: FetchError) -> Self {
        let hint = error.hint();
        Self::new(error.exit(), error).hint(hint)
    }
}

/// The fetcher's own error inside an error of trust: `tough` carries it along as a source.
pub(super) fn inside(error: &TrustError) -> Option<&FetchError> {
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref::<FetchError>() {
            return Some(found);
        }
        cause = current.source();
    }
    None
}

/// A URL for people.
pub(super) fn shown(url: &Url) -> String {
    kato_shared::redact::url(url)
}
