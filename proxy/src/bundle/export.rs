//! Writing a bundle.
//!
//! Flow: the snapshot of the store goes into the library; what of it the site lacks is planned ([`super::plan`]); an intent is
//! journalled (`EXPORT.json`, in the unfinished folder), so that a run after a kill goes on with the same number, moment and root;
//! payloads are written from the store by reflink or link where the file system can, else copied, and each is hashed on the
//! way; tables and signature come last, then the folder gets its name, then the ledger knows it.
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
    header::{Base, Bytes, Counts, FORMAT, Header, Kind, Member, Proof, Role, Table, Volume, write_table},
    oci,
    plan::Plan,
    readme::readme,
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

/// What an export was about to write: the same again goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Journal {
    record: Record,
    kind: Kind,
    base: Vec<Base>,
    limit: Option<u64>,
    /// Volumes that are whole.
    #[serde(default)]
    done: Vec<Volume>,
}

/// The record of an interrupted export of the same snapshot under the same number, so that both make the same bundle.
pub fn begun(out: &Path, record: &Record) -> Option<Record> {
    let path = unfinished(out, record).join(JOURNAL);
    let journal: Journal = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let other = journal.record;
    (other.root == record.root && other.seq == record.seq).then_some(other)
}

fn unfinished(out: &Path, record: &Record) -> PathBuf {
    out.join(format!(
        "{}.partial",
        super::header::name(&record.series, record.seq)
    ))
}

