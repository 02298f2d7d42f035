//! What a bundle for a request file is made of: what the site has, what has left since, and what it asks for; nothing else that the store
//! has come to hold, so that one bundle closes its snapshot.
//!
//! ```text
//! snapshot = the last one that left, or the one that the site has, with what is asked for as the store holds it now
//! carried  = snapshot − (what the site has whole ∪ what it has of the one that waits there − what it says is missing) ∪ what is asked for
//! ```
//!
//! What has left since the site's snapshot is part of it, so that a site that took that in meanwhile does not go back. Where that cannot be
//! told, because the site's snapshot is not known here or its content is gone from the store, everything that the store holds is
//! carried, and the plan says why.
//!
//! Invariant: a suite of packages is never mixed of two moments: when a file of one is asked for, all of the suite's are taken as they are now.

use std::collections::{BTreeMap, BTreeSet};

use kato_shared::Digest;
use serde::Serialize;

use super::{BundleError, header::Base, plan::Has};
use crate::{
    snapshot::{ChunkRef, Entry, Library, Record, Side, Snapshot, Wanted},
    store::ContentRef,
};

/// Why a bundle for a request carries all that the store holds and the site has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whole {
    /// The request names no snapshot of the site, or one that is not known here.
    UnknownSite,
    /// Something that has left since, or that the site's waiting snapshot names, is not in the store any more.
    ContentGone,
}

/// What is sent to a site that asked.
#[derive(Debug)]
pub(super) struct Answer {
    /// The snapshot that the site will have.
    pub(super) snapshot: Snapshot,
    /// What it has already.
    pub(super) has: Has,
    /// Content that is carried even so.
    pub(super) asked: BTreeSet<Digest>,
    /// What it asks for and the store does not hold.
    pub(super) not_held: Vec<String>,
    /// Why the snapshot is all that the store holds, where it is.
    pub(super) whole: Option<Whole>,
}

impl Answer {
    /// The whole of `snapshot`, for a site that has nothing and asks for nothing.
    pub(super) fn of(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            has: Has::default(),
            asked: BTreeSet::new(),
            not_held: Vec::new(),
            whole: None,
        }
    }
}

/// The answer to `wanted` of a site that has `bases`, from a store that holds `now`; `missing` tells which contents the store lacks.
///
/// # Errors
/// [`BundleError`] of the library and the store.
pub(super) fn answer(
    (library, series): (&Library, &str),
    (wanted, bases): (&Wanted, Vec<Base>),
    now: Snapshot,
    missing: impl Fn(Vec<ContentRef>) -> Result<Vec<ContentRef>, BundleError>,
) -> Result<Answer, BundleError> {
    let records = library.records(Side::Exported, series)?;
    let known: Vec<Base> = bases
        .into_iter()
        .filter(|base| library.load(base.root).is_ok())
        .collect();
    let mut seq = known.iter().map(|base| base.seq).max();
    let mut has = Has::reachable(library, known)?;
    if let Some(waiting) = wanted.pending.as_ref().filter(|waiting| waiting.series == series)
        && has.waits(library, waiting, &wanted.digests)
    {
        seq = seq.max(Some(waiting.seq));
    }
    let asked = Asked::new(wanted, &now);
    let left = seq.and_then(|seq| left(library, &records, seq));
    let (snapshot, whole) = match left {
        None => (now, Some(Whole::UnknownSite)),
        Some(left) => {
            let both = asked.onto(&left, &now);
            let carried = both.contents().into_iter();
            let carried = carried
                .filter(|(digest, _)| !has.contents.contains(digest) || asked.contents.contains(digest))
                .map(|(digest, length)| ContentRef { digest, length });
            if missing(carried.collect())?.is_empty() {
                (both, None)
            } else {
                (now, Some(Whole::ContentGone))
            }
        }
    };
    Ok(Answer {
        snapshot,
        has,
        asked: asked.contents,
        not_held: asked.not_held,
        whole,
    })
}

