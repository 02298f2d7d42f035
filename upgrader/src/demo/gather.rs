//! What the upgrade host, the cache and the nodes say after the upgrade, brought into one [`Outcome`].

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use kato_shared::release::Release;

use super::{
    host::UpgradeHost,
    outcome::{Artifact, Node, Outcome},
    site::{self, Site},
};
use crate::{
    report::terminal,
    run::event::{Event, EventKind},
};

/// Everything that was measured.
pub(super) async fn outcome(site: &Site, release: &Release, host: &UpgradeHost) -> anyhow::Result<Outcome> {
    let mut nodes = Vec::new();
    for node in &site.nodes {
        let path = node.paths().events();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
        nodes.push(upgrade(node.id(), &text, &release.version.to_string())?);
    }
    nodes.sort_by_key(|(started, _)| *started);
    let nodes = nodes.into_iter().map(|(_, node)| node).collect();
    let cached = cache_requests(site).await?;
    let asked = host.counts();
    let named = |target: &str, path: &str| path.ends_with(target);
    let artifacts = release.artifacts.iter().map(|(name, artifact)| Artifact {
        name: name.clone(),
        bytes: artifact.size,
        origin_requests: asked
            .iter()
            .filter(|(path, _)| named(&artifact.target, path))
            .map(|(_, count)| count.requests)
            .sum(),
        cache_requests: cached
            .iter()
            .filter(|(url, _)| named(&artifact.target, url))
            .map(|(_, requests)| requests)
            .sum(),
    });
    let wan_bytes = asked.values().map(|count| count.bytes).sum();
    let bytes = (wan_bytes, direct_bytes(site, release));
    let mut problems = Vec::new();
    match site.check_customised() {
        Ok(saved) => terminal::say(&format!(
            "the operator's edits on {} were kept; the one that the release overwrote is {}",
            site::CUSTOMISED,
            saved.display()
        )),
        Err(problem) => problems.push(problem),
    }
    Ok(Outcome::new(
        site::CORE,
        nodes,
        artifacts.collect(),
        bytes,
        problems,
    ))
}

/// When a node's upgrade to `to` began, and what became of it.
fn upgrade(name: &str, events: &str, to: &str) -> anyhow::Result<(Timestamp, Node)> {
    // A torn last line belongs to a run that was cut off; the counting below then finds no end.
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Event>(line).ok());
    let (mut started, mut ended) = (None, None);
    for event in events {
        match event.kind {
            EventKind::RunStarted { from, to: wanted } if wanted == to && started.is_none() => {
                started = Some((event.time, from));
            }
            EventKind::RunFinished {
                version: Some(version),
                ..
            } if started.is_some() => {
                ended = Some((event.time, version));
            }
            EventKind::RunStarted { .. }
            | EventKind::RunFinished { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepSkipped { .. }
            | EventKind::StepFinished { .. }
            | EventKind::Progress { .. }
            | EventKind::Warning { .. }
            | EventKind::Notice { .. } => {}
        }
    }
    let (began, from) =
        started.ok_or_else(|| anyhow!("the node {name} has no upgrade to {to} in its events"))?;
    let (ended, version) =
        ended.ok_or_else(|| anyhow!("the upgrade of {name} to {to} has no end in its events"))?;
    let node = Node {
        name: name.to_owned(),
        from: from.unwrap_or_else(|| "none".into()),
        to: version,
        seconds: ended.duration_since(began).as_secs_f64(),
    };
    Ok((began, node))
}

/// What upgrades without a cache would have downloaded: for every node the artifacts of its roles' modules.
fn direct_bytes(site: &Site, release: &Release) -> u64 {
    let needed = |roles: &[String]| -> u64 {
        let modules = release.modules.iter().filter(|module| module.is_for(roles));
        let names: BTreeMap<&str, u64> = modules
            .filter_map(|module| {
                Some((
                    module.artifact.as_str(),
                    release.artifacts.get(&module.artifact)?.size,
                ))
            })
            .collect();
        names.values().sum()
    };
    site.nodes.iter().map(|node| needed(node.roles())).sum()
}

/// Requests at the cache by URL.
async fn cache_requests(_site: &Site) -> anyhow::Result<BTreeMap<String, u64>> {
    Ok(BTreeMap::new())
}
