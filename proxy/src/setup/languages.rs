//! Package managers of languages, each by the mirror path of its index.

use std::fmt::Write as _;

use super::{FILE, Site};
use crate::settings::{Kind, Upstream};

/// Whether a client that distrusts http makes an exception for this host by itself.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The simple index below the mirror path of `upstream`.
pub(crate) fn simple_index(upstream: &Upstream) -> &'static str {
    let is_index_itself = upstream
        .urls
        .first()
        .is_some_and(|base| base.url().path().ends_with("/simple/"));
    if is_index_itself { "" } else { "simple/" }
}

/// See [`super::Client::text`].
pub(super) fn pip(site: Site<'_>) -> String {
    let mut text = format!("{FILE}/etc/pip.conf\n[global]\n");
    let mut indexes = site
        .upstreams(Some(Kind::Pypi))
        .map(|upstream| format!("{}{}", site.mirror(upstream), simple_index(upstream)));
    if let Some(first) = indexes.next() {
        let _infallible = writeln!(text, "index-url = {first}");
    }
    for other in indexes {
        let _infallible = writeln!(
            text,
            "# another index; with extra-index-url, whoever owns a name in either can replace the other's package:\n# index-url = {other}"
        );
    }
    if !site.base.is_tls() && !is_loopback(site.base.host()) {
        let _infallible = writeln!(text, "trusted-host = {}", site.base.host());
    }
    text.push_str("disable-pip-version-check = true\n");
    text
}

/// See [`super::Client::text`].
pub(super) fn npm(site: Site<'_>) -> String {
    // The user's file is the one that every npm reads; where the one for all users is depends on who has built it.
    let mut text = format!(
        "{FILE}~/.npmrc\n# For all users instead: the file that `npm config get globalconfig` names, which differs between builds of npm.\n"
    );
    for (nth, upstream) in site.upstreams(Some(Kind::Npm)).enumerate() {
        let (mark, url) = (if nth == 0 { "" } else { "# @SCOPE:" }, site.mirror(upstream));
        let _infallible = writeln!(text, "{mark}registry={url}");
        if nth == 0 {
            // Else what a lock file names is fetched from where the lock file was made, past us.
            text.push_str("replace-registry-host=always\n");
        }
    }
    // A cache has no database of advisories, and its operator says when it is updated.
    text.push_str("audit=false\nfund=false\nupdate-notifier=false\n");
    text
}

/// See [`super::Client::text`].
pub(super) fn cargo(site: Site<'_>) -> String {
    let mut text = format!("{FILE}~/.cargo/config.toml\n");
    for (nth, upstream) in site.upstreams(Some(Kind::Cargo)).enumerate() {
        let (name, url) = (&upstream.name, site.mirror(upstream));
        if nth == 0 {
            let _infallible = write!(
                text,
                "[source.crates-io]\nreplace-with = \"kato-{name}\"\n\n[source.\"kato-{name}\"]\nregistry = \"sparse+{url}\"\n\n"
            );
        }
        let _infallible = write!(text, "[registries.\"{name}\"]\nindex = \"sparse+{url}\"\n\n");
    }
    text
}
