//! Files that survive a pulled plug: temporary file → write → fsync → rename → fsync of the folder.
//!
//! A reader sees the old content or the new, never a mixture. Only this module creates, renames and flushes files; each such
//! operation is a [`place`] where a test may end the program.

pub mod place;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use self::place::{Operation, step};

/// How the names of temporary files begin; six random characters follow.
const TEMPORARY: &str = ".kato-";

/// A file operation that failed, with its subject.
#[derive(Debug, thiserror::Error)]
#[error("{action} `{path}` failed")]
pub struct DurableError {
    /// What was tried, in the present participle, e.g. `writing`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl DurableError {
    /// See [`is_disk_full`].
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

/// Whether the disk or the quota is full (`ENOSPC`, `EDQUOT`).
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn wrap<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DurableError + 'a {
    move |source| DurableError {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Replaces the content of `path` with `bytes`, with permission bits `mode` (e.g. `0o644`).
///
/// # Errors
/// [`DurableError`] with the step that failed; the old content then stays, and no temporary file is left.
#[track_caller]
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let mut temp = temporary_file(parent(path), mode)?;
    step(Operation::Write, || temp.write_all(bytes)).map_err(wrap("writing", path))?;
    // The umask may have narrowed the bits at creation.
    temp.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(wrap("setting the mode of", path))?;
    persist(temp, path)
}

/// [`write()`] for a path that a person has named. What is there and is neither a file nor a folder, such as `/dev/null`, or the pipe behind
/// `/dev/stdout`, is written to as it is: replacing it would take it from the whole machine.
///
/// # Errors
/// As [`write()`].
#[track_caller]
pub fn hand_out(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let is_special = |there: &fs::Metadata| !there.is_file() && !there.is_dir();
    if !fs::metadata(path).as_ref().is_ok_and(is_special) {
        return write(path, bytes, mode);
    }
    let opened = OpenOptions::new().write(true).open(path);
    let mut special = opened.map_err(wrap("opening", path))?;
    step(Operation::Write, || special.write_all(bytes)).map_err(wrap("writing", path))
}

/// A temporary file in `folder` with permission bits `mode`, as far as the umask lets it.
#[track_caller]
fn temporary_file(folder: &Path, mode: u32) -> Result<NamedTempFile, DurableError> {
    step(Operation::Create, || {
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(folder)
    })
    .map_err(wrap("creating a temporary file in", folder))
}

/// Flushes `temp`, moves it to `path` and flushes the folder.
#[track_caller]
fn persist(temp: NamedTempFile, path: &Path) -> Result<(), DurableError> {
    step(Operation::Flush, || temp.as_file().sync_all()).map_err(wrap("flushing", path))?;
    step(Operation::Rename, || {
        temp.persist(path).map_err(|failed| failed.error)
    })
    .map_err(wrap("renaming into place", path))?;
    sync_folder(parent(path))
}

/// [`write()`] for a JSON document: pretty, with a final newline.
///
/// # Errors
/// As [`write()`]; a value that cannot be serialised is reported as writing failed.
#[track_caller]
pub fn write_json(path: &Path, value: &impl serde::Serialize, mode: u32) -> Result<(), DurableError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(io::Error::other)
        .map_err(wrap("serialising", path))?;
    text.push(b'\n');
    write(path, &text, mode)
}

/// Appends `line` and a newline to `path`, creating it with mode 0644, and flushes it to the disk before returning.
///
/// # Errors
/// [`DurableError`] with the step that failed; a torn last line is then possible and readers must expect one.
#[track_caller]
pub fn append_line(path: &Path, line: &str) -> Result<(), DurableError> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        // Journals repeat what commands said, which is nobody else's business.
        .mode(0o600)
        .open(path)
        .map_err(wrap("opening", path))?;
    let record = format!("{line}\n");
    // One write call, so that a crash cannot interleave two records.
    step(Operation::Write, || file.write_all(record.as_bytes())).map_err(wrap("appending to", path))?;
    step(Operation::Flush, || file.sync_data()).map_err(wrap("flushing", path))?;
    if is_new { sync_folder(parent(path)) } else { Ok(()) }
}

