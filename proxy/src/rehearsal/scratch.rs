//! A store that has nothing but a bundle: the bundle is written, signed with a key of the moment, and taken in as a site would.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::clock::Clock;
use rustix::fs::{FlockOperation, flock};
use tokio::runtime::Handle;

use super::{RehearsalError, io_error};
use crate::{
    bundle::{
        Bundle,
        export::Export,
        header::Proof,
        host::Alone,
        import::Import,
        ledger::Allowed,
        prepare::whole,
        sign::{Signer, Trust, keygen},
    },
    settings::Cache,
    snapshot::{Library, Snapshot},
    store::Store,
};

/// The folder beside the store's content in which a rehearsal has its files: there, content of the bundle is linked, and copied only once, by the import.
const FOLDER: &str = "rehearsal";
const SERIES: &str = "rehearsal";

/// The folder of a rehearsal; it is removed with this.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// The folder, locked as long as this is there.
    _lock: File,
}

impl Scratch {
    /// Fills a new store with `snapshot`, the content of which is in `store`, by way of a bundle: with what a site has that takes the bundle in
    /// which it travels, and nothing else.
    ///
    /// # Errors
    /// [`RehearsalError`].
    pub fn fill(
        (store, settings, handle): (&Store, &Cache, &Handle),
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Self, RehearsalError> {
        let scratch = Self::empty(store.dir().join(FOLDER))?;
        let at = |name: &str| scratch.folder.join(name);
        let (secret, public, out) = (at("key"), at("key.pub"), at("out"));
        keygen(&secret, &public, None).map_err(crate::bundle::BundleError::from)?;
        let library = Library::new(&at("library"));
        let signer = Signer::read(&secret, None).map_err(crate::bundle::BundleError::from)?;
        let plan = whole(&library, snapshot, (SERIES, &out), now)?;
        let exported = Export {
            store,
            library: &library,
            out: &out,
            plan: &plan,
            signer: &signer,
            closure: Proof::default(),
            rehearsal: Proof::default(),
        }
        .run()?;
        let trust = Trust::read(&[public.display().to_string()]).map_err(crate::bundle::BundleError::from)?;
        take_in(
            &Bundle::open(&exported.folder, Some(&trust))?,
            (&scratch.store(), settings, handle),
            now,
        )?;
        Ok(scratch)
    }

    /// `folder` as an empty one of ours, whatever an earlier rehearsal has left in it.
    fn empty(folder: PathBuf) -> Result<Self, RehearsalError> {
        let failed = || io_error(format!("making the folder `{}`", folder.display()));
        loop {
            fs::create_dir_all(&folder).map_err(failed())?;
            let lock = File::open(&folder).map_err(failed())?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RehearsalError::UnderWay { folder }),
                Err(error) => return Err(failed()(error.into())),
            }
            // One that ended meanwhile has removed it, and the next one makes another.
            let ours = lock.metadata().map_err(failed())?;
            let is_there = fs::metadata(&folder).is_ok_and(|there| there.ino() == ours.ino());
            if is_there {
                emptied(&folder).map_err(failed())?;
                return Ok(Self { folder, _lock: lock });
            }
        }
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next rehearsal.
        let _left = fs::remove_dir_all(&self.folder);
    }
}

/// Removes what is in `folder`.
fn emptied(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn take_in(
    bundle: &Bundle,
    (dir, settings, handle): (&Path, &Cache, &Handle),
    now: Timestamp,
) -> Result<(), RehearsalError> {
    let settings = Cache {
        dir: dir.to_owned(),
        ..settings.clone()
    };
    let store = Store::open(&settings, Clock::system())?;
    let library = Library::new(store.dir());
    let import = Import {
        store: &store,
        library: &library,
        handle,
        bundle,
        others: &[],
        keep: 1,
        allowed: Allowed::default(),
        now,
        host: &Alone,
    };
    let imported = import.run()?;
    if let Some(finding) = imported.findings.first() {
        return Err(RehearsalError::NotWhole(format!(
            "{}: {}",
            finding.what, finding.problem
        )));
    }
    match imported.wanted {
        Some(wanted) => Err(RehearsalError::NotWhole(format!(
            "{} contents are missing",
            wanted.digests.len()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_rehearsal_in_the_same_store_is_refused_and_what_one_left_is_removed() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join(FOLDER);
        fs::create_dir_all(folder.join("store/content")).unwrap();
        File::options()
            .create(true)
            .append(true)
            .open(folder.join("key"))
            .unwrap();
        let first = Scratch::empty(folder.clone()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let second = Scratch::empty(folder.clone()).unwrap_err();
        let said = second.to_string();
        assert!(
            matches!(second, RehearsalError::UnderWay { .. }) && said.contains("hint: "),
            "{said}"
        );
        drop(first);
        assert!(!folder.exists());
        drop(Scratch::empty(folder.clone()).unwrap());
        assert!(!folder.exists());
    }
}
