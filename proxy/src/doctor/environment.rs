//! Variables that beat what a client was told. Each was measured with the real client.

use url::Url;

use super::Check;

/// The variables that are looked at.
pub const VARIABLES: [&str; 18] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_INDEX_URL",
    "npm_config_registry",
    "PIP_PROXY",
    "PIP_CERT",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "CARGO_HTTP_PROXY",
    "CARGO_HTTP_CAINFO",
];

/// What is wrong with the environment for clients of `server`; `variable` gives values that are not empty. `npmrc` is the text of
/// npm's settings, where clients meet a certificate of the server's at all: where they do not, nobody's list of authorities matters.
pub fn environment(
    server: &Url,
    variable: impl Fn(&str) -> Option<String>,
    npmrc: Option<&str>,
) -> Vec<Check> {
    let mut checks = proxies(server, &variable);
    if let Some(npmrc) = npmrc {
        checks.extend(certificates(&variable, npmrc));
    }
    checks.extend(indexes(server, &variable));
    if checks.is_empty() {
        checks.push(Check::ok("environment", "nothing beats what clients are told"));
    }
    checks
}

/// Variables that lead to another proxy, or to none.
fn proxies(server: &Url, variable: &impl Fn(&str) -> Option<String>) -> Vec<Check> {
    let mut checks = Vec::new();
    if variable("HTTP_PROXY").is_some() && variable("http_proxy").is_none() {
        let said = "set without http_proxy: curl passes over it";
        checks.push(Check::warning(
            "HTTP_PROXY",
            said,
            "export http_proxy, in lower case",
        ));
    }
    let host = server.host_str().unwrap_or_default();
    let exempt = variable("no_proxy")
        .or_else(|| variable("NO_PROXY"))
        .unwrap_or_default();
    let is_exempt = exempt.split(',').map(str::trim).any(|item| {
        let name = item.trim_start_matches('.');
        item == "*" || host == name || !name.is_empty() && host.ends_with(&format!(".{name}"))
    });
    for name in ["http_proxy", "https_proxy"] {
        if let Some(proxy) = variable(name)
            && !is_exempt
            && !is_at(&proxy, host)
        {
            let proxy = shown(&proxy);
            let said = format!("{proxy} is another proxy, which would be asked for mirror paths of {host}");
            checks.push(Check::warning(name, said, "add the server to no_proxy"));
        }
    }
    checks
}

/// Variables that beat other lists of certificates.
fn certificates(variable: &impl Fn(&str) -> Option<String>, npmrc: &str) -> Vec<Check> {
    let mut checks = Vec::new();
    let curl = variable("CURL_CA_BUNDLE");
    if let (Some(bundle), Some(file)) = (&curl, variable("SSL_CERT_FILE"))
        && *bundle != file
    {
        let said = format!("{bundle} beats SSL_CERT_FILE={file} in curl");
        checks.push(Check::warning(
            "CURL_CA_BUNDLE",
            said,
            "set both to the same file",
        ));
    }
    if let Some(bundle) = variable("REQUESTS_CA_BUNDLE").or(curl) {
        let said = format!("{bundle} (or CURL_CA_BUNDLE) beats pip's --cert and PIP_CERT");
        let hint = "put the certificate into that file, or unset it";
        checks.push(Check::warning("REQUESTS_CA_BUNDLE", said, hint));
    }
    for (name, client) in [("PIP_CERT", "pip"), ("CARGO_HTTP_CAINFO", "cargo")] {
        if let Some(bundle) = variable(name) {
            let said = format!("{bundle} is all that {client} trusts, whatever the system's list says");
            checks.push(Check::warning(
                name,
                said,
                "put the certificate into that file, or unset it",
            ));
        }
    }
    let has_cafile = npmrc.lines().any(|line| line.trim_start().starts_with("cafile"));
    if has_cafile && variable("NODE_EXTRA_CA_CERTS").is_some() {
        let said = "npm's own cafile replaces the list that it adds to";
        let hint = "put the certificate into cafile, or leave that out";
        checks.push(Check::warning("NODE_EXTRA_CA_CERTS", said, hint));
    }
    checks
}

