//! A store that has nothing but a bundle: the bundle is written, signed with a key of the moment, and taken in as a site would.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kato_shared::clock::Clock;
use tokio::runtime::Handle;

use super::{RehearsalError, emptied};
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
        let scratch = Self {
            folder: store.dir().join(FOLDER),
        };
        emptied(&scratch.folder)?;
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

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is removed by the next rehearsal.
        let _left = std::fs::remove_dir_all(&self.folder);
    }
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
