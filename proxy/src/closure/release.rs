//! Releases: from the newest list of targets to the content of all roles.

use std::collections::BTreeMap;

use kato_shared::{
    Digest,
    release::{Release, layout},
};
use semver::Version;
use serde::Deserialize;

use super::Check;

/// A release of a TUF repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredRelease {
    /// The URL of the repository, without a slash at the end.
    pub repository: String,
    /// The version.
    pub version: Version,
}

/// `targets.json`, as far as it is needed here.
#[derive(Deserialize)]
struct Targets {
    signed: Signed,
}

#[derive(Deserialize)]
struct Signed {
    version: u64,
    targets: BTreeMap<String, Target>,
}

#[derive(Deserialize)]
struct Target {
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<Digest>,
}

pub(super) fn check(check: &mut Check<'_>, release: &DeclaredRelease) {
    check.about(format!("release {} of {}", release.version, release.repository));
    let metadata = format!("{}/metadata/", release.repository);
    check.needs(&format!("{metadata}timestamp.json"), None);
    let Some(targets) = newest_targets(check, &metadata) else {
        return check.gap(format!("{metadata}targets.json, of any version"));
    };
    let name = layout::release(&release.version);
    let Some(digest) = targets.get(&name).and_then(|target| target.hashes.sha256) else {
        return check.gap(format!("{name}: in no list of targets"));
    };
    check.needs_content(&digest, &name);
    let Some(bytes) = (check.content)(&digest) else {
        return;
    };
    let read = match Release::from_json(&name, &bytes) {
        Ok(read) => read,
        Err(error) => return check.gap(format!("{name}: {error}")),
    };
    let artifacts = read.artifacts.values().map(|artifact| artifact.target.as_str());
    let upgraders = read.upgrader.values().map(|upgrader| upgrader.target.as_str());
    for wanted in artifacts.chain(upgraders) {
        match targets.get(wanted).and_then(|target| target.hashes.sha256) {
            Some(digest) => check.needs_content(&digest, wanted),
            None => check.gap(format!("{wanted}: in no list of targets")),
        }
    }
}

/// The targets of the newest list that is held.
fn newest_targets(check: &Check<'_>, metadata: &str) -> Option<BTreeMap<String, Target>> {
    let lists = check
        .snapshot
        .under(&format!("GET {metadata}"))
        .iter()
        .filter(|entry| entry.status == 200 && entry.url().ends_with("targets.json"));
    let read = lists.filter_map(|entry| {
        let bytes = (check.content)(&entry.digest)?;
        serde_json::from_slice::<Targets>(&bytes).ok()
    });
    read.max_by_key(|targets| targets.signed.version)
        .map(|targets| targets.signed.targets)
}
