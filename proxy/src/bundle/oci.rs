//! The bundle as an OCI image layout: `index.json` and the manifests that name everything, so that `skopeo` and its relatives read a
//! bundle that knows nothing of us. Pure.
//!
//! Images stand in `index.json` by reference, with the very bytes of their manifests. Everything that is here is also named by
//! `httpcache`, so that a tool that collects garbage, or carries the layout through a registry, leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use kato_shared::Digest;
use serde_json::{Value, json};

use super::{
    header::{Member, Role, Table},
    tar::Name,
};
use crate::snapshot::{Entry, Snapshot, image};

/// What `oci-layout` holds (OCI image-spec, "Image Layout").
pub(super) const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// The most layers of a manifest: two megabytes, below what registries take.
const MOST_LAYERS: usize = 8192;

/// The content of an empty configuration (OCI image-spec, "Guidance for an Empty Descriptor").
const EMPTY: &[u8] = b"{}";

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT_TYPE: &str = "application/vnd.kato.httpcache.bundle.v1+json";

/// The documents of a layout.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// `index.json`.
    pub(super) index: Vec<u8>,
    /// Manifests and what they need, by digest.
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
}

/// The layout of a bundle with the whole `snapshot` that has `table` here.
pub(super) fn layout(snapshot: &Snapshot, table: &Table) -> Layout {
    let mut layout = Layout::default();
    let empty = layout.add(EMPTY.to_vec());
    let here: Vec<&Member> = table
        .iter()
        .filter(|(name, _)| matches!(name, Name::Blob(_)))
        .map(|(_, member)| member)
        .collect();
    let manifests: Vec<Value> = here
        .chunks(MOST_LAYERS)
        .map(|members| {
            let layers: Vec<Value> = members.iter().copied().map(layer).collect();
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "artifactType": ARTIFACT_TYPE,
                "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": EMPTY.len() },
                "layers": layers,
            });
            let bytes = line(&manifest);
            let size = bytes.len();
            json!({ "mediaType": MANIFEST_TYPE, "digest": layout.add(bytes), "size": size })
        })
        .collect();
    let all = line(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "manifests": manifests,
    }));
    let size = all.len();
    let mut descriptors = images(snapshot);
    descriptors.push(json!({
        "mediaType": INDEX_TYPE,
        "digest": layout.add(all),
        "size": size,
        "annotations": { "org.opencontainers.image.ref.name": "httpcache" },
    }));
    layout.index = line(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": descriptors,
    }));
    layout
}

impl Layout {
    fn add(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }
}

fn layer(member: &Member) -> Value {
    let kind = match member.role {
        Role::Payload | Role::Oci => "application/octet-stream",
        Role::Snapshot => "application/vnd.kato.snapshot.v1",
    };
    json!({ "mediaType": kind, "digest": member.sha256, "size": member.size })
}

/// A descriptor for each image of the snapshot: by tag, and by digest where no tag leads to it.
fn images(snapshot: &Snapshot) -> Vec<Value> {
    let mut by_name: BTreeMap<String, &Entry> = BTreeMap::new();
    let mut tagged = BTreeSet::new();
    for entry in snapshot.entries() {
        let Some(image) = image(entry.url()).filter(|image| image.kind == "manifests" && entry.status == 200)
        else {
            continue;
        };
        let is_digest = image.reference.contains(':');
        let separator = if is_digest { '@' } else { ':' };
        let name = format!("{}/{}{separator}{}", image.host, image.name, image.reference);
        if !is_digest {
            tagged.insert(entry.digest);
        }
        // An index says more than the manifest of one platform.
        let known = by_name.get(&name);
        if known.is_none_or(|known| is_index(entry) && !is_index(known)) {
            by_name.insert(name, entry);
        }
    }
    by_name
        .into_iter()
        .filter(|(name, entry)| !name.contains('@') || !tagged.contains(&entry.digest))
        .map(|(name, entry)| {
            json!({
                "mediaType": media_type(entry),
                "digest": entry.digest,
                "size": entry.length,
                "annotations": {
                    "org.opencontainers.image.ref.name": name,
                    "io.containerd.image.name": name,
                },
            })
        })
        .collect()
}

fn media_type(entry: &Entry) -> &str {
    let full = entry.header("content-type").unwrap_or(MANIFEST_TYPE);
    full.split(';').next().unwrap_or(full).trim()
}

fn is_index(entry: &Entry) -> bool {
    let media_type = media_type(entry);
    media_type == INDEX_TYPE || media_type.ends_with("manifest.list.v2+json")
}

/// JSON in one line.
fn line(value: &Value) -> Vec<u8> {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    text
}
