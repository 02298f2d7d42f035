//! The snapshot that is served: what an import has activated, or the one that the settings name.
//!
//! It is looked for once a second, and replaced in one step; a request keeps the one that it found. Of the ones before it, the last few are
//! still known for content that is named by its digest: a client that has read an older index gets what that index promised.
//!
//! Deliberately absent: content, which the store has by digest whatever names it.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use kato_shared::Digest;
use url::{Position, Url};

use crate::{
    snapshot::{Class, Library, LibraryError, Record, Side, Snapshot},
    store::{Responses, StoredResponse},
};

/// How many snapshots before the one that is served are still known.
const KEPT: usize = 3;

/// A snapshot in memory.
#[derive(Debug)]
pub struct Served {
    record: Record,
    snapshot: Snapshot,
    /// The ones before it, the newest first.
    before: Vec<Snapshot>,
}

/// Which snapshot is served; shared by all generations of the settings.
#[derive(Debug, Default)]
pub struct Serving {
    served: ArcSwapOption<Served>,
    /// One change at a time.
    changing: Mutex<()>,
}

/// Why a snapshot is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot be read.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// There is none of that number.
    #[error(
        "there is no snapshot {wanted}; there are {known}\nhint: `kato-proxy bundle import` brings snapshots; without --snapshot the active one is served"
    )]
    Unknown {
        /// The number that was asked for.
        wanted: u64,
        /// Those that there are.
        known: String,
    },
}

impl Served {
    /// `<series>-<number>`.
    pub fn name(&self) -> String {
        name(&self.record)
    }

    /// Which one it is.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How many responses below `base` there are, and the rest of the URL of one that is sent whatever a client accepts.
    pub fn below(&self, base: &Url) -> (u64, Option<String>) {
        let prefix = format!("GET {}", &base[..Position::AfterPath]);
        let found = self.snapshot.under(&prefix);
        let any = found.iter().find(|entry| entry.vary.is_empty());
        let rest = any.and_then(|entry| entry.key.strip_prefix(&prefix));
        (found.len() as u64, rest.map(str::to_owned))
    }

    /// The keys of this snapshot that begin with `prefix`, in order, one as often as it has variants.
    pub fn keys_below(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.snapshot.under(prefix).iter().map(|entry| entry.key.as_str())
    }

    /// The responses of a key.
    pub fn lookup(&self, key: &str) -> Responses {
        let mut found: Vec<_> = self
            .snapshot
            .variants(key)
            .iter()
            .map(crate::snapshot::Entry::response)
            .collect();
        if found.is_empty() {
            let older = self.before.iter().flat_map(|snapshot| snapshot.variants(key));
            let lasting = older.filter(|entry| entry.class == Class::Immutable);
            found.extend(lasting.take(1).map(crate::snapshot::Entry::response));
        }
        Responses::new((found, Vec::new()).into())
    }

    /// The whole documents at `key`, that of this snapshot first, then those of the ones before it.
    pub fn documents(&self, key: &str) -> Vec<StoredResponse> {
        let entries = self.all().flat_map(|snapshot| snapshot.variants(key));
        let whole = entries.filter(|entry| entry.status == 200);
        whole.map(crate::snapshot::Entry::response).collect()
    }

    /// What has the content `digest` below `prefix` of the keys, under whatever name.
    pub fn with_content(&self, prefix: &str, digest: &Digest) -> Option<StoredResponse> {
        let mut entries = self.all().flat_map(|snapshot| snapshot.under(prefix));
        let found = entries.find(|entry| entry.digest == *digest && entry.status == 200);
        found.map(crate::snapshot::Entry::response)
    }

    fn all(&self) -> impl Iterator<Item = &Snapshot> {
        std::iter::once(&self.snapshot).chain(&self.before)
    }
}

impl Serving {
    /// The snapshot that is served; `None` where the store itself is.
    pub fn now(&self) -> Option<Arc<Served>> {
        self.served.load_full()
    }

    /// Looks which snapshot of the store in `cache` is to be served: number `wanted`, else the active one. Blocks. True where it is another
    /// one now.
    ///
    /// # Errors
    /// [`ServeError`]; the one before is served on then.
    pub fn look(&self, cache: &Path, wanted: Option<u64>) -> Result<bool, ServeError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let library = Library::new(cache);
        let active = library.active();
        let record = match wanted {
            None => active?,
            // One that is named is served whatever is active, and where that cannot be told.
            Some(wanted) => Some(numbered(&library, active.ok().flatten().as_ref(), wanted)?),
        };
        let Some(record) = record else {
            return Ok(self.served.swap(None).is_some());
        };
        if self.now().is_some_and(|served| served.record == record) {
            return Ok(false);
        }
        let load = |record: &Record| library.load(record.root).map_err(LibraryError::from);
        let snapshot = load(&record)?;
        let mut before = Vec::new();
        let older = library.records(Side::Imported, &record.series)?;
        for older in older
            .iter()
            .rev()
            .filter(|older| older.seq < record.seq)
            .take(KEPT)
        {
            // What is damaged there is no reason not to serve what is whole here.
            match load(older) {
                Ok(snapshot) => before.push(snapshot),
                Err(error) => {
                    tracing::warn!(snapshot = name(older), error = %kato_shared::chain::Chain(&error), "an older snapshot cannot be read");
                }
            }
        }
        self.served.store(Some(Arc::new(Served {
            record,
            snapshot,
            before,
        })));
        Ok(true)
    }
}

