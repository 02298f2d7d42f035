//! Requests out of a CONNECT that was opened: about its host, over TLS, or refused.
//!
//! The client believes to speak with the host itself. So what it asks for is a target of that host whatever form the request has, and never
//! a mirror path or another host: a request that could be taken for either must not be, or one connection could be used to put a
//! response where another one looks for it.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Uri, Version, header, uri::Authority};

use crate::route::Target;

/// The port that `https` leaves out.
const DEFAULT_PORT: u16 = 443;

/// Marks a request as one out of CONNECT to this host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    host: Arc<str>,
    port: u16,
}

/// Why a request does not belong where it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfPlace {
    /// Its host is not clear.
    #[error("the request names no host, or more than one")]
    Host,
    /// It is about another host, or about another scheme.
    #[error("the request is about {asked}: expected https://{inside}, which CONNECT was asked for")]
    Misdirected {
        /// What it is about.
        asked: String,
        /// What it may be about.
        inside: Inside,
    },
    /// CONNECT inside CONNECT.
    #[error("CONNECT inside a connection to {inside}")]
    Nested {
        /// What the connection is to.
        inside: Inside,
    },
}

impl OutOfPlace {
    /// A word for the log and the kind of problem.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host => "bad-host",
            Self::Misdirected { .. } => "misdirected",
            Self::Nested { .. } => "nested-connect",
        }
    }
}

impl std::fmt::Display for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if self.port != DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl Inside {
    /// Of a CONNECT to `host`, an IPv6 address in brackets, and `port`.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn is(&self, authority: &Authority) -> bool {
        // With user information nothing of the host is where it is looked for here, which is as well: there is none in a Host field.
        let Some(rest) = authority.as_str().strip_prefix(authority.host()) else {
            return false;
        };
        let port = match rest {
            "" | ":" => Some(DEFAULT_PORT),
            _ => rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        };
        authority.host().eq_ignore_ascii_case(&self.host) && port == Some(self.port)
    }

    /// Brings `request` into absolute form, as the forward proxy gets requests.
    ///
    /// "A server MUST … reject … requests for a resource … that are misdirected": 421 where the origin is another one (RFC 9110 §7.4).
    ///
    /// # Errors
    /// [`OutOfPlace`]; the request may have changed then.
    pub(super) fn settle<B>(&self, request: &mut Request<B>) -> Result<(), OutOfPlace> {
        if request.method() == Method::CONNECT {
            return Err(OutOfPlace::Nested { inside: self.clone() });
        }
        let misdirected = |asked: &str| OutOfPlace::Misdirected {
            asked: asked.to_owned(),
            inside: self.clone(),
        };
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (None, _) => None,
            (Some(host), None) => {
                Some(Authority::try_from(host.as_bytes()).map_err(|_no_host| OutOfPlace::Host)?)
            }
            (Some(_), Some(_)) => return Err(OutOfPlace::Host),
        };
        let named = request.uri().authority().cloned();
        if host.is_none() && (named.is_none() || request.version() == Version::HTTP_11) {
            return Err(OutOfPlace::Host);
        }
        if let Some(other) = [&host, &named]
            .into_iter()
            .flatten()
            .find(|named| !self.is(named))
        {
            return Err(misdirected(other.host()));
        }
        if let Some(scheme) = request.uri().scheme_str()
            && scheme != "https"
        {
            return Err(misdirected(&format!("the scheme {scheme}")));
        }
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        // `OPTIONS *` is about the server, which we are not: behind a host, its asterisk would be read as a part of the name.
        if !path.starts_with('/') {
            return Err(misdirected(path));
        }
        let uri = Uri::try_from(format!("https://{self}{path}"));
        *request.uri_mut() = uri.map_err(|_no_uri| misdirected(path))?;
        if host.is_none() {
            let host = HeaderValue::try_from(self.to_string()).map_err(|_no_value| OutOfPlace::Host)?;
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(())
    }
}

/// The target of a request as it is logged.
pub(super) fn shown<B>(request: &Request<B>) -> Uri {
    let uri = request.uri();
    let inside = request
        .extensions()
        .get::<Inside>()
        .filter(|_| uri.authority().is_none());
    let has_path = uri.path().starts_with('/');
    let whole = inside
        .filter(|_| has_path)
        .and_then(|inside| Uri::try_from(format!("https://{inside}{uri}")).ok());
    whole.unwrap_or_else(|| uri.clone())
}

/// Whether what came over TLS would go on in clear: another upstream of the same host may be configured so.
pub(super) fn is_in_clear<B>(request: &Request<B>, target: &Target) -> bool {
    request.extensions().get::<Inside>().is_some()
        && target
            .candidates
            .iter()
            .any(|candidate| candidate.scheme() != "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(line: (&str, &str, Version), hosts: &[&str], port: u16) -> Result<String, &'static str> {
        let (method, uri, version) = line;
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let mut request = request.body(()).unwrap();
        let inside = Inside::new("pkg.example", port);
        inside.settle(&mut request).map_err(|error| error.kind())?;
        assert!(request.headers().contains_key(header::HOST));
        Ok(request.uri().to_string())
    }

    #[test]
    fn every_form_of_a_request_is_about_the_host_of_connect() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (line, hosts, port, expected) in [
            (
                ("GET", "/a?b", one),
                &["pkg.example"][..],
                443,
                "https://pkg.example/a?b",
            ),
            (
                ("GET", "/https/other.example/a", one),
                &["PKG.example:443"],
                443,
                "https://pkg.example/https/other.example/a",
            ),
            (
                ("GET", "https://pkg.example/a", one),
                &["pkg.example"],
                443,
                "https://pkg.example/a",
            ),
            (
                ("GET", "https://pkg.example/a", two),
                &[],
                443,
                "https://pkg.example/a",
            ),
            (
                ("GET", "/a", one),
                &["pkg.example:8443"],
                8443,
                "https://pkg.example:8443/a",
            ),
            (
                ("HEAD", "/", Version::HTTP_10),
                &["pkg.example"],
                443,
                "https://pkg.example/",
            ),
        ] {
            assert_eq!(
                settled(line, hosts, port).as_deref(),
                Ok(expected),
                "{line:?} {hosts:?}"
            );
        }
    }

    #[test]
    fn rfc9110_s7_4_what_is_about_anything_else_is_misdirected() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (line, hosts, expected) in [
            (("GET", "/a", one), &["other.example"][..], "misdirected"),
            (("GET", "/a", one), &["pkg.example:8443"], "misdirected"),
            (("GET", "/a", one), &["pkg.example:99999"], "misdirected"),
            (("GET", "/a", one), &["me@pkg.example"], "misdirected"),
            (("GET", "/a", one), &["sub.pkg.example"], "misdirected"),
            (
                ("GET", "https://other.example/a", one),
                &["pkg.example"],
                "misdirected",
            ),
            (
                ("GET", "http://pkg.example/a", one),
                &["pkg.example"],
                "misdirected",
            ),
            (
                ("GET", "https://pkg.example/a", two),
                &["other.example"],
                "misdirected",
            ),
            (("OPTIONS", "*", one), &["pkg.example"], "misdirected"),
            (("GET", "/a", one), &[], "bad-host"),
            (("GET", "/a", one), &["pkg.example", "pkg.example"], "bad-host"),
            (
                ("CONNECT", "pkg.example:443", one),
                &["pkg.example"],
                "nested-connect",
            ),
        ] {
            assert_eq!(settled(line, hosts, 443), Err(expected), "{line:?} {hosts:?}");
        }
    }
}
