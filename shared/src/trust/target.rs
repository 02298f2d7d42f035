//! A target as it was signed: name, digest, size, and where its bytes are.

use tough::TargetName;
use url::Url;

use crate::Digest;

/// A file of the repository that the signed metadata lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFile {
    /// Its TUF target name.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is: with consistent snapshots (TUF §6.2) the digest is in front of the name.
    pub url: Url,
}

impl TargetFile {
    /// `None` for a target without a SHA-256 digest, or whose name leads out of the targets folder.
    pub(super) fn new(
        name: &TargetName,
        target: &tough::schema::Target,
        base: &Url,
        is_consistent: bool,
    ) -> Option<Self> {
        let bytes: &[u8] = &target.hashes.sha256;
        let digest = Digest::from_bytes(bytes.try_into().ok()?);
        // Off-spec: for `a/b` the specification writes `a/<digest>.b`; `tough` puts the digest in front of the
        // whole name, `<digest>.a/b`. Publisher and nodes agree, because both use `tough`.
        let path = if is_consistent {
            format!("{}.{}", digest.hex(), name.resolved())
        } else {
            name.resolved().to_owned()
        };
        let url = base.join(&path).ok()?;
        url.as_str().starts_with(base.as_str()).then(|| Self {
            name: name.raw().to_owned(),
            digest,
            size: target.length,
            url,
        })
    }
}
