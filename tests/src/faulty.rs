//! A file system that fails when a test tells it to: a folder seen through FUSE, where a read, a write or a flush of the files that are named
//! ends with an I/O error.
//!
//! Needs root and `/dev/fuse`; [`Faulty::mount`] says which of them is missing. Deliberately absent: links, extended attributes,
//! times that can be set, and anything else that a store does not use.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use tempfile::TempDir;

/// The kernel asks anew each time.
const NEVER: Duration = Duration::ZERO;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing.
    Flush,
}

#[derive(Debug)]
struct Fault {
    act: Act,
    part: String,
    /// Acts that still go well.
    spared: u64,
}

/// The faults of one file system; clones share them.
#[derive(Debug, Clone, Default)]
struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, act: Act, path: &Path) -> io::Result<()> {
        let name = path.to_string_lossy();
        for fault in self.lock().iter_mut() {
            if fault.act == act && name.contains(&fault.part) {
                if fault.spared == 0 {
                    return Err(rustix::io::Errno::IO.into());
                }
                fault.spared -= 1;
            }
        }
        Ok(())
    }
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Faulty {
    // Before the folders, which must outlive it.
    _session: BackgroundSession,
    faults: Faults,
    mount: TempDir,
    _backing: TempDir,
}

impl Faulty {
    /// An empty file system without faults.
    ///
    /// # Errors
    /// When FUSE cannot be mounted here.
    pub fn mount() -> Result<Self> {
        let (backing, mount) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let faults = Faults::default();
        let seen = Seen {
            faults: faults.clone(),
            names: Mutex::new(Names::new(backing.path())),
            open: Mutex::default(),
            next: AtomicU64::new(1),
        };
        let session = fuser::spawn_mount(seen, mount.path(), &Config::default())
            .context("FUSE cannot be mounted here")?;
        Ok(Self {
            _session: session,
            faults,
            mount,
            _backing: backing,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// From now on `act` fails on files with `part` in their path, after it went well `spared` times.
    pub fn fail(&self, act: Act, part: &str, spared: u64) {
        self.faults.lock().push(Fault {
            act,
            part: part.to_owned(),
            spared,
        });
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.faults.lock().clear();
    }
}

/// Numbers for paths of the folder behind.
#[derive(Debug)]
struct Names {
    paths: HashMap<u64, PathBuf>,
    numbers: HashMap<PathBuf, u64>,
}

impl Names {
    fn new(root: &Path) -> Self {
        Self {
            paths: HashMap::from([(1, root.to_owned())]),
            numbers: HashMap::from([(root.to_owned(), 1)]),
        }
    }

    fn number(&mut self, path: &Path) -> u64 {
        let next = self.paths.len() as u64 + 1;
        let number = *self.numbers.entry(path.to_owned()).or_insert(next);
        self.paths.insert(number, path.to_owned());
        number
    }
}

#[derive(Debug)]
struct Seen {
    faults: Faults,
    names: Mutex<Names>,
    open: Mutex<HashMap<u64, (Arc<File>, u64)>>,
    next: AtomicU64,
}

impl Seen {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        let found = self.names().paths.get(&u64::from(number)).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        let metadata = fs::symlink_metadata(path)?;
        let number = self.names().number(path);
        Ok(attributes(number, &metadata))
    }

    fn opened(&self, file: File, number: u64) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(handle, (Arc::new(file), number));
        FileHandle(handle)
    }

    /// The open file, unless `act` fails on it.
    fn file(&self, handle: FileHandle, act: Option<Act>) -> io::Result<(Arc<File>, u64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open.get(&handle.0).cloned();
        drop(open);
        let (file, number) = found.ok_or(rustix::io::Errno::BADF)?;
        if let Some(act) = act {
            self.faults.check(act, &self.path(INodeNo(number))?)?;
        }
        Ok((file, number))
    }

    fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let (file, _) = self.file(handle, Some(Act::Read))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], offset + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    fn set_length(
        &self,
        number: INodeNo,
        handle: Option<FileHandle>,
        size: Option<u64>,
    ) -> io::Result<FileAttr> {
        let path = self.path(number)?;
        if let Some(size) = size {
            match handle {
                Some(handle) => self.file(handle, None)?.0.set_len(size)?,
                None => File::options().write(true).open(&path)?.set_len(size)?,
            }
        }
        match handle {
            Some(handle) => Ok(attributes(number.into(), &self.file(handle, None)?.0.metadata()?)),
            None => self.attributes(&path),
        }
    }

    fn list(&self, number: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let folder = self.path(number)?;
        let mut entries: Vec<_> = fs::read_dir(&folder)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (nth, entry) in entries.iter().enumerate().skip(from) {
            let number = self.names().number(&entry.path());
            let kind = kind(&entry.metadata()?);
            if reply.add(INodeNo(number), nth as u64 + 1, kind, entry.file_name()) {
                break;
            }
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "this is a file system")]
    fn move_entry(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        let mut names = self.names();
        if let Some(number) = names.numbers.remove(from) {
            names.numbers.insert(to.to_owned(), number);
            names.paths.insert(number, to.to_owned());
        }
        Ok(())
    }
}

fn kind(metadata: &Metadata) -> FileType {
    if metadata.is_dir() {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: at(metadata.atime()),
        mtime: at(metadata.mtime()),
        ctime: at(metadata.ctime()),
        crtime: at(metadata.ctime()),
        kind: kind(metadata),
        perm: u16::try_from(metadata.permissions().mode() & 0o7777).unwrap_or(0o600),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(1),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Tells the kernel what became of something without a result.
fn tell(outcome: io::Result<()>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

impl Filesystem for Seen {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.child(parent, name).and_then(|path| self.attributes(&path)) {
            Ok(found) => reply.entry(&NEVER, &found, Generation(0)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.set_length(number, handle, None) {
            Ok(found) => reply.attr(&NEVER, &found),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.set_length(number, handle, size) {
            Ok(found) => reply.attr(&NEVER, &found),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| {
            fs::create_dir(&path)?;
            self.attributes(&path)
        });
        match made {
            Ok(found) => reply.entry(&NEVER, &found, Generation(0)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        tell(self.child(parent, name).and_then(fs::remove_file), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        tell(self.child(parent, name).and_then(fs::remove_dir), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = self
            .child(parent, name)
            .and_then(|from| self.move_entry(&from, &self.child(new_parent, new_name)?));
        tell(moved, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.child(parent, name).and_then(|path| {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            Ok((self.attributes(&path)?, file))
        });
        match made {
            Ok((found, file)) => {
                let handle = self.opened(file, found.ino.into());
                reply.created(&NEVER, &found, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self
            .path(number)
            .and_then(|path| File::options().read(true).write(true).open(path));
        match opened {
            Ok(file) => reply.opened(self.opened(file, number.into()), FopenFlags::empty()),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_at(handle, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .file(handle, Some(Act::Write))
            .and_then(|(file, _)| file.write_all_at(data, offset));
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        tell(self.file(handle, Some(Act::Flush)).map(drop), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&handle.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(number, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let room = 1 << 20;
        reply.statfs(room, room, room, room, room, 4096, 255, 4096);
    }
}
