//! The files of the log: one writer at a time, a chain across files, and what a killed writer leaves.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::{Digest, durable};
use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};

use super::{
    AuditError, Problem, Report,
    record::{Flaw, Link, Record, SCHEMA},
};

/// The file that is written to.
const CURRENT: &str = "audit.jsonl";
/// What set-aside files are called, before the number of their first record.
const ASIDE: &str = "audit-";
/// The file that remembers the last record.
const HEAD: &str = "head.json";
/// What was cut off the log, until the record that says so is written; then `torn-<its number>.bin`.
const TORN: &str = "torn.part";
/// The file whose lock the writer holds.
const LOCK: &str = "lock";

/// A file of this size is set aside: some ten thousand records, read in a fraction of a second.
const FULL: u64 = 4 * 1024 * 1024;

/// A writer needs milliseconds; one that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The last record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The version of this format; that of the records.
    pub schema: u32,
    /// Its number.
    pub seq: u64,
    /// The digest of its line, without the newline.
    pub sha256: Digest,
}

impl Head {
    /// The record `seq` with the digest `sha256`.
    pub const fn new(seq: u64, sha256: Digest) -> Self {
        Self {
            schema: SCHEMA,
            seq,
            sha256,
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuditError + 'a {
    move |source| AuditError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Appends the record that `make` gives for its place in the chain; gives its number. `has_history`: there must be a log.
pub(super) fn append(
    folder: &Path,
    has_history: bool,
    make: impl FnOnce(Link) -> Record,
) -> Result<u64, AuditError> {
    durable::create_folder(folder)?;
    let _lock = lock(&folder.join(LOCK))?;
    let current = folder.join(CURRENT);
    for path in files(folder)?
        .into_iter()
        .chain([folder.join(HEAD), folder.join(TORN)])
    {
        if is_something_else(&path) {
            return Err(AuditError::NotAFile { path });
        }
    }
    durable::remove_temporary_files(folder)?;
    set_aside(folder, &current)?;
    let torn = cut(folder, &current)?;
    let last = last(folder)?;
    let remembered = remembered(folder);
    if last.is_none() && remembered.is_none() {
        // From the first record on, a log without this note was tampered with.
        durable::write_json(&folder.join(HEAD), &Head::new(0, Digest::of(b"")), 0o644)?;
    }
    let record = make(place(torn, last, remembered, has_history));
    let line = serde_json::to_string(&record)
        .map_err(io::Error::other)
        .map_err(failed("serialising a record for", &current))?;
    durable::append_line(&current, &line)?;
    durable::write_json(
        &folder.join(HEAD),
        &Head::new(record.seq, Digest::of(line.as_bytes())),
        0o644,
    )?;
    if let Some(Flaw::Torn { kept: Some(kept), .. }) = &record.flaw {
        durable::rename(&folder.join(TORN), &folder.join(kept))?;
    }
    Ok(record.seq)
}

/// The end of the log: the digest of its last line, and its number when it is a record.
struct Last {
    sha256: Digest,
    seq: Option<u64>,
}

/// Where the next record goes, given what the log ends with and what it once ended with.
fn place(torn: u64, last: Option<Last>, remembered: Option<Head>, has_history: bool) -> Link {
    let known = remembered.map_or(0, |head| head.seq);
    let seq = last.as_ref().and_then(|last| last.seq).unwrap_or(0).max(known) + 1;
    // A log that is ahead of what is remembered was killed between the two; one that is behind has lost lines.
    let missing = remembered.filter(|head| match &last {
        None => head.seq > 0,
        Some(Last {
            seq: Some(seq),
            sha256,
        }) => *seq < head.seq || (*seq == head.seq && *sha256 != head.sha256),
        Some(Last { seq: None, .. }) => false,
    });
    let flaw = match (missing, &last) {
        (Some(head), _) => Some(Flaw::Lost {
            seq: head.seq,
            sha256: head.sha256,
        }),
        (None, Some(Last { seq: None, .. })) => Some(Flaw::Unreadable),
        (None, Some(_)) if remembered.is_none() => Some(Flaw::NoHead),
        (None, None) if has_history => Some(Flaw::Emptied),
        (None, _) => (torn > 0).then(|| Flaw::Torn {
            bytes: torn,
            kept: Some(format!("torn-{seq:010}.bin")),
        }),
    };
    Link {
        seq,
        previous: last.map(|last| last.sha256),
        flaw,
    }
}

/// Waits for its turn.
fn lock(path: &Path) -> Result<File, AuditError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed("opening", path))?;
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if tokio::time::Instant::now() < end => std::thread::sleep(BETWEEN_TRIES),
            Err(Errno::WOULDBLOCK) => {
                return Err(AuditError::Busy {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed("locking", path)(error.into())),
        }
    }
}

/// Renames a full file to the number of its first record.
fn set_aside(folder: &Path, current: &Path) -> Result<(), AuditError> {
    let length = fs::metadata(current).map_or(0, |metadata| metadata.len());
    if length < FULL {
        return Ok(());
    }
    let bytes = fs::read(current).map_err(failed("reading", current))?;
    let first = bytes
        .split(|byte| *byte == b'\n')
        .find_map(|line| serde_json::from_slice::<Record>(line).ok())
        .map_or(0, |record| record.seq);
    Ok(durable::rename(
        current,
        &folder.join(format!("{ASIDE}{first:010}.jsonl")),
    )?)
}

/// Cuts off what a killed writer or a power cut left behind the last whole line, and keeps it beside until a record says so;
/// gives how many bytes that is.
fn cut(folder: &Path, current: &Path) -> Result<u64, AuditError> {
    let bytes = read(current)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (kept, torn) = (folder.join(TORN), &bytes[whole..]);
    let mut before = read(&kept)?;
    if torn.is_empty() {
        return Ok(before.len() as u64);
    }
    // Killed between keeping and cutting, it is there already; killed once more while it was said, there is more of it.
    if before != torn {
        before.extend_from_slice(torn);
        durable::write(&kept, &before, 0o644)?;
    }
    durable::cut(current, whole as u64)?;
    Ok(before.len() as u64)
}

/// The last line of the newest file that has one.
fn last(folder: &Path) -> Result<Option<Last>, AuditError> {
    for path in files(folder)?
        .iter()
        .rev()
        .filter(|path| !is_something_else(path))
    {
        let bytes = read(path)?;
        let lines = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if let Some(line) = lines
            .rsplit(|byte| *byte == b'\n')
            .next()
            .filter(|line| !line.is_empty())
        {
            return Ok(Some(Last {
                sha256: Digest::of(line),
                seq: serde_json::from_slice::<Record>(line)
                    .ok()
                    .map(|record| record.seq),
            }));
        }
    }
    Ok(None)
}

/// See [`super::AuditLog::check`].
pub(super) fn check(folder: &Path, has_history: bool) -> Result<Report, AuditError> {
    let mut report = Report::default();
    for path in files(folder)? {
        // A device has no end to read to.
        if is_something_else(&path) {
            report.find(&path, 0, Problem::NotAFile);
        } else {
            report.read(&path, &read(&path)?);
        }
    }
    match remembered(folder) {
        Some(head) => report.expect(&folder.join(CURRENT), head),
        None if report.head.is_some() => report.find(&folder.join(HEAD), 0, Problem::NoHead),
        None if has_history && report.findings.is_empty() => report.find(folder, 0, Problem::Emptied),
        None => {}
    }
    Ok(report)
}

/// Whether there is something at `path` that is no file, or leads to one that is none.
fn is_something_else(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => !metadata.is_file(),
        // A link to nowhere would be written through, to wherever it leads.
        Err(_absent) => path.symlink_metadata().is_ok(),
    }
}

/// See [`super::AuditLog::head`].
pub(super) fn head(folder: &Path) -> Result<Option<Head>, AuditError> {
    Ok(last(folder)?.and_then(|last| Some(Head::new(last.seq?, last.sha256))))
}

/// What the log ended with when it was last written to. A damaged note is none: the log itself counts.
fn remembered(folder: &Path) -> Option<Head> {
    if is_something_else(&folder.join(HEAD)) {
        return None;
    }
    serde_json::from_slice(&fs::read(folder.join(HEAD)).ok()?).ok()
}

/// The files of the log, oldest first.
fn files(folder: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("reading", folder)(error)),
    };
    let mut aside: Vec<PathBuf> = listing
        .flatten()
        .filter(|item| {
            let name = item.file_name();
            let name = name.to_string_lossy();
            name.starts_with(ASIDE) && name.ends_with(".jsonl")
        })
        .map(|item| item.path())
        .collect();
    aside.sort();
    aside.push(folder.join(CURRENT));
    Ok(aside)
}

fn read(path: &Path) -> Result<Vec<u8>, AuditError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("reading", path)(error)),
    }
}
