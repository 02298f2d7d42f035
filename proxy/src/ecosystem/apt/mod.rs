//! Debian archives ([RepositoryFormat]): `InRelease` and `Release` teach the digests of a suite's indexes, `Packages` and `Sources`
//! those of packages, `Packages.diff/Index` those of patches.
//!
//! ```text
//! dists/<suite>/InRelease ── SHA256: ──► dists/<suite>/main/binary-amd64/Packages.xz, …
//! dists/<suite>/main/binary-amd64/Packages.xz ── Filename, Size, SHA256 ──► pool/…/hello_1.0_amd64.deb, …
//! ```
//!
//! Deliberately absent: keys. apt checks signatures; here a digest only ever forbids content, and of a detached signature it is
//! only told which document it is about (`signature`).
//!
//! [RepositoryFormat]: https://wiki.debian.org/DebianRepository/Format

mod form;
mod index;
mod listing;
pub(crate) mod paragraph;
pub(crate) mod relation;
mod signature;
pub(crate) mod version;

pub(crate) use form::{ReleaseForm, release_form};
pub(crate) use listing::{is_by_hash, is_listed_name, listed, names, offered};
pub(crate) use signature::is_about;

use std::io::Read;

use kato_shared::Digest;
use url::Url;

use super::{Document, Lessons};

/// Endings of packed indexes.
const PACKED: [&str; 6] = [".xz", ".gz", ".zst", ".lz4", ".bz2", ".lzma"];

/// See [`super::teacher`].
pub(super) fn teacher(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let below = |folder: &str, name: &str| {
        if folder.is_empty() {
            name.to_owned()
        } else {
            format!("{folder}/{name}")
        }
    };
    if let Some(folder) = folder.strip_suffix("/by-hash/SHA256") {
        // The name does not tell which index it is; its folder tells which may teach.
        let last = folder.rsplit('/').next().unwrap_or(folder);
        let index = match last {
            "source" => "Sources",
            _ if last.starts_with("binary-") => "Packages",
            _ if is_of_patches(last) => "Index",
            _ => return None,
        };
        return Some(below(folder, index));
    }
    let plain = PACKED
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    match plain {
        "Packages" | "Sources" => Some(below(folder, plain)),
        "InRelease" | "Release" if plain == name => Some(below(folder, name)),
        "Index" if plain == name && is_of_patches(folder) => Some(below(folder, name)),
        _ => None,
    }
}

/// Whether `path` is that of a `Release` file, which stands for its suite.
pub(super) fn is_group(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some("InRelease" | "Release"))
}

/// Whether `path` is that of a file of a suite under a name that stays when its content changes.
pub(super) fn is_named(path: &str) -> bool {
    let of_suite = path.starts_with("dists/") || path.contains("/dists/") || path.ends_with("Release.gpg");
    (of_suite || teacher(path).is_some()) && !path.contains("/by-hash/")
}

/// The path of the detached signature of the document at `path`, if that is one that has its signature apart.
pub(super) fn signature(path: &str) -> Option<String> {
    (path.rsplit('/').next() == Some("Release")).then(|| format!("{path}.gpg"))
}

/// See [`super::by_hash`].
pub(super) fn by_hash(url: &Url, digest: &Digest) -> Url {
    let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = url.clone();
    found.set_path(&format!("{folder}/by-hash/SHA256/{}", digest.hex()));
    found.set_query(None);
    found
}

/// Whether `folder` holds the patches of an index, as `Packages.diff` does.
fn is_of_patches(folder: &str) -> bool {
    folder.rsplit_once('.').is_some_and(|(_, end)| end == "diff")
}

/// See [`super::lessons`].
pub(super) fn lessons<'d>(document: &Document<'d>, content: Box<dyn Read + Send + 'd>) -> Lessons<'d> {
    match super::unpack(content) {
        Ok(plain) => Box::new(index::Index::new(document, plain)),
        Err(error) => Box::new(std::iter::once(Err(super::LessonError::Read(error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_teach_are_known_by_their_names_and_others_are_not() {
        let hex = "a".repeat(64);
        for (path, expected) in [
            ("dists/s/InRelease", Some("dists/s/InRelease")),
            ("dists/s/Release", Some("dists/s/Release")),
            ("dists/s/Release.gpg", None),
            (
                "dists/s/main/binary-amd64/Packages.xz",
                Some("dists/s/main/binary-amd64/Packages"),
            ),
            (
                "dists/s/main/binary-amd64/Packages",
                Some("dists/s/main/binary-amd64/Packages"),
            ),
            (
                "dists/s/main/source/Sources.gz",
                Some("dists/s/main/source/Sources"),
            ),
            (
                "dists/s/main/binary-amd64/Packages.diff/Index",
                Some("dists/s/main/binary-amd64/Packages.diff/Index"),
            ),
            ("dists/s/main/Index", None),
            ("dists/s/main/i18n/Translation-en.xz", None),
            ("Packages.gz", Some("Packages")),
            ("pool/main/h/hello_1.0_amd64.deb", None),
        ] {
            assert_eq!(teacher(path).as_deref(), expected, "{path}");
        }
        for (folder, expected) in [
            (
                "dists/s/main/binary-amd64",
                Some("dists/s/main/binary-amd64/Packages"),
            ),
            ("dists/s/main/i18n", None),
        ] {
            let path = format!("{folder}/by-hash/SHA256/{hex}");
            assert_eq!(teacher(&path).as_deref(), expected, "{path}");
        }
    }
}