/// Opens a new empty file for writing; it must not exist yet.
///
/// # Errors
/// [`DurableError`] when it exists or cannot be created.
#[track_caller]
pub fn create_new(path: &Path) -> Result<File, DurableError> {
    step(Operation::Create, || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
    })
    .map_err(wrap("creating", path))
}

/// Flushes the content and the length of `file`, which is at `path`.
///
/// # Errors
/// [`DurableError`] naming the file.
#[track_caller]
pub fn flush(file: &File, path: &Path) -> Result<(), DurableError> {
    step(Operation::Flush, || file.sync_all()).map_err(wrap("flushing", path))
}

/// Shortens the file `path` to `length` bytes and flushes it.
///
/// # Errors
/// [`DurableError`] naming the file.
#[track_caller]
pub fn cut(path: &Path, length: u64) -> Result<(), DurableError> {
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(wrap("opening", path))?;
    file.set_len(length).map_err(wrap("shortening", path))?;
    flush(&file, path)
}

/// Flushes `file`, moves `from` to `to` and flushes the folder of `to`.
///
/// # Errors
/// [`DurableError`] with the step that failed.
#[track_caller]
pub fn commit(file: &File, from: &Path, to: &Path) -> Result<(), DurableError> {
    flush(file, from)?;
    rename(from, to)
}

/// Renames and flushes both folders.
///
/// # Errors
/// [`DurableError`] with the step that failed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the owner of renames")]
pub fn rename(from: &Path, to: &Path) -> Result<(), DurableError> {
    step(Operation::Rename, || fs::rename(from, to)).map_err(wrap("renaming into place", to))?;
    sync_folder(parent(to))?;
    if parent(from) == parent(to) {
        Ok(())
    } else {
        sync_folder(parent(from))
    }
}

/// Exchanges what is at `one` and at `two` in a single step, whatever they are, and flushes both folders.
///
/// # Errors
/// [`DurableError`] when one of them is missing, when they are on different file systems, or when the file system
/// cannot exchange (`EINVAL`).
#[track_caller]
pub fn exchange(one: &Path, two: &Path) -> Result<(), DurableError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    step(Operation::Rename, || {
        Ok(renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE)?)
    })
    .map_err(wrap("exchanging", two))?;
    sync_folder(parent(one))?;
    if parent(one) == parent(two) {
        Ok(())
    } else {
        sync_folder(parent(two))
    }
}

/// Makes `link` a symbolic link to `target`. A file or link that is there is replaced in a single step; a folder is not.
///
/// # Errors
/// [`DurableError`] with the step that failed; what was there then stays.
#[track_caller]
pub fn symlink(target: &Path, link: &Path) -> Result<(), DurableError> {
    let folder = parent(link);
    let temp = step(Operation::Create, || {
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .make_in(folder, |path| std::os::unix::fs::symlink(target, path))
    })
    .map_err(wrap("creating a temporary link in", folder))?
    .into_temp_path();
    step(Operation::Rename, || {
        temp.persist(link).map_err(|failed| failed.error)
    })
    .map_err(wrap("renaming into place", link))?;
    sync_folder(folder)
}

/// Replaces `to` with a copy of the file `from`, with permission bits `mode` and, if given, another owner (user, group). Holes stay holes.
///
/// # Errors
/// [`DurableError`] with the step that failed; the old content of `to` then stays, and no temporary file is left.
#[track_caller]
pub fn copy(from: &Path, to: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), DurableError> {
    copy_with(from, to, (mode, owner), &[])
}

