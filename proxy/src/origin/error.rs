//! Why an origin gave no answer, or not a whole one.

use std::{io, path::PathBuf, time::Duration};

use super::guard::Refused;
use crate::registry::Misfit;

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
    /// It asked to be left alone for a while (`Retry-After`).
    #[error("`{url}` wants no requests for another {}", retry_after_text(*retry_after))]
    Busy {
        /// The URL, redacted.
        url: String,
        /// How long.
        retry_after: Duration,
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
        source: BodyFault,
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
    /// A redirect that the settings do not allow.
    #[error("`{url}` redirected to {host}, which is not in redirect_hosts of its upstream")]
    RedirectHost {
        /// The URL, redacted.
        url: String,
        /// The host, with its port.
        host: String,
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
    /// Content in a transfer coding that nobody asked for, which would be stored as if it were the representation.
    #[error("`{url}` sent its content in the transfer coding `{coding}`, expected none or `chunked`")]
    TransferCoding {
        /// The URL, redacted.
        url: String,
        /// `Transfer-Encoding`.
        coding: String,
    },
    /// Content whose end two fields tell, each in its own way.
    #[error("`{url}` announced its content by Content-Length and by Transfer-Encoding, expected one of them")]
    TwoLengths {
        /// The URL, redacted.
        url: String,
    },
    /// Something else than there is under such a name.
    #[error("`{url}` was not answered with what was asked for")]
    Misfit {
        /// The URL, redacted.
        url: String,
        /// What came.
        #[source]
        misfit: Misfit,
    },
    /// A registry names a token service that is not its own.
    #[error(
        "`{url}` wants a token of `{realm}`, which is neither in the registry's own domain nor in its token_hosts"
    )]
    Realm {
        /// The URL, redacted.
        url: String,
        /// The token service, redacted.
        realm: String,
    },
    /// A token service that gives nothing usable.
    #[error("the token service `{realm}` answered {status}: {reason}")]
    Token {
        /// The token service, redacted.
        realm: String,
        /// Its status code.
        status: http::StatusCode,
        /// What is wrong.
        reason: &'static str,
    },
    /// TLS cannot be set up.
    #[error("TLS towards upstreams cannot be set up")]
    Tls(#[source] rustls::Error),
    /// A file that the settings name cannot be used.
    #[error("{key} `{}` cannot be used: expected {expected}", path.display())]
    File {
        /// The key of the settings.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What should stand in it.
        expected: &'static str,
        /// Why, where the file could not be read or understood.
        #[source]
        source: Option<io::Error>,
    },
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyFault {
    /// HTTP, or the connection under it.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The connection, or its early end.
    #[error("the connection broke")]
    Connection(#[from] io::Error),
}

/// Why an exchange brought no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// All connections to the origin are in use, for too long.
    #[error("all {limit} connections to `{to}` were in use for {waited:?}")]
    NoConnectionFree {
        /// Host and port.
        to: String,
        /// `limits.connections_per_origin`.
        limit: usize,
        /// `origins.connection_wait`.
        waited: Duration,
    },
    /// The connection ended.
    #[error("the connection brought no response")]
    Http(#[source] hyper::Error),
    /// What came is no HTTP, or breaks its rules.
    #[error("the answer is not valid HTTP")]
    Malformed(#[source] hyper::Error),
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            Self::Malformed(error)
        } else {
            Self::Http(error)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Only guarded addresses.
    #[error(transparent)]
    Refused(Refused),
    /// What stands for a host is none.
    #[error("`{host}` is no host name")]
    BadHost {
        /// The text.
        host: String,
    },
    /// No address.
    #[error("the name `{host}` was not resolved")]
    Name {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too slow.
    #[error("no connection to {to} within {waited:?}")]
    Timeout {
        /// Host and port.
        to: String,
        /// `limits.connect_timeout`.
        waited: Duration,
    },
    /// No TCP.
    #[error("no connection to {to}")]
    Tcp {
        /// Host and port.
        to: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No TLS: often a certificate of an authority that is not trusted here.
    #[error("TLS with {to} failed")]
    Tls {
        /// Host and port.
        to: String,
        /// Why; rustls names what it expected.
        #[source]
        source: io::Error,
    },
    /// HTTP could not be begun.
    #[error("no HTTP with {to}")]
    Handshake {
        /// Host and port.
        to: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The parent proxy cannot be reached.
    #[error("the parent proxy {parent} was not reached")]
    Parent {
        /// The parent.
        parent: String,
        /// Why.
        #[source]
        source: Box<ConnectError>,
    },
    /// The parent proxy closed the connection.
    #[error("the parent proxy {parent} gave no answer to CONNECT")]
    ParentSilent {
        /// The parent.
        parent: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The parent proxy wants other credentials.
    #[error(
        "the parent proxy {parent} answered 407 ({wants}): {}",
        if *sent { "it does not take the credentials that were sent" } else { "it wants credentials, and none are configured" }
    )]
    ParentCredentials {
        /// The parent.
        parent: String,
        /// Whether some were sent.
        sent: bool,
        /// `Proxy-Authenticate`.
        wants: String,
    },
    /// The parent proxy does not want to.
    #[error("the parent proxy {parent} answered {status} to CONNECT {to}")]
    ParentRefused {
        /// The parent.
        parent: String,
        /// Where to.
        to: String,
        /// Its status code.
        status: u16,
    },
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
    /// The origin, or the way to it, is overloaded.
    Busy,
}

impl ErrorKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Unreachable,
        Self::Timeout,
        Self::BadResponse,
        Self::Guarded,
        Self::Busy,
    ];

    /// The label's value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::BadResponse => "bad_response",
            Self::Guarded => "guarded",
            Self::Busy => "busy",
        }
    }
}

impl OriginError {
    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Request { source, .. } => source.kind(),
            Self::Stalled { .. } => ErrorKind::Timeout,
            Self::Guarded { .. } | Self::RedirectHost { .. } => ErrorKind::Guarded,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Tls(_) | Self::File { .. } | Self::Down { .. } | Self::Token { .. } => {
                ErrorKind::Unreachable
            }
            Self::Body { .. }
            | Self::NotResumable { .. }
            | Self::TooManyRedirects { .. }
            | Self::Unasked { .. }
            | Self::TransferCoding { .. }
            | Self::TwoLengths { .. }
            | Self::Misfit { .. }
            | Self::Realm { .. }
            | Self::BadRedirect { .. } => ErrorKind::BadResponse,
        }
    }

    /// When to ask again, where the origin said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Busy { retry_after, .. } = self {
            Some(*retry_after)
        } else {
            None
        }
    }

    /// Whether this says that the origin, or the way to it, is dead: it was not reached. One that closed a connection, or is silent
    /// about one URL, has to be asked about everything else all the same (RFC 9111 §4.2.4 speaks of being disconnected).
    pub(super) const fn is_dead(&self) -> bool {
        if let Self::Request {
            source: ExchangeError::Connect(error),
            ..
        } = self
        {
            return !matches!(error, ConnectError::Refused(_));
        }
        false
    }

    /// Whether another URL of the upstream may do better: another server may speak better HTTP than one that broke its rules.
    pub(super) fn may_do_better_elsewhere(&self) -> bool {
        let is_broken_http = matches!(
            self,
            Self::TransferCoding { .. }
                | Self::TwoLengths { .. }
                | Self::Request {
                    source: ExchangeError::Malformed(_),
                    ..
                }
        );
        is_broken_http || !matches!(self.kind(), ErrorKind::Guarded | ErrorKind::BadResponse)
    }

    /// Whether TLS with the origin, or with the parent proxy, failed.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Request { source: ExchangeError::Connect(error), .. } if error.is_tls())
    }

    /// Whether the same URL may do better after a pause. TLS that fails once fails again, and so do refused credentials.
    pub fn is_retryable(&self) -> bool {
        if let Self::Request {
            source: ExchangeError::Connect(error),
            ..
        } = self
        {
            return error.is_passing();
        }
        matches!(self.kind(), ErrorKind::Unreachable | ErrorKind::Timeout)
    }
}

