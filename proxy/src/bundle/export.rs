//! Writing a bundle.
//!
//! Flow: the snapshot of the store goes into the library; what of it the site lacks is planned ([`super::plan`]); an intent is
//! journalled (`EXPORT.json`, in the unfinished folder), so that a run after a kill goes on with the same number, moment and root;
//! payloads are written from the store by reflink or link where the file system can, else copied, and each is hashed on the
//! way; tables and signature come last ([`super::seal`]), then the folder gets its name, then the ledger knows it. Where the last bundle of
//! the series is the very one that would be written, it is the result ([`super::again`]).
//!
//! Invariants: a folder with the bundle's name is whole; no blob is in it that was not hashed by this run or by one before
//! that was killed; the store is not changed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use kato_shared::{
    Digest,
    durable::{self, place},
};
use serde::{Deserialize, Serialize};

use super::{
    BundleError,
    header::{Base, Kind, Proof, Table, Volume, write_table},
    plan::Plan,
    seal::{Sealed, insert},
    sign::Signer,
    tar::Name,
    write::{Payloads, part_digests, remove},
};
use crate::{
    snapshot::{Library, Record, Side},
    store::Store,
};

/// The journal of an export, in its unfinished folder.
const JOURNAL: &str = "EXPORT.json";

/// What is to be written, and where.
#[derive(Debug)]
pub struct Export<'e> {
    /// The store.
    pub store: &'e Store,
    /// Its library.
    pub library: &'e Library,
    /// The folder in which the bundle's folder is made.
    pub out: &'e Path,
    /// What is carried.
    pub plan: &'e Plan,
    /// Who signs.
    pub signer: &'e Signer,
    /// Whether completeness was shown.
    pub closure: Proof,
    /// Whether a rehearsal was held.
    pub rehearsal: Proof,
}

/// A bundle that lies in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The folder.
    pub folder: PathBuf,
    /// Its place in its series.
    pub record: Record,
    /// Who wrote it.
    pub written: Written,
}

/// Which run has written a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Written {
    /// This one.
    Now,
    /// An earlier one: all that is signed is the same, but for the moment.
    Before,
}

/// What an export was about to write: the same again goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) record: Record,
    kind: Kind,
    base: Vec<Base>,
    limit: Option<u64>,
    /// The digest of what is carried, and where.
    carried: Digest,
    /// Volumes that are whole.
    #[serde(default)]
    done: Vec<Volume>,
}

