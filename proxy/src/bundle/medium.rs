//! Reading a bundle: first its signature, then what was signed, then every byte against it.
//!
//! Flow: [`Bundle::open`] finds `BUNDLE.json`, verifies its signature, and reads the tables whose digests it holds; nothing else is
//! parsed before that. [`Bundle::walk`] goes over the members, wherever they lie, and shows each that is wanted to a [`Sink`], in
//! pieces; whether it was the right one is known at its end. What is wrong with a member is a [`Finding`], and the
//! next member is read all the same.
//!
//! Invariants: sizes come from the table, never from a header; only regular files are opened; nothing on the medium is changed.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    BundleError,
    copies::Copies,
    finding::{Finding, Problem, finding},
    header::{self, Header, LARGEST_HEADER, LARGEST_TABLE, Member, Table, Volume},
    sign::{Signed, Trust},
    tar::Name,
};
use kato_shared::{Digest, digest::Hasher};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// A bundle whose tables are what was signed.
#[derive(Debug)]
pub struct Bundle {
    /// The folder of `BUNDLE.json`.
    pub head: PathBuf,
    /// `BUNDLE.json`.
    pub header: Header,
    /// Its members.
    pub table: Table,
    /// Whose signature it is; none when nobody asked.
    pub signed: Option<Signed>,
}

/// Who takes members.
pub trait Sink {
    /// Whether `member` is wanted; it is passed over otherwise.
    fn wants(&mut self, name: &Name, member: &Member) -> bool;
    /// The next bytes of a wanted member.
    ///
    /// # Errors
    /// What ends the walk.
    fn piece(&mut self, name: &Name, member: &Member, bytes: &[u8]) -> Result<(), BundleError>;
    /// The member is over; `is_whole` says that it was what was signed.
    ///
    /// # Errors
    /// What ends the walk.
    fn end(&mut self, name: &Name, member: &Member, is_whole: bool) -> Result<(), BundleError>;
}

impl Bundle {
    /// The bundle at `path`: its folder, its `.head` folder, or a folder with one `.head` in it. Without `trust` its signature is not looked at,
    /// which is fit for showing it and for nothing else.
    ///
    /// # Errors
    /// [`BundleError`]; the first thing that is looked at is the signature.
    pub fn open(path: &Path, trust: Option<&Trust>) -> Result<Self, BundleError> {
        let head = find_head(path)?;
        let bytes = read_bounded(&head.join("BUNDLE.json"), LARGEST_HEADER)?;
        let signed = trust
            .map(|trust| trust.verify(&bytes, &head.join("BUNDLE.json.minisig")))
            .transpose()?;
        let refused = |source| BundleError::Header {
            path: head.clone(),
            source,
        };
        let header = Header::read(&bytes).map_err(refused)?;
        for folder in ["blobs", "blobs/sha256"].map(|folder| head.join(folder)) {
            if folder.is_symlink() {
                return Err(BundleError::Linked(folder));
            }
        }
        let is_signed = |found| {
            if found == header.members {
                return Ok(());
            }
            Err(BundleError::Table {
                file: "MEMBERS.jsonl",
                expected: header.members,
                found,
            })
        };
        // Before any of it is held in memory: another file of that name may be large.
        let table = head.join("MEMBERS.jsonl");
        is_signed(bounded_digest(&table, LARGEST_TABLE)?)?;
        let bytes = read_bounded(&table, LARGEST_TABLE)?;
        is_signed(Digest::of(&bytes))?;
        let table = header::read_table(&bytes, header.volumes.len()).map_err(refused)?;
        Ok(Self {
            head,
            header,
            table,
            signed,
        })
    }

