//! Members on their way into the store.
//!
//! Small ones are gathered and made durable many at a time, larger ones have a file each. Parts of a blob are put into one file beside the store, each
//! at its place, and noted when they are durably there: the volumes may come in any order, days apart. With the last part the
//! whole is hashed and moved into the store.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    fs::File,
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use kato_shared::{
    Digest,
    durable::{self, place},
};
use tokio::runtime::Handle;

use super::{
    BundleError,
    header::{Member, Role, Table},
    host::Host,
    medium::{Sink, digest_of},
    tar::Name,
};
use crate::{
    policy::{Selecting, Stored, Times},
    snapshot::Library,
    store::{ContentRef, Store, StoredResponse, Temporary, carried_key},
};

/// Up to this size content is gathered in memory.
const SMALL: u64 = 256 << 10;

/// Takes members into a store.
#[derive(Debug)]
pub(super) struct Staging<'s> {
    store: &'s Store,
    library: &'s Library,
    handle: &'s Handle,
    now: Timestamp,
    host: &'s dyn Host,
    /// Bytes that have come by now, and how many there are.
    came: (u64, u64),
    /// Content that is not here yet.
    missing: HashMap<Digest, u64>,
    /// The parts of each blob that has some, by place.
    parts: BTreeMap<Digest, Vec<(u16, u64, u64)>>,
    current: Option<Current>,
    /// Bytes that were stored.
    pub(super) stored: u64,
}

#[derive(Debug)]
enum Current {
    Small(Vec<u8>),
    File(Temporary, u64),
    Part(File, PathBuf, u64),
}

