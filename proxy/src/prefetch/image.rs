//! Images: from a reference to everything that a client may pull by it, and everything that refers to that.
//!
//! ```text
//! tag or digest → index → manifests of the wanted platforms → configuration, layers
//!                   └──────┴─→ referrers: the API, the fallback tag, the tags of cosign; each a manifest again
//! ```
//! An index is kept whole whichever platforms are wanted: its digest would be another one otherwise. Asked by the door `/v2/`, so that
//! every manifest is kept under its tag and its digest. That there are no referrers is an answer, too, and is kept.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    str::FromStr,
};

use kato_shared::Digest;
use serde::Deserialize;

use super::{AskError, Cache, Gathered, Item};
use crate::ecosystem::Integrity;

/// What a client that pulls accepts.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// What a client that looks for referrers accepts.
const ACCEPT_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// "Registries SHOULD … a manifest size limit of 4 megabytes" (distribution specification).
const MOST_MANIFEST: usize = 4 << 20;
/// Manifests of one image; a large index has some thirty.
const MOST_MANIFESTS: usize = 10_000;

/// A reference such as `registry.example/team/app:1.0` or `…@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Registry and repository.
    pub name: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl FromStr for ImageRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected REGISTRY/REPOSITORY[:TAG][@sha256:…], got `{text}`");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_no_digest| bad())?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // Else it is the colon before a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let is_plain = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte))
        };
        if !name.split('/').all(is_plain) || tag.as_deref().is_some_and(|tag| !is_plain(tag)) {
            return Err(bad());
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self {
            name: name.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A platform such as `linux/arm64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The machine.
    pub architecture: String,
    /// Which of its variants.
    #[serde(default)]
    pub variant: Option<String>,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split('/').collect();
        match words[..] {
            [os, architecture] | [os, architecture, _] if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    variant: words.get(2).map(|variant| (*variant).to_owned()),
                })
            }
            _ => Err(format!("expected OS/ARCHITECTURE[/VARIANT], got `{text}`")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Platform {
    /// Whether `other` is what is meant by this one; without a variant all of them are.
    pub fn covers(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.spelled_variant() == other.spelled_variant())
    }

    /// The variant; the one that clients take for granted where none is named (containerd's `platforms.Normalize`).
    fn spelled_variant(&self) -> &str {
        let named = self.variant.as_deref().filter(|variant| !variant.is_empty());
        named.unwrap_or(match self.architecture.as_str() {
            "arm64" => "v8",
            "arm" => "v7",
            "amd64" => "v1",
            _ => "",
        })
    }

    /// Whether it is the one of attestations, which run nowhere.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown"
    }
}

/// A descriptor, as far as it is needed here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    /// Where content is that registries may not hand out.
    #[serde(default)]
    pub(crate) urls: Vec<String>,
}

/// An index or a manifest, of either family.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    /// In place of layers, in artifacts of an earlier draft.
    #[serde(default)]
    pub(crate) blobs: Vec<Descriptor>,
}

impl Manifest {
    /// The children of an index that are wanted for `platforms`, all when there are none. What has no platform, and attestations, always.
    pub(crate) fn wanted<'m>(&'m self, platforms: &'m [Platform]) -> impl Iterator<Item = &'m Descriptor> {
        self.manifests.iter().filter(move |child| match &child.platform {
            Some(platform) if !platforms.is_empty() => {
                platform.is_unknown() || platforms.iter().any(|wanted| wanted.covers(platform))
            }
            _ => true,
        })
    }

    /// Those of `platforms` that an index does not offer, with those that it does; nothing where it says nothing of platforms.
    pub(crate) fn not_offered(&self, platforms: &[Platform]) -> Option<String> {
        let offered = self.manifests.iter().filter_map(|child| child.platform.as_ref());
        not_among(
            offered.filter(|platform| !platform.is_unknown()).collect(),
            platforms,
        )
    }
    /// Configuration and layers.
    pub(crate) fn content(&self) -> impl Iterator<Item = &Descriptor> {
        self.config
            .iter()
            .chain(&self.layers)
            .chain(&self.blobs)
            .filter(|descriptor| descriptor.urls.is_empty())
    }
}

/// Those of `platforms` that are not among the `offered`, in words; nothing where nothing is said of platforms.
pub(crate) fn not_among(offered: Vec<&Platform>, platforms: &[Platform]) -> Option<String> {
    let is_offered = |wanted: &&Platform| offered.iter().any(|platform| wanted.covers(platform));
    let lacking: Vec<String> = platforms
        .iter()
        .filter(|wanted| !is_offered(wanted))
        .map(ToString::to_string)
        .collect();
    if lacking.is_empty() || offered.is_empty() {
        return None;
    }
    let offered: Vec<String> = offered.into_iter().map(ToString::to_string).collect();
    Some(format!(
        "there is none for {}: it is offered for {}",
        lacking.join(", "),
        offered.join(", ")
    ))
}

/// Walks over one image.
struct Walk<'w> {
    cache: &'w Cache,
    base: String,
    platforms: &'w [Platform],
    seen: HashSet<String>,
    queue: VecDeque<String>,
}

/// Adds what `image` comes to.
pub(super) async fn gather(cache: &Cache, image: &ImageRef, platforms: &[Platform], gathered: &mut Gathered) {
    let digest = image.digest.map(|digest| digest.to_string());
    let mut walk = Walk {
        cache,
        base: format!("/v2/{}", image.name),
        platforms,
        seen: HashSet::new(),
        queue: image.tag.iter().cloned().chain(digest).collect(),
    };
    while let Some(reference) = walk.queue.pop_front() {
        if walk.seen.len() >= MOST_MANIFESTS {
            return gathered.refuse(
                &image.to_string(),
                format!("more than {MOST_MANIFESTS} manifests"),
            );
        }
        if !walk.seen.insert(reference.clone()) {
            continue;
        }
        if let Err(error) = walk.manifest(&reference, gathered).await {
            gathered.fail(&format!("{image}: {reference}"), &error, error.is_temporary());
        }
    }
}

impl Walk<'_> {
    async fn manifest(&mut self, reference: &str, gathered: &mut Gathered) -> Result<(), AskError> {
        let item = Item {
            accept: Some(ACCEPT.to_owned()),
            integrity: reference.parse().ok().map(Integrity::Sha256),
            ..Item::at(format!("{}/manifests/{reference}", self.base))
        };
        let document = self.cache.document(&item, MOST_MANIFEST).await?;
        gathered.documents += 1;
        let digest = Digest::of(&document.bytes);
        if let Some(Integrity::Sha256(expected)) = item
            .integrity
            .filter(|expected| *expected != Integrity::Sha256(digest))
        {
            return Err(AskError::Mismatch {
                expected: expected.to_string(),
                got: digest.to_string(),
            });
        }
        let manifest: Manifest =
            serde_json::from_slice(&document.bytes).map_err(|error| AskError::Mismatch {
                expected: "a manifest".into(),
                got: error.to_string(),
            })?;
        for blob in manifest.content() {
            gathered.add(Item {
                integrity: blob.digest.parse().ok().map(Integrity::Sha256),
                size: Some(blob.size),
                ..Item::at(format!("{}/blobs/{}", self.base, blob.digest))
            });
        }
        if let Some(lacking) = manifest.not_offered(self.platforms) {
            gathered.refuse(&item.path, lacking);
        }
        self.queue
            .extend(manifest.wanted(self.platforms).map(|child| child.digest.clone()));
        // The tag and the digest are one manifest: its referrers are looked for once.
        if self.seen.insert(digest.to_string()) || reference == digest.to_string() {
            if reference != digest.to_string() {
                // Who pulls by tag may ask by digest next.
                gathered.add(Item {
                    accept: Some(ACCEPT.to_owned()),
                    integrity: Some(Integrity::Sha256(digest)),
                    size: Some(document.bytes.len() as u64),
                    ..Item::at(format!("{}/manifests/{digest}", self.base))
                });
            }
            self.referrers(digest, gathered).await?;
        }
        Ok(())
    }

    /// What refers to the manifest `digest`. Registries without the API keep it under a tag ("referrers tag schema").
    async fn referrers(&mut self, digest: Digest, gathered: &mut Gathered) -> Result<(), AskError> {
        let places = [
            (format!("{}/referrers/{digest}", self.base), ACCEPT_INDEX),
            (format!("{}/manifests/sha256-{}", self.base, digest.hex()), ACCEPT),
        ];
        for (path, accept) in places {
            let item = Item {
                accept: Some(accept.to_owned()),
                ..Item::at(path)
            };
            match self.cache.document(&item, MOST_MANIFEST).await {
                Ok(document) => {
                    gathered.documents += 1;
                    let index: Manifest = serde_json::from_slice(&document.bytes).unwrap_or_default();
                    self.queue
                        .extend(index.manifests.into_iter().map(|child| child.digest));
                    // With the API there is no tag.
                    return self.cosign(digest, gathered).await;
                }
                Err(error) if error.is_absent() || is_unsupported(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.cosign(digest, gathered).await
    }

    /// Signatures, attestations and bills of material that cosign keeps under tags.
    async fn cosign(&mut self, digest: Digest, gathered: &mut Gathered) -> Result<(), AskError> {
        for kind in ["sig", "att", "sbom"] {
            let tag = format!("sha256-{}.{kind}", digest.hex());
            let item = Item {
                accept: Some(ACCEPT.to_owned()),
                ..Item::at(format!("{}/manifests/{tag}", self.base))
            };
            match self.cache.document(&item, MOST_MANIFEST).await {
                Ok(_document) => {
                    gathered.documents += 1;
                    self.queue.push_back(tag);
                }
                Err(error) if error.is_absent() || is_unsupported(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the registry does not know such paths: some say so with 400, 401, 403 or 405.
fn is_unsupported(error: &AskError) -> bool {
    matches!(error, AskError::Status { status, .. } if status.is_client_error() && status.as_u16() != 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_people_write_them() {
        let digest = Digest::of(b"x");
        for (text, name, tag, has_digest) in [
            ("hub.example/a/b", "hub.example/a/b", Some("latest"), false),
            ("hub.example:5000/a", "hub.example:5000/a", Some("latest"), false),
            ("hub.example:5000/a:1", "hub.example:5000/a", Some("1"), false),
            (&format!("hub.example/a@{digest}"), "hub.example/a", None, true),
            (
                &format!("hub.example/a:1@{digest}"),
                "hub.example/a",
                Some("1"),
                true,
            ),
            ("app", "app", Some("latest"), false),
        ] {
            let read: ImageRef = text.parse().unwrap();
            assert_eq!((read.name.as_str(), read.tag.as_deref()), (name, tag), "{text}");
            assert_eq!(read.digest.is_some(), has_digest, "{text}");
        }
        for text in ["", "a//b", "a b", "a@sha256:1", "a:", "a?x=1"] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn of_an_index_the_wanted_platforms_and_attestations_are_followed() {
        let child = |os: &str, architecture: &str, variant: &str| {
            format!(
                r#"{{"digest":"{os}-{architecture}{variant}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}}}"#
            )
        };
        let index = format!(
            r#"{{"manifests":[{},{},{},{}]}}"#,
            child("linux", "amd64", ""),
            child("linux", "arm", "v6"),
            child("linux", "arm", "v7"),
            child("unknown", "unknown", "")
        );
        let index: Manifest = serde_json::from_str(&index).unwrap();
        let wanted = |platforms: &[&str]| -> Vec<String> {
            let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
            index
                .wanted(&platforms)
                .map(|child| child.digest.clone())
                .collect()
        };
        assert_eq!(wanted(&[]).len(), 4);
        assert_eq!(wanted(&["linux/arm/v7"]), ["linux-armv7", "unknown-unknown"]);
        assert_eq!(wanted(&["linux/arm"]).len(), 3);
        let lacking = |text: &str| index.not_offered(&[text.parse().unwrap()]);
        assert_eq!(lacking("linux/arm/v7"), None);
        assert!(
            lacking("linux/armv7")
                .unwrap()
                .starts_with("there is none for linux/armv7: it is offered for ")
        );
        // A single manifest, and what refers to one, say nothing of platforms.
        assert_eq!(
            Manifest::default().not_offered(&["linux/arm".parse().unwrap()]),
            None
        );
    }
}
