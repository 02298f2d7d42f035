//! Payloads from the store to a medium: as files, or as members of volumes; each is hashed on the way.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use kato_shared::{
    Digest,
    digest::Hasher,
    durable::{self, place},
};

use super::{
    BundleError,
    header::Volume,
    medium::digest_of,
    plan::Plan,
    tar::{self, Name},
};
use crate::store::Store;

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// The payloads of a plan.
#[derive(Debug)]
pub(super) struct Payloads<'p> {
    /// Where they are.
    pub(super) store: &'p Store,
    /// Which they are.
    pub(super) plan: &'p Plan,
}

impl Payloads<'_> {
    /// The payloads as files.
    pub(super) fn files(&self, head: &Path) -> Result<(), BundleError> {
        for blob in &self.plan.blobs {
            let to = head.join(Name::Blob(blob.digest).path());
            place::visit("bundle.blob");
            if fs::metadata(&to).is_ok_and(|found| found.len() == blob.size) && digest_of(&to)? == blob.digest
            {
                continue;
            }
            remove(&to)?;
            self.transfer(&blob.digest, &to)?;
        }
        Ok(())
    }

    /// One payload: by reflink, by link, or copied.
    fn transfer(&self, digest: &Digest, to: &Path) -> Result<(), BundleError> {
        let from = self.store.content_path(digest);
        let mut source = File::open(&from).map_err(|_gone| self.lost(digest))?;
        let target = durable::create_new(to)?;
        let is_cloned = rustix::fs::ioctl_ficlone(&target, &source).is_ok();
        let found = if is_cloned {
            hash(&mut source, &mut io::sink())
        } else {
            drop(target);
            remove(to)?;
            if fs::hard_link(&from, to).is_ok() {
                hash(&mut source, &mut io::sink())
            } else {
                let mut target = durable::create_new(to)?;
                place::about_to_write().map_err(BundleError::file("writing", to))?;
                hash(&mut source, &mut target)
            }
        }
        .map_err(BundleError::file("writing", to))?;
        if found != *digest {
            remove(to)?;
            return Err(self.lost(digest));
        }
        Ok(())
    }

    /// One volume; returns it, and the digests of the parts in it.
    pub(super) fn volume(
        &self,
        path: &Path,
        file: String,
        n: u32,
    ) -> Result<(Volume, BTreeMap<Name, Digest>), BundleError> {
        let failed = |error| BundleError::file("writing", path)(error);
        let mut out = Hashing {
            hasher: Hasher::new(),
            size: 0,
            file: durable::create_new(path)?,
        };
        let mut digests = BTreeMap::new();
        for piece in &self.plan.volumes[n as usize - 1] {
            place::visit("bundle.piece");
            place::about_to_write().map_err(failed)?;
            let header = tar::Header {
                name: piece.name,
                size: piece.size,
            };
            out.write_all(&header.block()).map_err(failed)?;
            let digest = piece.name.digest();
            let mut source =
                File::open(self.store.content_path(&digest)).map_err(|_gone| self.lost(&digest))?;
            io::Seek::seek(&mut source, io::SeekFrom::Start(piece.offset)).map_err(failed)?;
            let before = out.size;
            let found = hash(&mut source.take(piece.size), &mut out).map_err(failed)?;
            let is_whole = out.size - before == piece.size;
            match piece.name {
                Name::Part(..) => {
                    digests.insert(piece.name, found);
                }
                Name::Blob(_) if found != digest => return Err(self.lost(&digest)),
                Name::Blob(_) => {}
            }
            if !is_whole {
                return Err(self.lost(&digest));
            }
            let padding = usize::try_from(tar::padding(piece.size)).unwrap_or_default();
            out.write_all(&[0; 512][..padding]).map_err(failed)?;
        }
        out.write_all(&[0; 1024]).map_err(failed)?;
        durable::flush(&out.file, path)?;
        let volume = Volume {
            n,
            file,
            size: out.size,
            sha256: out.hasher.finish(),
        };
        Ok((volume, digests))
    }

    fn lost(&self, digest: &Digest) -> BundleError {
        let entry = self
            .plan
            .snapshot
            .entries()
            .iter()
            .find(|entry| entry.digest == *digest);
        BundleError::Content {
            url: entry.map_or_else(|| "-".to_owned(), |entry| entry.url().to_owned()),
            digest: *digest,
        }
    }
}

/// The digests of the parts in a volume that is whole, by its headers.
pub(super) fn part_digests(path: &Path) -> Result<BTreeMap<Name, Digest>, BundleError> {
    let failed = |error| BundleError::file("reading", path)(error);
    let mut file = File::open(path).map_err(failed)?;
    let mut digests = BTreeMap::new();
    loop {
        let mut block = [0_u8; 512];
        file.read_exact(&mut block).map_err(failed)?;
        let Some(header) = tar::Header::parse(&block)
            .map_err(io::Error::other)
            .map_err(failed)?
        else {
            return Ok(digests);
        };
        let filled = header.size + tar::padding(header.size);
        if matches!(header.name, Name::Part(..)) {
            let digest =
                hash(&mut Read::by_ref(&mut file).take(header.size), &mut io::sink()).map_err(failed)?;
            digests.insert(header.name, digest);
            let padding = i64::try_from(tar::padding(header.size)).unwrap_or_default();
            io::Seek::seek_relative(&mut file, padding).map_err(failed)?;
        } else {
            io::Seek::seek_relative(&mut file, i64::try_from(filled).unwrap_or_default()).map_err(failed)?;
        }
    }
}

/// A file with the digest of what was written into it.
struct Hashing {
    hasher: Hasher,
    size: u64,
    file: File,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies all of `source`; returns its digest.
fn hash(source: &mut dyn Read, target: &mut dyn Write) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0_u8; PIECE];
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        target.write_all(&buffer[..count])?;
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<(), BundleError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BundleError::file("removing", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