/// The journal of the export of `record` into `out`, if one was interrupted.
pub(super) fn journal(out: &Path, record: &Record) -> Option<Journal> {
    let path = unfinished(out, record).join(JOURNAL);
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn unfinished(out: &Path, record: &Record) -> PathBuf {
    out.join(format!(
        "{}.partial",
        super::header::name(&record.series, record.seq)
    ))
}

impl Export<'_> {
    /// Writes the bundle, if the last one of the series is not the same.
    ///
    /// # Errors
    /// [`BundleError`]; what is written by then is used by the next run.
    pub fn run(&self) -> Result<Exported, BundleError> {
        if let Some(same) = self.same()? {
            return Ok(same);
        }
        let record = &self.plan.record;
        let name = super::header::name(&record.series, record.seq);
        let done = self.out.join(&name);
        if done.exists() {
            return Err(BundleError::Occupied(done));
        }
        self.check_room()?;
        let left = || {
            self.needed()
                .saturating_sub(folder_size(&unfinished(self.out, record)))
        };
        self.write(&name, &done)
            .map_err(BundleError::filled(self.out, left))
    }

    /// Writes the bundle `name`, which then is the folder `done`.
    fn write(&self, name: &str, done: &Path) -> Result<Exported, BundleError> {
        let record = &self.plan.record;
        let folder = unfinished(self.out, record);
        let mut journal = self.begin(&folder)?;
        let head = match self.plan.limit {
            Some(_) => folder.join(format!("{name}.head")),
            None => folder.clone(),
        };
        let blobs = head.join("blobs").join("sha256");
        durable::create_folder(&blobs)?;
        // What a killed run was about to rename.
        for place in [&folder, &head, &blobs] {
            durable::remove_temporary_files(place)?;
        }
        let mut table = self.plan.table();
        for (digest, bytes) in &self.plan.documents {
            write_small(&head.join(Name::Blob(*digest).path()), bytes)?;
            place::visit("bundle.document");
        }
        let payloads = Payloads {
            store: self.store,
            plan: self.plan,
        };
        if self.plan.limit.is_some() {
            self.volumes(&payloads, &folder, &mut journal, &mut table)?;
        } else {
            payloads.files(&head)?;
        }
        self.seal(&head, &journal.done, table)?;
        sync_file_system(&folder)?;
        // The journal is no part of a bundle.
        durable::remove(&folder.join(JOURNAL))?;
        durable::rename(&folder, done)?;
        self.library.note(Side::Exported, record)?;
        Ok(Exported {
            folder: done.to_owned(),
            record: record.clone(),
            written: Written::Now,
        })
    }

    fn check_room(&self) -> Result<(), BundleError> {
        fs::create_dir_all(self.out).map_err(BundleError::file("creating the folder", self.out))?;
        let stat = rustix::fs::statvfs(self.out)
            .map_err(io::Error::from)
            .map_err(BundleError::file("asking for the space of", self.out))?;
        if super::error::has_no_files(&stat) {
            return Err(BundleError::NoFiles(self.out.to_owned()));
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let written = folder_size(&unfinished(self.out, &self.plan.record));
        let needed = self.needed();
        if needed > free.saturating_add(written) {
            return Err(BundleError::NoRoom {
                path: self.out.to_owned(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// Bytes that are written into the folder.
    fn needed(&self) -> u64 {
        // Where links are possible, much less is needed; that a medium is full half-way is worse than a refusal.
        let is_same = self.plan.limit.is_none() && is_same_file_system(self.out, self.store.dir());
        if is_same {
            self.plan.documents_size()
        } else {
            self.plan.size()
        }
    }

    /// The journal of the run before, or a new one.
    fn begin(&self, folder: &Path) -> Result<Journal, BundleError> {
        let fresh = Journal {
            record: self.plan.record.clone(),
            kind: self.plan.kind,
            base: self.plan.base.clone(),
            limit: self.plan.limit.map(super::pack::Limit::bytes),
            carried: self.carried(folder)?,
            done: Vec::new(),
        };
        let path = folder.join(JOURNAL);
        let known: Option<Journal> = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(known) = known {
            let as_before = Journal {
                done: Vec::new(),
                ..known.clone()
            };
            if as_before == fresh {
                return Ok(known);
            }
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(BundleError::file("removing", folder))?;
        }
        durable::create_folder(folder)?;
        durable::write_json(&path, &fresh, 0o644)?;
        Ok(fresh)
    }

    /// The digest of all names and sizes, by volume: two plans with one root may carry different things.
    fn carried(&self, folder: &Path) -> Result<Digest, BundleError> {
        let mut table = self.plan.table();
        for (pieces, n) in self.plan.volumes.iter().zip(1_u32..) {
            for piece in pieces {
                insert(&mut table, piece, n, piece.name.digest());
            }
        }
        let text = write_table(&table)
            .map_err(io::Error::other)
            .map_err(BundleError::file("writing", folder))?;
        Ok(Digest::of(&text))
    }

    /// The payloads in volumes.
    fn volumes(
        &self,
        payloads: &Payloads<'_>,
        folder: &Path,
        journal: &mut Journal,
        table: &mut Table,
    ) -> Result<(), BundleError> {
        let name = super::header::name(&self.plan.record.series, self.plan.record.seq);
        let count = self.plan.volumes.len();
        for (pieces, n) in self.plan.volumes.iter().zip(1_u32..) {
            let file = format!("{name}.v{n:03}-of-{count:03}.tar");
            let path = folder.join(&file);
            let digests = if let Some(done) = journal.done.iter().find(|volume| volume.n == n) {
                // Parts have digests of their own, which are read back from what was written.
                debug_assert_eq!(done.file, file);
                part_digests(&path)?
            } else {
                remove(&path)?;
                let (volume, digests) = payloads.volume(&path, file, n)?;
                journal.done.push(volume);
                durable::write_json(&folder.join(JOURNAL), journal, 0o644)?;
                digests
            };
            for piece in pieces {
                let sha256 = digests.get(&piece.name).copied().unwrap_or(piece.name.digest());
                insert(table, piece, n, sha256);
            }
        }
        Ok(())
    }

    /// The tables, the header, and the signature.
    fn seal(&self, head: &Path, volumes: &[Volume], table: Table) -> Result<(), BundleError> {
        let mut volumes = volumes.to_vec();
        volumes.sort_by_key(|volume| volume.n);
        let sealed = self
            .sealed(&self.plan.record, volumes, table)
            .map_err(BundleError::file("writing", head))?;
        for (digest, bytes) in &sealed.blobs {
            write_small(&head.join(Name::Blob(*digest).path()), bytes)?;
        }
        for (name, bytes) in &sealed.documents {
            durable::write(&head.join(name), bytes, 0o644)?;
        }
        let text = sealed.text().map_err(BundleError::file("writing", head))?;
        let header = &sealed.header;
        let comment = format!("series:{} seq:{} root:{}", header.series, header.seq, header.root);
        let signature = self.signer.sign(&text, &comment)?;
        durable::write(&head.join("BUNDLE.json"), &text, 0o644)?;
        durable::write(&head.join("BUNDLE.json.minisig"), signature.as_bytes(), 0o644)?;
        Ok(())
    }

    /// What is signed when `record`, with `volumes` and the payloads in `table`, is sealed.
    pub(super) fn sealed(&self, record: &Record, volumes: Vec<Volume>, table: Table) -> io::Result<Sealed> {
        Sealed::new(
            (self.plan, record),
            (&self.closure, &self.rehearsal),
            volumes,
            table,
        )
    }
}

/// Writes a document that may be there already.
fn write_small(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    if fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    Ok(durable::write(path, bytes, 0o644)?)
}

/// Flushes everything that was written to the medium, payloads among it, before the folder gets its name.
fn sync_file_system(folder: &Path) -> Result<(), BundleError> {
    File::open(folder)
        .and_then(|folder| Ok(rustix::fs::syncfs(&folder)?))
        .map_err(BundleError::file("flushing the file system of", folder))
}

fn is_same_file_system(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(one).is_some_and(|found| device(other) == Some(found))
}

/// The bytes of the files in a folder, which may be missing.
fn folder_size(folder: &Path) -> u64 {
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    listing
        .map(|item| match item.metadata() {
            Ok(found) if found.is_dir() => folder_size(&item.path()),
            Ok(found) => found.len(),
            Err(_gone) => 0,
        })
        .sum()
}
