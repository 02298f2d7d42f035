//! Why a download failed, how the command ends, and what to do next. The cache, its upstream, and the disk have
//! different remedies, so they are different errors.

use std::{error::Error, io, path::PathBuf, time::Duration};

use jiff::Timestamp;
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
        /// The host that the server which was asked sent us to, when it is that one that does not answer.
        elsewhere: Option<String>,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A server sends us from one address to the next without end, or to nowhere.
    #[error("{url} is redirected to {to}, {why}")]
    Redirects {
        /// What was requested.
        url: String,
        /// The last address.
        to: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The bytes come, but too slowly to go on.
    #[error("{url} comes too slowly: {received} bytes in {}, expected {}", humantime::format_duration(*within), expected.map_or_else(|| "all of it".into(), |floor| format!("at least {floor}")))]
    TooSlow {
        /// What was requested.
        url: String,
        /// Whether it came through the cache.
        is_cache: bool,
        /// What came within that time, in bytes.
        received: u64,
        /// The time.
        within: Duration,
        /// What had to come, in bytes; `None` for all of a document.
        expected: Option<u64>,
    },
    /// The server asks to be left alone for longer than a run waits.
    #[error("{url} was answered with status {status}: not before {until}{}", detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Busy {
        /// What was requested.
        url: String,
        /// The status code.
        status: u16,
        /// When it may be asked again.
        until: Timestamp,
        /// The problem detail of the answer.
        detail: Option<String>,
    },
    /// The connection broke off or fell silent in the middle of a body, too often without progress.
    #[error("{url} broke off after {received}{} bytes", of(*size))]
    Interrupted {
        /// What was requested.
        url: String,
        /// What is there, in bytes.
        received: u64,
        /// What is expected, in bytes; 0 when unknown.
        size: u64,
        /// Whether the next attempt can only begin at the start.
        anew: bool,
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
        /// The host that answered, when the server which was asked sent us there.
        elsewhere: Option<String>,
        /// The problem detail of the answer.
        detail: Option<String>,
        /// The problem's advice.
        advice: Option<String>,
    },
    /// A page, and not the file.
    #[error("{url} was answered with a page, not with the file")]
    Page {
        /// What was requested.
        url: String,
        /// Whether it came through the cache.
        is_cache: bool,
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

/// The server gives no way to go on in the middle, so that whatever cuts its answers off keeps the file away for good.
const ANEW: &str = "run the same command again; it begins this file anew, because the server cannot continue it; where it always breaks off, look for what cuts connections on the way: a proxy or a firewall with a limit";

/// What was expected, where that is known.
fn of(size: u64) -> String {
    if size == 0 {
        String::new()
    } else {
        format!(" of {size}")
    }
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
            | Self::Redirects { .. }
            | Self::TooSlow { .. }
            | Self::Busy { .. }
            | Self::Interrupted { .. }
            | Self::NotInCache { .. }
            | Self::Upstream { .. }
            | Self::Status { .. }
            | Self::Page { .. } => Exit::TryAgain,
            Self::Mismatch { .. } | Self::Size { .. } => Exit::Trust,
            Self::DiskFull { .. } | Self::Io { .. } => Exit::Preflight,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Client { .. } => "look for unusual proxy variables in the environment".into(),
            Self::Unreachable { elsewhere: Some(host), .. } => elsewhere_hint(host),
            Self::Unreachable { is_cache: true, .. } => {
                "on Core, run `kato node upgrade --prepare` to start the cache; check `[cache].url` and the firewall between here and Core".into()
            }
            Self::Unreachable { is_cache: false, .. } => {
                "check the network, `[release].url` and the proxy variables, then run the same command again".into()
            }
            Self::Redirects { .. } => {
                "ask the operator of the server, or set `[release].url` to the address that it really has".into()
            }
            Self::TooSlow { expected, .. } => too_slow_hint(expected.is_some()),
            Self::Busy { until, .. } => {
                format!("the server is under maintenance or has too much to do; run the same command again after {until}, it continues where this one stopped")
            }
            Self::Interrupted { anew: false, .. } => {
                "run the same command again; it continues where this one stopped".into()
            }
            Self::Interrupted { anew: true, .. } => ANEW.into(),
            Self::NotInCache { .. } => {
                "on Core, run `kato node upgrade --prepare` while the upgrade host can be reached, then run the same command again".into()
            }
            Self::Upstream { advice, .. } => advice.clone().unwrap_or_else(|| {
                "check from Core that the upgrade host can be reached, run `kato node upgrade --prepare` there, then the same command again".into()
            }),
            Self::Status { advice: Some(advice), .. } => advice.clone(),
            Self::Status { status, elsewhere, .. } => status_hint(*status, elsewhere.as_deref()),
            Self::Page { is_cache, .. } => page_hint(*is_cache),
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

fn elsewhere_hint(host: &str) -> String {
    format!(
        "the server sends its clients to {host}: let this machine reach it, or set `[release].url` to an address that needs no redirect"
    )
}

/// `is_file` when it may be continued; a document is begun anew.
fn too_slow_hint(is_file: bool) -> String {
    let (what, key) = if is_file {
        ("; it continues where this one stopped", "lower `min_speed`")
    } else {
        ("", "raise `document_timeout`")
    };
    format!(
        "run the same command again{what}; where the line is no faster, {key} under `[download]` in kato.toml"
    )
}

/// What stands between us and the server answers in its place.
fn page_hint(is_cache: bool) -> String {
    let (whose, then) = if is_cache {
        (
            "the cache's way to the upgrade host",
            " and `kato node upgrade --prepare` there",
        )
    } else {
        ("this machine's way to the server", "")
    };
    format!(
        "a login page or a captive portal on {whose}? Open the address with `curl -L` and look; when the file itself comes, run the same command again{then}"
    )
}

/// What a status code asks for.
fn status_hint(status: u16, elsewhere: Option<&str>) -> String {
    let hint = match status {
        407 => {
            "the proxy of the environment wants credentials: set them in HTTPS_PROXY or HTTP_PROXY, or leave the proxy out with NO_PROXY"
        }
        401 | 403 => {
            "the server does not serve this machine: compare `[release].url`, and ask its operator who may read it"
        }
        300..=399 => {
            "the server redirects without saying where to: compare `[release].url` with the publisher's address"
        }
        206 | 408 | 416 | 425 | 429 | 500..=599 => {
            "the server has trouble or too much to do; run the same command again later, it continues where this one stopped"
        }
        _ => {
            "compare `[release].url` with the publisher's address; if it is right, a publication may be under way"
        }
    };
    match elsewhere {
        Some(host) => format!("{hint}; it was {host} that answered, where the server sends its clients"),
        None => hint.into(),
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
