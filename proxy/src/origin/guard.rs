//! Which addresses may be contacted: an upstream, or a redirect of one, must not reach into this host or its network by
//! surprise (SSRF).
//!
//! Private networks are open to the hosts that upstreams name: upstreams in them are ordinary. Another host is only ever come to by a
//! redirect, and has no business there. Loopback, link-local, unspecified and multicast addresses are
//! not, unless a configured upstream (or parent proxy) names the address, or `localhost`, with this very port. The metadata
//! services of clouds are never contacted, named or not. An IPv4 address inside an IPv6 one counts as the IPv4 address.
//!
//! Names are judged after resolution, at connect time, for requests, redirects, tunnels and parent proxies alike: an answer of
//! the name service that changes between two looks changes nothing, since only addresses that were judged are connected to.
//! What a parent proxy resolves, it resolves by itself: there only literal addresses and well-known names can be judged.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use url::{Host, Url};

use super::auth::Realms;
use crate::settings::{Kind, NoProxy, Upstream};

/// The addresses that upstreams name, and the rule for all others.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// (host, port) of URLs in the settings whose host is a literal address or a local name.
    named: Arc<HashSet<(String, u16)>>,
    /// The hosts that may be in private networks.
    neighbours: Arc<Neighbours>,
}

/// The hosts that the settings name, one way or another.
#[derive(Debug, Default)]
struct Neighbours {
    /// Of upstreams and parents.
    hosts: HashSet<String>,
    /// `redirect_hosts` of upstreams.
    redirects: Vec<NoProxy>,
    /// Token services that registries may name.
    realms: Vec<Realms>,
}

/// A name that resolved to guarded addresses alone.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` resolves to an address of this host or network that no upstream names")]
pub struct Refused(String);

impl Guard {
    /// A guard that lets pass what the settings name: `urls` of upstreams, and `parents`.
    pub(super) fn new<'u>(
        urls: impl IntoIterator<Item = &'u Url>,
        parents: impl IntoIterator<Item = (String, u16)>,
    ) -> Self {
        let named = urls.into_iter().filter_map(host_and_port).chain(parents);
        let named: HashSet<_> = named
            .map(|(host, port)| (host.to_ascii_lowercase(), port))
            .collect();
        Self {
            neighbours: Arc::new(Neighbours {
                hosts: named.iter().map(|(host, _)| host.clone()).collect(),
                ..Neighbours::default()
            }),
            named: Arc::new(named),
        }
    }

    /// The guard that lets redirects and registries of `upstreams` lead into private networks as well, where the settings say so.
    pub(super) fn with_rules_of(mut self, upstreams: &[Upstream]) -> Self {
        let rules = upstreams
            .iter()
            .filter_map(|upstream| upstream.redirect_hosts.as_deref());
        let registries = upstreams
            .iter()
            .filter(|upstream| upstream.kind == Kind::Registry);
        self.neighbours = Arc::new(Neighbours {
            hosts: self.neighbours.hosts.clone(),
            redirects: rules
                .map(|hosts| NoProxy::parse(hosts.iter().map(String::as_str)))
                .collect(),
            realms: registries.map(Realms::of).collect(),
        });
        self
    }

    /// Whether `url` may be contacted as far as its text shows; names are judged again when resolved.
    pub(super) fn allows(&self, url: &Url) -> bool {
        let is_named = || host_and_port(url).is_some_and(|pair| self.named.contains(&pair));
        let Some(end) = url.host_str().zip(url.port_or_known_default()) else {
            return false;
        };
        let allows_address = |address: IpAddr| self.allows_address(end, address, is_named());
        match url.host() {
            Some(Host::Ipv4(address)) => allows_address(address.into()),
            Some(Host::Ipv6(address)) => allows_address(address.into()),
            Some(Host::Domain(name)) => !is_metadata_name(name) && (!is_local_name(name) || is_named()),
            None => false,
        }
    }

    /// Those of the addresses that `host` was `found` at that may be contacted at `port`.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn permitted(
        &self,
        host: &str,
        port: u16,
        found: &[IpAddr],
    ) -> Result<Vec<SocketAddr>, Refused> {
        let is_named = self.names_address(host, port);
        let allowed: Vec<_> = found
            .iter()
            .filter(|address| self.allows_address((host, port), **address, is_named))
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        if allowed.is_empty() {
            return Err(Refused(host.to_owned()));
        }
        Ok(allowed)
    }

    /// Whether `host`, found at `address`, may be contacted there; `is_named` where an upstream names this very address.
    fn allows_address(&self, (host, port): (&str, u16), address: IpAddr, is_named: bool) -> bool {
        !is_metadata(address)
            && (!is_guarded(address) || is_named)
            && (!is_private(address) || self.neighbours.know(host, port, address))
    }

    /// Whether an upstream names `host` itself, an address or a local name, with `port`. A domain name that an upstream names
    /// is no permission for whatever address it resolves to: who answers for the name would choose it.
    fn names_address(&self, host: &str, port: u16) -> bool {
        let is_literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        (is_literal || is_local_name(host)) && self.named.contains(&(host.to_ascii_lowercase(), port))
    }
}

