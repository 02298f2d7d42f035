//! What goes wrong with bundles as a whole. What is wrong with single members is a [`super::Finding`].

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kato_shared::{
    Digest,
    durable::{DurableError, is_disk_full},
};

use super::{header::HeaderError, pack::PackError, sign::SignError};
use crate::{
    exit,
    snapshot::{LibraryError, SnapshotError, WantedError},
    store::{NoRoom, StoreError},
};

/// A bundle that cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is none.
    #[error(
        "`{0}` holds no bundle: there is no BUNDLE.json in it\nhint: name the folder of the bundle, or its .head folder"
    )]
    NoBundle(PathBuf),
    /// There are several.
    #[error("`{path}` holds several bundles: `{heads}`\nhint: name one of these folders")]
    SeveralBundles {
        /// The folder.
        path: PathBuf,
        /// Their heads.
        heads: String,
    },
    /// A folder of it is elsewhere.
    #[error(
        "the folder `{0}` of the bundle is a symbolic link; only what lies on the medium itself is read\nhint: copy the bundle with what its links lead to: cp -rL"
    )]
    Linked(PathBuf),
    /// A signature or key.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A document of the bundle.
    #[error("the bundle `{path}` is refused")]
    Header {
        /// The bundle.
        path: PathBuf,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// A table that is not what was signed.
    #[error(
        "{file} has the digest {found}, the signed one is {expected}\nhint: copy the bundle again from its source"
    )]
    Table {
        /// Which.
        file: &'static str,
        /// What was signed.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// Larger than it may be.
    #[error("`{path}` has {found} bytes, at most {limit} are read")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An old bundle, or one of another series.
    #[error(transparent)]
    Replay(#[from] super::ledger::ReplayError),
    /// Not enough room, known before anything was written.
    #[error(
        "{needed} bytes are needed in `{path}`, {free} are free\nhint: make room, or name another folder; nothing was written"
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// How much.
        needed: u64,
        /// How much there is.
        free: u64,
    },
    /// There is room, but for no more file.
    #[error(
        "the file system of `{0}` has no room for another file: all its inodes are in use, however many bytes are free\nhint: remove files there (`df -i` shows how many there are), or name another folder; the same command then goes on, and nothing of it is in use until it ends"
    )]
    NoFiles(PathBuf),
    /// The disk filled up half-way.
    #[error(
        "the disk of `{path}` is full: {} needed there, {free} bytes are free\nhint: make room; the same command then goes on where this one stopped, and nothing of it is in use until it ends",
        .needed.map_or_else(|| "a little more is".to_owned(), |needed| format!("{needed} bytes more are"))
    )]
    Filled {
        /// Where.
        path: PathBuf,
        /// How much is still to be written, at most; none for a small document.
        needed: Option<u64>,
        /// How much there is.
        free: u64,
        /// What failed.
        #[source]
        source: Box<Self>,
    },
    /// What `--since` names is not known here.
    #[error(
        "the snapshot {0} is not known here\nhint: name one that `bundle info` lists; give a receipt of the site or an old BUNDLE.json, with which its series goes on; or export with --full"
    )]
    UnknownBase(String),
    /// A document that nobody has signed names a number far beyond what is known here.
    #[error(
        "the document of --since or --satisfy says that {series} {found} is at the site; known here is {known}, and without a signature nothing beyond {most} is believed, since numbers that were passed over never come again\nhint: give a receipt that the site has signed (`bundle import --receipt-key`), and its public key with --receipt-trust"
    )]
    Leap {
        /// The series.
        series: String,
        /// The number in the document.
        found: u64,
        /// The last number that left from here; 0 where none is known.
        known: u64,
        /// The highest number that is believed.
        most: u64,
    },
    /// The site has another series of that name.
    #[error(
        "the site has another series called {series} ({theirs}) than the one that goes on here ({ours})\nhint: if this one began anew by mistake, move `{folder}` and its bundles in the folder of --out away: then the same command goes on with the site's"
    )]
    OtherSeries {
        /// The name.
        series: String,
        /// The one here.
        ours: String,
        /// The site's.
        theirs: String,
        /// Where the records of ours are.
        folder: PathBuf,
    },
    /// Not a name of a series.
    #[error(
        "`{0}` is no name of a series: expected up to 40 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit"
    )]
    Series(String),
    /// Content that cannot be carried.
    #[error(
        "the content of {url} is damaged or gone: {digest}\nhint: run `kato-proxy verify`, fetch it again, and export once more"
    )]
    Content {
        /// One of the URLs.
        url: String,
        /// What it should be.
        digest: Digest,
    },
    /// Nothing to carry.
    #[error(
        "the store holds nothing to carry\nhint: fill it with `kato-proxy prefetch`, or by serving clients"
    )]
    Empty,
    /// The server of the store does not see the folder that the command has seen.
    #[error(
        "the server of this store does not see `{0}`\nhint: under systemd it sees neither /tmp nor /home nor what only this user may read: mount or copy the bundle below /media, /mnt or /srv"
    )]
    Unseen(PathBuf),
    /// Completeness was neither shown nor waived.
    #[error(
        "whether the bundle is complete was not shown\nhint: declare what has to be in it, or say why not with --waive REASON"
    )]
    Unproven,
    /// Something else has the name of the bundle.
    #[error("`{0}` is there already and is another bundle\nhint: name another folder with --out")]
    Occupied(PathBuf),
    /// Packing.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A request file.
    #[error(transparent)]
    Wanted(#[from] WantedError),
    /// A request file that asks for nothing.
    #[error(
        "the request file `{0}` asks for nothing: no URL and no content\nhint: what is new is carried by `bundle export --since`; `kato-proxy request` writes down what clients of a mirror have missed"
    )]
    NothingAsked(PathBuf),
    /// The library of snapshots.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has no room.
    #[error(transparent)]
    Full(#[from] NoRoom),
    /// A file that cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file.
    #[error("{action} `{path}` failed")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl BundleError {
    /// With which exit code a verb ends that fails so.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Sign(_) | Self::Replay(_) | Self::Leap { .. } => exit::TRUST_REFUSED,
            Self::Header { .. }
            | Self::Table { .. }
            | Self::TooLarge { .. }
            | Self::Linked(_)
            | Self::Content { .. }
            | Self::Snapshot(_) => exit::VERIFICATION_FAILED,
            Self::UnknownBase(_)
            | Self::Series(_)
            | Self::Pack(_)
            | Self::Wanted(_)
            | Self::NothingAsked(_)
            | Self::OtherSeries { .. }
            | Self::NoBundle(_)
            | Self::SeveralBundles { .. }
            | Self::Unproven => exit::USAGE,
            Self::NoRoom { .. }
            | Self::NoFiles(_)
            | Self::Filled { .. }
            | Self::Occupied(_)
            | Self::Unseen(_)
            | Self::Empty
            | Self::Library(_)
            | Self::Store(_)
            | Self::Full(_)
            | Self::Durable(_)
            | Self::File { .. } => exit::REFUSED,
        }
    }

    /// Whether it is that a disk is full.
    fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let shared = error.downcast_ref::<Arc<io::Error>>().map(AsRef::as_ref);
            if error.downcast_ref().or(shared).is_some_and(is_disk_full) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The file that cannot be written, where it is known.
    fn place(&self) -> Option<&Path> {
        if let Self::Durable(error) | Self::Library(LibraryError::Durable(error)) = self {
            return Some(&error.path);
        }
        if let Self::File { path, .. } = self {
            return Some(path);
        }
        None
    }

    /// For `map_err`: where the disk of `path` filled up half-way, that and what is missing there; `needed` counts what is still to be written
    /// there. Elsewhere, in the folder of snapshots, it is small documents that are.
    pub(super) fn filled(path: &Path, needed: impl FnOnce() -> u64) -> impl FnOnce(Self) -> Self {
        move |error| {
            if !error.is_disk_full() {
                return error;
            }
            let elsewhere = error.place().filter(|place| !place.starts_with(path));
            let elsewhere =
                elsewhere.and_then(|place| place.ancestors().skip(1).find(|above| above.is_dir()));
            let full = elsewhere.unwrap_or(path).to_owned();
            let space = rustix::fs::statvfs(&full).ok();
            if space.as_ref().is_some_and(has_no_files) {
                return Self::NoFiles(full);
            }
            let free = space.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            Self::Filled {
                needed: elsewhere.is_none().then(needed),
                path: full,
                free,
                source: Box::new(error),
            }
        }
    }

    /// For `map_err`: `action` on `path` failed.
    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// Whether a file system counts its files, and this user may make no more.
pub(super) const fn has_no_files(space: &rustix::fs::StatVfs) -> bool {
    space.f_files > 0 && space.f_favail == 0
}
