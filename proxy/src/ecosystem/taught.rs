//! What an index says about a URL, in the words of the index.

use kato_shared::Digest;
use url::Url;

/// The content that a document promises at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taught {
    /// The URL, absolute.
    pub url: Url,
    /// What its content must be.
    pub integrity: Integrity,
}

/// The digest of some content, by one of the functions that still prove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// By SHA-256, the store's own.
    Sha256(Digest),
    /// By SHA-512.
    Sha512([u8; 64]),
}

impl Taught {
    /// A promise by SHA-256.
    pub fn sha256(url: Url, digest: Digest) -> Self {
        Self {
            url,
            integrity: Integrity::Sha256(digest),
        }
    }
}
