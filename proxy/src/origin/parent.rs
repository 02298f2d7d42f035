//! Parent proxies: who is asked instead of the origin, and with which credentials.
//!
//! `http` targets are asked of the parent in absolute-form, `https` targets through a tunnel (CONNECT). Rules: an upstream's own
//! `proxy`, else that of `[origins]`, else the environment. `no_proxy` holds for all but an upstream's own.

use std::{path::Path, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

use super::{OriginError, guard::is_loopback_host};
use crate::settings::{NoProxy, Origins, ParentProxy, ParentUrl, Upstream};

/// A proxy that origins are asked through.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    /// Whether it is spoken to over TLS.
    pub(super) is_tls: bool,
    /// As in a URL: IPv6 addresses in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `Proxy-Authorization`, marked as sensitive.
    pub(super) authorization: Option<HeaderValue>,
}

impl std::fmt::Display for Parent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Parent {
    fn new(parent: &ParentUrl, credentials: Option<HeaderValue>) -> Arc<Self> {
        let url = parent.url();
        Arc::new(Self {
            is_tls: url.scheme() == "https",
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            authorization: credentials.or_else(|| basic_of(url)),
        })
    }
}

/// Which parent is asked for which target.
#[derive(Debug, Clone, Default)]
pub(super) struct Parents {
    http: Option<Arc<Parent>>,
    https: Option<Arc<Parent>>,
    exempt: NoProxy,
    /// Found in the environment, which speaks of the network and not of this host.
    spares_this_host: bool,
}

impl Parents {
    /// The rule for `upstream`.
    ///
    /// # Errors
    /// [`OriginError::File`] when its credentials cannot be read.
    pub(super) fn of(origins: &Origins, upstream: &Upstream) -> Result<Self, OriginError> {
        if let Some(ParentProxy::At(url)) = &upstream.proxy {
            let file = upstream.proxy_credentials_file.as_deref();
            let credentials = file.map(|path| credentials_of("proxy_credentials_file", path));
            let parent = Parent::new(url, credentials.transpose()?);
            return Ok(Self::always(parent));
        }
        let own = upstream.proxy.as_ref();
        let listed = || origins.no_proxy.iter().map(String::as_str);
        Ok(match own.unwrap_or(&origins.proxy) {
            ParentProxy::None => Self::default(),
            ParentProxy::At(url) => Self {
                exempt: NoProxy::parse(listed()),
                ..Self::always(Parent::new(url, None))
            },
            ParentProxy::Environment => {
                let found = &origins.environment;
                let parent = |url: &Option<ParentUrl>| url.as_ref().map(|url| Parent::new(url, None));
                Self {
                    http: parent(&found.http),
                    https: parent(&found.https),
                    exempt: NoProxy::parse(listed().chain([found.no_proxy.as_str()])),
                    spares_this_host: true,
                }
            }
        })
    }

    fn always(parent: Arc<Parent>) -> Self {
        Self {
            http: Some(Arc::clone(&parent)),
            https: Some(parent),
            ..Self::default()
        }
    }

    /// Who is asked for `host` at `port`, if not the origin itself.
    pub(super) fn parent(&self, is_tls: bool, host: &str, port: u16) -> Option<&Arc<Parent>> {
        let parent = if is_tls { &self.https } else { &self.http };
        let is_spared = |_: &&Arc<Parent>| self.spares_this_host && is_loopback_host(host);
        parent
            .as_ref()
            .filter(|parent| !is_spared(parent) && !self.exempt.exempts(host, port))
    }

    /// The parents, as (host, port): the settings name them, so the guard lets them pass.
    pub(super) fn named(&self) -> impl Iterator<Item = (String, u16)> {
        [&self.http, &self.https]
            .into_iter()
            .flatten()
            .map(|parent| (parent.host.to_ascii_lowercase(), parent.port))
    }
}

