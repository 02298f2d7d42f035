//! Mirror paths: `/<upstream>/…`, `/<scheme>/<host>/…`, and `/~<upstream>/<scheme>/<host>/…` for a host that several upstreams have.
//!
//! npm puts the path of its registry before the path of what a lock file names, whatever that begins with already: such paths are read as
//! they were meant ([`once`]).
//!
//! Those who come from apt-cacher-ng keep their paths: `/<host>/…` and `/HTTPS///<host>/…`. The name of an upstream comes first.

use std::{borrow::Cow, sync::Arc};

use http::{Uri, uri::Authority};

use super::{RouteError, Target, below, forward};
use crate::settings::{Kind, Upstream};

/// Before the name of the upstream of which something at another host is asked. No name has it, and clients do not escape it.
pub(super) const OF_UPSTREAM: char = '~';

/// The target of an origin-form request.
pub(super) fn target(upstreams: &[Arc<Upstream>], uri: &Uri) -> Result<Target, RouteError> {
    let whole = uri.path_and_query().map_or("/", |given| given.as_str());
    let (name, rest) = once(upstreams, split(whole.trim_start_matches('/')));
    if let Some(name) = name.strip_prefix(OF_UPSTREAM) {
        let of_name = upstreams.iter().find(|upstream| upstream.name.as_str() == name);
        let upstream = of_name.ok_or_else(|| RouteError::UnknownUpstream {
            name: name.to_owned(),
        })?;
        let (scheme, rest) = split(rest);
        return at_host(std::slice::from_ref(upstream), scheme, rest, uri);
    }
    if matches!(name, "http" | "https") {
        return at_host(upstreams, name, rest, uri);
    }
    if let Some(upstream) = upstreams.iter().find(|upstream| upstream.name.as_str() == name) {
        return below(upstream, rest);
    }
    let (scheme, host, rest) = match rest.strip_prefix("//") {
        Some(rest) if name == "HTTPS" => {
            let (host, rest) = split(rest);
            ("https", host, rest)
        }
        _ => ("http", name, rest),
    };
    let unknown = || RouteError::UnknownUpstream {
        name: host.to_owned(),
    };
    let authority: Authority = host.parse().ok().ok_or_else(unknown)?;
    let rest: Uri = format!("/{rest}").parse().map_err(|_no_path| super::bad(uri))?;
    forward::target(upstreams, scheme, &authority, &rest).map_err(|error| match error {
        // Most likely it was meant for a name.
        RouteError::UnknownHost { .. } => unknown(),
        RouteError::UnknownUpstream { .. }
        | RouteError::BadTarget { .. }
        | RouteError::TunnelPort { .. }
        | RouteError::TwoRegistries
        | RouteError::Registry(_) => error,
    })
}

/// A name and what follows it, without what npm puts before the path in a lock file (`replace-registry-host=always`): our mirror path
/// before our own path, where the file was made through us, and before the base path of the upstream, where it was made there.
fn once<'p>(upstreams: &[Arc<Upstream>], (name, rest): (&'p str, &'p str)) -> (&'p str, &'p str) {
    let found = upstreams.iter().find(|upstream| upstream.name.as_str() == name);
    let Some(upstream) = found.filter(|upstream| upstream.kind == Kind::Npm) else {
        return (name, rest);
    };
    let (again, inner) = split(rest);
    // A package may be named `http`, and have versions and tarballs, but nothing deeper.
    let is_at_host = matches!(again, "http" | "https") && inner.contains('/') && !is_tarball(rest);
    if is_at_host || again.strip_prefix(OF_UPSTREAM) == Some(name) {
        return (again, inner);
    }
    let base = upstream.urls.first().map_or("", |base| base.url().path());
    let base = base.trim_start_matches('/');
    let shorter = [rest.strip_prefix(base), (again == name).then_some(inner)];
    // What is a tarball as it stands is meant: packages may be named as we or the base path are.
    let meant = shorter.into_iter().flatten().find(|inner| is_tarball(inner));
    (name, meant.filter(|_| !is_tarball(rest)).unwrap_or(rest))
}

/// Whether `path` is `<name>/-/<file>` or `@<scope>/<name>/-/<file>`; with anything before that it is none.
fn is_tarball(path: &str) -> bool {
    let (first, rest) = split(path);
    let rest = if first.starts_with('@') {
        split(rest).1
    } else {
        rest
    };
    !first.is_empty() && rest.starts_with("-/")
}

/// The target of `<host>/…` at one of `upstreams`.
fn at_host(upstreams: &[Arc<Upstream>], scheme: &str, rest: &str, uri: &Uri) -> Result<Target, RouteError> {
    let (host, rest) = split(rest);
    let host = with_delimiters(host);
    let authority: Authority = host.parse().map_err(|_no_host| super::bad(uri))?;
    let rest: Uri = format!("/{rest}").parse().map_err(|_no_path| super::bad(uri))?;
    forward::target(upstreams, scheme, &authority, &rest)
}

/// The host segment as an authority is written: pip escapes the colon before the port and the brackets of an address, which
/// are plain characters of a path to others.
fn with_delimiters(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut plain = segment.to_owned();
    for (escapes, character) in [
        (["%3A", "%3a"], ":"),
        (["%5B", "%5b"], "["),
        (["%5D", "%5d"], "]"),
    ] {
        for escape in escapes {
            plain = plain.replace(escape, character);
        }
    }
    Cow::Owned(plain)
}

/// The first segment, and what follows its slash; a query belongs to what follows.
fn split(path: &str) -> (&str, &str) {
    match path.find(['/', '?']) {
        Some(at) if path.as_bytes()[at] == b'/' => (&path[..at], &path[at + 1..]),
        Some(at) => (&path[..at], &path[at..]),
        None => (path, ""),
    }
}
