//! Why an origin gave no answer, or not a whole one.

use std::{io, time::Duration};

use super::connections::{ExchangeError, causes, is_timeout};

/// A request to an origin that failed.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// No connection, or none that a response came over.
    #[error("`{url}` could not be asked")]
    Request {
        /// The URL, redacted.
        url: String,
        /// Why.
        #[source]
        source: ExchangeError,
    },
    /// It did not answer a moment ago, and a stored response can stand in.
    #[error("`{url}` did not answer a moment ago")]
    Down {
        /// The URL, redacted.
        url: String,
    },
    /// The origin sent nothing for too long.
    #[error("`{url}` sent nothing for {waited:?}")]
    Stalled {
        /// The URL, redacted.
        url: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The body broke off.
    #[error("the body of `{url}` broke off")]
    Body {
        /// The URL, redacted.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The body broke off, and what came when asking for the rest does not fit.
    #[error("the body of `{url}` could not be taken up again at byte {at}: {reason}")]
    NotResumable {
        /// The URL, redacted.
        url: String,
        /// Where it broke off.
        at: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// A redirect, or an upstream's name, leads to an address that no upstream names.
    #[error("`{url}` leads to an address of this host or network that no upstream names")]
    Guarded {
        /// The URL, redacted.
        url: String,
    },
    /// Redirects without end.
    #[error("`{url}` redirected more than {limit} times")]
    TooManyRedirects {
        /// The URL, redacted.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect that cannot be followed.
    #[error("`{url}` redirected to `{location}`, which is no http or https URL")]
    BadRedirect {
        /// The URL, redacted.
        url: String,
        /// Where to.
        location: String,
    },
    /// A part, or "not modified", where nothing of the kind was asked for.
    #[error("`{url}` was answered with {status}, which was not asked for")]
    Unasked {
        /// The URL, redacted.
        url: String,
        /// The status code.
        status: http::StatusCode,
    },
    /// The client could not be built.
    #[error("the HTTP client cannot be started")]
    Client(#[source] rustls::Error),
}

/// The kinds of [`OriginError`], for metrics and status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection.
    Unreachable,
    /// Too slow.
    Timeout,
    /// An answer that cannot be used.
    BadResponse,
    /// Not allowed.
    Guarded,
}

impl ErrorKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Timeout, Self::BadResponse, Self::Guarded];

    /// The label's value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::BadResponse => "bad_response",
            Self::Guarded => "guarded",
        }
    }
}

impl OriginError {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Request { source, .. } if guard_refused(source) => ErrorKind::Guarded,
            Self::Request { source, .. } if is_timeout(source) => ErrorKind::Timeout,
            Self::Request { source, .. } if source.is_connect() => ErrorKind::Unreachable,
            Self::Stalled { .. } => ErrorKind::Timeout,
            Self::Guarded { .. } => ErrorKind::Guarded,
            Self::Request { .. } | Self::Client(_) | Self::Down { .. } => ErrorKind::Unreachable,
            Self::Body { .. }
            | Self::NotResumable { .. }
            | Self::TooManyRedirects { .. }
            | Self::Unasked { .. }
            | Self::BadRedirect { .. } => ErrorKind::BadResponse,
        }
    }

    /// Whether the origin was reached and closed the connection instead of answering.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self, Self::Request { source, .. } if !source.is_connect())
    }

    /// Whether another mirror, or the same a little later, may do better.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Timeout)
    }
}

/// Whether the name resolved to guarded addresses alone: the resolver says so with this kind of error.
fn guard_refused(error: &ExchangeError) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<super::guard::Refused>)
    })
}
