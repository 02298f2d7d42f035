//! apt: by mirror path, which needs no trust but that of the archive's own signatures; or as a proxy, with sources as they are.

use std::fmt::Write as _;

use super::{FILE, Site};
use crate::settings::Kind;

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
