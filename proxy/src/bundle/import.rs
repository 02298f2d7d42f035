//! Taking a bundle in.
//!
//! Flow: the ledger judges (`ledger`), room is asked for, root and chunks go into the library, payloads that are not here yet into
//! the store (`stage`), each verified first; then every snapshot that is closed by now, that is all of whose content is here, is
//! activated, newest last. What is missing is named, with a request file for it.
//!
//! A run that was killed is run again: what is here already is not read again. Bundles may come in any order.
//!
//! Invariants: a snapshot is active only when it was closed; the one before stays active until then; nothing on the medium is
//! changed; content of the last snapshots stays.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
};

use jiff::Timestamp;
use kato_shared::{Digest, durable::place};
use serde::Serialize;
use tokio::runtime::Handle;

use super::{
    BundleError,
    finding::{Finding, finding, name_urls},
    header::Role,
    ledger,
    medium::{Bundle, open_regular},
    stage::{Staging, carried},
    tar::Name,
};
use crate::{
    snapshot::{Library, Record, Side, Snapshot, SnapshotError, Wanted, WantedUrl},
    store::{ContentRef, Store, carried_key},
};

/// What is to be taken in, and where.
#[derive(Debug)]
pub struct Import<'i> {
    /// The store.
    pub store: &'i Store,
    /// Its library.
    pub library: &'i Library,
    /// The runtime that the store works on; this thread must not be one of its workers.
    pub handle: &'i Handle,
    /// The bundle.
    pub bundle: &'i Bundle,
    /// Further folders in which volumes may lie.
    pub others: &'i [PathBuf],
    /// How many snapshots of the series are kept.
    pub keep: usize,
    /// Whether an older one than the active one may come in.
    pub allow_rollback: bool,
    /// The time.
    pub now: Timestamp,
}

/// What an import did.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// What is wrong with the bundle.
    pub findings: Vec<Finding>,
    /// Bytes that were stored; what was here before is not counted.
    pub stored: u64,
    /// The snapshot that is active now.
    pub active: Option<Record>,
    /// What is asked for, when this bundle's snapshot could not be closed.
    pub wanted: Option<Wanted>,
}

