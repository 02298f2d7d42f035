//! curl, and everything that takes a proxy from the environment.

use std::fmt::Write as _;

use super::{FILE, Site, hosts};
use crate::settings::Kind;

/// See [`super::Client::text`].
pub(super) fn curl(site: Site<'_>) -> String {
    let mut text = String::new();
    for upstream in site.upstreams(None) {
        let Some(path) = a_path(upstream.kind) else {
            continue;
        };
        if text.is_empty() {
            text.push_str("# Without any settings, by mirror path:\n");
        }
        let _infallible = writeln!(text, "#   curl -f {}{path}", site.mirror(upstream));
    }
    text.push_str("# As a proxy, for the hosts of the upstreams:\n");
    let mut all: Vec<String> = Vec::new();
    for host in site.upstreams(None).flat_map(hosts) {
        if !all.contains(&host) {
            all.push(host);
        }
    }
    let _infallible = writeln!(text, "#   {}", all.join(" "));
    text.push_str(&site.certificate_note("#"));
    let _infallible = writeln!(text, "{FILE}~/.curlrc\nproxy = \"{}\"", site.base.at("/"));
    text
}

/// Something that there is below the mirror path of an upstream of this kind. A registry has nothing that curl gets without more ado.
const fn a_path(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Generic | Kind::Release => Some("FILE -O"),
        Kind::Packages => Some("dists/SUITE/InRelease -O"),
        Kind::Pypi => Some("simple/PACKAGE/"),
        Kind::Npm => Some("PACKAGE"),
        Kind::Cargo => Some("config.json"),
        Kind::Registry => None,
    }
}

/// See [`super::Client::text`].
pub(super) fn env(site: Site<'_>) -> String {
    let proxy = site.base.at("/");
    let mut text = format!("{FILE}/etc/profile.d/kato-proxy.sh\n");
    text.push_str("# Hosts of no configured upstream are refused by this proxy: name them in no_proxy.\n");
    // curl passes over HTTP_PROXY, which a web server could set for a CGI program; so the names are in lower case.
    let mut direct = vec!["localhost", "127.0.0.1", "::1"];
    let server = site.base.host().trim_matches(['[', ']']);
    if !direct.contains(&server) {
        direct.push(server);
    }
    let _infallible = write!(
        text,
        "export http_proxy={proxy} https_proxy={proxy}\nexport no_proxy={}\n",
        direct.join(",")
    );
    if site.is_opened() {
        text.push_str(&site.certificate_note("#"));
        text.push_str(
            "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n\
             export CURL_CA_BUNDLE=$SSL_CERT_FILE REQUESTS_CA_BUNDLE=$SSL_CERT_FILE NODE_EXTRA_CA_CERTS=$SSL_CERT_FILE GIT_SSL_CAINFO=$SSL_CERT_FILE\n",
        );
    }
    text
}
