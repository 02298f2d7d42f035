//! apt: by mirror path, which needs no trust but that of the archive's own signatures; or as a proxy, with sources as they are.

use std::fmt::Write as _;

use super::{FILE, Site};
use crate::settings::Kind;

/// How long after its date an index without a network is accepted, in seconds: half a year.
pub(crate) const VALID_UNTIL_MIN: u32 = 15_552_000;

/// See [`super::Client::text`].
pub(super) fn text(site: Site<'_>) -> String {
    let mut text = format!("{FILE}/etc/apt/sources.list.d/kato.sources\n");
    text.push_str("# Fill in Suites, Components and Signed-By as the archive has them.\n");
    for upstream in site.upstreams(Some(Kind::Packages)) {
        // Writing to a `String` cannot fail.
        let _infallible = write!(
            text,
            "\nTypes: deb\nURIs: {}\nSuites: SUITE\nComponents: main\nSigned-By: /usr/share/keyrings/{}-archive-keyring.gpg\n",
            site.mirror(upstream),
            upstream.name
        );
        if site.settings.offline {
            // A mirror that is carried to its place grows old. With a bound: for ever is what an attacker would like to replay.
            let _infallible = writeln!(text, "Valid-Until-Min: {VALID_UNTIL_MIN}");
        }
    }
    text.push_str("\n# Or, with the sources as they are:\n");
    let _infallible = writeln!(text, "{FILE}/etc/apt/apt.conf.d/01kato-proxy");
    text.push_str(&site.certificate_note("//"));
    for upstream in site.upstreams(Some(Kind::Packages)) {
        for url in upstream.all_urls() {
            // apt looks its rules up by the name alone, whatever the port.
            let line = format!(
                "Acquire::{}::Proxy::{} \"{}\";\n",
                url.scheme(),
                url.host_str().unwrap_or_default(),
                site.base.at("/")
            );
            if !text.contains(&line) {
                text.push_str(&line);
            }
        }
    }
    text.push_str("Acquire::Retries \"2\";\n");
    text
}
