//! A module's folder as `tar.zst`: the same folder gives the same bytes on every machine and on every day.
//!
//! Entries are sorted by path; owner, group and times are fixed; permission bits and symbolic links are kept. Hard
//! links become files of their own; devices, sockets and pipes are refused.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use kato_shared::{Digest, digest::Hasher, durable, release::FileEntry};
use tar::{EntryType, Header};

use super::{PublishError, files};

/// What is in an archive and how large it is.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The bytes of all files, unpacked.
    pub(super) unpacked_size: u64,
    pub(super) files: Vec<FileEntry>,
}

/// Packs `source`, or nothing, into the new file `to` with the zstd level `level`, and flushes it.
pub(super) fn pack(
    source: Option<&Path>,
    to: &mut File,
    to_path: &Path,
    level: i32,
) -> Result<Packed, PublishError> {
    let write = |error| PublishError::io("writing", to_path)(error);
    let sink = Sink {
        file: to,
        hasher: Hasher::new(),
        size: 0,
    };
    let encoder = zstd::Encoder::new(sink, level).map_err(write)?;
    let mut builder = tar::Builder::new(encoder);
    let mut packed = Packed {
        digest: Digest::of(b""),
        size: 0,
        unpacked_size: 0,
        files: Vec::new(),
    };
    if let Some(source) = source {
        for path in files::tree(source)? {
            let name = path.strip_prefix(source).unwrap_or(&path);
            add(&mut builder, &path, name, &mut packed)?;
        }
    }
    let sink = builder
        .into_inner()
        .and_then(zstd::Encoder::finish)
        .map_err(write)?;
    packed.size = sink.size;
    packed.digest = sink.hasher.finish();
    durable::flush(sink.file, to_path)?;
    Ok(packed)
}

fn add<W: Write>(
    builder: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    packed: &mut Packed,
) -> Result<(), PublishError> {
    let facts = fs::symlink_metadata(path).map_err(PublishError::io("looking at", path))?;
    let kind = facts.file_type();
    let mut header = header(facts.mode());
    if std::str::from_utf8(name.as_os_str().as_bytes()).is_err() {
        return Err(PublishError::Entry {
            path: path.to_owned(),
            kind: "not named in UTF-8",
        });
    }
    let packing = || PublishError::io("packing", path);
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        return builder
            .append_data(&mut header, name, io::empty())
            .map_err(packing());
    }
    if kind.is_symlink() {
        let to = fs::read_link(path).map_err(packing())?;
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        return builder.append_link(&mut header, name, &to).map_err(packing());
    }
    if !kind.is_file() {
        return Err(PublishError::Entry {
            path: path.to_owned(),
            kind: "a device, socket or pipe",
        });
    }
    // Twice: the digest goes into the release document, and a file that changes in between is found by its length.
    let (sha256, size) = files::digest(path)?;
    header.set_size(size);
    let file = File::open(path).map_err(packing())?;
    builder
        .append_data(&mut header, name, io::Read::take(file, size))
        .map_err(packing())?;
    packed.unpacked_size += size;
    packed.files.push(FileEntry {
        path: name.to_owned(),
        sha256,
        mode: facts.mode() & 0o7777,
    });
    Ok(())
}

/// A header with everything that must not depend on the machine.
fn header(mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header
}

/// Counts and digests what is written.
struct Sink<'a> {
    file: &'a mut File,
    hasher: Hasher,
    size: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use kato_shared::durable;

    use super::*;

    fn module() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("bin/sub")).unwrap();
        durable::write(&folder.path().join("bin/run"), b"#!/bin/true\n", 0o755).unwrap();
        durable::write(&folder.path().join("bin/sub/data"), b"data", 0o640).unwrap();
        symlink("run", folder.path().join("bin/current")).unwrap();
        folder
    }

    fn pack_in(source: &Path) -> Packed {
        let mut file = tempfile::tempfile().unwrap();
        pack(Some(source), &mut file, Path::new("x.tar.zst"), 3).unwrap()
    }

    #[test]
    fn the_same_folder_gives_the_same_bytes_wherever_and_whenever() {
        let (one, two) = (module(), module());
        let later = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        File::open(two.path().join("bin/run"))
            .unwrap()
            .set_times(later)
            .unwrap();
        assert_eq!(pack_in(one.path()).digest, pack_in(two.path()).digest);
        let readable = fs::Permissions::from_mode(0o644);
        fs::set_permissions(two.path().join("bin/run"), readable).unwrap();
        assert_ne!(pack_in(one.path()).digest, pack_in(two.path()).digest);
    }

    #[test]
    fn files_are_listed_with_digest_and_mode_and_links_are_not() {
        let packed = pack_in(module().path());
        let listed: Vec<_> = packed
            .files
            .iter()
            .map(|file| (file.path.to_str().unwrap(), file.mode))
            .collect();
        assert_eq!(listed, [("bin/run", 0o755), ("bin/sub/data", 0o640)]);
        assert_eq!(packed.files[1].sha256, Digest::of(b"data"));
        assert_eq!(packed.unpacked_size, 16);
    }

    #[test]
    fn a_socket_is_refused_by_name() {
        let folder = module();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let error = pack(Some(folder.path()), &mut file, Path::new("x"), 3).unwrap_err();
        assert!(error.to_string().contains("/s`"), "{error}");
    }
}
