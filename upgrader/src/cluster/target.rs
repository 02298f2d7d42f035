//! Which release the cluster is upgraded to: the wanted one, or the newest that the oldest node can reach.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use kato_shared::{
    Digest,
    release::{Graph, PatchList, Release, Version},
};

use crate::{
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    fetch::{self, Fetcher, Route},
    paths::NodePaths,
    plan::{cluster::Target, facts::NodeStatus, order::OrderRules},
    settings::Settings,
    source::{Source as _, TrustedSource},
};

/// The release, and the ways between all releases.
#[derive(Debug)]
pub struct Found {
    /// The release to come.
    pub target: Target,
    /// The ways.
    pub graph: Graph,
    /// The patches that are published.
    pub patches: PatchList,
    /// The documents of all releases that any node goes through.
    pub releases: BTreeMap<Version, (Release, Digest)>,
}

/// Reads the signed metadata directly from the upgrade host and chooses. These documents are small, and they are wanted
/// before anybody agreed to start a cache.
///
/// # Errors
/// [`Failure`]: 26 when metadata is refused, 75 when the host cannot be reached, 20 when there is no release to choose.
pub async fn find(
    settings: &Settings,
    request: &UpgradeRequest,
    facts: &BTreeMap<String, NodeStatus>,
) -> Result<Found, Failure> {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let route = match &request.cache_url {
        Some(cache) => Route::Cache(cache.clone()),
        None => Route::Direct,
    };
    let fetcher = Fetcher::with_timeouts(route, settings.download.timeouts())?;
    let repository = fetch::trusted(&fetcher, &settings.release, &paths.trust()).await?;
    let source = TrustedSource::new(repository, fetcher);
    let graph = source.graph().await?;
    let channel = if request.development {
        "development"
    } else {
        &settings.release.channel
    };
    let wanted = request
        .version
        .clone()
        .or_else(|| newest(&graph, facts, channel))
        .with_context(|| format!("no release is published in the channel `{channel}`"))
        .map_err(|error| {
            Failure::new(Exit::Preflight, error)
                .hint("compare [release] channel in kato.toml with the publisher")
        })?;
    if !graph.versions().contains(&wanted) {
        let error = kato_shared::release::HopError::NotPublished {
            version: wanted,
            published: graph.versions(),
        };
        return Err(Failure::new(Exit::Preflight, error).hint("choose a published one with `--version`"));
    }
    let mut releases = BTreeMap::new();
    for version in on_the_way(&graph, facts, &wanted) {
        let document = source.release(&version).await?;
        releases.insert(version, document);
    }
    let patches = source.patches().await?;
    let (release, digest) = source.release(&wanted).await?;
    releases.insert(wanted, (release.clone(), digest));
    Ok(Found {
        patches,
        releases,
        target: Target {
            rules: rules(&release),
            roles: release
                .modules
                .iter()
                .flat_map(|module| module.roles.clone())
                .collect(),
            version: release.version,
            digest,
        },
        graph,
    })
}

/// The releases between those of the nodes and the wanted one.
fn on_the_way(graph: &Graph, facts: &BTreeMap<String, NodeStatus>, wanted: &Version) -> BTreeSet<Version> {
    let installed: BTreeSet<&Version> = facts
        .values()
        .filter_map(|status| status.version.as_ref())
        .collect();
    let hops = installed
        .into_iter()
        .filter_map(|version| graph.hops(version, wanted).ok());
    let mut versions: BTreeSet<Version> = hops.flatten().collect();
    versions.remove(wanted);
    versions
}

fn rules(release: &Release) -> OrderRules {
    OrderRules {
        list: release.role_order.clone(),
        core_role: release.core_role.clone(),
        implicit_role: release.implicit_role.clone(),
    }
}

/// The newest release that the oldest node can reach. With nothing newer, the newest that a node has: the others follow it.
fn newest(graph: &Graph, facts: &BTreeMap<String, NodeStatus>, channel: &str) -> Option<Version> {
    let installed = || facts.values().filter_map(|status| status.version.as_ref());
    match installed().min() {
        Some(oldest) => graph
            .newest(oldest, channel)
            .or_else(|| installed().max().cloned()),
        None => graph.newest_in(channel),
    }
}
