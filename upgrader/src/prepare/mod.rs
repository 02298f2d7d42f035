//! Sets up and fills the cache on Core, so that every file of a release crosses the WAN once.
//!
//! Flow of [`ensure`]: is this Core ([`refuse_off_core`]) → does the site have a proxy already ([`profile`]) → is the
//! cache another machine's, or ours to start ([`start`]) → fetch the whole closure of the release through it
//! ([`closure`]). `--prepare` prints the outcome; `--cluster` goes on with the URL.
//!
//! Deliberately absent: anything that changes a node. The cache is a transport; nodes check every byte themselves.

pub mod closure;
pub mod holder;
pub mod place;
pub mod process;
pub mod profile;
pub mod proxy_settings;
pub mod report;
pub mod start;
pub mod supervise;
pub mod systemd;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use kato_shared::{api::Stats, release::Version, settings::byte_size::human};
use tokio::time::Instant;
use url::Url;

use crate::{
    cli::node::UpgradeRequest,
    cluster::inventory::Inventory,
    exit::{Exit, Failure},
    fetch::health,
    paths::NodePaths,
    report::terminal,
    settings::Settings,
};
use closure::Filled;
use place::{Place, host_ip, host_url, http_url};
use proxy_settings::Wanted;
use report::{Lines, Report};
use start::{Launch, StartError, Started};
use supervise::Files;
use systemd::Systemd;

/// How long the cache may take to say what it has counted.
const COUNTERS_WITHIN: Duration = Duration::from_secs(5);

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

/// `kato node upgrade --prepare`: makes the cache ready and prints what was fetched and what was there already.
///
/// # Errors
/// [`Failure`]: 20 when this is not Core or the cache cannot run, 26 when the release is refused, 75 when the upgrade host
/// cannot be reached. No node is changed by any of them.
pub async fn run(request: UpgradeRequest, settings: &Settings, config: &Path) -> Result<Exit, Failure> {
    let inventory = inventory(settings, config)?;
    let report = Lines::default();
    let prepared = prepare(settings, &inventory, &request, &[], &report).await?;
    // The moving line is gone before the data come.
    drop(report);
    if request.json {
        terminal::json(&prepared.document());
    } else if let Some(filled) = &prepared.filled {
        filled.lines().iter().for_each(|line| terminal::data(line));
    }
    Ok(Exit::Done)
}

/// The inventory of the cluster, which only Core has.
fn inventory(settings: &Settings, config: &Path) -> Result<Inventory, Failure> {
    let path = Inventory::path_beside(config);
    if !path.exists() {
        let what = anyhow!(
            "`{}` has no inventory `{}`, so it is not Core",
            node_id(settings),
            path.display()
        );
        let core = settings.cache.url.as_ref().and_then(Url::host_str);
        let core = core.map_or_else(String::new, |host| format!(" ({host}, by [cache] url)"));
        let hint = format!(
            "run it on the Core node{core}; if this is Core, write the inventory as in config/cluster.toml"
        );
        return Err(Failure::new(Exit::Preflight, what).hint(hint));
    }
    Inventory::load(&path).map_err(|error| {
        Failure::new(Exit::Usage, error)
            .hint("every key of the inventory is explained in config/cluster.toml")
    })
}

/// Makes the cache ready for an upgrade: it runs, is healthy, and holds everything that the release needs,
/// also on nodes that come from one of the releases in `others`.
///
/// # Errors
/// As [`run`].
pub async fn ensure(
    settings: &Settings,
    inventory: &Inventory,
    request: &UpgradeRequest,
    others: &[Version],
    report: &dyn Report,
) -> Result<Ready, Failure> {
    let began = Instant::now();
    let prepared = prepare(settings, inventory, request, others, report).await?;
    let place = place::place(settings, &inventory.core().address, request);
    let counters = match (&prepared.decision, place) {
        // The counters of another machine's cache are on that machine's loopback.
        (CacheDecision::Use(url), Place::Here(_)) => {
            let wanted = wanted(settings, inventory, url, request.offline);
            Some(start::admin_url(&wanted, "-/api/stats"))
        }
        _ => None,
    };
    Ok(Ready {
        fetched_bytes: prepared.filled.as_ref().map_or(0, Filled::fetched_bytes),
        decision: prepared.decision,
        millis: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        counters,
    })
}

/// What [`ensure`] made ready.
#[derive(Debug)]
pub struct Ready {
    /// Whether nodes download through a cache.
    pub decision: CacheDecision,
    /// Bytes that crossed the line to the upgrade host.
    pub fetched_bytes: u64,
    /// How long it took in all, in milliseconds.
    pub millis: u64,
    /// Where the counters of the cache are, when it is ours.
    pub counters: Option<Url>,
}

