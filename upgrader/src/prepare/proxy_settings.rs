//! The settings of the cache that `--prepare` starts, as `kato-proxy` reads them. Pure: what is written is a function
//! of the node's settings and the inventory, so that the same question always gives the same file.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use serde::Serialize;
use url::Url;

/// What the cache has to serve, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The cluster's name, for people.
    pub cluster: String,
    /// The release repository.
    pub release: Url,
    /// Registries of images.
    pub registries: Vec<Url>,
    /// Archives of packages.
    pub archives: Vec<Url>,
    /// The address of Core as nodes know it, when it is an IP address.
    pub core: Option<IpAddr>,
    /// The addresses of all nodes that are IP addresses.
    pub nodes: Vec<IpAddr>,
    /// The port for nodes.
    pub port: u16,
    /// The port on loopback for health, metrics and the API.
    pub admin_port: u16,
    /// The store's folder.
    pub dir: PathBuf,
    /// Never contact an origin.
    pub offline: bool,
    /// The proxy that the cache itself goes out through.
    pub parent: Option<Url>,
    /// The file with `user:password` for it.
    pub parent_credentials_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct File {
    offline: bool,
    listen: Listen,
    cache: Cache,
    access: Access,
    log: Log,
    upstream: Vec<Upstream>,
}

#[derive(Serialize)]
struct Listen {
    data: SocketAddr,
    admin: SocketAddr,
}

#[derive(Serialize)]
struct Cache {
    dir: PathBuf,
}

#[derive(Serialize)]
struct Access {
    clients: Vec<String>,
}

#[derive(Serialize)]
struct Log {
    format: &'static str,
    filter: &'static str,
}

#[derive(Serialize)]
struct Upstream {
    name: String,
    urls: Vec<Url>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    immutable: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_freshness: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_ttl: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_credentials_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<Registry>,
}

#[derive(Serialize)]
struct Registry {
    aliases: Vec<String>,
}

impl Upstream {
    /// An upstream with the defaults of its kind.
    fn plain(kind: &'static str, name: String, url: &Url) -> Self {
        Self {
            name,
            urls: vec![url.clone()],
            kind,
            immutable: Vec::new(),
            min_freshness: None,
            negative_ttl: None,
            registry: None,
            proxy: None,
            proxy_credentials_file: None,
        }
    }

    /// A registry. One with a port is asked for by its host name as well: a reference can have no port in its middle.
    fn registry((nth, url): (usize, &Url)) -> Self {
        let alias = url.port().and(url.host_str()).map(str::to_owned);
        Self {
            registry: alias.map(|alias| Registry { aliases: vec![alias] }),
            ..Self::plain("registry", format!("registry-{}", nth + 1), url)
        }
    }
}

/// Loopback and the private networks, the defaults of `kato-proxy`; a node's address outside them is added.
const CLIENTS: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// Names with a version or a digest in front: their content never changes (TUF 1.0, §6.2).
const IMMUTABLE: [&str; 2] = ["targets/*", "metadata/[0-9]*.json"];

/// All nodes ask for the same `timestamp.json` within minutes; one answer is good for all of them. `--prepare` itself
/// has it validated each time.
const MIN_FRESHNESS: &str = "1m";

/// Each node also asks for the root after the one that it has, which is usually not there (TUF 1.0, §5.3).
const NEGATIVE_TTL: &str = "1m";

impl Wanted {
    /// Where the cache listens for nodes: on loopback when Core itself is there (all nodes are on this machine), else
    /// on every address.
    pub fn listen(&self) -> SocketAddr {
        let address = match self.core {
            Some(core) if core.is_loopback() => core,
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Some(IpAddr::V4(_)) | None => Ipv4Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(address, self.port)
    }

    /// Where health, metrics and the API are.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port))
    }

