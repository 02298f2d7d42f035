//! What package formats teach about their URLs: digests in paths ([`known_digest`]), and digests that documents such as
//! `Release` and `Packages` name for other URLs ([`lessons`]).
//!
//! Flow of a lesson: a document that teaches ([`teacher`]) becomes a stored response; its bytes are read once, off the
//! reactor, unpacked as they come ([`unpack`]), and each [`Lesson`] goes into the store's table of learned digests; from then on a
//! request for a taught URL is one for content with a known digest and size.
//!
//! Sidecars ([`sidecar`]) teach whatever the kind is, where the settings name them. What names alone say about how long something lasts:
//! [`tuf`].
//!
//! Each ecosystem has a file or folder of its own and adds one arm to [`teacher`], [`is_taught`] and [`lessons`]. All of it is pure: bytes
//! in, lessons out.
//!
//! Invariants:
//! * A document teaches only about URLs of its own upstream; [`is_own`] is asked about each.
//! * A document that is damaged, too large or too long teaches nothing at all: the iterator ends with an error and what it has
//!   said before is dropped by the caller.

mod apt;
mod lesson;
pub mod oci;
mod paths;
mod sidecar;
pub mod tuf;
mod unpack;

use std::io::Read;

use url::Url;

use crate::settings::{Kind, Upstream};

pub use lesson::{Document, Known, Lesson, LessonError, Lessons, MOST_LESSONS};
pub use paths::known_digest;
pub use unpack::{EXPANSION_LIMIT, unpack};

/// The name under which the generations of a document are counted, if the document at `path`, below the base URL of
/// `upstream`, teaches. Several paths may be one document: `Packages.xz` and its `by-hash` name, for example.
///
/// It is relative to the base URL of the upstream, like `path`.
pub fn teacher(upstream: &Upstream, path: &str) -> Option<String> {
    let of_its_kind = match upstream.kind {
        Kind::Packages => apt::teacher(path),
        Kind::Release | Kind::Registry | Kind::Pypi | Kind::Npm | Kind::Cargo | Kind::Generic => None,
    };
    of_its_kind.or_else(|| upstream.is_sidecar(path).then(|| path.to_owned()))
}

/// Whether a document of `upstream` may teach about `path`: a request for such a path waits for a lesson under way.
pub fn is_taught(upstream: &Upstream, path: &str) -> bool {
    let has_documents = match upstream.kind {
        Kind::Packages => true,
        Kind::Release | Kind::Registry | Kind::Pypi | Kind::Npm | Kind::Cargo | Kind::Generic => {
            !upstream.digests.is_empty()
        }
    };
    // What carries its digest needs no lesson.
    has_documents && known_digest(upstream.kind, path).is_none()
}

/// Whether some path of an upstream of `kind` is taught at all.
pub fn has_lessons(upstream: &Upstream) -> bool {
    is_taught(upstream, "")
}

/// Whether the document at `path` is that of a group: what it names is seen in one generation with it.
pub fn is_group(upstream: &Upstream, path: &str) -> bool {
    upstream.kind == Kind::Packages && apt::is_group(path)
}

/// Whether the name of a teacher, see [`teacher`], is that of the document of a group.
pub fn names_group(teacher: &str) -> bool {
    apt::is_group(teacher)
}

/// Whether what is at `path` may be asked for by digest, too, see [`by_hash`].
pub fn has_by_hash(upstream: &Upstream, path: &str) -> bool {
    upstream.kind == Kind::Packages && path.starts_with("dists/")
}

/// The URL of the content `digest` beside the index at `url`.
pub fn by_hash(url: &Url, digest: &kato_shared::Digest) -> Url {
    apt::by_hash(url, digest)
}

/// What `document`, whose bytes `content` are, teaches. Empty for a document that does not teach.
pub fn lessons<'d>(document: &Document<'d>, content: Box<dyn Read + Send + 'd>) -> Lessons<'d> {
    match document.upstream.kind {
        Kind::Packages if apt::teacher(document.path).is_some() => apt::lessons(document, content),
        _ if document.upstream.is_sidecar(document.path) => sidecar::lessons(document, content),
        Kind::Packages
        | Kind::Release
        | Kind::Registry
        | Kind::Pypi
        | Kind::Npm
        | Kind::Cargo
        | Kind::Generic => Box::new(std::iter::empty()),
    }
}

/// Whether `url` is at the origin and below the base path of one of the URLs of `upstream`.
pub fn is_own(upstream: &Upstream, url: &Url) -> bool {
    let mut bases = upstream.urls.iter().map(crate::settings::BaseUrl::url);
    bases.any(|base| base.origin() == url.origin() && url.path().starts_with(base.path()))
}