/// `user:password@` of a URL as the field value that it stands for (RFC 7617).
pub(super) fn basic_of(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |part: &str| percent_decode_str(part).collect::<Vec<_>>();
    basic(&[plain(url.username()), plain(url.password().unwrap_or_default())].join(&b':'))
}

fn basic(pair: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The credentials in the file that the setting `key` names: one line `user:password`.
pub(super) fn credentials_of(key: &'static str, path: &Path) -> Result<HeaderValue, OriginError> {
    super::tls::warn_if_open(path);
    let bad = |source: Option<std::io::Error>| OriginError::File {
        key,
        path: path.to_owned(),
        expected: "one line user:password",
        source,
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(Some(error)))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.contains('\n') || !line.contains(':') {
        return Err(bad(None));
    }
    basic(line.as_bytes()).ok_or_else(|| bad(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ProxyEnvironment;

    fn upstream(proxy: Option<&str>) -> Upstream {
        let mut upstream: Upstream = "u=http://pkg.example/".parse().unwrap();
        upstream.proxy = proxy.map(|text| ParentProxy::try_from(text.to_owned()).unwrap());
        upstream
    }

    fn environment() -> Origins {
        let read = |name: &str| match name {
            "HTTP_PROXY" => Some("http://plain.example:1".to_owned()),
            "HTTPS_PROXY" => Some("https://us%40er:p@secure.example".to_owned()),
            "NO_PROXY" => Some("inner.example".to_owned()),
            _ => None,
        };
        Origins {
            environment: ProxyEnvironment::read(read).unwrap(),
            no_proxy: vec!["also.example".into()],
            ..Origins::default()
        }
    }

    fn port_of(parents: &Parents, is_tls: bool, host: &str) -> Option<u16> {
        parents.parent(is_tls, host, 80).map(|parent| parent.port)
    }

    #[test]
    fn the_environment_is_the_rule_where_nothing_else_is_said_and_spares_this_host() {
        let parents = Parents::of(&environment(), &upstream(None)).unwrap();
        assert_eq!(port_of(&parents, false, "pkg.example"), Some(1));
        assert_eq!(port_of(&parents, true, "pkg.example"), Some(443));
        for host in [
            "www.inner.example",
            "also.example",
            "localhost",
            "127.0.0.1",
            "[::1]",
        ] {
            assert_eq!(port_of(&parents, false, host), None, "{host}");
        }
        let secure = parents.parent(true, "pkg.example", 443).unwrap();
        assert_eq!(secure.to_string(), "https://secure.example:443");
        let authorization = secure.authorization.as_ref().unwrap();
        assert_eq!(authorization, "Basic dXNAZXI6cA==");
        assert!(authorization.is_sensitive());
    }

    #[test]
    fn an_upstream_decides_for_itself() {
        let none = Parents::of(&environment(), &upstream(Some("none"))).unwrap();
        assert_eq!(port_of(&none, true, "pkg.example"), None);
        let own = Parents::of(&environment(), &upstream(Some("http://own.example:9"))).unwrap();
        for host in ["pkg.example", "inner.example", "127.0.0.1"] {
            assert_eq!(port_of(&own, true, host), Some(9), "{host}");
        }
    }

    #[test]
    fn credentials_come_from_a_file_and_a_bad_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        kato_shared::durable::write(&path, b"user:pass\n", 0o600).unwrap();
        let mut with_file = upstream(Some("http://own.example:9"));
        with_file.proxy_credentials_file = Some(path.clone());
        let parents = Parents::of(&Origins::default(), &with_file).unwrap();
        let authorization = parents.parent(false, "a", 80).unwrap().authorization.clone();
        assert_eq!(authorization.unwrap(), "Basic dXNlcjpwYXNz");
        kato_shared::durable::write(&path, b"nonsense", 0o600).unwrap();
        let refused = Parents::of(&Origins::default(), &with_file)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("credentials") && refused.contains("user:password"),
            "{refused}"
        );
    }
}