    /// The text of `proxy.toml`.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let file = File {
            offline: self.offline,
            listen: Listen {
                data: self.listen(),
                admin: self.admin(),
            },
            cache: Cache {
                dir: self.dir.clone(),
            },
            access: Access {
                clients: self.clients(),
            },
            log: Log {
                format: "json",
                filter: "info",
            },
            upstream: self.upstreams(),
        };
        let body = toml::to_string(&file)?;
        Ok(format!(
            "# The cache of the cluster {}. Written by `kato node upgrade --prepare`, each time anew: change kato.toml instead.\n{body}",
            self.cluster.escape_debug()
        ))
    }

    fn upstreams(&self) -> Vec<Upstream> {
        let release = Upstream {
            immutable: IMMUTABLE.into(),
            min_freshness: Some(MIN_FRESHNESS),
            negative_ttl: Some(NEGATIVE_TTL),
            ..Upstream::plain("release", "release".to_owned(), &self.release)
        };
        let registries = self.registries.iter().enumerate().map(Upstream::registry);
        let archive =
            |(nth, url): (usize, &Url)| Upstream::plain("packages", format!("archive-{}", nth + 1), url);
        let archives = self.archives.iter().enumerate().map(archive);
        // The way out of the site is the same for all of them.
        let by_parent = |upstream| Upstream {
            proxy: self.parent.clone(),
            proxy_credentials_file: self.parent_credentials_file.clone(),
            ..upstream
        };
        std::iter::once(release)
            .chain(registries)
            .chain(archives)
            .map(by_parent)
            .collect()
    }

    fn clients(&self) -> Vec<String> {
        let mut clients: Vec<_> = CLIENTS
            .iter()
            .map(|(network, length)| format!("{network}/{length}"))
            .collect();
        let mut strangers: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| !is_covered(**node))
            .map(IpAddr::to_string)
            .collect();
        strangers.sort_unstable();
        strangers.dedup();
        clients.append(&mut strangers);
        clients
    }
}

/// Whether [`CLIENTS`] has the address already.
fn is_covered(address: IpAddr) -> bool {
    CLIENTS.iter().any(|(network, length)| match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*length)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(*length)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(core: &str, nodes: &[&str]) -> Wanted {
        Wanted {
            cluster: "site-a".into(),
            release: "https://upgrade.example/".parse().unwrap(),
            registries: vec!["https://hub.example:5000/".parse().unwrap()],
            archives: vec!["http://deb.example/debian/".parse().unwrap()],
            core: core.parse().ok(),
            nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
            port: 3180,
            admin_port: 3181,
            dir: "/var/cache/kato-proxy".into(),
            offline: false,
            parent: None,
            parent_credentials_file: None,
        }
    }

    #[test]
    fn r08_the_cache_goes_out_through_the_parent_that_is_set() {
        let mut wanted = wanted("10.0.0.1", &[]);
        assert!(!wanted.to_toml().unwrap().contains("\nproxy"));
        wanted.parent = Some("http://parent.example:3128/".parse().unwrap());
        wanted.parent_credentials_file = Some("/etc/kato/parent.credentials".into());
        let text = wanted.to_toml().unwrap();
        for line in [
            "proxy = \"http://parent.example:3128/\"",
            "proxy_credentials_file = \"/etc/kato/parent.credentials\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn r09_the_cache_listens_where_nodes_can_reach_it() {
        assert_eq!(wanted("10.0.0.1", &[]).listen().to_string(), "0.0.0.0:3180");
        assert_eq!(wanted("fd00::1", &[]).listen().to_string(), "[::]:3180");
        assert_eq!(wanted("core.site", &[]).listen().to_string(), "0.0.0.0:3180");
        assert_eq!(wanted("127.0.0.1", &[]).listen().to_string(), "127.0.0.1:3180");
        assert_eq!(wanted("10.0.0.1", &[]).admin().to_string(), "127.0.0.1:3181");
    }

    #[test]
    fn r09_nodes_outside_the_private_networks_may_ask_and_nobody_else() {
        let inside = wanted(
            "10.0.0.1",
            &[
                "10.0.0.2",
                "172.31.9.9",
                "192.168.4.4",
                "127.0.0.1",
                "fd12::1",
                "::1",
            ],
        );
        assert_eq!(inside.clients().len(), CLIENTS.len());
        let outside = wanted(
            "10.0.0.1",
            &["198.51.100.7", "172.32.0.1", "198.51.100.7", "2001:db8::1"],
        );
        assert_eq!(
            outside.clients()[CLIENTS.len()..],
            ["172.32.0.1", "198.51.100.7", "2001:db8::1"]
        );
    }

    #[test]
    fn the_file_is_the_same_for_the_same_question() {
        let text = wanted("10.0.0.1", &["198.51.100.7"]).to_toml().unwrap();
        assert_eq!(text, wanted("10.0.0.1", &["198.51.100.7"]).to_toml().unwrap());
        for line in [
            "data = \"0.0.0.0:3180\"",
            "admin = \"127.0.0.1:3181\"",
            "dir = \"/var/cache/kato-proxy\"",
            "urls = [\"https://upgrade.example/\"]",
            "kind = \"release\"",
            "kind = \"registry\"",
            "aliases = [\"hub.example\"]",
            "urls = [\"http://deb.example/debian/\"]",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_name_with_a_line_break_stays_a_comment() {
        let mut wanted = wanted("10.0.0.1", &[]);
        wanted.cluster = "a\noffline = true".into();
        assert!(
            wanted
                .to_toml()
                .unwrap()
                .starts_with("# The cache of the cluster a\\noffline")
        );
    }
}
