//! Key files: Ed25519, PKCS#8, mode 0600, one per key and named by role: `root-1.pk8`, `targets-1.pk8`.
//!
//! They are development keys in the sense that nothing but file permissions protects them. For a real site the root
//! keys go to separate media right after `init`; no later step needs them.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use kato_shared::durable;
use tough::{
    key_source::{KeySource, LocalKeySource},
    schema::key::Key,
    sign::Sign as _,
};

use super::PublishError;

/// The name of a key file; `number` counts from 1.
fn file_name(role: &str, number: u8) -> String {
    format!("{role}-{number}.pk8")
}

/// Makes the key `number` of `role` in `folder` and gives its public half.
///
/// # Errors
/// [`PublishError::Exists`]: a key is never overwritten.
pub(super) fn create(folder: &Path, role: &'static str, number: u8) -> Result<Key, PublishError> {
    let path = folder.join(file_name(role, number));
    if path.exists() {
        return Err(PublishError::Exists { path });
    }
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| PublishError::Signing { role, source };
    let pair = Ed25519KeyPair::generate().map_err(|error| failed(error.into()))?;
    let document = pair.to_pkcs8().map_err(|error| failed(error.into()))?;
    durable::write(&path, document.as_ref(), 0o600)?;
    Ok(pair.tuf_key())
}

/// The keys of `role` in `folder`.
///
/// # Errors
/// [`PublishError::NoKey`] when there is none.
pub(super) fn sources(folder: &Path, role: &'static str) -> Result<Vec<Box<dyn KeySource>>, PublishError> {
    let paths: Vec<PathBuf> = (1..=u8::MAX)
        .map(|number| folder.join(file_name(role, number)))
        .take_while(|path| path.exists())
        .collect();
    if paths.is_empty() {
        return Err(PublishError::NoKey {
            role,
            folder: folder.to_owned(),
        });
    }
    Ok(paths
        .into_iter()
        .map(|path| Box::new(LocalKeySource { path }) as Box<dyn KeySource>)
        .collect())
}
