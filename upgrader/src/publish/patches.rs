//! The list of patches of a repository, with a new one in it; and what a patch must not be beside what is published.

use std::{collections::BTreeSet, path::Path};

use kato_shared::{
    Digest, durable,
    release::{Graph, PatchEntry, PatchList, Release, SCHEMA, layout},
};

use super::{PublishError, state::State};

/// Writes the list of the repository's patches with `document`, whose digest is `sha256`, into the build folder.
pub(super) fn write_list(
    build: &Path,
    state: &State,
    document: &Release,
    sha256: Digest,
) -> Result<(), PublishError> {
    let Some(entry) = PatchEntry::of(document, sha256) else {
        return Ok(());
    };
    let mut list: PatchList = state.document(layout::PATCHES)?.unwrap_or_else(|| PatchList {
        schema: SCHEMA,
        product: document.product.clone(),
        patches: Vec::new(),
    });
    // Signed again, the same patch is no other.
    list.patches.retain(|listed| *listed != entry);
    let graph = state.graph(&document.product)?;
    if graph.product != document.product {
        return Err(PublishError::Product {
            published: graph.product,
            offered: document.product.clone(),
        });
    }
    let releases = its_releases(state, &graph, &entry)?;
    check(document, &entry, &list, &releases).map_err(|problem| PublishError::Patch {
        name: entry.name.clone(),
        problem,
    })?;
    list.patches.push(entry);
    list.patches.sort_unstable_by_key(|entry| entry.id);
    let path = build.join("targets").join(layout::PATCHES);
    Ok(durable::write_json(&path, &list, 0o644)?)
}

/// The published releases that the patch is for.
fn its_releases(state: &State, graph: &Graph, entry: &PatchEntry) -> Result<Vec<Release>, PublishError> {
    let versions = graph.versions();
    let mut releases = Vec::new();
    for version in versions.iter().filter(|version| entry.is_for(version)) {
        releases.extend(state.document::<Release>(&layout::release(version))?);
    }
    Ok(releases)
}

/// That its number and name are its own, and that it speaks of releases, patches and roles that exist.
fn check(
    document: &Release,
    entry: &PatchEntry,
    list: &PatchList,
    releases: &[Release],
) -> Result<(), String> {
    if let Some(taken) = list.named(&entry.name) {
        return Err(format!("the name is that of the patch {} already", taken.id));
    }
    let newest = list.patches.iter().map(|listed| listed.id).max().unwrap_or(0);
    if entry.id <= newest {
        return Err(format!(
            "its number {} is not above {newest}, the newest of the repository; the next is {}",
            entry.id,
            newest + 1
        ));
    }
    if let Some(unknown) = entry.requires.iter().find(|name| list.named(name).is_none()) {
        return Err(format!("it requires `{unknown}`, which is not published"));
    }
    if releases.is_empty() {
        return Err(format!(
            "it is for {}, and no published release is one that it is for",
            entry.version
        ));
    }
    let known = roles_of(releases);
    let revert = document.patch.iter().flat_map(|patch| &patch.revert);
    let of_modules = document
        .modules
        .iter()
        .chain(revert)
        .flat_map(|module| &module.roles);
    match entry
        .roles
        .iter()
        .chain(of_modules)
        .find(|role| !known.contains(&role.to_lowercase()))
    {
        Some(unknown) => Err(format!(
            "the role `{unknown}` is none of the releases that it is for; known are {}",
            known.into_iter().collect::<Vec<_>>().join(", ")
        )),
        None => Ok(()),
    }
}

/// Every role that `releases` speak of, in lower case, and `*`.
fn roles_of(releases: &[Release]) -> BTreeSet<String> {
    let of = |release: &Release| -> Vec<String> {
        let modules = release.modules.iter().flat_map(|module| module.roles.clone());
        let order = release.role_order.iter().cloned();
        modules
            .chain(order)
            .chain([release.core_role.clone(), release.implicit_role.clone()])
            .collect()
    };
    let all = releases.iter().flat_map(of).map(|role| role.to_lowercase());
    all.chain(["*".to_owned()]).collect()
}
