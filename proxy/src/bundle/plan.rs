//! What a bundle will carry: the difference of two snapshots, in volumes. Exact before the first byte is written; no payload is read.
//!
//! `reachable(root now) − reachable(roots that the site has)`: no history but the roots that left, and these are a few
//! kilobytes each.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kato_shared::Digest;

use super::{
    BundleError,
    header::{Base, Horizon, Kind, Member, Role, Table},
    pack::{Blob, Limit, Piece, pack},
    satisfy::Whole,
    tar::{END, Name, room},
};
use crate::snapshot::{Encoded, Entry, LeftOut, Library, Record, Snapshot};

/// A bundle that could be written.
#[derive(Debug)]
pub struct Plan {
    /// Its place in its series.
    pub record: Record,
    /// What it is relative to the site.
    pub kind: Kind,
    /// What the site has.
    pub base: Vec<Base>,
    /// The whole snapshot.
    pub snapshot: Snapshot,
    /// The root and chunks that are carried.
    pub documents: BTreeMap<Digest, Vec<u8>>,
    /// The payloads that are carried.
    pub blobs: Vec<Blob>,
    /// The most bytes of a volume; none for a folder.
    pub limit: Option<Limit>,
    /// The payloads by volume; empty for a folder.
    pub volumes: Vec<Vec<Piece>>,
    /// Responses that stay here, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// What expires.
    pub horizon: Vec<Horizon>,
    /// URLs that were asked for and that the store does not hold.
    pub not_held: Vec<String>,
    /// Why a bundle for a request carries all that the store holds and the site has not, where it does.
    pub whole: Option<Whole>,
}

/// What the site has, as the exporter knows it.
#[derive(Debug, Default)]
pub struct Has {
    base: Vec<Base>,
    pub(super) contents: HashSet<Digest>,
    pub(super) chunks: HashSet<Digest>,
}

impl Has {
    /// All that is reachable from `bases`, whose roots are in `library`.
    ///
    /// # Errors
    /// [`BundleError::UnknownBase`] for a root that is not, or is damaged.
    pub fn reachable(library: &Library, bases: Vec<Base>) -> Result<Self, BundleError> {
        let mut has = Self::default();
        for base in bases {
            let unknown = || BundleError::UnknownBase(format!("{} ({})", base.seq, base.root));
            let root = library.root(base.root).map_err(|_unknown| unknown())?;
            let snapshot = library.load(base.root).map_err(|_unknown| unknown())?;
            has.contents.extend(snapshot.contents().into_keys());
            has.chunks.extend(root.chunks.iter().map(|chunk| chunk.digest));
            has.base.push(base);
        }
        Ok(has)
    }
}

impl Plan {
    /// The bundle of `snapshot`, whose written form is `encoded`, for a site that `has` something; what it `asked` for is carried whether it
    /// has it or not.
    ///
    /// # Errors
    /// [`BundleError`] when it cannot be packed.
    pub fn new(
        record: Record,
        (snapshot, encoded): (Snapshot, &Encoded),
        has: Has,
        asked: Option<&BTreeSet<Digest>>,
        limit: Option<Limit>,
    ) -> Result<Self, BundleError> {
        let is_asked = |digest: &Digest| asked.is_some_and(|asked| asked.contains(digest));
        let is_content_carried =
            |entry: &Entry| !has.contents.contains(&entry.digest) || is_asked(&entry.digest);
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        for entry in snapshot
            .entries()
            .iter()
            .filter(|entry| is_content_carried(entry))
        {
            blobs.entry(entry.digest).or_insert_with(|| Blob {
                digest: entry.digest,
                size: entry.length,
                group: entry.group.clone(),
            });
        }
        let is_chunk_carried = |digest: &Digest| !has.chunks.contains(digest) || is_asked(digest);
        let mut documents: BTreeMap<Digest, Vec<u8>> = encoded
            .chunks
            .iter()
            .filter(|(digest, _)| is_chunk_carried(digest))
            .cloned()
            .collect();
        documents.insert(encoded.root, encoded.root_bytes.clone());
        // A document that is content, too, is carried once.
        blobs.retain(|digest, _| !documents.contains_key(digest));
        let blobs: Vec<Blob> = blobs.into_values().collect();
        let volumes = limit
            .map(|limit| pack(&blobs, limit))
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            kind: match (asked, has.base.is_empty()) {
                (Some(_), _) => Kind::Satisfy,
                (None, true) => Kind::Full,
                (None, false) => Kind::Delta,
            },
            base: has.base,
            record,
            snapshot,
            documents,
            blobs,
            limit,
            volumes,
            left_out: BTreeMap::new(),
            horizon: Vec::new(),
            not_held: Vec::new(),
            whole: None,
        })
    }

    /// The members that do not depend on volumes: documents, and in the form of a folder the payloads.
    pub fn table(&self) -> Table {
        let member = |digest: &Digest, size: u64, role: Role| {
            let name = Name::Blob(*digest);
            let member = Member {
                path: name.path(),
                size,
                sha256: *digest,
                volume: 0,
                role,
            };
            (name, member)
        };
        let documents = self
            .documents
            .iter()
            .map(|(digest, bytes)| member(digest, bytes.len() as u64, Role::Snapshot));
        let blobs = self
            .blobs
            .iter()
            .filter(|_| self.limit.is_none())
            .map(|blob| member(&blob.digest, blob.size, Role::Payload));
        documents.chain(blobs).collect()
    }

    /// Bytes of what we write ourselves: snapshot, tables, manifests. The last two are estimated from above.
    pub fn documents_size(&self) -> u64 {
        let documents: usize = self.documents.values().map(Vec::len).sum();
        let members =
            self.blobs.len() + self.documents.len() + self.volumes.iter().map(Vec::len).sum::<usize>();
        // A line in MEMBERS.jsonl, one in SHA256SUMS, one in a manifest; an image in index.json.
        documents as u64 + members as u64 * 720 + self.snapshot.entries().len() as u64 * 8 + (1 << 16)
    }

    /// Bytes on the medium.
    pub fn size(&self) -> u64 {
        let payload: u64 = if self.limit.is_some() {
            self.volumes
                .iter()
                .map(|pieces| END + pieces.iter().map(|piece| room(piece.size)).sum::<u64>())
                .sum()
        } else {
            self.blobs.iter().map(|blob| blob.size).sum()
        };
        payload + self.documents_size()
    }

    /// New payloads and their bytes, by group, the largest first.
    pub fn by_group(&self) -> Vec<(String, u64, u64)> {
        let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for blob in &self.blobs {
            let (count, bytes) = groups.entry(&blob.group).or_default();
            *count += 1;
            *bytes += blob.size;
        }
        let mut groups: Vec<_> = groups
            .into_iter()
            .map(|(group, (count, bytes))| (group.to_owned(), count, bytes))
            .collect();
        groups.sort_by(|one, other| other.2.cmp(&one.2).then(one.0.cmp(&other.0)));
        groups
    }
}
