//! Everything that a release needs, fetched through the cache once, so that the nodes' own downloads cause no request
//! to the upgrade host.
//!
//! Flow: trusted metadata through the cache → the hops from Core's release to the wanted one → the targets of all
//! their modules for all roles and of the upgrader, and the images of modules by the registry door → each fetched through the cache, verified and thrown away, a few at
//! a time. The cache's `Cache-Status` says which crossed the WAN. At the end the rehearsal: all of them and all metadata once more, with
//! the upgrade host out of bounds.
//!
//! Deliberately absent: staging on Core. Core is a node like the others and downloads its own part when its turn comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kato_shared::{
    release::{Graph, HopError, Image, Install, PatchEntry, Release, Version},
    settings::byte_size::human,
    trust::{TargetFile, TrustedRepository},
};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use super::report::Report;
use crate::{
    cli::node::UpgradeRequest,
    exit::{Exit, Failure},
    fetch::{self, Answers, FetchError, Fetcher, Route, Source, trust_failure},
    installed::Installed,
    paths::NodePaths,
    settings::Settings,
};

/// Files that are fetched at the same time. The line to the upgrade host is the limit, not we: a few keep it full while
/// small files wait for their heads.
const AT_ONCE: usize = 4;

/// Files that the cache is asked for at the same time in the rehearsal; no body is sent.
const REHEARSED_AT_ONCE: usize = 16;

/// How long the cache may take to bring all bodies that it has sent to its disk and into its index.
const KEPT_WITHIN: Duration = Duration::from_secs(30);

/// The same for documents, which are small and came first.
const DOCUMENTS_KEPT_WITHIN: Duration = Duration::from_secs(5);

/// What a cache holds after it was filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// The release that can be installed from it.
    pub version: Version,
    /// What crossed the WAN now.
    pub fetched: Vec<Item>,
    /// What was there already.
    pub present: Vec<Item>,
}

/// A file of the closure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// Its path below the repository.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Filled {
    /// Bytes that crossed the WAN now.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.iter().map(|item| item.bytes).sum()
    }

    /// Bytes that were there already.
    pub fn present_bytes(&self) -> u64 {
        self.present.iter().map(|item| item.bytes).sum()
    }

    /// A line for each file, for people.
    pub fn lines(&self) -> Vec<String> {
        let line = |word: &str, item: &Item| format!("{word}  {:>10}  {}", human(item.bytes), item.name);
        let fetched = self.fetched.iter().map(|item| line("fetched", item));
        fetched
            .chain(self.present.iter().map(|item| line("present", item)))
            .collect()
    }
}

/// Fetches the closure of the wanted release through `cache`: of the way from Core's release to it, and from those that `others`
/// have.
///
/// # Errors
/// [`Failure`]: 26 when metadata or a file is refused, 75 when it cannot be fetched, 20 when the cache cannot
/// keep it or there is no way to the wanted release.
pub async fn fill(
    settings: &Settings,
    cache: &Url,
    request: &UpgradeRequest,
    others: &[Version],
    report: &dyn Report,
) -> Result<Filled, Failure> {
    let answers = Answers::default();
    // What was published a moment ago must not be hidden by what the cache thinks fresh; the upgrade host may have told us
    // of it directly already, and then the cache's older answer would look like a rollback.
    let fetcher = Fetcher::with_timeouts(Route::Cache(cache.clone()), settings.download.timeouts())?
        .noting(answers.clone())
        .revalidating();
    let repository = trusted(settings, &fetcher).await?;
    let graph = repository.graph().await.map_err(trust_failure)?;
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    let installed = Installed::load(&paths)?.map(|record| record.version);
    let channel = if request.development {
        "development"
    } else {
        &settings.release.channel
    };
    let versions = versions(&graph, installed.as_ref(), request.version.as_ref(), channel)?;
    let versions = with_ways_of(versions, &graph, others);
    let mut releases = Vec::new();
    for version in &versions {
        releases.push(repository.release(version).await.map_err(trust_failure)?);
    }
    releases.extend(patches(&repository, request, installed.as_ref(), others).await?);
    let files = targets(&releases)
        .iter()
        .map(|name| repository.target(name).map_err(trust_failure))
        .collect::<Result<Vec<_>, _>>()?;
    let mut files = files;
    for image in images(&releases) {
        files.extend(fetcher.image(cache, image).await?);
    }
    fetch(&fetcher, &files, report).await?;
    rehearse(&fetcher, cache, &files).await?;
    rehearse_documents(&fetcher, &answers, &files, report).await?;
    let version = versions.into_iter().next_back();
    let version =
        version.ok_or_else(|| Failure::new(Exit::Bug, anyhow::anyhow!("a closure of no release")))?;
    Ok(sort(
        version,
        &settings.release.url,
        &answers,
        &[repository.targets(), files].concat(),
    ))
}