/// [`copy`], with extended attributes. A file system that has none gets none.
///
/// # Errors
/// As [`copy`].
#[track_caller]
pub fn copy_with(
    from: &Path,
    to: &Path,
    (mode, owner): (u32, Option<(u32, u32)>),
    attributes: &[(String, Vec<u8>)],
) -> Result<(), DurableError> {
    let mut source = File::open(from).map_err(wrap("opening", from))?;
    let is_sparse = source
        .metadata()
        .is_ok_and(|metadata| metadata.blocks().saturating_mul(512) < metadata.len());
    let mut temp = temporary_file(parent(to), 0o600)?;
    step(Operation::Write, || {
        if is_sparse {
            write_with_holes(&mut source, temp.as_file_mut())
        } else {
            io::copy(&mut source, &mut temp)
        }
    })
    .map_err(wrap("writing", to))?;
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(temp.as_file(), Some(user), Some(group))
            .map_err(wrap("setting the owner of", to))?;
    }
    // After the owner, because changing it clears the set-user-ID bit and capabilities; an access list says more than the bits.
    temp.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(wrap("setting the mode of", to))?;
    for (name, value) in attributes {
        match rustix::fs::fsetxattr(
            temp.as_file(),
            name.as_str(),
            value,
            rustix::fs::XattrFlags::empty(),
        ) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(error) => return Err(wrap("setting the attributes of", to)(error.into())),
        }
    }
    persist(temp, to)
}

/// Writes what `from` has to the empty file `to`, with holes where it is zero for long; gives how many bytes it was.
///
/// # Errors
/// The error of reading or writing.
pub fn write_with_holes(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    const PIECE: usize = 64 * 1024;
    let mut piece = vec![0; PIECE];
    let mut length = 0_u64;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match from.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            to.set_len(length)?;
            return Ok(length);
        }
        let bytes = &piece[..filled];
        length += u64::try_from(filled).unwrap_or(0);
        if filled == PIECE && bytes.iter().all(|byte| *byte == 0) {
            to.seek(io::SeekFrom::Start(length))?;
        } else {
            to.write_all(bytes)?;
        }
    }
}

/// Creates the folder `path`, whose parent is there, with permission bits `mode` and, if given, another owner. Until it has them it is
/// open to nobody else.
///
/// # Errors
/// [`DurableError`] naming the folder.
#[track_caller]
pub fn create_folder_with(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), DurableError> {
    step(Operation::MakeFolder, || {
        fs::DirBuilder::new().mode(0o700).create(path)
    })
    .map_err(wrap("creating the folder", path))?;
    mark_folder(path, mode, owner)?;
    sync_folder(parent(path))
}

/// Gives the folder `path` the permission bits `mode` and, if given, another owner.
///
/// # Errors
/// [`DurableError`] naming the folder.
#[track_caller]
pub fn mark_folder(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), DurableError> {
    if let Some((user, group)) = owner {
        std::os::unix::fs::lchown(path, Some(user), Some(group))
            .map_err(wrap("setting the owner of", path))?;
    }
    // After the owner, because changing it clears the set-group-ID bit.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrap("setting the mode of", path))?;
    sync_folder(path)
}

/// Whether `name` is that of a temporary file of this module, which only a killed program leaves behind.
pub fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.strip_prefix(TEMPORARY))
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Removes the temporary files of this module from `folder`, which a killed program left there. No folder, no files. A folder
/// with such a name is somebody else's.
///
/// # Errors
/// [`DurableError`] with the first that cannot be removed.
#[track_caller]
pub fn remove_temporary_files(folder: &Path) -> Result<(), DurableError> {
    let Ok(listing) = fs::read_dir(folder) else {
        return Ok(());
    };
    for item in listing.flatten() {
        let is_folder = item.file_type().is_ok_and(|kind| kind.is_dir());
        if is_temporary(&item.file_name()) && !is_folder {
            remove(&item.path())?;
        }
    }
    Ok(())
}

/// Creates `path` and its missing parents, and flushes each folder that got a new entry.
///
/// # Errors
/// [`DurableError`] naming the folder.
#[track_caller]
pub fn create_folder(path: &Path) -> Result<(), DurableError> {
    if path.is_dir() {
        return Ok(());
    }
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    step(Operation::MakeFolder, || fs::create_dir_all(path)).map_err(wrap("creating the folder", path))?;
    // Not by an iterator's closure: the line that called would not be known in it.
    for folder in missing {
        sync_folder(parent(folder))?;
    }
    Ok(())
}

