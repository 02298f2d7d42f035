//! How origins are asked: parent proxies, certificates, patience. Section `[origins]`, and what an upstream may set otherwise.
//!
//! Deliberately absent: reading key files (the owner of TLS does, when the proxy starts).

use std::{fmt, path::PathBuf};

use ipnet::IpNet;
use kato_shared::{redact, settings::HumanDuration};
use serde::{Deserialize, Serialize};
use url::Url;

/// Section `[origins]`: for all upstreams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Origins {
    /// The parent proxy of upstreams that name none of their own.
    pub proxy: ParentProxy,
    /// Hosts that are asked without a parent, in the form of `NO_PROXY`; with `proxy = "environment"`, beside that variable.
    pub no_proxy: Vec<String>,
    /// PEM certificates of authorities that are trusted beside those of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The oldest version of TLS that is spoken.
    pub minimum_tls: TlsVersion,
    /// How often a safe request goes round its upstream's URLs before it is given up; at least 1.
    pub attempts: u32,
    /// The most time one request spends in pauses between attempts, `Retry-After` of an origin included.
    pub retry_wait: HumanDuration,
    /// The longest `Retry-After` that is believed.
    pub longest_retry_after: HumanDuration,
    /// A request waits this long for one of the `limits.connections_per_origin`.
    pub connection_wait: HumanDuration,
    /// A name must be resolved within this time.
    pub dns_timeout: HumanDuration,
    /// How long an answer of the name service is used; after that it is used only while the name service fails.
    pub dns_cache: HumanDuration,
    /// `HTTP_PROXY` and its like, as the command line found them; not a key of the file.
    #[serde(skip)]
    pub environment: ProxyEnvironment,
}

impl Default for Origins {
    fn default() -> Self {
        Self {
            proxy: ParentProxy::Environment,
            no_proxy: Vec::new(),
            ca_file: None,
            minimum_tls: TlsVersion::Tls12,
            attempts: 2,
            retry_wait: HumanDuration::from_secs(10),
            longest_retry_after: HumanDuration::from_secs(300),
            connection_wait: HumanDuration::from_secs(30),
            dns_timeout: HumanDuration::from_secs(5),
            dns_cache: HumanDuration::from_secs(30),
            environment: ProxyEnvironment::default(),
        }
    }
}

/// Which parent proxy is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ParentProxy {
    /// The one of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, if any.
    #[default]
    Environment,
    /// None: origins are asked themselves.
    None,
    /// This one.
    At(ParentUrl),
}

impl TryFrom<String> for ParentProxy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "environment" => Ok(Self::Environment),
            "none" => Ok(Self::None),
            url => ParentUrl::parse(url).map(Self::At),
        }
    }
}

impl From<ParentProxy> for String {
    /// For printing: a password is hidden.
    fn from(parent: ParentProxy) -> Self {
        match parent {
            ParentProxy::Environment => "environment".into(),
            ParentProxy::None => "none".into(),
            ParentProxy::At(url) => url.to_string(),
        }
    }
}

/// `http://` or `https://`, perhaps `user:password@`, host and port of a parent proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ParentUrl(Url);

impl ParentUrl {
    /// Reads `[scheme://][user:password@]host[:port]`; without a scheme it is `http`, as other programs take it.
    ///
    /// # Errors
    /// A text that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let expected = "expected \"environment\", \"none\" or http[s]://[user:password@]host[:port]";
        // The text may hold a password, so it is not repeated.
        let url =
            Url::parse(&with_scheme).map_err(|cause| format!("not a parent proxy ({cause}): {expected}"))?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !is_bare {
            return Err(format!(
                "`{}` is not a parent proxy: {expected}",
                redact::url(&url)
            ));
        }
        Ok(Self(url))
    }

    /// The URL, with its password.
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for ParentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact::url(&self.0))
    }
}

impl fmt::Debug for ParentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The variables that other programs read, too. The lower-case name wins where both are set, as with curl.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyEnvironment {
    /// `http_proxy`, `HTTP_PROXY`, else `all_proxy`, `ALL_PROXY`.
    pub http: Option<ParentUrl>,
    /// `https_proxy`, `HTTPS_PROXY`, else `all_proxy`, `ALL_PROXY`.
    pub https: Option<ParentUrl>,
    /// `no_proxy`, `NO_PROXY`.
    pub no_proxy: String,
}

impl ProxyEnvironment {
    /// What `variable` knows.
    ///
    /// # Errors
    /// A text for the user when a variable is no parent proxy.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let one = |name: &str| {
            [name.to_ascii_lowercase(), name.to_ascii_uppercase()]
                .iter()
                .find_map(|name| {
                    variable(name)
                        .filter(|text| !text.is_empty())
                        .map(|text| (name.clone(), text))
                })
        };
        let parent = |name: &str| -> Result<Option<ParentUrl>, String> {
            one(name)
                .or_else(|| one("all_proxy"))
                .map(|(name, text)| {
                    ParentUrl::parse(&text).map_err(|error| format!("the variable {name}: {error}"))
                })
                .transpose()
        };
        Ok(Self {
            http: parent("http_proxy")?,
            https: parent("https_proxy")?,
            no_proxy: one("no_proxy").map(|(_, text)| text).unwrap_or_default(),
        })
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// The hosts that are asked without a parent proxy: names with their subdomains, addresses, networks, each perhaps with a
/// port, or `*` for all. The rules are curl's (`NO_PROXY`), with ports beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy {
    everything: bool,
    rules: Vec<(Exempt, Option<u16>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    /// A name and all below it, without a leading dot, in lower case.
    Name(String),
    Network(IpNet),
}