impl Export<'_> {
    /// Writes the bundle and returns its folder.
    ///
    /// # Errors
    /// [`BundleError`]; what is written by then is used by the next run.
    pub fn run(&self) -> Result<PathBuf, BundleError> {
        let record = &self.plan.record;
        let name = super::header::name(&record.series, record.seq);
        let done = self.out.join(&name);
        if done.exists() {
            // A run was killed between the name and the ledger.
            let known = self.finished(&done, &name)?;
            self.library.note(Side::Exported, &known)?;
            return Ok(done);
        }
        self.check_room()?;
        let folder = unfinished(self.out, record);
        let mut journal = self.begin(&folder)?;
        let head = match self.plan.limit {
            Some(_) => folder.join(format!("{name}.head")),
            None => folder.clone(),
        };
        durable::create_folder(&head.join("blobs").join("sha256"))?;
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
        durable::rename(&folder, &done)?;
        self.library.note(Side::Exported, record)?;
        Ok(done)
    }

    /// The record of the bundle that lies in `done` already, if it is the one that is to be written.
    fn finished(&self, done: &Path, name: &str) -> Result<Record, BundleError> {
        let heads = [
            done.join("BUNDLE.json"),
            done.join(format!("{name}.head")).join("BUNDLE.json"),
        ];
        let header = heads
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .find_map(|bytes| Header::read(&bytes).ok());
        let plan = self.plan;
        match header {
            Some(header)
                if header.root == plan.record.root
                    && header.kind == plan.kind
                    && header.base == plan.base =>
            {
                Ok(Record {
                    series_id: header.series_id,
                    created: header.created,
                    ..plan.record.clone()
                })
            }
            Some(_) | None => Err(BundleError::Occupied(done.to_owned())),
        }
    }

    fn check_room(&self) -> Result<(), BundleError> {
        fs::create_dir_all(self.out).map_err(BundleError::file("creating the folder", self.out))?;
        let stat = rustix::fs::statvfs(self.out)
            .map_err(io::Error::from)
            .map_err(BundleError::file("asking for the space of", self.out))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let written = folder_size(&unfinished(self.out, &self.plan.record));
        // Where links are possible, much less is needed; that a medium is full half-way is worse than a refusal.
        let is_same = self.plan.limit.is_none() && is_same_file_system(self.out, self.store.dir());
        let needed = if is_same {
            self.plan.documents_size()
        } else {
            self.plan.size()
        };
        if needed > free.saturating_add(written) {
            return Err(BundleError::NoRoom {
                path: self.out.to_owned(),
                needed,
                free,
            });
        }
        Ok(())
    }

    /// The journal of the run before, or a new one.
    fn begin(&self, folder: &Path) -> Result<Journal, BundleError> {
        let fresh = Journal {
            record: self.plan.record.clone(),
            kind: self.plan.kind,
            base: self.plan.base.clone(),
            limit: self.plan.limit.map(super::pack::Limit::bytes),
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
                let member = Member {
                    path: piece.name.path(),
                    size: piece.size,
                    sha256,
                    volume: n,
                    role: Role::Payload,
                };
                table.insert(piece.name, member);
            }
        }
        Ok(())
    }

    /// The tables, the header, and the signature.
    fn seal(&self, head: &Path, volumes: &[Volume], mut table: Table) -> Result<(), BundleError> {
        let mut volumes = volumes.to_vec();
        volumes.sort_by_key(|volume| volume.n);
        let layout = oci::layout(&self.plan.snapshot, &table);
        for (digest, bytes) in &layout.blobs {
            let name = Name::Blob(*digest);
            write_small(&head.join(name.path()), bytes)?;
            table.entry(name).or_insert_with(|| Member {
                path: name.path(),
                size: bytes.len() as u64,
                sha256: *digest,
                volume: 0,
                role: Role::Oci,
            });
        }
        let members = write_table(&table)
            .map_err(io::Error::other)
            .map_err(BundleError::file("writing", head))?;
        let mut header = self.header(volumes);
        header.members = Digest::of(&members);
        header.index_json = Digest::of(&layout.index);
        let readme = readme(&header);
        let documents: [(&str, &[u8]); 4] = [
            ("MEMBERS.jsonl", &members),
            ("README.txt", readme.as_bytes()),
            ("index.json", &layout.index),
            ("oci-layout", oci::LAYOUT),
        ];
        let sums = sums(&documents, &table);
        header.sums = Digest::of(sums.as_bytes());
        for (name, bytes) in documents {
            durable::write(&head.join(name), bytes, 0o644)?;
        }
        durable::write(&head.join("SHA256SUMS"), sums.as_bytes(), 0o644)?;
        let mut text = serde_json::to_vec_pretty(&header)
            .map_err(io::Error::other)
            .map_err(BundleError::file("writing", head))?;
        text.push(b'\n');
        let comment = format!("series:{} seq:{} root:{}", header.series, header.seq, header.root);
        let signature = self.signer.sign(&text, &comment)?;
        durable::write(&head.join("BUNDLE.json"), &text, 0o644)?;
        durable::write(&head.join("BUNDLE.json.minisig"), signature.as_bytes(), 0o644)?;
        Ok(())
    }

    fn header(&self, volumes: Vec<Volume>) -> Header {
        let plan = self.plan;
        let contents = plan.snapshot.contents();
        let here: u64 = plan.blobs.iter().map(|blob| blob.size).sum();
        let largest_part = plan
            .volumes
            .iter()
            .flatten()
            .filter(|piece| matches!(piece.name, Name::Part(..)));
        Header {
            format: FORMAT.to_owned(),
            series: plan.record.series.clone(),
            series_id: plan.record.series_id.clone(),
            seq: plan.record.seq,
            created: plan.record.created,
            root: plan.record.root,
            kind: plan.kind,
            base: plan.base.clone(),
            sums: Digest::of(b""),
            members: Digest::of(b""),
            index_json: Digest::of(b""),
            volumes,
            counts: Counts {
                entries: plan.snapshot.entries().len() as u64,
                blobs_root: contents.len() as u64,
                blobs_here: plan.blobs.len() as u64,
            },
            bytes: Bytes {
                root: contents.values().sum(),
                here,
            },
            need_free: here + largest_part.map(|piece| piece.size).max().unwrap_or_default(),
            closure: self.closure.clone(),
            rehearsal: self.rehearsal.clone(),
            left_out: plan.left_out.clone(),
            horizon: plan.horizon.clone(),
        }
    }
}

/// `SHA256SUMS`: every file but `BUNDLE.json` and its signature, once all volumes are unpacked and parts joined.
fn sums(documents: &[(&str, &[u8])], table: &Table) -> String {
    let mut lines: Vec<String> = documents
        .iter()
        .map(|(name, bytes)| format!("{}  {name}\n", Digest::of(bytes).hex()))
        .collect();
    let mut blobs: Vec<Digest> = table.keys().map(Name::digest).collect();
    blobs.dedup();
    blobs.sort();
    blobs.dedup();
    lines.extend(
        blobs
            .iter()
            .map(|digest| format!("{}  blobs/sha256/{}\n", digest.hex(), digest.hex())),
    );
    lines.concat()
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
