//! The proxy's settings: every key with its default, read from TOML, overridden by flags and environment.
//!
//! The types are the file's schema: a value of the wrong shape is refused while the file is read, so that the
//! error carries its line. What only the whole can show (two upstreams of one name) is checked by
//! [`Settings::validate`].
//!
//! Deliberately absent: reading flags and environment (the command line does, see [`crate::cli`]).

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use kato_shared::{
    settings::{self, ByteSize, HumanDuration, SettingsError},
    telemetry::LogFormat,
};
use serde::{Deserialize, Serialize};

use crate::tls::authority::Hosts;

mod admin;
mod beside_users;
mod fixed;
mod listen;
mod mirror;
mod origins;
mod registry;
mod upstream;

pub use admin::{Admin, OpenPage};
pub use beside_users::BesideUsers;
pub use listen::{Listen, Tls};
pub use mirror::Mirror;
pub use origins::{NoProxy, Origins, ParentProxy, ParentUrl, ProxyEnvironment, TlsVersion};
pub use registry::{Registry, RegistryHost, RegistryRules};
pub use upstream::{BaseUrl, FieldName, Kind, PathGlob, Upstream, UpstreamName};

/// Where the settings are read from when no `--config` is given and the file exists.
pub const DEFAULT_PATH: &str = "/etc/kato/proxy.toml";

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Never contact an upstream: what is stored is sent however stale, what is not is answered with 404.
    pub offline: bool,
    /// Where to listen.
    pub listen: Listen,
    /// The certificate of the listener with TLS, and the local authority.
    pub tls: Tls,
    /// Where and how much to store.
    pub cache: Cache,
    /// Who may use the admin listener.
    pub admin: Admin,
    /// Who may ask.
    pub access: Access,
    /// What is logged.
    pub log: Log,
    /// Bounds on time and connections.
    pub limits: Limits,
    /// How origins are asked.
    pub origins: Origins,
    /// How a server without a network behaves.
    pub mirror: Mirror,
    /// The door for container clients, `/v2/`.
    pub registry: Registry,
    /// The origins that may be asked, in no particular order.
    #[serde(rename = "upstream")]
    pub upstreams: Vec<Upstream>,
}

/// Section `[cache]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// The store's folder. It belongs to one process at a time.
    pub dir: PathBuf,
    /// The most bytes of content to keep.
    pub max_size: ByteSize,
    /// Bytes to leave free on the file system, at most a tenth of its size.
    pub min_free: ByteSize,
    /// The most stored responses, and distinct contents, to keep.
    pub max_objects: u64,
    /// Bytes of memory for small bodies that are asked for often.
    pub memory: ByteSize,
    /// All content is read once in this time to find damage; zero for never.
    pub scrub_interval: HumanDuration,
    /// No faster than this many bytes a second; zero for never.
    pub scrub_rate: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/cache/kato-proxy"),
            max_size: ByteSize::gib(50),
            min_free: ByteSize::gib(5),
            max_objects: 1_000_000,
            memory: ByteSize::mib(64),
            scrub_interval: HumanDuration::from_secs(30 * 24 * 3600),
            scrub_rate: ByteSize::mib(8),
        }
    }
}

/// Section `[access]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The networks whose clients are answered; everyone else gets 403.
    pub clients: Vec<Network>,
}

impl Default for Access {
    fn default() -> Self {
        let network = |address: [u8; 4], prefix| Network(IpNet::new_assert(IpAddr::from(address), prefix));
        let unique_local = IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]);
        Self {
            clients: vec![
                network([127, 0, 0, 0], 8),
                Network(IpNet::new_assert(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128)),
                network([10, 0, 0, 0], 8),
                network([172, 16, 0, 0], 12),
                network([192, 168, 0, 0], 16),
                Network(IpNet::new_assert(unique_local, 7)),
            ],
        }
    }
}

impl Access {
    /// Whether a client at `address` is answered. An IPv4 address inside IPv6 counts as the IPv4 address.
    pub fn allows(&self, address: IpAddr) -> bool {
        any_contains(&self.clients, address)
    }
}

/// Whether `address` is in one of `networks`. An IPv4 address inside IPv6 counts as the IPv4 address.
fn any_contains(networks: &[Network], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.0.contains(&address))
}

/// An IP network (`10.0.0.0/8`) or a single address (`::1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<IpNet>()
            .or_else(|_not_a_network| text.parse::<IpAddr>().map(IpNet::from))
            .map(Self)
            .map_err(|_not_an_address| {
                format!("`{text}` is not a network: expected e.g. `10.0.0.0/8` or `::1`")
            })
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        if network.0.prefix_len() == network.0.max_prefix_len() {
            network.0.addr().to_string()
        } else {
            network.0.to_string()
        }
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `human` or `json`.
    pub format: LogFormat,
    /// Directives as in `info` or `warn,kato_proxy=debug`; the access log has the target `access`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".into(),
        }
    }
}