impl NoProxy {
    /// The rules of comma- or space-separated `lists`. What is neither a network nor an address is a name.
    pub fn parse<'l>(lists: impl IntoIterator<Item = &'l str>) -> Self {
        let mut parsed = Self::default();
        for item in lists
            .into_iter()
            .flat_map(|list| list.split([',', ' ', '\t']))
            .filter(|item| !item.is_empty())
        {
            if item == "*" {
                parsed.everything = true;
            } else if let Some(rule) = rule(item) {
                parsed.rules.push(rule);
            }
        }
        parsed
    }

    /// Whether `host` (brackets allowed) is asked without a parent at `port`.
    pub fn exempts(&self, host: &str, port: u16) -> bool {
        let bare = host.trim_matches(['[', ']']).trim_end_matches('.');
        let address = bare
            .parse::<std::net::IpAddr>()
            .ok()
            .map(|address| address.to_canonical());
        self.everything
            || self.rules.iter().any(|(exempt, at)| {
                at.is_none_or(|at| at == port)
                    && match (exempt, address) {
                        (Exempt::Network(network), Some(address)) => network.contains(&address),
                        (Exempt::Name(name), None) => is_at_or_below(bare, name),
                        (Exempt::Network(_), None) | (Exempt::Name(_), Some(_)) => false,
                    }
            })
    }
}

fn is_at_or_below(host: &str, name: &str) -> bool {
    let Some(start) = host.len().checked_sub(name.len()) else {
        return false;
    };
    host.get(start..)
        .is_some_and(|tail| tail.eq_ignore_ascii_case(name))
        && (start == 0 || host.as_bytes().get(start - 1) == Some(&b'.'))
}

fn rule(item: &str) -> Option<(Exempt, Option<u16>)> {
    let network = |text: &str| {
        let text = text.trim_matches(['[', ']']);
        text.parse::<IpNet>()
            .ok()
            .or_else(|| {
                text.parse::<std::net::IpAddr>()
                    .ok()
                    .map(|one| IpNet::from(one.to_canonical()))
            })
            .map(Exempt::Network)
    };
    if let Some(whole) = network(item) {
        return Some((whole, None));
    }
    let (host, port) = match item.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (item, None),
    };
    if let Some(network) = network(host) {
        return Some((network, port));
    }
    let name = host
        .trim_start_matches('*')
        .trim_matches('.')
        .to_ascii_lowercase();
    (!name.is_empty()).then_some((Exempt::Name(name), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_knows_names_with_their_subdomains_addresses_networks_and_ports() {
        let rules = NoProxy::parse([
            "example.com, .dotted.example *.star.example",
            "10.0.0.0/8,192.0.2.7,[2001:db8::]/32,fd00::1,ported.example:8443,[::1]:8080,198.51.100.1:81,bad:port",
        ]);
        for (host, port, exempt) in [
            ("example.com", 80, true),
            ("EXAMPLE.com.", 80, true),
            ("www.example.com", 80, true),
            ("badexample.com", 80, false),
            ("dotted.example", 80, true),
            ("a.dotted.example", 80, true),
            ("a.star.example", 80, true),
            ("10.1.2.3", 80, true),
            ("11.1.2.3", 80, false),
            ("192.0.2.7", 80, true),
            ("[::ffff:192.0.2.7]", 80, true),
            ("[fd00::1]", 443, true),
            ("[fd00::2]", 443, false),
            ("ported.example", 8443, true),
            ("ported.example", 443, false),
            ("[::1]", 8080, true),
            ("[::1]", 80, false),
            ("198.51.100.1", 81, true),
            ("198.51.100.1", 80, false),
            ("bad", 80, false),
        ] {
            assert_eq!(rules.exempts(host, port), exempt, "{host}:{port}");
        }
        assert!(NoProxy::parse(["*"]).exempts("anything.example", 1));
        assert!(!NoProxy::parse([""]).exempts("anything.example", 1));
    }

    #[test]
    fn the_lower_case_variable_wins_and_all_proxy_fills_gaps() {
        let read = |pairs: &'static [(&str, &str)]| {
            ProxyEnvironment::read(|name| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let found = read(&[
            ("HTTP_PROXY", "http://upper.example:1"),
            ("http_proxy", "lower.example:2"),
            ("ALL_PROXY", "https://all.example"),
            ("NO_PROXY", "a,b"),
        ])
        .unwrap();
        assert_eq!(found.http.unwrap().url().as_str(), "http://lower.example:2/");
        assert_eq!(found.https.unwrap().url().as_str(), "https://all.example/");
        assert_eq!(found.no_proxy, "a,b");
        let refused = read(&[("HTTPS_PROXY", "socks5://user:pa55@x.example")]).unwrap_err();
        assert!(
            refused.contains("HTTPS_PROXY") && !refused.contains("pa55"),
            "{refused}"
        );
    }

    #[test]
    fn a_password_of_a_parent_is_not_printed() {
        let parent = ParentProxy::try_from("http://user:pa55@parent.example:3128".to_owned()).unwrap();
        assert!(!format!("{parent:?}").contains("pa55"));
        assert_eq!(String::from(parent), "http://***@parent.example:3128/");
    }
}
