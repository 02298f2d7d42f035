//! Images: the walk of `prefetch/image`, over what is held.

use std::collections::{HashSet, VecDeque};

use super::Check;
use crate::prefetch::{Descriptor, Manifest, Platform, not_among};

/// What a configuration is that says for which platform it is.
const CONFIGURATIONS: [&str; 3] = [
    "",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredImage {
    /// The URL of the repository, `https://registry.example/v2/team/app`.
    pub repository: String,
    /// A tag or a digest.
    pub reference: String,
}

/// How a manifest was come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// It is what was declared.
    Declaration,
    /// An index names it.
    Index,
    /// It refers to another one.
    Referrers,
}

pub(super) fn check(check: &mut Check<'_>, image: &DeclaredImage, platforms: &[Platform]) {
    check.about(format!("image {}:{}", image.repository, image.reference));
    let mut queue = VecDeque::from([(image.reference.clone(), By::Declaration)]);
    let mut seen = HashSet::new();
    while let Some((reference, by)) = queue.pop_front() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        let url = manifest_url(image, &reference);
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
        if by != By::Referrers {
            lacking(check, (image, &url), (&manifest, by), platforms);
        }
        let next = if by == By::Referrers { by } else { By::Index };
        let wanted = manifest.wanted(platforms);
        queue.extend(wanted.map(|child| (child.digest.clone(), next)));
        referrers(check, image, digest, &mut queue);
    }
}

fn manifest_url(image: &DeclaredImage, reference: &str) -> String {
    format!("{}/manifests/{reference}", image.repository)
}

/// Whether there is one for each of `platforms`. An index says for which each of its manifests is; of what it says nothing, and of a manifest that is
/// in no index, the configuration does.
fn lacking(
    check: &mut Check<'_>,
    (image, url): (&DeclaredImage, &str),
    (manifest, by): (&Manifest, By),
    platforms: &[Platform],
) {
    let mut offered = Vec::new();
    match &manifest.config {
        // Its index says for which it is, or asked it.
        Some(_) if by == By::Index => return,
        Some(config) => match configured(check, image, config) {
            Configured::Platform(platform) => offered.push(platform),
            Configured::Silent if platforms.is_empty() => {}
            Configured::Silent => {
                let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                check.gap(format!(
                    "{url}: its configuration does not say for which platform it is; {} was declared",
                    wanted.join(", ")
                ));
            }
            // Artifacts run nowhere; and what is not held is a gap already.
            Configured::None => {}
        },
        None => {
            for child in &manifest.manifests {
                match &child.platform {
                    Some(platform) if platform.is_unknown() => {}
                    Some(platform) => offered.push(platform.clone()),
                    None => offered.extend(of_child(check, image, child)),
                }
            }
        }
    }
    if let Some(lacking) = not_among(offered.iter().collect(), platforms) {
        check.gap(format!("{url}: {lacking}"));
    }
}

/// What a configuration says of its platform.
enum Configured {
    Platform(Platform),
    /// It is one of an image, and says nothing.
    Silent,
    /// It is none of an image, or not held.
    None,
}

fn configured(check: &Check<'_>, image: &DeclaredImage, config: &Descriptor) -> Configured {
    if !CONFIGURATIONS.contains(&config.media_type.as_str()) {
        return Configured::None;
    }
    let entry = check.found(&format!("{}/blobs/{}", image.repository, config.digest));
    let Some(bytes) = entry.and_then(|entry| (check.content)(&entry.digest)) else {
        return Configured::None;
    };
    let platform = serde_json::from_slice::<Platform>(&bytes).ok();
    platform
        .filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())
        .map_or(Configured::Silent, Configured::Platform)
}

/// The platform of a manifest of an index that does not say it.
fn of_child(check: &Check<'_>, image: &DeclaredImage, child: &Descriptor) -> Option<Platform> {
    let entry = check.found(&manifest_url(image, &child.digest))?;
    let bytes = (check.content)(&entry.digest)?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    match configured(check, image, manifest.config.as_ref()?) {
        Configured::Platform(platform) => Some(platform),
        Configured::Silent | Configured::None => None,
    }
}

/// What refers to a manifest must have been asked for; what was found must be there.
fn referrers(
    check: &mut Check<'_>,
    image: &DeclaredImage,
    digest: kato_shared::Digest,
    queue: &mut VecDeque<(String, By)>,
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
                let children = index.manifests.into_iter();
                queue.extend(children.map(|child| (child.digest, By::Referrers)));
            }
        }
        // That there are none is an answer, which registries may forbid to keep: then there is nothing to tell it from.
        None if check.was_asked(&api) || check.was_asked(&tag) => {}
        None => check.note(&format!("nothing is known of what refers to {digest}")),
    }
}
