//! Under which name a client knows this server.

use http::{HeaderMap, header, uri::Authority};
use url::Url;

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
        // What is written into documents and commands: the characters of names and addresses, and no others.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        if !authority.host().bytes().all(is_plain) {
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
