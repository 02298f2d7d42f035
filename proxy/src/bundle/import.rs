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
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::{
    BundleError,
    finding::{Finding, finding, name_urls},
    header::Role,
    host::Host,
    ledger::{self, Allowed, Here},
    medium::{Bundle, open_regular},
    stage::{Staging, carried},
    tar::Name,
};
use crate::{
    snapshot::{Library, Record, Side, Snapshot, SnapshotError, Wanted, WantedUrl},
    store::{CARRIED, ContentRef, Store, StoredResponse, carried_key},
};

/// Names of content that are read at a time.
const PAGE: usize = 2048;

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
    /// What may come in that would be refused.
    pub allowed: Allowed,
    /// The time.
    pub now: Timestamp,
    /// Who works with the store meanwhile.
    pub host: &'i dyn Host,
}

/// What an import did.
#[derive(Debug, Serialize, Deserialize)]
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
        let left = || {
            let missing = self.missing_payloads().unwrap_or_default();
            self.needed(&missing)
        };
        self.take().map_err(BundleError::filled(self.store.dir(), left))
    }

    fn take(&self) -> Result<Imported, BundleError> {
        let record = self.bundle.header.record();
        let active = self.library.active()?;
        let here = Here {
            active: active.as_ref(),
            whole: &self.library.records(Side::Imported, &record.series)?,
            pending: &self.library.records(Side::Pending, &record.series)?,
        };
        ledger::judge(&self.bundle.header, here, self.allowed)?;
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
        let mut staging = Staging::new(parties, &self.bundle.table, &missing, (self.now, self.host));
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

    /// Bytes that `missing` takes, with what is needed for a while beside it.
    fn needed(&self, missing: &[ContentRef]) -> u64 {
        let content = missing
            .iter()
            .fold(0_u64, |sum, content| sum.saturating_add(content.length));
        // What the exporter knows to be needed beside the content, of a bundle that has something for us.
        let header = &self.bundle.header;
        let beside = header.need_free.saturating_sub(header.bytes.here);
        if content == 0 {
            0
        } else {
            content.saturating_add(beside)
        }
    }

    fn check_room(&self, missing: &[ContentRef]) -> Result<(), BundleError> {
        let needed = self.needed(missing);
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
        // Asked before the switch: whoever is being answered from the one before needs its content a while longer.
        let served = self.host.serves();
        self.library.activate(record)?;
        self.host.activated();
        let mut has_forgotten = false;
        for passed in self.library.records(Side::Pending, &record.series)? {
            if passed.seq <= record.seq {
                self.library.forget(Side::Pending, &record.series, passed.seq)?;
                has_forgotten |= passed.seq < record.seq;
            }
        }
        let records = self.library.records(Side::Imported, &record.series)?;
        let others: Vec<&Record> = records.iter().filter(|known| known.seq != record.seq).collect();
        let gone = others.len().saturating_sub(self.keep.max(1) - 1);
        for old in &others[..gone] {
            if served.as_ref() != Some(*old) {
                self.library.forget(Side::Imported, &old.series, old.seq)?;
                has_forgotten = true;
            }
        }
        if has_forgotten {
            self.sweep()?;
        }
        Ok(())
    }

    /// Removes the names of content that no snapshot here names any more, and with them the content that has no other.
    fn sweep(&self) -> Result<(), BundleError> {
        let mut named = HashSet::new();
        for side in [Side::Imported, Side::Pending] {
            for series in self.library.series(side)? {
                for record in self.library.records(side, &series)? {
                    match self.library.load(record.root) {
                        Ok(snapshot) => named.extend(snapshot.contents().into_keys()),
                        // What a snapshot with holes names is not known: nothing goes before it is.
                        Err(_has_holes) => return Ok(()),
                    }
                }
            }
        }
        let mut after = String::new();
        loop {
            let listing = self.store.list(CARRIED.to_owned(), after.clone(), PAGE);
            let page = self.handle.block_on(listing)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            let is_unnamed = |response: &StoredResponse| !named.contains(&response.content.digest);
            let keys = page.into_iter().filter(|(_, found)| found.iter().all(is_unnamed));
            let keys: Vec<String> = keys.map(|(key, _)| key).collect();
            if !keys.is_empty() {
                self.handle.block_on(self.store.remove(keys))?;
            }
        }
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