/// Removes the file `path` if it is there, and flushes its folder.
///
/// # Errors
/// [`DurableError`] when it is there and cannot be removed.
#[track_caller]
pub fn remove(path: &Path) -> Result<(), DurableError> {
    match step(Operation::Remove, || fs::remove_file(path)) {
        Ok(()) => sync_folder(parent(path)),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(wrap("removing", path)(error)),
    }
}

/// Removes the empty folder `path` if it is there, and flushes the folder above it.
///
/// # Errors
/// [`DurableError`] when it is there and cannot be removed, as one that is not empty.
#[track_caller]
pub fn remove_folder(path: &Path) -> Result<(), DurableError> {
    match step(Operation::Remove, || fs::remove_dir(path)) {
        Ok(()) => sync_folder(parent(path)),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(wrap("removing the folder", path)(error)),
    }
}

/// Flushes the entries of a folder, so that a rename in it survives a power loss.
///
/// # Errors
/// [`DurableError`] naming the folder.
#[track_caller]
pub fn sync_folder(folder: &Path) -> Result<(), DurableError> {
    let opened = File::open(folder).map_err(wrap("opening the folder", folder))?;
    step(Operation::FlushFolder, || opened.sync_all()).map_err(wrap("flushing the folder", folder))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_replaces_files_and_no_device() {
        let folder = tempfile::tempdir().unwrap();
        let (file, device) = (folder.path().join("file"), folder.path().join("device"));
        for text in ["old", "new"] {
            hand_out(&file, text.as_bytes(), 0o600).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        std::os::unix::fs::symlink("/dev/null", &device).unwrap();
        hand_out(&device, b"gone", 0o600).unwrap();
        assert_eq!(fs::read_link(&device).unwrap(), Path::new("/dev/null"));
        assert!(!fs::metadata(&device).unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_write_replaces_the_content_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latch");
        write(&path, b"old", 0o644).unwrap();
        write(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_its_subject_and_its_cause() {
        let error = write(Path::new("/nonexistent-folder/latch"), b"", 0o644).unwrap_err();
        assert!(error.to_string().contains("/nonexistent-folder"));
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn lines_are_appended_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        append_line(&path, "1").unwrap();
        append_line(&path, "2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }

    #[test]
    fn links_are_replaced_and_folders_exchanged_in_one_step() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("link"), b"a file", 0o644).unwrap();
        symlink(Path::new("one"), &at("link")).unwrap();
        symlink(Path::new("two"), &at("link")).unwrap();
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("two"));
        fs::create_dir(at("folder")).unwrap();
        exchange(&at("folder"), &at("link")).unwrap();
        assert!(at("link").is_dir() && at("folder").is_symlink());
        assert!(exchange(&at("folder"), &at("missing")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_has_the_mode_it_is_given_and_temporary_names_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        write(&from, b"content", 0o600).unwrap();
        copy(&from, &to, 0o755, None).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"content");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o755);
        let temp = tempfile::Builder::new().prefix(TEMPORARY).tempfile().unwrap();
        assert!(is_temporary(temp.path().file_name().unwrap()));
        assert!(!is_temporary(".kato-notes".as_ref()));
        assert!(!is_temporary(".katorc".as_ref()));
    }

    #[test]
    fn folders_are_created_below_the_working_folder_and_deep_down() {
        let here = std::env::current_dir().unwrap();
        let folder = tempfile::Builder::new().tempdir_in(&here).unwrap();
        let deep = folder.path().join("one/two");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert!(deep.is_dir());
        fs::remove_dir_all(folder.path()).unwrap();
        // A bare name has an empty parent, which cannot be opened.
        create_folder(Path::new(folder.path().file_name().unwrap())).unwrap();
        assert!(folder.path().is_dir());
        let file = folder.path().join("file");
        write(&file, b"", 0o644).unwrap();
        assert!(create_folder(&file.join("below")).is_err());
    }

    #[test]
    fn removing_what_is_not_there_is_done_already() {
        let folder = tempfile::tempdir().unwrap();
        remove(&folder.path().join("gone")).unwrap();
    }
}
