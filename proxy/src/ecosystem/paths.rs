//! Paths that carry the digest of their content.
//!
//! A digest that is known before the download makes it verifiable before it is called whole, immutable ever after, and
//! the same under every URL: it is served from the store wherever it came from and never validated.

use kato_shared::Digest;

use crate::settings::Kind;

/// The digest that `path`, below the base URL of an upstream of `kind`, promises for its content.
pub fn known_digest(kind: Kind, path: &str) -> Option<Digest> {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    match kind {
        // "by-hash/SHA256/<digest>" (Debian's RepositoryFormat, "indices acquisition via hashsums").
        Kind::Packages => folders.ends_with("by-hash/SHA256").then(|| hex(name))?,
        // "DIGEST.FILENAME" of consistent snapshots (TUF specification §6.2); other hashes than SHA-256 have other lengths.
        Kind::Release => hex(name.split_once('.')?.0),
        // "/v2/<name>/blobs/<digest>" and "/v2/<name>/manifests/<reference>" (OCI distribution specification).
        Kind::Registry if folders.ends_with("/blobs") || folders.ends_with("/manifests") => {
            name.starts_with("sha256:").then(|| name.parse().ok())?
        }
        Kind::Registry | Kind::Pypi | Kind::Npm | Kind::Cargo | Kind::Generic => None,
    }
}

/// 64 hexadecimal digits, and nothing else.
pub(super) fn hex(text: &str) -> Option<Digest> {
    let is_bare = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_bare.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_knows_its_own_paths_and_no_others() {
        let digest = Digest::of(b"content");
        let hex = digest.hex();
        for (kind, path, known) in [
            (
                Kind::Packages,
                format!("dists/s/main/binary-amd64/by-hash/SHA256/{hex}"),
                true,
            ),
            (
                Kind::Packages,
                format!("dists/s/main/by-hash/MD5Sum/{}", &hex[..32]),
                false,
            ),
            (Kind::Packages, format!("pool/{hex}"), false),
            (Kind::Release, format!("targets/{hex}.kato"), true),
            (Kind::Release, "metadata/7.targets.json".to_owned(), false),
            (Kind::Release, format!("targets/{hex}"), false),
            (Kind::Registry, format!("v2/a/b/blobs/sha256:{hex}"), true),
            (Kind::Registry, format!("v2/a/b/manifests/sha256:{hex}"), true),
            (Kind::Registry, "v2/a/b/manifests/latest".to_owned(), false),
            (Kind::Registry, format!("v2/a/b/blobs/{hex}"), false),
            (Kind::Generic, format!("targets/{hex}.kato"), false),
        ] {
            assert_eq!(
                known_digest(kind, &path),
                known.then_some(digest),
                "{kind:?} {path}"
            );
        }
    }
}
