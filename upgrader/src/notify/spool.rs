//! What waits to be delivered: one file for each document and address, bounded in number and age.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use kato_shared::{
    Digest,
    durable::{self, DurableError},
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Document;

/// More than the runs of a week leave; beyond it the oldest go.
const MOST: usize = 200;
/// News of last week is none.
const OLDEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A document on its way to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) url: Url,
    pub(super) document: Document,
    /// Its file; `None` for one that the disk had no room for.
    #[serde(skip)]
    path: Option<PathBuf>,
}

/// The folder of what waits.
#[derive(Debug)]
pub(super) struct Spool(PathBuf);

impl Spool {
    pub(super) const fn in_folder(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Keeps `document` for `url`; gives it back where it cannot be kept.
    pub(super) fn put(&self, url: &Url, document: &Document) -> Result<(), (Box<Pending>, DurableError)> {
        let pending = Pending {
            url: url.clone(),
            document: document.clone(),
            path: None,
        };
        // Oldest first by name; the address is not fit for a file name, its digest is.
        let address = Digest::of(url.as_str().as_bytes()).hex();
        let name = format!(
            "{}-{}-{}.json",
            document.time.strftime("%Y%m%dT%H%M%S%6f"),
            document.event.name(),
            address.get(..12).unwrap_or_default()
        );
        durable::create_folder(&self.0)
            .and_then(|()| durable::write_json(&self.0.join(name), &pending, 0o600))
            .map_err(|error| (Box::new(pending), error))
    }

    /// Everything that waits, oldest first. What is too old or too much is removed, and so is what is no such document.
    pub(super) fn pending(&self, now: Timestamp) -> Vec<Pending> {
        let mut files = self.files();
        let surplus = files.len().saturating_sub(MOST);
        for path in files.drain(..surplus) {
            drop_file(&path, "there are too many");
        }
        files.into_iter().filter_map(|path| keep(path, now)).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let listing = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut files: Vec<_> = listing
            .map(|item| item.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        files
    }
}

impl Pending {
    /// Removes it: it was delivered.
    pub(super) fn delivered(&self) {
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

fn keep(path: PathBuf, now: Timestamp) -> Option<Pending> {
    let bytes = fs::read(&path).ok()?;
    let Ok(mut pending) = serde_json::from_slice::<Pending>(&bytes) else {
        drop_file(&path, "it cannot be read");
        return None;
    };
    if now.duration_since(pending.document.time) > OLDEST {
        drop_file(&path, "it is too old");
        return None;
    }
    pending.path = Some(path);
    Some(pending)
}

fn drop_file(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "a notification is given up");
    remove(path);
}

fn remove(path: &Path) {
    if let Err(error) = durable::remove(path) {
        tracing::warn!(%error, "a notification could not be removed; it may be sent again");
    }
}