/// Variables that name another index.
fn indexes(server: &Url, variable: &impl Fn(&str) -> Option<String>) -> Vec<Check> {
    let host = server.host_str().unwrap_or_default();
    let all = [
        ("PIP_INDEX_URL", "pip"),
        ("npm_config_registry", "npm"),
        ("UV_DEFAULT_INDEX", "uv"),
        ("UV_INDEX_URL", "uv"),
        ("PIP_PROXY", "pip"),
        ("CARGO_HTTP_PROXY", "cargo"),
    ];
    let others = all.into_iter().filter_map(|(name, client)| {
        let url = variable(name).filter(|url| !is_at(url, host))?;
        let said = format!("{} beats the settings of {client}", shown(&url));
        Some(Check::warning(name, said, "unset it"))
    });
    others.collect()
}

fn is_at(url: &str, host: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str() == Some(host))
}

/// Without a password.
fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_not_a_url| "a value that is no URL".into(),
        |url| kato_shared::redact::url(&url),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)], npmrc: Option<&str>) -> Vec<String> {
        let variable = |name: &str| {
            let found = pairs.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let server = Url::parse("http://cache.site:3180/").unwrap();
        let checks = environment(&server, variable, npmrc);
        checks.into_iter().map(|check| check.subject).collect()
    }

    #[test]
    fn the_traps_are_found_and_nothing_else() {
        for (pairs, npmrc, subjects) in [
            (&[][..], "cafile=/a", &["environment"][..]),
            (&[("HTTP_PROXY", "http://cache.site:3180")], "", &["HTTP_PROXY"]),
            (&[("http_proxy", "http://cache.site:3180")], "", &["environment"]),
            (&[("http_proxy", "http://other.site")], "", &["http_proxy"]),
            (
                &[
                    ("http_proxy", "http://other.site"),
                    ("no_proxy", "localhost,.site"),
                ],
                "",
                &["environment"],
            ),
            (
                &[("CURL_CA_BUNDLE", "/a"), ("SSL_CERT_FILE", "/b")],
                "",
                &["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"],
            ),
            (
                &[("PIP_CERT", "/a"), ("CARGO_HTTP_CAINFO", "/a")],
                "",
                &["PIP_CERT", "CARGO_HTTP_CAINFO"],
            ),
            (
                &[
                    ("UV_DEFAULT_INDEX", "https://index.example/simple/"),
                    ("CARGO_HTTP_PROXY", "http://other.site"),
                ],
                "",
                &["UV_DEFAULT_INDEX", "CARGO_HTTP_PROXY"],
            ),
            (&[("NODE_EXTRA_CA_CERTS", "/a")], "", &["environment"]),
            (
                &[("NODE_EXTRA_CA_CERTS", "/a")],
                "cafile=/b",
                &["NODE_EXTRA_CA_CERTS"],
            ),
            (
                &[("PIP_INDEX_URL", "https://index.example/simple/")],
                "",
                &["PIP_INDEX_URL"],
            ),
            (
                &[("PIP_INDEX_URL", "http://cache.site:3180/pypi/simple/")],
                "",
                &["environment"],
            ),
        ] {
            assert_eq!(found(pairs, Some(npmrc)), subjects, "{pairs:?}");
        }
    }

    #[test]
    fn lists_of_authorities_do_not_matter_where_no_certificate_is_met() {
        let all = [
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "PIP_CERT",
            "CARGO_HTTP_CAINFO",
        ];
        let pairs = all.map(|name| (name, "/a"));
        assert_eq!(found(&pairs, None), ["environment"]);
        assert!(found(&pairs, Some("")).len() > 1);
    }

    #[test]
    fn a_password_of_a_proxy_is_not_shown() {
        let server = Url::parse("http://cache.site/").unwrap();
        let variable = |name: &str| (name == "http_proxy").then(|| "http://u:pa55@other.site".to_owned());
        let checks = environment(&server, variable, Some(""));
        assert!(!format!("{checks:?}").contains("pa55"));
    }
}
