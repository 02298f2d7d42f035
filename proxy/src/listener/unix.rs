//! A listener on a Unix socket: who may connect is who may write to the file.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
};

use rustix::fs::rename;
use tokio::net::UnixListener;

/// The owner and its group.
const MODE: u32 = 0o660;

/// Listens at `path`, in the place of a socket that nobody listens at any more.
///
/// The socket gets its mode before it gets its name: at no time can somebody else connect.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when somebody listens there or something else is there, and what the file system says.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok() && !is_abandoned(path) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(".new");
    // Of a process that ended in between.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))?;
    rename(&beside, path)?;
    Ok(listener)
}

/// Whether `path` is a socket that refuses connections. Any other file refuses them, too, and is not ours to replace.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abandoned_socket_is_replaced_and_one_in_use_or_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let first = bind_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let _second = bind_unix(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        let file = folder.path().join("file");
        fs::File::create_new(&file).unwrap();
        assert_eq!(bind_unix(&file).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