impl Has {
    /// Takes in what a site has of the snapshot that waits there for `missing`; false where that is not known.
    fn waits(&mut self, library: &Library, waiting: &Record, missing: &[Digest]) -> bool {
        let (Ok(root), Ok(snapshot)) = (library.root(waiting.root), library.load(waiting.root)) else {
            return false;
        };
        let missing: BTreeSet<Digest> = missing.iter().copied().collect();
        if missing.contains(&waiting.root) {
            return false;
        }
        let mut contents: BTreeSet<Digest> = snapshot.contents().into_keys().collect();
        for chunk in &root.chunks {
            if !missing.contains(&chunk.digest) {
                self.chunks.insert(chunk.digest);
                continue;
            }
            // What only the site's missing chunk names, nobody there has looked for.
            for entry in entries(library, chunk) {
                contents.remove(&entry.digest);
            }
        }
        self.contents.extend(contents.difference(&missing));
        true
    }
}

/// The last snapshot of the series that left, if it is not older than number `seq`, which the site has.
fn left(library: &Library, records: &[Record], seq: u64) -> Option<Snapshot> {
    let last = records.last().filter(|last| last.seq >= seq)?;
    library.load(last.root).ok()
}

/// The entries of a chunk in the library; none where it is not there.
fn entries(library: &Library, chunk: &ChunkRef) -> Vec<Entry> {
    let bytes = library.get(&chunk.digest);
    bytes
        .and_then(|bytes| chunk.decode(&bytes).ok())
        .unwrap_or_default()
}

/// What a request file asks for, looked up in what the store holds.
#[derive(Debug, Default)]
struct Asked {
    /// Content by digest, and that of the URLs.
    contents: BTreeSet<Digest>,
    /// Cache keys of URLs.
    keys: BTreeMap<String, Option<Digest>>,
    not_held: Vec<String>,
}

impl Asked {
    fn new(wanted: &Wanted, now: &Snapshot) -> Self {
        let mut asked = Self {
            contents: wanted.digests.iter().copied().collect(),
            ..Self::default()
        };
        for url in &wanted.urls {
            let key = format!("GET {}", url.url);
            let found = now.variants(&key);
            if found.is_empty() {
                asked.not_held.push(url.url.clone());
            }
            asked.contents.extend(found.iter().map(|entry| entry.digest));
            asked.keys.insert(key, url.digest);
        }
        asked
    }

    /// What `left`, with what is asked for as it is `now`.
    fn onto(&self, left: &Snapshot, now: &Snapshot) -> Snapshot {
        let (mut keys, mut suites) = (BTreeSet::new(), BTreeSet::new());
        for (key, digest) in &self.keys {
            // A hole of what left is filled with what left.
            let is_left =
                digest.is_some_and(|digest| left.variants(key).iter().any(|entry| entry.digest == digest));
            if is_left || now.variants(key).is_empty() {
                continue;
            }
            match suite(key) {
                Some(folder) => suites.insert(folder),
                None => keys.insert(key.as_str()),
            };
        }
        let is_replaced =
            |key: &str| keys.contains(key) || suite(key).is_some_and(|suite| suites.contains(suite));
        let kept = left.entries().iter().filter(|entry| !is_replaced(&entry.key));
        let mut entries: Vec<Entry> = kept.cloned().collect();
        entries.extend(keys.iter().flat_map(|key| now.variants(key)).cloned());
        entries.extend(suites.iter().flat_map(|suite| now.under(suite)).cloned());
        Snapshot::new(entries)
    }
}

/// The part of `key` that all files of its suite of packages share, up to the slash; none for what is of no suite.
fn suite(key: &str) -> Option<&str> {
    const FOLDER: &str = "/dists/";
    let name = key.find(FOLDER)? + FOLDER.len();
    let end = key[name..].find('/')?;
    Some(&key[..=name + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_suite_share_a_folder() {
        for (key, expected) in [
            (
                "GET http://d.example/debian/dists/stable/InRelease",
                Some("GET http://d.example/debian/dists/stable/"),
            ),
            (
                "GET http://d.example/dists/a/main/binary-amd64/Packages",
                Some("GET http://d.example/dists/a/"),
            ),
            ("GET http://d.example/debian/dists/", None),
            ("GET http://d.example/pool/a.deb", None),
        ] {
            assert_eq!(suite(key), expected, "{key}");
        }
    }
}
