//! What the upgrade host, the cache and the nodes say after the upgrade, brought into one [`Outcome`].

use std::{collections::BTreeMap, fs, net::Ipv4Addr};

use anyhow::{Context as _, anyhow};
use jiff::Timestamp;
use kato_shared::release::Release;
use serde::Deserialize;

use super::{
    host::UpgradeHost,
    outcome::{Artifact, Node, Outcome},
    site::{self, Site},
};
use crate::{
    fetch::probe,
    prepare::place::http_url,
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
    let shipped = release
        .artifacts
        .iter()
        .map(|(name, file)| (name.clone(), file.target.as_str(), file.size));
    let programs = release
        .upgrader
        .iter()
        .map(|(triple, file)| (format!("upgrader {triple}"), file.target.as_str(), file.size));
    let artifacts = shipped.chain(programs).map(|(name, target, bytes)| Artifact {
        name,
        bytes,
        origin_requests: asked
            .iter()
            .filter(|(path, _)| path.ends_with(target))
            .map(|(_, count)| count.requests)
            .sum(),
        cache_requests: cached
            .iter()
            .filter(|(url, _)| url.ends_with(target))
            .map(|(_, requests)| requests)
            .sum(),
    });
    let wan_bytes = asked.values().map(|count| count.bytes).sum();
    let bytes = (wan_bytes, direct_bytes(site, release));
    let mut problems = Vec::new();
    match site.check_customised() {
        Ok(saved) => terminal::say(&format!(
            "the operator's edits on {} were kept; the one that the release overwrote is its {}",
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

/// When a node's upgrade to `to` began, and what became of it. Runs that only downloaded, ahead of all upgrades, end with
/// the old version and are not it.
fn upgrade(name: &str, events: &str, to: &str) -> anyhow::Result<(Timestamp, Node)> {
    // A torn last line belongs to a run that was cut off; no end is found then.
    let events = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Event>(line).ok());
    let mut starts = BTreeMap::new();
    let mut found = None;
    for event in events {
        match event.kind {
            EventKind::RunStarted { from, .. } => {
                starts.insert(event.run, (event.time, from));
            }
            EventKind::RunFinished {
                version: Some(version),
                ..
            } if version == to => {
                found = starts
                    .remove(&event.run)
                    .map(|(began, from)| (began, from, event.time));
            }
            EventKind::RunFinished { .. }
            | EventKind::StepStarted { .. }
            | EventKind::StepSkipped { .. }
            | EventKind::StepFinished { .. }
            | EventKind::Progress { .. }
            | EventKind::Warning { .. }
            | EventKind::Notice { .. } => {}
        }
    }
    let (began, from, ended) =
        found.ok_or_else(|| anyhow!("the node {name} has no finished upgrade to {to} in its events"))?;
    let node = Node {
        name: name.to_owned(),
        from: from.unwrap_or_else(|| "none".into()),
        to: to.to_owned(),
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

/// The part of `GET /-/api/requests` that is shown.
#[derive(Deserialize)]
struct RequestsPage {
    requests: Vec<UrlRequests>,
}

#[derive(Deserialize)]
struct UrlRequests {
    url: String,
    requests: u64,
}

/// Requests at the cache by URL, as its admin listener counts them.
async fn cache_requests(site: &Site) -> anyhow::Result<BTreeMap<String, u64>> {
    let port = site.core().settings.cache.admin_port;
    let mut url = http_url((Ipv4Addr::LOCALHOST, port).into());
    url.set_path("-/api/requests");
    let page: RequestsPage = probe::json(&url)
        .await
        .context("asking the cache for its requests failed")?;
    Ok(page
        .requests
        .into_iter()
        .map(|counted| (counted.url, counted.requests))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn event(run: &str, second: i64, kind: EventKind) -> String {
        let event = Event {
            schema: 1,
            seq: 1,
            time: Timestamp::from_second(second).unwrap(),
            node: "dea".into(),
            run: run.into(),
            kind,
        };
        serde_json::to_string(&event).unwrap()
    }

    fn started(run: &str, second: i64, to: &str) -> String {
        let from = Some("1.0.0".to_owned());
        event(
            run,
            second,
            EventKind::RunStarted {
                from,
                to: to.to_owned(),
            },
        )
    }

    fn finished(run: &str, second: i64, version: &str) -> String {
        let kind = EventKind::RunFinished {
            exit: Exit::Done,
            version: Some(version.to_owned()),
            error: None,
        };
        event(run, second, kind)
    }

    #[test]
    fn the_time_is_that_of_the_upgrade_and_not_of_the_set_up_or_the_download() {
        let lines = [
            started("set-up", 10, "1.0.0"),
            finished("set-up", 20, "1.0.0"),
            started("download", 50, "2.0.0"),
            finished("download", 60, "1.0.0"),
            started("upgrade", 100, "2.0.0"),
            finished("upgrade", 107, "2.0.0"),
            "{\"torn".to_owned(),
        ];
        let (began, node) = upgrade("dea", &lines.join("\n"), "2.0.0").unwrap();
        assert_eq!(began.as_second(), 100);
        assert_eq!((node.to.as_str(), node.seconds), ("2.0.0", 7.0));
        assert!(upgrade("dea", &lines[..5].join("\n"), "2.0.0").is_err());
    }
}
