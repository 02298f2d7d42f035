//! curl, and everything that takes a proxy from the environment.

use std::fmt::Write as _;

use super::{FILE, Site, hosts};

/// See [`super::Client::text`].
pub(super) fn curl(site: Site<'_>) -> String {
    let mut text = "# Without any settings, by mirror path:\n".to_owned();
    for upstream in site.upstreams(None) {
        let _infallible = writeln!(text, "#   curl -fO {}FILE", site.mirror(upstream));
    }
    text.push_str("# Or as a proxy, for the hosts of the upstreams:\n");
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
