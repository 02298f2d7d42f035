//! Who may use the admin listener.
//!
//! | reached by | without a token | with `admin.token_file` |
//! |---|---|---|
//! | a Unix socket | everything: the file's mode decides | everything with the token |
//! | loopback | everything, by a loopback name | everything with the token |
//! | a network | what `admin.open` lists | what it lists; the rest with the token |
//!
//! Against web pages that an operator looks at, which can send requests from inside: `Host` must be an address or `localhost` where
//! there is no token (a name that was bound to our address is a page's), a request that changes something needs the token or the
//! field [`GUARD`] (pages cannot set it without a permission that we never give), and none may come with an `Origin`.
//!
//! Deliberately absent: users, roles, sessions.

use std::{
    fs::File,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, uri::Authority};
use kato_shared::{api::Problem, secret::Secret};

use crate::{
    deliver::Payload,
    respond,
    settings::{Admin as AdminSettings, OpenPage},
};

/// The field that a client of the API sends with every request: a page of another origin cannot.
pub const GUARD: HeaderName = HeaderName::from_static("kato-admin");

/// A shorter token could be guessed.
pub const SHORTEST_TOKEN: usize = 16;

/// More than any token has.
const LONGEST_TOKEN: u64 = 4096;

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Through a Unix socket.
    Socket,
    /// Through a loopback address.
    Loopback,
    /// Through another address.
    Network,
}

impl Reach {
    /// How requests come in at a listener at `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() {
            Self::Loopback
        } else {
            Self::Network
        }
    }
}

/// Why the token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("the token file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Everybody on this host could read it, or others could change it.
    #[error(
        "the token file {path} has mode {mode:04o}: others may read or change it\nhint: chmod 0640 {path}, with the group of kato-proxy"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no token.
    #[error(
        "the token file {path} holds {length} characters: expected at least {SHORTEST_TOKEN} on one line\nhint: openssl rand -hex 32 > {path}"
    )]
    Short {
        /// The file.
        path: PathBuf,
        /// How many.
        length: usize,
    },
}

/// Reads the token in the file `path`: one line of visible ASCII. Blocks.
///
/// # Errors
/// [`TokenError`]; a file that others may read or change is none.
pub fn read_token(path: &Path) -> Result<Secret, TokenError> {
    let failed = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(TokenError::Mode {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = Vec::new();
    file.take(LONGEST_TOKEN).read_to_end(&mut text).map_err(failed)?;
    let token = text.trim_ascii();
    if token.len() < SHORTEST_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(TokenError::Short {
            path: path.to_owned(),
            length: token.len(),
        });
    }
    Ok(Secret::new(token))
}

/// What a request wants of the admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A page that the settings may open to everybody.
    Page(OpenPage),
    /// To read from the API.
    Read,
    /// To change something.
    Change,
}

impl Want {
    pub(super) fn of(method: &Method, path: &str) -> Self {
        match path {
            _ if !method.is_safe() => Self::Change,
            "/-/healthz" => Self::Page(OpenPage::Health),
            "/-/metrics" => Self::Page(OpenPage::Metrics),
            _ => Self::Read,
        }
    }
}

/// Whether the request may go on; else the answer to it. `token` is the one in force, or why it cannot be told.
pub(super) fn admit(
    want: Want,
    headers: &HeaderMap,
    (reach, settings): (Reach, &AdminSettings),
    token: Option<Result<Secret, TokenError>>,
) -> Result<(), Box<Response<Payload>>> {
    if headers.contains_key(header::ORIGIN) && want == Want::Change {
        return Err(refused(
            "page-refused",
            "not for web pages",
            "a request with an Origin field may change nothing",
            "use kato-proxy purge and its like",
        ));
    }
    if matches!(want, Want::Page(page) if settings.open.contains(&page)) {
        return Ok(());
    }
    let Some(token) = token else {
        return admit_by_place(want, headers, reach);
    };
    let token = token.map_err(|error| {
        tracing::error!(error = %kato_shared::chain::Chain(&error), "the admin API is closed");
        refused(
            "token-unusable",
            "the token file cannot be used",
            "the admin API is closed until its token can be read",
            "the log of kato-proxy says why",
        )
    })?;
    if bearer(headers).is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    let mut response = respond::problem(&describe(
        StatusCode::UNAUTHORIZED,
        "token-missing",
        "token missing or wrong",
        "the admin API asks for its token",
        "name the file with --admin-token-file, or send Authorization: Bearer …",
    ));
    let challenge = HeaderValue::from_static("Bearer realm=\"kato-proxy admin\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    Err(Box::new(response))
}

/// Without a token, what counts is where the request comes from.
fn admit_by_place(want: Want, headers: &HeaderMap, reach: Reach) -> Result<(), Box<Response<Payload>>> {
    if reach == Reach::Network {
        return Err(refused(
            "admin-closed",
            "closed to the network",
            "the admin listener is not on loopback, and there is no token",
            "set admin.token_file, or listen.admin to a loopback address",
        ));
    }
    if reach == Reach::Loopback && !names_loopback(headers) {
        return Err(refused(
            "admin-host",
            "reached by a foreign name",
            "the Host field is neither an address nor localhost: a web page could have bound its name to this address",
            "ask by the address, e.g. 127.0.0.1",
        ));
    }
    if want == Want::Change && !headers.contains_key(GUARD) {
        return Err(refused(
            "admin-guard",
            "not proven to be no web page",
            "a request that changes something carries the field Kato-Admin",
            "use kato-proxy purge and its like, or send Kato-Admin: 1",
        ));
    }
    Ok(())
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return !headers.contains_key(header::HOST);
    };
    Authority::try_from(host.as_bytes()).is_ok_and(|authority| {
        let name = authority.host().trim_matches(['[', ']']);
        !authority.as_str().contains('@')
            && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
    })
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn refused(kind: &str, title: &str, detail: &str, hint: &str) -> Box<Response<Payload>> {
    Box::new(respond::problem(&describe(
        StatusCode::FORBIDDEN,
        kind,
        title,
        detail,
        hint,
    )))
}

fn describe(status: StatusCode, kind: &str, title: &str, detail: &str, hint: &str) -> Problem {
    respond::describe(kind, title, status, detail.to_owned(), Some(hint.to_owned()))
}

#[cfg(test)]
mod tests;