impl<'s> Staging<'s> {
    /// For the members of `table`, of which `missing` is not here.
    pub(super) fn new(
        (store, library, handle): (&'s Store, &'s Library, &'s Handle),
        table: &Table,
        missing: &[ContentRef],
        (now, host): (Timestamp, &'s dyn Host),
    ) -> Self {
        let mut parts: BTreeMap<Digest, Vec<(u16, u64, u64)>> = BTreeMap::new();
        // The table is in order of names: parts come by number.
        for (name, member) in table {
            if let Name::Part(digest, number) = name {
                let known = parts.entry(*digest).or_default();
                let offset = known.last().map_or(0, |(_, offset, size)| offset + size);
                known.push((*number, offset, member.size));
            }
        }
        Self {
            store,
            library,
            handle,
            now,
            host,
            came: (0, missing.iter().map(|content| content.length).sum()),
            missing: missing
                .iter()
                .map(|content| (content.digest, content.length))
                .collect(),
            parts,
            current: None,
            stored: 0,
        }
    }

    fn begin(&mut self, name: &Name, member: &Member) -> Result<(), BundleError> {
        if self.current.is_some() {
            return Ok(());
        }
        place::visit("bundle.member");
        self.current = Some(match name {
            Name::Blob(_) if member.size <= SMALL => Current::Small(Vec::new()),
            Name::Blob(_) => Current::File(self.handle.block_on(self.store.begin(member.size))?, 0),
            Name::Part(digest, number) => {
                let path = self.staged(digest);
                durable::create_folder(path.parent().unwrap_or(&path))?;
                if !path.exists() {
                    durable::create_new(&path)?;
                }
                let file = File::options()
                    .write(true)
                    .open(&path)
                    .map_err(BundleError::file("opening", &path))?;
                let offset = self.place_of(digest, *number).map_or(0, |(_, offset, _)| offset);
                Current::Part(file, path, offset)
            }
        });
        Ok(())
    }

    fn finish(&mut self, name: &Name, member: &Member, current: Current) -> Result<(), BundleError> {
        let digest = name.digest();
        match current {
            Current::Small(bytes) => self.put_small(digest, bytes.into())?,
            Current::File(body, length) => self.commit(body, digest, length)?,
            Current::Part(file, path, _) => {
                durable::flush(&file, &path)?;
                let Name::Part(_, number) = *name else {
                    return Ok(());
                };
                let Some((_, offset, size)) = self.place_of(&digest, number) else {
                    return Ok(());
                };
                durable::append_line(&self.noted(&digest), &format!("{offset} {size}"))?;
                self.join(digest)?;
            }
        }
        self.stored += member.size;
        Ok(())
    }

    /// Ends what a run before was killed at: parts of what is in the store go, and a blob whose last part was noted is joined, since
    /// nobody will bring a part of it again.
    pub(super) fn resume(&mut self) -> Result<(), BundleError> {
        let digests: Vec<Digest> = self.parts.keys().copied().collect();
        for digest in digests {
            let (path, noted) = (self.staged(&digest), self.noted(&digest));
            if !self.missing.contains_key(&digest) {
                durable::remove(&noted)?;
                durable::remove(&path)?;
            } else if path.exists() {
                self.join(digest)?;
            } else {
                // Notes about a file that is gone would pass for those about the next one.
                durable::remove(&noted)?;
            }
        }
        Ok(())
    }

    /// Moves a blob whose parts are all here into the store.
    fn join(&mut self, digest: Digest) -> Result<(), BundleError> {
        let places = self.parts.get(&digest).cloned().unwrap_or_default();
        if !places
            .iter()
            .all(|(_, offset, size)| self.is_staged(&digest, *offset, *size))
        {
            return Ok(());
        }
        let (path, noted) = (self.staged(&digest), self.noted(&digest));
        let length = places.iter().map(|(_, _, size)| size).sum();
        // Each part was right, and yet the file may have been damaged while it waited for the others.
        if digest_of(&path)? == digest {
            let body = self.store.adopt(&path, length)?;
            self.commit(body, digest, length)?;
        }
        durable::remove(&noted)?;
        Ok(durable::remove(&path)?)
    }

    fn put_small(&mut self, digest: Digest, body: Bytes) -> Result<(), BundleError> {
        let length = body.len() as u64;
        let response = self.carried(digest, length);
        if let Some(place) = self.store.place(length) {
            self.store.put_small(&carried_key(&digest), response, body, place);
            self.missing.remove(&digest);
            return Ok(());
        }
        self.store.flush();
        if let Some(place) = self.store.place(length) {
            self.store.put_small(&carried_key(&digest), response, body, place);
            self.missing.remove(&digest);
            return Ok(());
        }
        let mut temporary = self.handle.block_on(self.store.begin(length))?;
        temporary
            .file()
            .as_ref()
            .write_all(&body)
            .map_err(BundleError::file("writing into", self.store.dir()))?;
        temporary.grow(length)?;
        self.commit(temporary, digest, length)
    }

    fn commit(&mut self, body: Temporary, digest: Digest, length: u64) -> Result<(), BundleError> {
        let response = self.carried(digest, length);
        self.handle
            .block_on(self.store.commit(body, carried_key(&digest), response))?;
        self.missing.remove(&digest);
        Ok(())
    }

    fn carried(&self, digest: Digest, length: u64) -> StoredResponse {
        carried(ContentRef { digest, length }, self.now)
    }

    fn place_of(&self, digest: &Digest, number: u16) -> Option<(u16, u64, u64)> {
        let parts = self.parts.get(digest)?;
        parts.iter().find(|(known, _, _)| *known == number).copied()
    }

    fn is_staged(&self, digest: &Digest, offset: u64, size: u64) -> bool {
        let line = format!("{offset} {size}");
        self.staged(digest).exists()
            && fs::read_to_string(self.noted(digest))
                .is_ok_and(|noted| noted.lines().any(|known| known == line))
    }

    fn staged(&self, digest: &Digest) -> PathBuf {
        self.library
            .folder()
            .join("parts")
            .join(format!("{}.partial", digest.hex()))
    }

    fn noted(&self, digest: &Digest) -> PathBuf {
        self.library
            .folder()
            .join("parts")
            .join(format!("{}.noted", digest.hex()))
    }
}

impl Sink for Staging<'_> {
    fn wants(&mut self, name: &Name, member: &Member) -> bool {
        if member.role != Role::Payload || !self.missing.contains_key(&name.digest()) {
            return false;
        }
        match name {
            Name::Blob(_) => true,
            Name::Part(digest, number) => self
                .place_of(digest, *number)
                .is_some_and(|(_, offset, size)| !self.is_staged(digest, offset, size)),
        }
    }

    fn piece(&mut self, name: &Name, member: &Member, bytes: &[u8]) -> Result<(), BundleError> {
        self.begin(name, member)?;
        let failed = |error| BundleError::file("writing into", self.store.dir())(error);
        place::about_to_write().map_err(failed)?;
        match &mut self.current {
            Some(Current::Small(body)) => body.extend_from_slice(bytes),
            Some(Current::File(body, written)) => {
                body.file().as_ref().write_all(bytes).map_err(failed)?;
                *written += bytes.len() as u64;
                body.grow(*written)?;
            }
            Some(Current::Part(file, _, offset)) => {
                file.write_all_at(bytes, *offset).map_err(failed)?;
                *offset += bytes.len() as u64;
            }
            None => {}
        }
        self.came.0 += bytes.len() as u64;
        self.host.progress(self.came.0, self.came.1);
        Ok(())
    }

    fn end(&mut self, name: &Name, member: &Member, is_whole: bool) -> Result<(), BundleError> {
        if is_whole {
            // An empty member has no pieces.
            self.begin(name, member)?;
        }
        match self.current.take() {
            Some(current) if is_whole => self.finish(name, member, current),
            Some(_) | None => Ok(()),
        }
    }
}

/// How content is stored that came on a medium.
pub(super) fn carried(content: ContentRef, now: Timestamp) -> StoredResponse {
    StoredResponse {
        head: Stored {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            times: Times {
                request: now,
                response: now,
            },
            selecting: Selecting::default(),
            known_digest: true,
            invalidated: false,
            found_at: None,
        },
        content,
        upstream: "bundle".to_owned(),
    }
}
