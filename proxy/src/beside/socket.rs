//! The socket in a store's folder. Its path may be longer than the 108 bytes of `sun_path`: it is named by the folder's descriptor.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use kato_shared::durable;
use tokio::net::UnixListener;

/// Its name.
const NAME: &str = "serve.sock";
/// The owner alone.
const MODE: u32 = 0o600;

/// The path of the socket in the store's folder `store`.
pub(super) fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

/// Listens in `store`, which this process has open: a socket that is there is that of a process that is gone. It has its mode before it has its name.
pub(super) fn listen(store: &Path) -> io::Result<UnixListener> {
    let (_open, folder) = short(store)?;
    let beside = format!("{NAME}.new");
    durable::remove(&store.join(&beside)).map_err(|failed| failed.source)?;
    let listener = UnixListener::bind(folder.join(&beside))?;
    fs::set_permissions(store.join(&beside), fs::Permissions::from_mode(MODE))?;
    rustix::fs::rename(store.join(&beside), path(store))?;
    Ok(listener)
}

/// Connects to whoever listens in `store`.
pub(super) fn connect(store: &Path) -> io::Result<UnixStream> {
    let (_open, folder) = short(store)?;
    UnixStream::connect(folder.join(NAME))
}

/// A short name of a folder, as long as the file is open.
fn short(folder: &Path) -> io::Result<(File, PathBuf)> {
    let open = File::open(folder)?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    Ok((open, name))
}