/// What the cache has counted; `None` when it does not say.
pub async fn counters(url: &Url) -> Option<Stats> {
    let said = health::body(url.as_str(), COUNTERS_WITHIN).await;
    let said =
        said.inspect_err(|error| tracing::debug!(%error, "the cache does not say what it has counted"));
    serde_json::from_slice(&said.ok()?).ok()
}

/// Host and port that nodes will download through; `None` when they do without a cache.
pub fn through(settings: &Settings, inventory: &Inventory, request: &UpgradeRequest) -> Option<String> {
    let place = place::place(settings, &inventory.core().address, request);
    let (Place::Here(url) | Place::Elsewhere(url)) = &place;
    let facts = profile::gather(&settings.node.root).ok()?;
    if profile::verdict(&facts, &own_urls(settings, url)).skip.is_some() {
        return None;
    }
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The cache from which everything comes where nobody outside may be asked: ours is started, and serves what it holds.
///
/// # Errors
/// As [`run`], when it cannot be started.
pub async fn offline(
    settings: &Settings,
    inventory: &Inventory,
    request: &UpgradeRequest,
) -> Result<Url, Failure> {
    refuse_off_core(settings, inventory)?;
    match place::place(settings, &inventory.core().address, request) {
        Place::Here(url) => {
            start_here(settings, inventory, &url, true, &Lines::default()).await?;
            Ok(url)
        }
        Place::Elsewhere(url) => Ok(url),
    }
}

/// What a preparation came to.
struct Prepared {
    decision: CacheDecision,
    filled: Option<Filled>,
}

impl Prepared {
    fn document(&self) -> serde_json::Value {
        let (cache, skipped) = match &self.decision {
            CacheDecision::Use(url) => (Some(url.as_str()), None),
            CacheDecision::Skip { reason } => (None, Some(reason)),
        };
        serde_json::json!({
            "schema": 1,
            "cache": cache,
            "skipped": skipped,
            "closure": self.filled,
        })
    }
}

async fn prepare(
    settings: &Settings,
    inventory: &Inventory,
    request: &UpgradeRequest,
    others: &[Version],
    report: &dyn Report,
) -> Result<Prepared, Failure> {
    refuse_off_core(settings, inventory)?;
    let place = place::place(settings, &inventory.core().address, request);
    let (Place::Here(url) | Place::Elsewhere(url)) = &place;
    if let Some(reason) = skipped(settings, url, report)? {
        let decision = CacheDecision::Skip { reason };
        return Ok(Prepared {
            decision,
            filled: None,
        });
    }
    match &place {
        Place::Here(url) => start_here(settings, inventory, url, request.offline, report).await?,
        Place::Elsewhere(url) => report.say(&format!(
            "the cache {url} is another machine's and is used as it is"
        )),
    }
    let filled = closure::fill(settings, url, request, others, report).await?;
    report.say(&format!(
        "the cache {url} holds release {}: {} fetched now, {} there already",
        filled.version,
        human(filled.fetched_bytes()),
        human(filled.present_bytes())
    ));
    Ok(Prepared {
        decision: CacheDecision::Use(url.clone()),
        filled: Some(filled),
    })
}

/// Why the site needs no cache of ours (R12, R13).
fn skipped(settings: &Settings, url: &Url, report: &dyn Report) -> Result<Option<String>, Failure> {
    let facts = profile::gather(&settings.node.root).map_err(|error| {
        Failure::new(Exit::Preflight, error).hint("run as a user that may read the system default profile")
    })?;
    let verdict = profile::verdict(&facts, &own_urls(settings, url));
    for warning in &verdict.warnings {
        report.warn(warning);
    }
    if let Some(reason) = &verdict.skip {
        report.say(&format!("no cache is set up: {reason}"));
    }
    Ok(verdict.skip)
}

async fn start_here(
    settings: &Settings,
    inventory: &Inventory,
    url: &Url,
    offline: bool,
    report: &dyn Report,
) -> Result<(), Failure> {
    let failure = |error: StartError| {
        let hint = error.hint();
        Failure::new(error.exit(), error).hint(hint)
    };
    let launch = Launch {
        files: files(settings),
        program: start::locate(&settings.cache.program, program_folders(settings)).map_err(failure)?,
        wanted: wanted(settings, inventory, url, offline),
        systemd: service_manager(settings),
    };
    report.say(match launch.ensure(report).await.map_err(failure)? {
        Started::Already => "the cache runs already and is healthy",
        Started::Now => "the cache is healthy",
    });
    Ok(())
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
        registries: settings.cache.registries.clone(),
        archives: settings.cache.archives.clone(),
        core: host_ip(url),
        nodes: addresses.collect(),
        port: settings.cache.port,
        admin_port: settings.cache.admin_port,
        dir: paths.on_node(&settings.cache.dir),
        offline,
        parent: settings.cache.parent.clone(),
        parent_credentials_file: settings.cache.parent_credentials_file.clone(),
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
