//! Which release a run is about: the one asked for, the one that an interrupted upgrade was about, or the newest.

use std::sync::Arc;

use kato_shared::release::{Graph, HopError, Version};
use url::Url;

use super::context::Node;
use crate::{
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    fetch::{self, Fetcher, Route},
    source::{Source, TrustedSource},
};

/// The channel of development releases.
const DEVELOPMENT: &str = "development";

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// The node has the release already.
    AlreadyAt(Version),
    /// These releases, one after the other.
    Install(Vec<Version>),
}

/// Chooses, given the installed version, the version of an upgrade that has begun, and what was asked for.
///
/// # Errors
/// [`HopError`] when there is no way to the wanted version.
pub fn choose(
    graph: &Graph,
    installed: Option<&Version>,
    begun: Option<&Version>,
    request: &UpgradeRequest,
    channel: &str,
) -> Result<Goal, HopError> {
    let published = |version: &&Version| graph.releases.iter().any(|entry| entry.version == **version);
    let begun = begun.filter(published);
    let wanted = request.version.as_ref().or(begun);
    let Some(installed) = installed else {
        return first(graph, wanted, channel).map(|version| Goal::Install(vec![version]));
    };
    let target = wanted
        .cloned()
        .or_else(|| graph.newest(installed, channel))
        .unwrap_or_else(|| installed.clone());
    let hops = graph.hops(installed, &target)?;
    // An upgrade that has begun at the installed version was forced; it goes on without being forced again.
    let again = request.force || begun == Some(installed);
    Ok(match hops.is_empty() {
        true if again => Goal::Install(vec![target]),
        true => Goal::AlreadyAt(target),
        false => Goal::Install(hops),
    })
}

/// The first release of a node: any that is published, the newest by default.
fn first(graph: &Graph, wanted: Option<&Version>, channel: &str) -> Result<Version, HopError> {
    let published = graph.versions();
    match wanted.cloned().or_else(|| graph.newest_in(channel)) {
        Some(version) if published.contains(&version) => Ok(version),
        other => Err(HopError::NotPublished {
            version: other.unwrap_or(Version::new(0, 0, 0)),
            published,
        }),
    }
}

/// The failure of a version that cannot be reached.
pub fn no_way(error: HopError) -> Failure {
    let hint = match &error {
        HopError::NotPublished { .. } => "name one of the published versions with `--version`",
        HopError::Downgrade { .. } => "nothing was changed; restore a backup if the node must go back",
        HopError::NoWay { .. } => "nothing was changed; upgrade to a version in between first",
    };
    Failure::new(Exit::Preflight, error).hint(hint)
}

/// The channel that the newest release is taken from.
pub fn channel<'a>(node: &'a Node, request: &UpgradeRequest) -> &'a str {
    if request.development {
        DEVELOPMENT
    } else {
        &node.settings.release.channel
    }
}

/// Loads and verifies the repository's metadata.
///
/// # Errors
/// [`Failure`] with 26 for a refusal, 75 when it cannot be reached, 2 when the settings are wrong.
pub async fn connect(node: &Node, request: &UpgradeRequest) -> Result<Arc<dyn Source>, Failure> {
    let fetcher = Fetcher::with_timeouts(route(node, request)?, node.settings.download.timeouts())?;
    let repository = fetch::trusted(&fetcher, &node.settings.release, &node.paths.trust()).await?;
    Ok(Arc::new(TrustedSource::new(repository, fetcher)))
}

/// The way to the repository: through the cache, unless it is skipped.
fn route(node: &Node, request: &UpgradeRequest) -> Result<Route, Failure> {
    let settings = &node.settings.cache;
    if let Some(value) = request.skip_cache.as_deref().filter(|value| !value.is_empty()) {
        if ["0", "false", "no"].contains(&value.to_ascii_lowercase().as_str()) {
            tracing::warn!(
                value,
                "STACKATO_UPGRADE_SKIP_PROXY_CACHE is set, so the cache is skipped whatever its value"
            );
        }
        return Ok(Route::Direct);
    }
    let by_address = request.cache_ip.map(|ip| {
        let host = match ip {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("http://{host}:{}/", settings.port)
    });
    let by_address = by_address
        .map(|url| Url::parse(&url))
        .transpose()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let cache = request
        .cache_url
        .clone()
        .or(by_address)
        .or_else(|| settings.url.clone());
    match cache {
        Some(cache) => Ok(Route::Cache(cache)),
        None if settings.require => Err(Failure::new(
            Exit::Preflight,
            anyhow::anyhow!("no cache is configured, and `[cache].require` is set"),
        )
        .hint("set `[cache].url` or pass `--cache-url`; on Core, `kato node upgrade --prepare` starts the cache")),
        None => Ok(Route::Direct),
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::release::{GraphEntry, Sources};

    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn published(versions: &[&str]) -> Graph {
        let entry = |version: &&str| GraphEntry {
            version: v(version),
            channel: "stable".into(),
            from: Sources::default(),
            floor: false,
        };
        let releases: Vec<GraphEntry> = versions.iter().map(entry).collect();
        Graph {
            schema: 1,
            product: "demo".into(),
            releases,
        }
    }

    fn chosen(installed: Option<&str>, begun: Option<&str>, request: &UpgradeRequest) -> Goal {
        choose(
            &published(&["1.0.0", "2.0.0", "3.0.0"]),
            installed.map(v).as_ref(),
            begun.map(v).as_ref(),
            request,
            "stable",
        )
        .unwrap()
    }

    #[test]
    fn r35_the_newest_release_unless_one_is_named_and_equal_is_nothing_to_do() {
        let request = UpgradeRequest::default();
        assert_eq!(
            chosen(Some("1.0.0"), None, &request),
            Goal::Install(vec![v("3.0.0")])
        );
        assert_eq!(chosen(None, None, &request), Goal::Install(vec![v("3.0.0")]));
        assert_eq!(chosen(Some("3.0.0"), None, &request), Goal::AlreadyAt(v("3.0.0")));
        let named = UpgradeRequest {
            version: Some(v("2.0.0")),
            ..request
        };
        assert_eq!(
            chosen(Some("1.0.0"), None, &named),
            Goal::Install(vec![v("2.0.0")])
        );
        assert_eq!(chosen(Some("2.0.0"), None, &named), Goal::AlreadyAt(v("2.0.0")));
    }

    #[test]
    fn r36_force_installs_the_same_version_again_and_never_an_older_one() {
        let forced = UpgradeRequest {
            force: true,
            ..UpgradeRequest::default()
        };
        assert_eq!(
            chosen(Some("3.0.0"), None, &forced),
            Goal::Install(vec![v("3.0.0")])
        );
        let older = UpgradeRequest {
            version: Some(v("1.0.0")),
            ..forced
        };
        let graph = published(&["1.0.0", "2.0.0"]);
        assert!(matches!(
            choose(&graph, Some(&v("2.0.0")), None, &older, "stable"),
            Err(HopError::Downgrade { .. })
        ));
    }

    #[test]
    fn r56_an_upgrade_that_has_begun_goes_on_although_a_newer_release_was_published() {
        let request = UpgradeRequest::default();
        assert_eq!(
            chosen(Some("1.0.0"), Some("2.0.0"), &request),
            Goal::Install(vec![v("2.0.0")])
        );
        assert_eq!(
            chosen(Some("2.0.0"), Some("2.0.0"), &request),
            Goal::Install(vec![v("2.0.0")])
        );
        assert_eq!(
            chosen(None, Some("2.0.0"), &request),
            Goal::Install(vec![v("2.0.0")])
        );
    }
}