    /// The bytes of a small member that lies beside `BUNDLE.json`, if it is whole.
    pub fn small(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = Name::Blob(*digest);
        let member = self.table.get(&name).filter(|member| member.volume == 0)?;
        let bytes = read_bounded(&self.head.join(name.path()), member.size).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Goes over all members. `others` are further folders in which volumes may lie.
    ///
    /// # Errors
    /// What the sink ends with; what is wrong with the bundle is found.
    pub fn walk(&self, others: &[PathBuf], sink: &mut dyn Sink) -> Result<Vec<Finding>, BundleError> {
        let mut findings = Vec::new();
        for (name, member) in self.table.iter().filter(|(_, member)| member.volume == 0) {
            if !sink.wants(name, member) {
                continue;
            }
            let path = self.head.join(name.path());
            let problem = match open_regular(&path, Some(member.size)) {
                Ok(mut file) => pass(&mut file, name, member, sink)?.map(Problem::from),
                Err(problem) => Some(problem),
            };
            if let Some(problem) = problem {
                if let Some(gone) = self.gone() {
                    findings.push(gone);
                    return Ok(findings);
                }
                findings.push(finding(&member.path, None, problem));
            }
        }
        for volume in &self.header.volumes {
            let found = self.volume(volume, others, sink)?;
            if !found.is_empty()
                && let Some(gone) = self.gone()
            {
                findings.push(gone);
                return Ok(findings);
            }
            findings.extend(found);
        }
        Ok(findings)
    }

    /// That the medium went away: what is missing then is no matter of its own.
    fn gone(&self) -> Option<Finding> {
        let header = self.head.join("BUNDLE.json");
        let problem = open_regular(&header, None).err()?;
        let problem = Problem::gone(format!("the medium is gone: {}", problem.text()));
        Some(finding(&header.display().to_string(), None, problem))
    }

    /// Where `volume` may lie.
    pub(super) fn places(&self, volume: &Volume, others: &[PathBuf]) -> Vec<PathBuf> {
        let folders = [self.head.parent(), Some(self.head.as_path())];
        folders
            .into_iter()
            .flatten()
            .chain(others.iter().map(PathBuf::as_path))
            .map(|folder| folder.join(&volume.file))
            .filter(|path| path.symlink_metadata().is_ok())
            .collect()
    }

    /// Goes over the copies of a volume, as long as something is wanted that none has given; tells what is wrong.
    fn volume(
        &self,
        volume: &Volume,
        others: &[PathBuf],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Finding>, BundleError> {
        let wanted: BTreeSet<Name> = self
            .table
            .iter()
            .filter(|(name, member)| member.volume == volume.n && sink.wants(name, member))
            .map(|(name, _)| *name)
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let places = self.places(volume, others);
        if places.is_empty() {
            let problem = Problem::missing("the volume is missing");
            return Ok(vec![finding(&volume.file, Some(volume), problem)]);
        }
        let mut copies = Copies::new(&self.table, volume, wanted);
        for path in places {
            copies.read(&path, sink)?;
            if copies.are_enough() {
                break;
            }
        }
        Ok(copies.findings())
    }
}

/// Shows a member to the sink; tells what was wrong with it.
pub(super) fn pass(
    reader: &mut dyn Read,
    name: &Name,
    member: &Member,
    sink: &mut dyn Sink,
) -> Result<Option<String>, BundleError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; PIECE.min(usize::try_from(member.size.max(1)).unwrap_or(PIECE))];
    let mut left = member.size;
    let mut problem = None;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(PIECE).min(buffer.len());
        match reader.read(&mut buffer[..most]) {
            Ok(0) => {
                problem = Some(format!("the member ends {left} bytes early"));
                break;
            }
            Ok(count) => {
                hasher.update(&buffer[..count]);
                left -= count as u64;
                sink.piece(name, member, &buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                problem = Some(format!("the member cannot be read: {error}"));
                break;
            }
        }
    }
    let found = hasher.finish();
    if problem.is_none() && found != member.sha256 {
        problem = Some(format!("the digest is {found}, expected {}", member.sha256));
    }
    sink.end(name, member, problem.is_none())?;
    Ok(problem)
}

/// The folder with `BUNDLE.json`.
fn find_head(path: &Path) -> Result<PathBuf, BundleError> {
    if path.join("BUNDLE.json").is_file() {
        return Ok(path.to_owned());
    }
    if path.file_name().is_some_and(|name| name == "BUNDLE.json") && path.is_file() {
        return Ok(path.parent().unwrap_or(path).to_owned());
    }
    let heads: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|item| item.path())
        .filter(|path| {
            path.extension().is_some_and(|kind| kind == "head") && path.join("BUNDLE.json").is_file()
        })
        .collect();
    match heads.as_slice() {
        [head] => Ok(head.clone()),
        [] => Err(BundleError::NoBundle(path.to_owned())),
        [_, ..] => {
            let mut heads: Vec<String> = heads.iter().map(|head| head.display().to_string()).collect();
            heads.sort();
            Err(BundleError::SeveralBundles {
                path: path.to_owned(),
                heads: heads.join("`, `"),
            })
        }
    }
}

/// Opens a regular file; with `size`, one of that size.
pub(super) fn open_regular(path: &Path, size: Option<u64>) -> Result<File, Problem> {
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits());
    let file = File::options()
        .read(true)
        .custom_flags(nofollow.unwrap_or_default())
        .open(path)
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Problem::missing("the file is missing")
            } else if path.is_symlink() {
                Problem::from("the file is a symbolic link".to_owned())
            } else {
                Problem::from(format!("the file cannot be opened: {error}"))
            }
        })?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no regular file".to_owned().into());
    }
    match size {
        Some(size) if size != found.len() => {
            Err(format!("the file has {} bytes, expected {size}", found.len()).into())
        }
        Some(_) | None => Ok(file),
    }
}

/// Opens a regular file that has at most `limit` bytes.
fn open_bounded(path: &Path, limit: u64) -> Result<File, BundleError> {
    let failed = BundleError::file("opening", path);
    let file = open_regular(path, None).map_err(|problem| failed(io::Error::other(problem.text())))?;
    let found = file.metadata().map_or(0, |found| found.len());
    if found > limit {
        return Err(BundleError::TooLarge {
            path: path.to_owned(),
            found,
            limit,
        });
    }
    Ok(file)
}

/// The whole of a file that has at most `limit` bytes.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    // It may have grown since.
    open_bounded(path, limit)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(BundleError::file("reading", path))?;
    Ok(bytes)
}

/// The digest of a regular file that has at most `limit` bytes.
pub(super) fn bounded_digest(path: &Path, limit: u64) -> Result<Digest, BundleError> {
    let file = open_bounded(path, limit)?;
    hash(&mut file.take(limit)).map_err(BundleError::file("reading", path))
}

/// The digest of a regular file, however large it is.
pub(super) fn digest_of(path: &Path) -> Result<Digest, BundleError> {
    bounded_digest(path, u64::MAX)
}

fn hash(reader: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; PIECE];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