impl Import<'_> {
    /// Takes the bundle in.
    ///
    /// # Errors
    /// [`BundleError`]; what was stored by then is used by the next run.
    pub fn run(&self) -> Result<Imported, BundleError> {
        let record = self.bundle.header.record();
        let active = self.library.active()?;
        let mut known = self.library.records(Side::Imported, &record.series)?;
        known.extend(self.library.records(Side::Pending, &record.series)?);
        ledger::judge(&self.bundle.header, active.as_ref(), &known, self.allow_rollback)?;
        let missing = self.missing_payloads()?;
        self.check_room(&missing)?;
        self.handle.block_on(self.store.hold_carried())?;
        let mut findings = self.documents()?;
        self.check_documents(&record)?;
        if active.as_ref() != Some(&record) {
            self.library.note(Side::Pending, &record)?;
        }
        place::visit("bundle.pending");
        let parties = (self.store, self.library, self.handle);
        let mut staging = Staging::new(parties, &self.bundle.table, &missing, self.now);
        staging.resume()?;
        findings.extend(self.bundle.walk(self.others, &mut staging)?);
        self.store.flush();
        let stored = staging.stored;
        place::visit("bundle.stored");
        self.close(&record)?;
        let wanted = self.wanted(&record)?;
        self.name_urls(&mut findings, &record);
        Ok(Imported {
            findings,
            stored,
            active: self.library.active()?,
            wanted,
        })
    }

    /// The payloads of the bundle that are not here.
    fn missing_payloads(&self) -> Result<Vec<ContentRef>, BundleError> {
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        for (name, member) in &self.bundle.table {
            if member.role == Role::Payload {
                let size = sizes.entry(name.digest()).or_default();
                *size = size.saturating_add(member.size);
            }
        }
        Ok(self.handle.block_on(self.store.missing(contents(sizes)))?)
    }

    fn check_room(&self, missing: &[ContentRef]) -> Result<(), BundleError> {
        let needed = missing
            .iter()
            .fold(0_u64, |sum, content| sum.saturating_add(content.length));
        let free = self.store.room()?;
        if needed > free {
            return Err(BundleError::NoRoom {
                path: self.store.dir().to_owned(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// Keeps root and chunks.
    fn documents(&self) -> Result<Vec<Finding>, BundleError> {
        let mut findings = Vec::new();
        for (name, member) in &self.bundle.table {
            let Name::Blob(digest) = name else { continue };
            if member.role != Role::Snapshot || self.library.get(digest).is_some() {
                continue;
            }
            if let Some(bytes) = self.bundle.small(digest) {
                self.library.put(&bytes)?;
                continue;
            }
            let problem = open_regular(&self.bundle.head.join(&member.path), Some(member.size))
                .err()
                .unwrap_or_else(|| "this part of the snapshot is damaged".to_owned().into());
            findings.push(finding(&member.path, None, problem));
        }
        Ok(findings)
    }

    /// What is here of the snapshot can be read: one that explodes or contradicts itself never waits for the rest.
    fn check_documents(&self, record: &Record) -> Result<(), BundleError> {
        let root = match self.library.root(record.root) {
            Ok(root) => root,
            Err(SnapshotError::Missing { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for chunk in &root.chunks {
            if let Some(bytes) = self.library.get(&chunk.digest) {
                chunk.decode(&bytes)?;
            }
        }
        Ok(())
    }

    /// Activates what is closed by now: this one, or a later one that waited for it.
    fn close(&self, record: &Record) -> Result<(), BundleError> {
        let mut waiting = self.library.records(Side::Pending, &record.series)?;
        // What stays behind what is active now is not activated by the way.
        waiting.retain(|waiting| waiting.seq >= record.seq);
        let mut closed = None;
        for waiting in waiting {
            if let Ok(snapshot) = self.library.load(waiting.root)
                && self.missing_of(&snapshot)?.is_empty()
            {
                closed = Some((waiting, snapshot));
            }
        }
        if let Some((record, snapshot)) = closed {
            self.activate(&record, &snapshot)?;
        }
        Ok(())
    }

    fn missing_of(&self, snapshot: &Snapshot) -> Result<Vec<ContentRef>, BundleError> {
        let all = contents(snapshot.contents());
        Ok(self.handle.block_on(self.store.missing(all))?)
    }

    fn activate(&self, record: &Record, snapshot: &Snapshot) -> Result<(), BundleError> {
        // A name for all content first, so that what was here by other names stays, too.
        let names = contents(snapshot.contents())
            .into_iter()
            .map(|content| (carried_key(&content.digest), carried(content, self.now)));
        self.handle.block_on(self.store.put_heads(names.collect()))?;
        let heads = snapshot
            .entries()
            .iter()
            .map(|entry| (entry.key.clone(), entry.response()));
        self.handle.block_on(self.store.put_heads(heads.collect()))?;
        place::visit("bundle.heads");
        self.library.note(Side::Imported, record)?;
        self.library.activate(record)?;
        for passed in self.library.records(Side::Pending, &record.series)? {
            if passed.seq <= record.seq {
                self.library.forget(Side::Pending, &record.series, passed.seq)?;
            }
        }
        self.retire(record)
    }

    /// Forgets all but the last snapshots of the series, and content that only they had.
    fn retire(&self, active: &Record) -> Result<(), BundleError> {
        let records = self.library.records(Side::Imported, &active.series)?;
        let others: Vec<&Record> = records.iter().filter(|record| record.seq != active.seq).collect();
        let gone = others.len().saturating_sub(self.keep.max(1) - 1);
        let mut dropped = HashSet::new();
        for record in &others[..gone] {
            if let Ok(snapshot) = self.library.load(record.root) {
                dropped.extend(snapshot.contents().into_keys());
            }
            self.library.forget(Side::Imported, &record.series, record.seq)?;
        }
        if dropped.is_empty() {
            return Ok(());
        }
        for side in [Side::Imported, Side::Pending] {
            for series in self.library.series(side)? {
                for record in self.library.records(side, &series)? {
                    match self.library.load(record.root) {
                        Ok(snapshot) => snapshot.contents().keys().for_each(|digest| {
                            dropped.remove(digest);
                        }),
                        // What a snapshot with holes names is not known: nothing goes before it is.
                        Err(_has_holes) => return Ok(()),
                    }
                }
            }
        }
        let keys = dropped.iter().map(carried_key).collect();
        self.handle.block_on(self.store.remove(keys))?;
        self.library.sweep()?;
        Ok(())
    }

    /// What is missing of the snapshot of `record`; none when it is closed.
    fn wanted(&self, record: &Record) -> Result<Option<Wanted>, BundleError> {
        let pending = self.library.records(Side::Pending, &record.series)?;
        if !pending.iter().any(|pending| pending.seq == record.seq) {
            return Ok(None);
        }
        let mut wanted = Wanted::new(self.now);
        wanted.have = self.library.active()?;
        wanted.pending = Some(record.clone());
        let root = match self.library.root(record.root) {
            Ok(root) => root,
            Err(_missing) => {
                wanted.digests.push(record.root);
                return Ok(Some(wanted));
            }
        };
        let mut missing = BTreeSet::new();
        let mut urls = BTreeMap::new();
        for chunk in &root.chunks {
            let entries = self.library.get(&chunk.digest).map(|bytes| chunk.decode(&bytes));
            match entries {
                Some(entries) => {
                    for entry in entries? {
                        urls.entry(entry.digest).or_insert(entry);
                    }
                }
                None => wanted.digests.push(chunk.digest),
            }
        }
        let all = urls.values().map(|entry| (entry.digest, entry.length)).collect();
        for content in self.handle.block_on(self.store.missing(contents(all)))? {
            missing.insert(content.digest);
        }
        for digest in missing {
            wanted.digests.push(digest);
            wanted.urls.extend(urls.get(&digest).map(|entry| WantedUrl {
                url: entry.url().to_owned(),
                accept: entry.vary.get("accept").cloned().flatten(),
                digest: Some(digest),
                count: 0,
            }));
        }
        Ok(Some(wanted))
    }

    fn name_urls(&self, findings: &mut [Finding], record: &Record) {
        if let Ok(snapshot) = self.library.load(record.root) {
            name_urls(findings, self.bundle, &snapshot);
        }
    }
}

fn contents(sizes: BTreeMap<Digest, u64>) -> Vec<ContentRef> {
    sizes
        .into_iter()
        .map(|(digest, length)| ContentRef { digest, length })
        .collect()
}

/// The snapshot of a bundle, as far as its documents lie beside `BUNDLE.json` or in `library`.
///
/// # Errors
/// [`SnapshotError`] with what is missing.
pub fn snapshot_of(bundle: &Bundle, library: Option<&Library>) -> Result<Snapshot, SnapshotError> {
    Snapshot::decode(bundle.header.root, |digest| {
        bundle
            .small(digest)
            .or_else(|| library.and_then(|library| library.get(digest)))
    })
}