/// The repository as Core trusts it, loaded through the cache: so its metadata are in the cache as well.
async fn trusted(settings: &Settings, fetcher: &Fetcher) -> Result<TrustedRepository, Failure> {
    let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
    fetch::trusted(fetcher, &settings.release, &paths.trust()).await
}

/// The documents of the patches that nodes with one of these releases may install first. The list itself is read in any case: every run on a
/// node looks at it.
async fn patches(
    repository: &TrustedRepository,
    request: &UpgradeRequest,
    installed: Option<&Version>,
    others: &[Version],
) -> Result<Vec<Release>, Failure> {
    let list = repository.patches().await.map_err(trust_failure)?;
    let is_wanted = |entry: &&PatchEntry| {
        request.apply_patches
            && others
                .iter()
                .chain(installed)
                .any(|version| entry.is_for(version))
    };
    let mut documents = Vec::new();
    for entry in list.patches.iter().filter(is_wanted) {
        documents.push(repository.patch(entry.id).await.map_err(trust_failure)?);
    }
    Ok(documents)
}

/// The releases whose files are needed, in the order of their installation; the last is the wanted one.
fn versions(
    graph: &Graph,
    installed: Option<&Version>,
    wanted: Option<&Version>,
    channel: &str,
) -> Result<Vec<Version>, Failure> {
    let refused = |error: HopError| Failure::new(Exit::Preflight, error).hint("choose one with `--version`");
    let newest = || match installed {
        // Nothing newer: the installed release is what nodes that are behind, or new, still need.
        Some(installed) => Some(
            graph
                .newest(installed, channel)
                .unwrap_or_else(|| installed.clone()),
        ),
        None => graph.newest_in(channel),
    };
    let target = wanted.cloned().or_else(newest).ok_or_else(|| {
        let what = anyhow::anyhow!("no release is published in the channel `{channel}`");
        Failure::new(Exit::Preflight, what).hint("compare [release] channel in kato.toml with the publisher")
    })?;
    let mut versions = match installed {
        Some(installed) => graph.hops(installed, &target).map_err(refused)?,
        None => Vec::new(),
    };
    if versions.last() != Some(&target) {
        versions.push(target);
    }
    Ok(versions)
}

/// `versions` with those that nodes with other releases go through; one without a way is refused elsewhere, by its node's name.
fn with_ways_of(versions: Vec<Version>, graph: &Graph, others: &[Version]) -> Vec<Version> {
    let Some(target) = versions.last().cloned() else {
        return versions;
    };
    let ways = others.iter().filter_map(|from| graph.hops(from, &target).ok());
    let mut all: BTreeSet<Version> = versions.into_iter().chain(ways.flatten()).collect();
    all.remove(&target);
    all.into_iter().chain([target]).collect()
}

/// The targets of all modules for all roles, and of the upgrader for every kind of machine.
fn targets(releases: &[Release]) -> BTreeSet<String> {
    releases
        .iter()
        .flat_map(|release| {
            let artifacts = release.artifacts.values().map(|artifact| artifact.target.clone());
            artifacts.chain(release.upgrader.values().map(|upgrader| upgrader.target.clone()))
        })
        .collect()
}

/// The images of all modules for all roles, each once.
fn images(releases: &[Release]) -> Vec<&Image> {
    let mut found: Vec<&Image> = Vec::new();
    for module in releases.iter().flat_map(|release| &release.modules) {
        if let Install::Image { images } = &module.install {
            let new = images.iter().filter(|image| !found.contains(image));
            found.extend(new.collect::<Vec<_>>());
        }
    }
    found
}

