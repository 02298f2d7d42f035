//! Which token services may be asked (CVE-2020-15157, CVE-2026-33540: a registry names the address that gets the password). Pure.

use url::{Host, Url};

use crate::settings::{BaseUrl, RegistryHost, Upstream};

/// The rule of one registry.
#[derive(Debug)]
pub(in crate::origin) struct Realms {
    registries: Vec<Url>,
    listed: Vec<String>,
}

impl Realms {
    /// Those of `upstream`.
    pub(in crate::origin) fn of(upstream: &Upstream) -> Self {
        let urls: Vec<_> = upstream.urls.iter().map(BaseUrl::url).collect();
        Self::new(&urls, &upstream.registry.token_hosts)
    }

    /// Whether `host` at `port` is that of a token service which may be asked.
    pub(in crate::origin) fn cover(&self, host: &str, port: u16) -> bool {
        ["https", "http"]
            .iter()
            .filter_map(|scheme| Url::parse(&format!("{scheme}://{host}:{port}/")).ok())
            .any(|realm| self.allow(&realm))
    }

    /// Beside the hosts and domains of `urls`, those that are `listed`.
    pub(super) fn new(urls: &[&Url], listed: &[RegistryHost]) -> Self {
        Self {
            registries: urls.iter().map(|url| (*url).clone()).collect(),
            listed: listed.iter().map(|host| host.as_str().to_owned()).collect(),
        }
    }

    /// Whether a token service at `realm` may be asked. Never in the clear for a registry that is spoken to over TLS.
    pub(super) fn allow(&self, realm: &Url) -> bool {
        let in_the_clear = realm.scheme() != "https";
        if in_the_clear
            && self
                .registries
                .iter()
                .any(|registry| registry.scheme() == "https")
        {
            return false;
        }
        self.is_listed(realm) || self.registries.iter().any(|registry| is_of(registry, realm))
    }

    fn is_listed(&self, realm: &Url) -> bool {
        let Some(host) = realm.host_str() else {
            return false;
        };
        let with_port = realm.port_or_known_default().map(|port| format!("{host}:{port}"));
        self.listed
            .iter()
            .any(|listed| listed == host || Some(listed) == with_port.as_ref())
    }
}

/// Whether both have one host, or lie below one registrable domain (by the public suffix list: nobody can register there but its
/// owner). Addresses have no domain.
fn is_of(registry: &Url, realm: &Url) -> bool {
    match (registry.host(), realm.host()) {
        (Some(Host::Domain(registry)), Some(Host::Domain(realm))) => {
            registry == realm || {
                let domain = psl::domain_str(registry);
                domain.is_some() && domain == psl::domain_str(realm)
            }
        }
        (registry, realm) => registry.is_some() && registry == realm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "https://registry.hub.example/";
    /// Registry, listed token service, realm, allowed.
    const CASES: [(&str, &str, &str, bool); 16] = [
        (HUB, "", "https://registry.hub.example/token", true),
        (HUB, "", "https://auth.hub.example/token", true),
        (HUB, "", "https://auth.hub.example:8443/token", true),
        (HUB, "", "https://auth.other.example/token", false),
        (HUB, "", "https://hub.example.evil.example/", false),
        // Whoever likes can register below a public suffix.
        ("https://a.co.uk/", "", "https://b.co.uk/", false),
        ("https://x.a.co.uk/", "", "https://y.a.co.uk/", true),
        (HUB, "auth.other.example", "https://auth.other.example/t", true),
        (
            HUB,
            "auth.other.example:444",
            "https://auth.other.example/t",
            false,
        ),
        (
            HUB,
            "auth.other.example:443",
            "https://auth.other.example/t",
            true,
        ),
        (HUB, "auth.other.example", "http://auth.other.example/t", false),
        (HUB, "", "http://registry.hub.example/token", false),
        ("http://10.0.0.1:5000/", "", "http://10.0.0.1:5001/", true),
        ("http://10.0.0.1:5000/", "", "http://10.0.0.2:5001/", false),
        ("http://[::1]:5000/", "", "http://[::1]:5001/", true),
        ("http://10.0.0.1:5000/", "", "https://auth.example/", false),
    ];

    #[test]
    fn p18_a_realm_shares_host_or_registrable_domain_or_is_listed() {
        for (registry, listed, realm, allowed) in CASES {
            let url = Url::parse(registry).unwrap();
            let listed: Vec<_> = RegistryHost::try_from(listed.to_owned()).into_iter().collect();
            let found = Realms::new(&[&url], &listed).allow(&Url::parse(realm).unwrap());
            assert_eq!(found, allowed, "{registry} {listed:?} {realm}");
        }
    }
}