fn name(record: &Record) -> String {
    format!("{}-{:06}", record.series, record.seq)
}

/// The record of number `wanted` in the series of the active one, else in whichever series has it.
fn numbered(library: &Library, active: Option<&Record>, wanted: u64) -> Result<Record, ServeError> {
    let mut series = library.series(Side::Imported)?;
    series.sort_by_key(|name| active.is_none_or(|active| active.series != *name));
    let mut known = Vec::new();
    for series in &series {
        for record in library.records(Side::Imported, series)? {
            if record.seq == wanted {
                return Ok(record);
            }
            known.push(name(&record));
        }
    }
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Err(ServeError::Unknown { wanted, known })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::snapshot::Entry;

    fn entry(key: &str, content: &str, class: Class) -> Entry {
        Entry {
            key: key.into(),
            vary: std::collections::BTreeMap::new(),
            status: 200,
            headers: Vec::new(),
            digest: Digest::of(content.as_bytes()),
            length: content.len() as u64,
            time: Timestamp::UNIX_EPOCH,
            class,
            group: String::new(),
            upstream: "pkg".into(),
            found_at: None,
        }
    }

    fn import(library: &Library, seq: u64, entries: Vec<Entry>) -> Record {
        let encoded = Snapshot::new(entries).encode().unwrap();
        library.keep(&encoded).unwrap();
        let record = Record {
            series: "prod".into(),
            series_id: "1".into(),
            seq,
            root: Digest::of(&encoded.root_bytes),
            created: Timestamp::UNIX_EPOCH,
        };
        library.note(Side::Imported, &record).unwrap();
        record
    }

    fn content(served: &Served, key: &str) -> Option<Digest> {
        let found = served.lookup(key);
        (!found.heads().is_empty()).then(|| found.content(0).digest)
    }

    /// A torn file is named with what to do about it; what is served stays, and another one can be named.
    #[test]
    fn a_damaged_active_json_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        let serving = Serving::default();
        let first = import(&library, 1, vec![entry("GET http://a/name", "1", Class::Mutable)]);
        library.activate(&first).unwrap();
        assert!(serving.look(folder.path(), None).unwrap());
        let path = library.folder().join("active.json");
        for damage in ["", "{", "[]", "{\"series\":\"prod\"}", "\0\0\0"] {
            kato_shared::durable::write(&path, damage.as_bytes(), 0o644).unwrap();
            let said = serving.look(folder.path(), None).unwrap_err().to_string();
            assert!(
                said.contains("active.json") && said.contains("hint: move it away"),
                "{said}"
            );
            assert_eq!(serving.now().unwrap().record, first, "{damage}");
            assert!(
                Serving::default().look(folder.path(), Some(1)).unwrap(),
                "{damage}"
            );
        }
    }

    #[test]
    fn the_active_snapshot_is_served_another_by_its_number_and_old_content_by_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::new(folder.path());
        let serving = Serving::default();
        assert!(!serving.look(folder.path(), None).unwrap());
        assert!(serving.now().is_none());
        let (name, old, gone) = (
            "GET http://a/name",
            "GET http://a/by-hash/old",
            "GET http://a/gone",
        );
        let mutable = Class::Mutable;
        let first = import(
            &library,
            1,
            vec![
                entry(name, "1", mutable),
                entry(old, "old", Class::Immutable),
                entry(gone, "gone", mutable),
            ],
        );
        let second = import(&library, 2, vec![entry(name, "2", mutable)]);
        library.activate(&second).unwrap();
        assert!(serving.look(folder.path(), None).unwrap());
        assert!(!serving.look(folder.path(), None).unwrap(), "nothing has changed");
        let served = serving.now().unwrap();
        assert_eq!(served.name(), "prod-000002");
        assert_eq!(content(&served, name), Some(Digest::of(b"2")));
        assert_eq!(content(&served, old), Some(Digest::of(b"old")));
        for (base, expected) in [
            ("http://a/", (1, Some("name".to_owned()))),
            ("http://b/", (0, None)),
        ] {
            assert_eq!(served.below(&base.parse().unwrap()), expected, "{base}");
        }
        assert_eq!(content(&served, gone), None);
        // Documents and contents of the ones before are known for names by digest.
        let documents = served.documents(name);
        let generations: Vec<_> = documents.iter().map(|one| one.content.digest).collect();
        assert_eq!(generations, [Digest::of(b"2"), Digest::of(b"1")]);
        let with = |prefix: &str| served.with_content(prefix, &Digest::of(b"gone")).is_some();
        assert_eq!((with("GET http://a/"), with("GET http://b/")), (true, false));
        // A request keeps what it found.
        assert!(serving.look(folder.path(), Some(1)).unwrap());
        assert_eq!(content(&served, name), Some(Digest::of(b"2")));
        let served = serving.now().unwrap();
        assert_eq!(
            (served.name().as_str(), content(&served, gone).is_some()),
            ("prod-000001", true)
        );
        let error = serving.look(folder.path(), Some(9)).unwrap_err();
        assert!(error.to_string().contains("prod-000001, prod-000002"), "{error}");
        assert_eq!(
            serving.now().unwrap().record,
            first,
            "the one before is served on"
        );
    }
}