/// Section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections served at once; further ones wait in the kernel's queue.
    pub connections: u32,
    /// Connections of one client address served at once; further ones are closed, in clear with 503.
    pub connections_per_client: u32,
    /// Connections to one origin at once, idle ones included; requests wait for them in the order in which they came.
    pub connections_per_origin: u32,
    /// A client must send its request head within this time, and end its TLS handshake.
    pub header_timeout: HumanDuration,
    /// A client that is sent an answer must take some of it within this time.
    pub client_progress_timeout: HumanDuration,
    /// A connection on which nothing is asked is closed after this time.
    pub idle_timeout: HumanDuration,
    /// A tunnel through which nothing goes is closed after this time.
    pub tunnel_idle_timeout: HumanDuration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests answered at once.
    pub requests: u32,
    /// Requests of one client answered at once.
    pub requests_per_client: u32,
    /// A request beyond `requests` waits this long, and is then refused with 503.
    pub queue_wait: HumanDuration,
    /// The most bytes of a request's content; it is held in memory, so that it can be sent to the next mirror.
    pub request_content: ByteSize,
    /// An upstream must accept a connection within this time.
    pub connect_timeout: HumanDuration,
    /// An upstream must send its response head, and then some byte of the body, within this time each.
    pub progress_timeout: HumanDuration,
    /// After the first stop signal, answers under way get this long.
    pub shutdown_grace: HumanDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_client: 1024,
            connections_per_origin: 64,
            header_timeout: HumanDuration::from_secs(30),
            client_progress_timeout: HumanDuration::from_secs(60),
            idle_timeout: HumanDuration::from_secs(90),
            tunnel_idle_timeout: HumanDuration::from_secs(600),
            streams: 100,
            requests: 4096,
            requests_per_client: 1024,
            queue_wait: HumanDuration::from_secs(2),
            request_content: ByteSize::mib(16),
            connect_timeout: HumanDuration::from_secs(5),
            progress_timeout: HumanDuration::from_secs(60),
            shutdown_grace: HumanDuration::from_secs(30),
        }
    }
}

/// Settings that are well formed but make no sense together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSettings {
    /// A name must say which upstream is meant.
    #[error(
        "two upstreams are named `{0}`\nhint: give each [[upstream]] a name of its own; several mirrors of one origin go into one `urls` list"
    )]
    DuplicateUpstream(UpstreamName),
    /// One base URL in two upstreams.
    #[error(
        "the upstreams `{}` and `{}` both have the URL `{url}`\nhint: what is asked for by this URL follows the rules of one upstream; give the other \
         a path of its own",
        upstreams.0,
        upstreams.1
    )]
    SharedUrl {
        /// The URL, without its password.
        url: String,
        /// The first, and the second.
        upstreams: (UpstreamName, UpstreamName),
    },
    /// An upstream without an address cannot be asked.
    #[error("the upstream `{0}` has no urls\nhint: add urls = [\"https://…/\"]")]
    NoUrls(UpstreamName),
    /// What a client says over TLS is not said in clear by us.
    #[error(
        "the upstream `{upstream}` has intercept = true and the URL {url}\nhint: intercept only where every URL begins with https://; what is asked for in clear needs no interception"
    )]
    InterceptInClear {
        /// Which.
        upstream: UpstreamName,
        /// The URL that is not https.
        url: String,
    },
    /// Two places for one secret, or one that nobody would read.
    #[error(
        "the upstream `{upstream}` has credentials_file and {beside}\nhint: {hint}",
        hint = if *is_registry { "name the file in [upstream.registry], where it is for the token service as well" } else { "keep one of them" },
        beside = if *is_registry { "kind = \"registry\"" } else { "user:password@ in a URL" },
    )]
    Credentials {
        /// Which.
        upstream: UpstreamName,
        /// Whether it is a registry.
        is_registry: bool,
    },
    /// Registries and proxies have no path.
    #[error(
        "listen.public_url is `{0}`\nhint: expected http:// or https://, a host, and nothing behind it: this server has to be at the root of a host"
    )]
    PublicUrl(String),
    /// Two listeners cannot have one address.
    #[error(
        "listen.{} and listen.{} both are at {address}\nhint: give each a port of its own",
        keys.0,
        keys.1
    )]
    SharedAddress {
        /// The two keys.
        keys: (&'static str, &'static str),
        /// The address of the second.
        address: SocketAddr,
    },
    /// A listener with TLS needs a certificate.
    #[error(
        "listen.tls is set, and [tls] names no certificate\nhint: set certificate and key in the section [tls], or leave listen.tls out"
    )]
    NoCertificate,
    /// One file of two.
    #[error("the section [tls] names no {missing}\nhint: set both certificate and key, or neither")]
    HalfPair {
        /// The key that is missing.
        missing: &'static str,
    },
    /// More connections than the memory of a download is bounded for, or none.
    #[error("the upstream `{upstream}` has parallel = {parallel}\nhint: choose 1 to 8")]
    Parallel {
        /// Which.
        upstream: UpstreamName,
        /// What it says.
        parallel: u8,
    },
    /// A proxy that may serve nobody at a time serves nobody.
    #[error("limits.{0} is 0\nhint: allow at least one, or leave it out")]
    Nothing(&'static str),
    /// An upstream that may never be connected to cannot be asked.
    #[error("limits.connections_per_origin is 0\nhint: allow at least one connection")]
    NoOriginConnections,
    /// A request that may never be sent is never answered.
    #[error("origins.attempts is 0\nhint: allow at least one attempt")]
    NoAttempts,
    /// A certificate without its key, or the reverse, proves nothing.
    #[error("the upstream `{0}` has one of client_certificate and client_key\nhint: set both, or neither")]
    HalfAnIdentity(UpstreamName),
    /// Credentials belong to a parent that the same settings name.
    #[error(
        "the upstream `{0}` has proxy_credentials_file and no proxy of its own\nhint: set proxy = \"http://host:port\" beside it"
    )]
    CredentialsWithoutProxy(UpstreamName),
    /// What the section `[registry]`, or the registry part of an upstream, says.
    #[error(transparent)]
    Registry(#[from] registry::InvalidRegistry),
    /// A store that may hold nothing is no store.
    #[error("cache.max_objects is 0\nhint: allow at least one stored response")]
    NoObjects,
}