impl ExchangeError {
    const fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::NoConnectionFree { .. } => ErrorKind::Busy,
            Self::Http(_) => ErrorKind::Unreachable,
            Self::Malformed(_) => ErrorKind::BadResponse,
        }
    }
}

impl ConnectError {
    const fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) => ErrorKind::Guarded,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Parent { source, .. } => source.kind(),
            Self::BadHost { .. }
            | Self::Name { .. }
            | Self::Tcp { .. }
            | Self::Tls { .. }
            | Self::Handshake { .. }
            | Self::ParentSilent { .. }
            | Self::ParentCredentials { .. }
            | Self::ParentRefused { .. } => ErrorKind::Unreachable,
        }
    }

    fn is_tls(&self) -> bool {
        if let Self::Parent { source, .. } = self {
            return source.is_tls();
        }
        matches!(self, Self::Tls { .. })
    }

    const fn is_passing(&self) -> bool {
        match self {
            Self::Parent { source, .. } => source.is_passing(),
            Self::Name { .. }
            | Self::Timeout { .. }
            | Self::Tcp { .. }
            | Self::Handshake { .. }
            | Self::ParentSilent { .. } => true,
            Self::ParentRefused { status, .. } => matches!(status, 500..=599),
            Self::Refused(_) | Self::BadHost { .. } | Self::Tls { .. } | Self::ParentCredentials { .. } => {
                false
            }
        }
    }
}

fn retry_after_text(wait: Duration) -> String {
    format!("{} s", wait.as_secs().max(1))
}
