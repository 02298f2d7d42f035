//! Where the cache of a cluster is: on this node, to be started by us, or elsewhere, to be used as it is.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use url::Url;

use crate::{cli::node::UpgradeRequest, settings::Settings};

/// Where the cache is, and whether it is ours to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this node.
    Here(Url),
    /// A cache that somebody else runs; it is used as it is.
    Elsewhere(Url),
}

/// Flags win over settings; an address of this machine with our port is our own cache.
pub fn place(settings: &Settings, core_address: &str, request: &UpgradeRequest) -> Place {
    let port = settings.cache.port;
    let ours = host_url(core_address, port);
    if let Some(ip) = request.cache_ip {
        let url = http_url(SocketAddr::new(ip, port));
        return if is_local(ip) {
            Place::Here(url)
        } else {
            Place::Elsewhere(url)
        };
    }
    match request.cache_url.as_ref().or(settings.cache.url.as_ref()) {
        None => Place::Here(ours),
        Some(url) if is_same_place(url, &ours) => Place::Here(ours),
        Some(url) => {
            let on_our_port = url.port_or_known_default() == Some(port);
            let local = host_ip(url).is_some_and(is_local);
            if on_our_port && local {
                Place::Here(url.clone())
            } else {
                Place::Elsewhere(url.clone())
            }
        }
    }
}

fn is_same_place(one: &Url, other: &Url) -> bool {
    one.host() == other.host() && one.port_or_known_default() == other.port_or_known_default()
}

pub(super) fn host_ip(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        url::Host::Domain(_) => None,
    }
}

/// Whether `ip` is an address of this machine: only such a one can be bound.
fn is_local(ip: IpAddr) -> bool {
    !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok()
}

/// `http://<address>/`.
#[expect(
    clippy::expect_used,
    reason = "an address in brackets where needed is always a valid authority"
)]
pub(crate) fn http_url(address: SocketAddr) -> Url {
    Url::parse(&format!("http://{address}/")).expect("a socket address is an authority")
}

/// `http://<host>:<port>/` for a name or an IP address of the inventory.
pub(super) fn host_url(host: &str, port: u16) -> Url {
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let parsed = match ip {
        Some(ip) => return http_url(SocketAddr::new(ip, port)),
        None => Url::parse(&format!("http://{host}:{port}/")),
    };
    // The inventory admits only names; one that is no host name is found out when it is asked for.
    parsed.unwrap_or_else(|_no_host_name| http_url(SocketAddr::from(([127, 0, 0, 1], port))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(core: &str, url: Option<&str>, request: &UpgradeRequest) -> Place {
        let mut settings = Settings::default();
        settings.cache.url = url.map(|url| url.parse().unwrap());
        place(&settings, core, request)
    }

    fn here(url: &str) -> Place {
        Place::Here(url.parse().unwrap())
    }

    fn elsewhere(url: &str) -> Place {
        Place::Elsewhere(url.parse().unwrap())
    }

    #[test]
    fn r09_without_a_word_the_cache_is_on_core() {
        let request = UpgradeRequest::default();
        assert_eq!(
            of("198.51.100.1", None, &request),
            here("http://198.51.100.1:3180/")
        );
        assert_eq!(of("core.site", None, &request), here("http://core.site:3180/"));
        assert_eq!(of("fd00::1", None, &request), here("http://[fd00::1]:3180/"));
        assert_eq!(of("[fd00::1]", None, &request), here("http://[fd00::1]:3180/"));
    }

    #[test]
    fn r09_the_url_that_all_nodes_have_in_their_settings_is_our_own_on_core() {
        let request = UpgradeRequest::default();
        let ours = Some("http://198.51.100.1:3180");
        assert_eq!(
            of("198.51.100.1", ours, &request),
            here("http://198.51.100.1:3180/")
        );
        assert_eq!(
            of("core.site", Some("http://127.0.0.1:3180/"), &request),
            here("http://127.0.0.1:3180/")
        );
    }

    #[test]
    fn r63_a_cache_of_somebody_else_is_used_as_it_is() {
        let request = UpgradeRequest::default();
        let other = Some("http://cache.site:8080/");
        assert_eq!(
            of("core.site", other, &request),
            elsewhere("http://cache.site:8080/")
        );
        assert_eq!(
            of("127.0.0.1", Some("http://127.0.0.1:9/"), &request),
            elsewhere("http://127.0.0.1:9/")
        );
        // 198.51.100.0/24 is for documentation (RFC 5737): never an address of this machine.
        let by_ip = |ip: &str| UpgradeRequest {
            cache_ip: ip.parse().ok(),
            ..request.clone()
        };
        assert_eq!(
            of("core.site", other, &by_ip("198.51.100.9")),
            elsewhere("http://198.51.100.9:3180/")
        );
        assert_eq!(
            of("core.site", other, &by_ip("127.0.0.1")),
            here("http://127.0.0.1:3180/")
        );
        let by_url = UpgradeRequest {
            cache_url: "http://c/".parse().ok(),
            ..request.clone()
        };
        assert_eq!(of("core.site", other, &by_url), elsewhere("http://c/"));
    }
}