impl Settings {
    /// Reads the settings of the file `path`; keys that it does not name keep their defaults.
    ///
    /// # Errors
    /// [`SettingsError`] naming the file, and the line of what cannot be understood.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        settings::load(path)
    }

    /// Replaces the upstream of the same name, else adds `upstream`.
    pub fn set_upstream(&mut self, upstream: Upstream) {
        match self
            .upstreams
            .iter_mut()
            .find(|known| known.name == upstream.name)
        {
            Some(known) => known.urls = upstream.urls,
            None => self.upstreams.push(upstream),
        }
    }

    /// The hosts that CONNECT is opened for.
    pub fn intercepted_hosts(&self) -> Hosts {
        let upstreams = self.upstreams.iter().filter(|upstream| upstream.intercept);
        let bases = upstreams.flat_map(|upstream| upstream.urls.iter().chain(&upstream.file_urls));
        bases.filter_map(|base| base.url().host_str()).collect()
    }

    /// The folder of the local authority.
    pub fn ca_dir(&self) -> PathBuf {
        let beside = || self.cache.dir.join("ca");
        self.tls.ca_dir.clone().unwrap_or_else(beside)
    }

    /// Checks what no single value shows.
    ///
    /// # Errors
    /// The first [`InvalidSettings`] found.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        for (nth, upstream) in self.upstreams.iter().enumerate() {
            if self.upstreams[..nth]
                .iter()
                .any(|earlier| earlier.name == upstream.name)
            {
                return Err(InvalidSettings::DuplicateUpstream(upstream.name.clone()));
            }
            upstream.shares_no_url(&self.upstreams[..nth])?;
            if upstream.urls.is_empty() {
                return Err(InvalidSettings::NoUrls(upstream.name.clone()));
            }
            if !(1..=upstream::MOST_PARALLEL).contains(&upstream.parallel) {
                let (upstream, parallel) = (upstream.name.clone(), upstream.parallel);
                return Err(InvalidSettings::Parallel { upstream, parallel });
            }
            if upstream.client_certificate.is_some() != upstream.client_key.is_some() {
                return Err(InvalidSettings::HalfAnIdentity(upstream.name.clone()));
            }
            upstream.has_one_place_for_each_secret()?;
            if let Some(clear) = upstream
                .urls
                .iter()
                .chain(&upstream.file_urls)
                .find(|base| base.url().scheme() != "https")
                && upstream.intercept
            {
                return Err(InvalidSettings::InterceptInClear {
                    upstream: upstream.name.clone(),
                    url: clear.clone().into(),
                });
            }
        }
        self.listen.validate()?;
        self.tls.validate(&self.listen)?;
        self.registry.validate(&self.upstreams)?;
        for (key, limit) in [
            ("connections", self.limits.connections),
            ("connections_per_client", self.limits.connections_per_client),
            ("streams", self.limits.streams),
            ("requests", self.limits.requests),
            ("requests_per_client", self.limits.requests_per_client),
        ] {
            if limit == 0 {
                return Err(InvalidSettings::Nothing(key));
            }
        }
        if self.limits.connections_per_origin == 0 {
            return Err(InvalidSettings::NoOriginConnections);
        }
        if self.origins.attempts == 0 {
            return Err(InvalidSettings::NoAttempts);
        }
        if self.cache.max_objects == 0 {
            return Err(InvalidSettings::NoObjects);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