impl Neighbours {
    /// Whether `host`, found at `address`, is one of them.
    fn know(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let is_listed = |rule: &NoProxy| rule.exempts(host, port) || rule.exempts(&address.to_string(), port);
        self.hosts.contains(&host.to_ascii_lowercase())
            || self.redirects.iter().any(is_listed)
            || self.realms.iter().any(|realms| realms.cover(host, port))
    }
}

fn host_and_port(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()?))
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').as_bytes();
    name.rsplit(|byte| *byte == b'.')
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"localhost"))
}

/// Whether `host`, as in a URL, is a literal loopback address or a local name.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or_else(
        |_name| is_local_name(host),
        |address| address.to_canonical().is_loopback(),
    )
}

/// Names that clouds answer with the address of their metadata service, whoever resolves them.
fn is_metadata_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("metadata.google.internal") || name.eq_ignore_ascii_case("metadata.goog")
}

/// Whether an address is that of a cloud's metadata service, which hands out the credentials of this host.
fn is_metadata(address: IpAddr) -> bool {
    const V4: [Ipv4Addr; 6] = [
        Ipv4Addr::new(169, 254, 169, 254),
        // Credentials of containers and pods at Amazon.
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(169, 254, 170, 23),
        // Alibaba's stands in the shared address space (RFC 6598), Oracle's in that for protocols (RFC 6890).
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
        // Azure's, a public address that leads to the host below the machine.
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    const V6: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    match address {
        IpAddr::V4(v4) => V4.contains(&v4),
        IpAddr::V6(v6) => V6.contains(&v6) || embedded(v6).any(|v4| V4.contains(&v4)),
    }
}

/// Whether an address belongs to this host, this link, or a cloud's metadata service.
fn is_guarded(address: IpAddr) -> bool {
    is_metadata(address)
        || match address {
            IpAddr::V4(v4) => is_guarded_v4(v4),
            IpAddr::V6(v6) => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || embedded(v6).any(is_guarded_v4)
            }
        }
}

/// Whether an address is one of somebody's own network (RFC 1918, RFC 4193).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local() || embedded(v6).any(|v4| v4.is_private()),
    }
}

fn is_guarded_v4(v4: Ipv4Addr) -> bool {
    v4.is_loopback() || v4.is_link_local() || v4.is_broadcast() || v4.is_multicast() || v4.octets()[0] == 0
}

/// The IPv4 addresses that an IPv6 address leads to where it is translated or tunnelled.
fn embedded(v6: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = v6.octets();
    let at = |start: usize| -> Option<Ipv4Addr> {
        let four: [u8; 4] = octets.get(start..start + 4)?.try_into().ok()?;
        Some(four.into())
    };
    // IPv4 around the reserved octet 8, as RFC 6052 §2.2 places it for a prefix of 48 bits.
    let around = Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10]);
    let found = match v6.segments() {
        // IPv4-mapped (RFC 4291 §2.5.5.2), IPv4-compatible (§2.5.5.1), IPv4-translated (RFC 7915), NAT64 (RFC 6052 §2.1).
        [0, 0, 0, 0, 0, 0xffff | 0, _, _]
        | [0, 0, 0, 0, 0xffff, 0, _, _]
        | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => [at(12), None],
        // NAT64 with a local prefix, of any length (RFC 8215).
        [0x64, 0xff9b, 1, ..] => [at(12), Some(around)],
        // 6to4 (RFC 3056).
        [0x2002, ..] => [at(2), None],
        // Teredo (RFC 4380 §4): inverted.
        [0x2001, 0, ..] => [at(12).map(|v4| Ipv4Addr::from_bits(!v4.to_bits())), None],
        _ => [None, None],
    };
    // `::1` and `::` are judged as what they are.
    let is_special = v6.is_loopback() || v6.is_unspecified();
    found.into_iter().flatten().filter(move |_| !is_special)
}

#[cfg(test)]
mod tests;