/// Fetches `files` through the cache, a few at a time; the first failure ends it.
async fn fetch(fetcher: &Fetcher, files: &[TargetFile], report: &dyn Report) -> Result<(), FetchError> {
    let total = files.iter().map(|file| file.size).sum();
    let received: Vec<_> = files.iter().map(|_| AtomicU64::new(0)).collect();
    let tell = || {
        report.progress(
            "filling the cache",
            received.iter().map(|own| own.load(Relaxed)).sum(),
            total,
        );
    };
    let mut downloads = Vec::new();
    for (file, received) in files.iter().zip(&received) {
        downloads.push(warm(fetcher, file, received, &tell));
    }
    stream::iter(downloads)
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// One file through the cache.
async fn warm(
    fetcher: &Fetcher,
    file: &TargetFile,
    received: &AtomicU64,
    tell: &(dyn Fn() + Sync),
) -> Result<(), FetchError> {
    let progress = |bytes| {
        received.store(bytes, Relaxed);
        tell();
    };
    fetcher.warm(file, &progress).await?;
    Ok(())
}

/// The rehearsal: every file of the closure is asked of the cache in such a way that it may ask nobody. Refuses a cache that does
/// not have all of them: the nodes would fail, or fetch them again, in the middle of their upgrade.
async fn rehearse(fetcher: &Fetcher, cache: &Url, files: &[TargetFile]) -> Result<(), Failure> {
    let end = Instant::now() + KEPT_WITHIN;
    let mut questions = Vec::new();
    for file in files {
        questions.push(async move { Ok::<_, FetchError>((file, fetcher.is_kept(&file.url, end).await?)) });
    }
    let answers: Vec<_> = stream::iter(questions)
        .buffer_unordered(REHEARSED_AT_ONCE)
        .try_collect()
        .await?;
    let mut lost: Vec<String> = answers
        .into_iter()
        .filter(|(_, is_kept)| !is_kept)
        .map(|(file, _)| format!("{} ({})", file.name, human(file.size)))
        .collect();
    lost.sort_unstable();
    if lost.is_empty() {
        return Ok(());
    }
    let what = anyhow::anyhow!(
        "the cache {cache} could not keep {}: is its disk full?",
        lost.join(", ")
    );
    Err(Failure::new(Exit::Preflight, what).hint(
        "nothing was changed on any node; free space for the cache, or name a folder on a larger file system in kato.toml ([cache] dir), then run the same command again",
    ))
}

/// The rehearsal of everything else that was read on the way: metadata, and the documents of releases and patches. An upgrade host may forbid to
/// keep them; then the nodes need it when they begin, which is said and no reason to stop.
async fn rehearse_documents(
    fetcher: &Fetcher,
    answers: &Answers,
    files: &[TargetFile],
    report: &dyn Report,
) -> Result<(), FetchError> {
    let is_file = |url: &Url| files.iter().any(|file| file.url == *url);
    let documents: BTreeSet<Url> = answers.all().into_iter().map(|seen| seen.url).collect();
    let end = Instant::now() + DOCUMENTS_KEPT_WITHIN;
    let mut questions = Vec::new();
    for url in documents.into_iter().filter(|url| !is_file(url)) {
        questions.push(async move {
            let is_kept = fetcher.is_kept(&url, end).await?;
            Ok::<_, FetchError>((url, is_kept))
        });
    }
    let answers: Vec<_> = stream::iter(questions)
        .buffer_unordered(REHEARSED_AT_ONCE)
        .try_collect()
        .await?;
    let mut lost: Vec<&str> = answers
        .iter()
        .filter(|(_, is_kept)| !is_kept)
        .map(|(url, _)| url.path())
        .collect();
    lost.sort_unstable();
    if !lost.is_empty() {
        report.warn(&format!(
            "the cache keeps no copy of {}: nodes need the upgrade host when they begin",
            lost.join(", ")
        ));
    }
    Ok(())
}

/// Everything that was answered, by name: what crossed the WAN and what was there. A file that was asked for twice
/// counts by its first answer.
fn sort(version: Version, base: &Url, answers: &Answers, files: &[TargetFile]) -> Filled {
    let sizes: BTreeMap<&str, &TargetFile> = files.iter().map(|file| (file.url.as_str(), file)).collect();
    let mut known = BTreeSet::new();
    let (mut fetched, mut present) = (Vec::new(), Vec::new());
    for seen in answers.all() {
        let target = sizes.get(seen.url.as_str());
        let item = Item {
            name: target.map_or_else(|| name(base, &seen.url), |file| file.name.clone()),
            bytes: target.map(|file| file.size).or(seen.bytes).unwrap_or(0),
        };
        if known.insert(item.name.clone()) {
            match seen.source {
                Source::Upstream => fetched.push(item),
                Source::Store => present.push(item),
            }
        }
    }
    fetched.sort_unstable();
    present.sort_unstable();
    Filled {
        version,
        fetched,
        present,
    }
}

/// A URL's path below the repository.
fn name(base: &Url, url: &Url) -> String {
    let folder = base.path().trim_end_matches('/');
    let path = url.path();
    path.strip_prefix(folder)
        .unwrap_or(path)
        .trim_start_matches('/')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use kato_shared::release::{GraphEntry, SCHEMA, Sources};

    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn graph() -> Graph {
        let entry = |version, channel: &str, floor| GraphEntry {
            version: v(version),
            channel: channel.into(),
            from: Sources::default(),
            floor,
        };
        Graph {
            schema: SCHEMA,
            product: "demo".into(),
            releases: vec![
                entry("1.0.0", "stable", false),
                entry("2.0.0", "stable", true),
                entry("3.0.0", "stable", false),
                entry("4.0.0", "development", false),
            ],
        }
    }

    fn wanted(installed: Option<&str>, version: Option<&str>) -> Result<Vec<String>, Failure> {
        let (installed, version) = (installed.map(v), version.map(v));
        let found = versions(&graph(), installed.as_ref(), version.as_ref(), "stable")?;
        Ok(found.iter().map(Version::to_string).collect())
    }

    #[test]
    fn r09_the_closure_has_every_release_on_the_way() {
        assert_eq!(wanted(Some("1.0.0"), None).unwrap(), ["2.0.0", "3.0.0"]);
        assert_eq!(wanted(Some("2.0.0"), None).unwrap(), ["3.0.0"]);
        assert_eq!(wanted(Some("1.0.0"), Some("2.0.0")).unwrap(), ["2.0.0"]);
        assert_eq!(wanted(Some("3.0.0"), None).unwrap(), ["3.0.0"]);
        assert_eq!(wanted(None, None).unwrap(), ["3.0.0"]);
        assert_eq!(wanted(Some("3.0.0"), Some("4.0.0")).unwrap(), ["4.0.0"]);
    }

    #[test]
    fn r09_the_closure_has_the_ways_of_all_nodes() {
        let of = |others: &[&str]| {
            let others: Vec<Version> = others.iter().map(|text| v(text)).collect();
            let found = with_ways_of(vec![v("3.0.0")], &graph(), &others);
            found.iter().map(Version::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), ["3.0.0"]);
        assert_eq!(of(&["2.0.0", "3.0.0"]), ["3.0.0"]);
        assert_eq!(of(&["1.0.0", "2.0.0"]), ["2.0.0", "3.0.0"]);
    }

    #[test]
    fn r35_a_release_that_cannot_be_reached_is_refused() {
        assert_eq!(
            wanted(Some("3.0.0"), Some("1.0.0")).unwrap_err().exit,
            Exit::Preflight
        );
        assert_eq!(
            wanted(Some("1.0.0"), Some("9.0.0")).unwrap_err().exit,
            Exit::Preflight
        );
    }

    #[test]
    fn names_are_relative_to_the_repository() {
        let base: Url = "https://h.example/r/".parse().unwrap();
        assert_eq!(
            name(
                &base,
                &"https://h.example/r/metadata/1.root.json".parse().unwrap()
            ),
            "metadata/1.root.json"
        );
        assert_eq!(name(&base, &"https://h.example/other".parse().unwrap()), "other");
    }
}
