//! Images: the walk of `prefetch/image`, over what is held.

use std::collections::{HashSet, VecDeque};

use super::Check;
use crate::prefetch::{Manifest, Platform};

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredImage {
    /// The URL of the repository, `https://registry.example/v2/team/app`.
    pub repository: String,
    /// A tag or a digest.
    pub reference: String,
}

pub(super) fn check(check: &mut Check<'_>, image: &DeclaredImage, platforms: &[Platform]) {
    check.about(format!("image {}:{}", image.repository, image.reference));
    let mut queue = VecDeque::from([image.reference.clone()]);
    let mut seen = HashSet::new();
    while let Some(reference) = queue.pop_front() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        let url = format!("{}/manifests/{reference}", image.repository);
        let Some((digest, bytes)) = check.document(&url) else {
            continue;
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
            check.gap(format!("{url}: what is held is no manifest"));
            continue;
        };
        for blob in manifest.content() {
            let blob_digest = blob.digest.parse().ok();
            check.needs(
                &format!("{}/blobs/{}", image.repository, blob.digest),
                blob_digest,
            );
        }
        if let Some(lacking) = manifest.not_offered(platforms) {
            check.gap(format!("{url}: {lacking}"));
        }
        queue.extend(manifest.wanted(platforms).map(|child| child.digest.clone()));
        referrers(check, image, digest, &mut queue);
    }
}

/// What refers to a manifest must have been asked for; what was found must be there.
fn referrers(
    check: &mut Check<'_>,
    image: &DeclaredImage,
    digest: kato_shared::Digest,
    queue: &mut VecDeque<String>,
) {
    let api = format!("{}/referrers/{digest}", image.repository);
    let tag = format!("{}/manifests/sha256-{}", image.repository, digest.hex());
    check.report.checked += 1;
    let found = [api.as_str(), tag.as_str()]
        .into_iter()
        .find(|url| check.found(url).is_some());
    match found {
        Some(url) => {
            let url = url.to_owned();
            if let Some((_, bytes)) = check.document(&url) {
                let index: Manifest = serde_json::from_slice(&bytes).unwrap_or_default();
                queue.extend(index.manifests.into_iter().map(|child| child.digest));
            }
        }
        // That there are none is an answer, which registries may forbid to keep: then there is nothing to tell it from.
        None if check.was_asked(&api) || check.was_asked(&tag) => {}
        None => check.note(&format!("nothing is known of what refers to {digest}")),
    }
}
