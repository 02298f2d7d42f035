//! Sets up and fills the cache on Core, so that every file of a release crosses the WAN once.
//!
//! Flow of [`ensure`]: is this Core ([`refuse_off_core`]) → does the site have a proxy already ([`profile`]) → is the
//! cache another machine's, or ours to start ([`start`]) → fetch the whole closure of the release through it
//! ([`closure`]). `--prepare` prints the outcome; `--cluster` goes on with the URL.
//!
//! Deliberately absent: anything that changes a node. The cache is a transport; nodes check every byte themselves.

pub mod holder;
pub mod process;
pub mod profile;
pub mod proxy_settings;
pub mod report;
pub mod start;
pub mod supervise;
pub mod systemd;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use url::Url;

use crate::{
    cli::node::UpgradeRequest,
    cluster::inventory::Inventory,
    exit::{Exit, Failure},
    paths::NodePaths,
    settings::Settings,
};
use proxy_settings::Wanted;
use report::Report;
use start::{Launch, Started};
use supervise::Files;
use systemd::Systemd;

/// Whether nodes download through a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheDecision {
    /// Through this one; it is healthy and holds the closure of the release.
    Use(Url),
    /// Directly, or through the site's own proxy.
    Skip {
        /// Why.
        reason: String,
    },
}

/// The cache's files of this node.
pub fn files(settings: &Settings) -> Files {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    Files::below(paths.state_dir().join("cache"))
}

/// The service manager that runs the cache: systemd on a real node, none for a node that is only a folder.
pub fn service_manager(settings: &Settings) -> Option<Systemd> {
    (settings.node.root == Path::new("/"))
        .then(Systemd::of_this_machine)
        .flatten()
}

/// Core's duties are refused on any other node (R10), with Core's address.
///
/// # Errors
/// [`Failure`] with exit code 20.
pub fn refuse_off_core(settings: &Settings, inventory: &Inventory) -> Result<(), Failure> {
    let core = inventory.core();
    let own = node_id(settings);
    if own == core.id {
        return Ok(());
    }
    let failure = Failure::new(
        Exit::Preflight,
        anyhow!(
            "the cache runs on the Core node `{}` at {}, and this is `{own}`",
            core.id,
            core.address
        ),
    );
    Err(failure.hint(format!("on {}, run `kato node upgrade --prepare`", core.address)))
}

/// This node's id: of the settings, else the host name.
fn node_id(settings: &Settings) -> String {
    if settings.node.id.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        settings.node.id.clone()
    }
}

/// Where the cache is, and whether it is ours to start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// On this node.
    Here(Url),
    /// A cache that somebody else runs; it is used as it is.
    Elsewhere(Url),
}

/// Flags win over settings; an address of this machine with our port is our own cache.
fn place(settings: &Settings, core_address: &str, request: &UpgradeRequest) -> Place {
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

fn host_ip(url: &Url) -> Option<IpAddr> {
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
fn host_url(host: &str, port: u16) -> Url {
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let parsed = match ip {
        Some(ip) => return http_url(SocketAddr::new(ip, port)),
        None => Url::parse(&format!("http://{host}:{port}/")),
    };
    // The inventory admits only names; one that is no host name is found out when it is asked for.
    parsed.unwrap_or_else(|_no_host_name| http_url(SocketAddr::from(([127, 0, 0, 1], port))))
}

/// The URLs under which our own cache may stand in a profile.
fn own_urls(settings: &Settings, url: &Url) -> Vec<Url> {
    let port = settings.cache.port;
    let mut urls = vec![
        url.clone(),
        http_url(SocketAddr::from(([127, 0, 0, 1], port))),
        host_url("localhost", port),
    ];
    urls.extend(settings.cache.url.clone());
    urls
}

/// What the cache on this node has to serve, and to whom.
fn wanted(settings: &Settings, inventory: &Inventory, url: &Url, offline: bool) -> Wanted {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let addresses = inventory
        .nodes
        .iter()
        .filter_map(|node| node.address.trim_matches(['[', ']']).parse().ok());
    Wanted {
        cluster: inventory.name.clone(),
        release: settings.release.url.clone(),
        core: host_ip(url),
        nodes: addresses.collect(),
        port: settings.cache.port,
        admin_port: settings.cache.admin_port,
        dir: paths.on_node(&settings.cache.dir),
        offline,
    }
}

/// Where the program of the cache is looked for: beside this program, beside the operators' link to it, in `PATH`.
fn program_folders(settings: &Settings) -> Vec<PathBuf> {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let link = paths.on_node(&settings.node.kato_link);
    let own = std::env::current_exe().ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.iter()
        .chain([&link])
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .chain(std::env::split_paths(&path))
        .collect()
}
