//! Which addresses may be contacted: an upstream, or a redirect of one, must not reach into this host or its network by
//! surprise (SSRF).
//!
//! Private networks are allowed: upstreams in them are ordinary. Loopback, link-local (with the metadata services of
//! clouds), unspecified and multicast addresses are not, unless a configured upstream names the address, or `localhost`,
//! with this very port. Names are checked after resolution, at connect time, redirects included.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use url::{Host, Url};

/// The addresses that upstreams name, and the rule for all others.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// (host, port) of upstream URLs whose host is a literal address or a local name.
    named: Arc<HashSet<(String, u16)>>,
}

/// A name that resolved to guarded addresses alone.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` resolves to an address of this host or network that no upstream names")]
pub(super) struct Refused(String);

impl Guard {
    /// A guard that lets pass what `upstreams` name.
    pub(super) fn new<'u>(upstreams: impl IntoIterator<Item = &'u Url>) -> Self {
        let named = upstreams.into_iter().filter_map(host_and_port).collect();
        Self {
            named: Arc::new(named),
        }
    }

    /// Whether `url` may be contacted as far as its text shows; names are checked again when resolved.
    pub(super) fn allows(&self, url: &Url) -> bool {
        let is_named = || host_and_port(url).is_some_and(|pair| self.named.contains(&pair));
        match url.host() {
            Some(Host::Ipv4(address)) => !is_guarded(address.into()) || is_named(),
            Some(Host::Ipv6(address)) => !is_guarded(address.into()) || is_named(),
            Some(Host::Domain(name)) => !is_local_name(name) || is_named(),
            None => false,
        }
    }

    /// Whether an upstream names `host` itself, an address or a local name, with `port`. A domain name that an upstream names
    /// is no permission for whatever address it resolves to: who answers for the name would choose it.
    fn names_address(&self, host: &str, port: u16) -> bool {
        let is_literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        (is_literal || is_local_name(host)) && self.named.contains(&(host.to_ascii_lowercase(), port))
    }

    fn allows_name(&self, name: &str) -> bool {
        is_local_name(name) && self.named.iter().any(|(host, _)| host == name)
    }
}

impl Guard {
    /// The addresses of `host` that may be contacted at `port`.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let is_named = self.names_address(host, port);
        let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await?;
        permitted(host, found, is_named)
    }

    /// The addresses of the name `host` that may be contacted, with port 0.
    pub(super) async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let is_named = self.allows_name(host);
        let found = tokio::net::lookup_host((host, 0)).await?;
        permitted(host, found, is_named)
    }
}

/// The addresses that `host` was found at and that may be contacted: all where an upstream names it, else those in no guarded range.
fn permitted(
    host: &str,
    found: impl Iterator<Item = SocketAddr>,
    is_named: bool,
) -> io::Result<Vec<SocketAddr>> {
    let allowed: Vec<_> = found
        .filter(|address| is_named || !is_guarded(address.ip()))
        .collect();
    if allowed.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            Refused(host.to_owned()),
        ));
    }
    Ok(allowed)
}

fn host_and_port(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()?))
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether an address belongs to this host, this link, or a cloud's metadata service.
pub(crate) fn is_guarded(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                // Alibaba Cloud's metadata service stands in the shared address space (RFC 6598).
                || v4.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                // Amazon's metadata service over IPv6.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(named: &str, asked: &str) -> bool {
        let named = Url::parse(named).unwrap();
        Guard::new([&named]).allows(&Url::parse(asked).unwrap())
    }

    #[test]
    fn p19_guarded_addresses_are_reached_only_where_an_upstream_names_them_with_their_port() {
        assert!(allows("http://127.0.0.1:8000/", "http://127.0.0.1:8000/x"));
        assert!(!allows("http://127.0.0.1:8000/", "http://127.0.0.1:22/"));
        assert!(!allows("http://127.0.0.1:8000/", "http://127.0.0.2:8000/"));
        assert!(!allows("http://127.0.0.1:8000/", "http://[::1]:8000/"));
        assert!(allows("http://localhost:8000/", "http://localhost:8000/x"));
        assert!(!allows("https://pkg.example/", "http://localhost/"));
        assert!(!allows(
            "https://pkg.example/",
            "http://169.254.169.254/latest/meta-data"
        ));
        assert!(!allows("https://pkg.example/", "http://[::ffff:127.0.0.1]/"));
        assert!(!allows("https://pkg.example/", "http://0.0.0.0/"));
        assert!(allows("https://pkg.example/", "https://cdn.example/"));
        assert!(allows("https://pkg.example/", "http://10.0.0.1/"));
    }

    #[test]
    fn p19_the_name_of_an_upstream_is_no_permission_for_whatever_address_it_resolves_to() {
        let upstreams = [
            "https://pkg.example/",
            "http://127.0.0.1:8000/",
            "http://[::1]:8000/",
            "http://localhost:1/",
        ];
        let upstreams = upstreams.map(|url| Url::parse(url).unwrap());
        let guard = Guard::new(&upstreams);
        assert!(!guard.names_address("pkg.example", 443));
        assert!(guard.names_address("127.0.0.1", 8000));
        assert!(guard.names_address("[::1]", 8000));
        assert!(guard.names_address("localhost", 1));
        assert!(!guard.names_address("127.0.0.1", 443));
    }

    #[tokio::test]
    async fn p19_a_name_that_resolves_to_this_host_is_refused() {
        let guard = Guard::default();
        let refused = guard.resolve("localhost").await;
        assert!(refused.is_err());
        let named = Url::parse("http://localhost:1/").unwrap();
        assert!(Guard::new([&named]).resolve("localhost").await.is_ok());
    }
}
