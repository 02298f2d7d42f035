//! Under which name a client knows this server.

use std::net::Ipv6Addr;

use http::{HeaderMap, header, uri::Authority};
use url::Url;

/// The most characters of a name (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// Put among a request's extensions where it came over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// The beginning of all URLs of this server for one client: scheme and authority, perhaps a path, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBase(String);

impl ServerBase {
    /// `public_url` of the settings, else what the client has written into `Host`.
    pub fn of(public_url: Option<&Url>, headers: &HeaderMap, is_tls: bool) -> Option<Self> {
        if let Some(url) = public_url {
            return Some(Self::configured(url));
        }
        let authority: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
        let scheme = if is_tls { "https" } else { "http" };
        let host = authority.host();
        // Nothing before it, and nothing behind it but a port.
        let rest = authority.as_str().strip_prefix(host)?;
        let has_port = rest.is_empty() || authority.port().is_some_and(|port| rest == format!(":{port}"));
        if !has_port || !is_plain_host(host) {
            return None;
        }
        let port = authority
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        Some(Self(format!("{scheme}://{}{port}", authority.host())))
    }

    /// As the settings say.
    pub fn configured(url: &Url) -> Self {
        Self(url.as_str().trim_end_matches('/').to_owned())
    }

    /// `http` at `authority`.
    pub fn in_clear(authority: &str) -> Self {
        Self(format!("http://{authority}"))
    }

    /// The URL of `path`, which begins with a slash.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Scheme, authority and perhaps a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host` or `host:port`, as registries and apt's rules name servers.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The host without its port.
    pub fn host(&self) -> &str {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    /// Whether clients come over TLS.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }
}

/// Whether `host` is a name or an address, and can stand in every text: URLs, commands, settings in whatever language. Who asks writes
/// it, and somebody else may run what is made of it.
pub fn is_plain_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return address.is_some_and(|address| address.is_ok());
    }
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && !label.starts_with('-') && label.bytes().all(fits)
    };
    host.len() <= LONGEST_NAME && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_settings_win_over_what_the_client_writes() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("cache.site:3180"))]);
        let of = |url: Option<&str>, is_tls| {
            let url = url.map(|url| Url::parse(url).unwrap());
            ServerBase::of(url.as_ref(), &headers, is_tls).unwrap().at("/a")
        };
        assert_eq!(of(None, false), "http://cache.site:3180/a");
        assert_eq!(of(None, true), "https://cache.site:3180/a");
        assert_eq!(
            of(Some("https://front.site/cache/"), false),
            "https://front.site/cache/a"
        );
        assert_eq!(ServerBase::of(None, &HeaderMap::new(), false), None);
    }

    #[test]
    fn p19_a_host_that_could_say_more_than_a_name_is_none() {
        for host in [
            "-rf",
            "a;id",
            "a$(id)",
            "a`id`",
            "a'b",
            "a\"b",
            "a b",
            "a|b",
            "a&b",
            "a\\b",
            "u@cache.site",
            "a..b",
            "",
            ".",
            "[::1",
            "[::g]",
            "[a]",
            "a%24b",
            "cache.site:x",
            "cache.site:",
            "cache.site:99999",
            "caf\u{e9}",
            "a\nb",
            "a#b",
        ] {
            let Ok(value) = HeaderValue::from_bytes(host.as_bytes()) else {
                continue;
            };
            let headers = HeaderMap::from_iter([(header::HOST, value)]);
            assert_eq!(ServerBase::of(None, &headers, false), None, "{host:?}");
        }
        for host in [
            "cache",
            "cache.site",
            "cache.site.",
            "CACHE_1.site:80",
            "10.0.0.1:3180",
            "[::1]:3180",
            "[fe80::1]",
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]);
            let base = ServerBase::of(None, &headers, false).unwrap();
            assert_eq!(base.as_str(), format!("http://{host}"));
        }
    }

    #[test]
    fn an_authority_is_taken_apart() {
        for (url, authority, host) in [
            ("http://cache.site:3180/", "cache.site:3180", "cache.site"),
            ("https://cache.site/x/", "cache.site", "cache.site"),
            ("http://[::1]:3180/", "[::1]:3180", "[::1]"),
            ("http://[::1]/", "[::1]", "[::1]"),
        ] {
            let base = ServerBase::configured(&Url::parse(url).unwrap());
            assert_eq!((base.authority(), base.host()), (authority, host));
        }
    }
}
