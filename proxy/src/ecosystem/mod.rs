//! What package formats teach about their URLs: digests in paths ([`known_digest`]), and digests that documents such as
//! `Release` and `Packages` name for other URLs ([`lessons`]).
//!
//! Flow of a lesson: a document that teaches ([`teacher`]) becomes a stored response; its bytes are read once, off the
//! reactor, unpacked as they come ([`mod@unpack`]), and each [`Lesson`] goes into the store's table of learned digests; from then on a
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

pub(crate) mod apt;
pub mod cargo;
mod form;
pub(crate) mod html;
mod integrity;
mod lesson;
pub mod npm;
pub mod oci;
mod paths;
pub mod pypi;
mod sidecar;
mod taught;
pub mod tuf;
mod unpack;
pub mod unserved;

use std::{io::Read, ops::Range};

use serde_json::value::RawValue;
use url::Url;

use crate::{
    policy,
    settings::{Kind, Upstream},
};

pub(crate) use apt::{ReleaseForm, is_about, release_form};
pub(crate) use form::{BEGINNING, Looked};
pub use integrity::{Integrity, NoIntegrity};
pub use lesson::{Document, Known, Lesson, LessonError, Lessons, MOST_LESSONS};
use paths::hex;
pub use paths::known_digest;
pub use taught::Taught;
pub use unpack::{EXPANSION_LIMIT, unpack};

/// The name under which the generations of a document are counted, if the document at `path`, below the base URL of
/// `upstream`, teaches. Several paths may be one document: `Packages.xz` and its `by-hash` name, for example.
///
/// It is relative to the base URL of the upstream, like `path`.
pub fn teacher(upstream: &Upstream, path: &str) -> Option<String> {
    let of_its_kind = match upstream.kind {
        Kind::Packages => apt::teacher(path),
        Kind::Pypi => pypi::is_page(path).then(|| path.to_owned()),
        Kind::Npm => npm::is_packument(path).then(|| path.to_owned()),
        Kind::Cargo => cargo::is_index_file(path).then(|| path.to_owned()),
        Kind::Release | Kind::Registry | Kind::Generic => None,
    };
    of_its_kind.or_else(|| upstream.is_sidecar(path).then(|| path.to_owned()))
}

/// Whether a document of `upstream` may teach about `path`: a request for such a path waits for a lesson under way.
pub fn is_taught(upstream: &Upstream, path: &str) -> bool {
    let has_documents = match upstream.kind {
        Kind::Packages => true,
        Kind::Pypi => !pypi::is_page(path),
        Kind::Npm => !npm::is_packument(path),
        Kind::Cargo => !cargo::is_index_file(path) && !path.ends_with("config.json"),
        Kind::Release | Kind::Registry | Kind::Generic => false,
    };
    // What carries its digest needs no lesson.
    (has_documents || !upstream.digests.is_empty()) && known_digest(upstream.kind, path).is_none()
}

/// Whether some path of an upstream of `kind` is taught at all.
pub fn has_lessons(upstream: &Upstream) -> bool {
    is_taught(upstream, "")
}

/// Whether documents of `upstream` have addresses that are relative to where they stand, whatever they were asked for by.
pub fn has_relative_addresses(upstream: &Upstream) -> bool {
    matches!(upstream.kind, Kind::Pypi | Kind::Npm)
}

/// Whether the document at `path` is that of a group: what it names is seen in one generation with it.
pub fn is_group(upstream: &Upstream, path: &str) -> bool {
    upstream.kind == Kind::Packages && apt::is_group(path)
}

/// Whether the name of a teacher, see [`teacher`], is that of the document of a group.
pub fn names_group(teacher: &str) -> bool {
    apt::is_group(teacher)
}

/// What is at `path`, as far as that decides what takes its place.
pub fn document(upstream: &Upstream, path: &str) -> policy::Document {
    use policy::Document::{Other, Shared, SharedData};
    match upstream.kind {
        Kind::Packages if apt::is_named(path) => Shared,
        Kind::Pypi if pypi::is_page(path) => Shared,
        Kind::Npm if npm::is_packument(path) => SharedData,
        Kind::Cargo if cargo::is_index_file(path) || path.ends_with("config.json") => SharedData,
        _ if upstream.is_sidecar(path) => SharedData,
        Kind::Release if may_be_html(path) => Shared,
        Kind::Release => SharedData,
        Kind::Packages | Kind::Pypi | Kind::Npm | Kind::Cargo | Kind::Registry | Kind::Generic => Other,
    }
}

/// Whether a page may be what is meant by `path`.
fn may_be_html(path: &str) -> bool {
    let name = path.split('?').next().unwrap_or_default();
    name.is_empty()
        || [".html", ".htm", ".xhtml", "/"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// The path of the detached signature of the document at `path`, which is seen in one generation with it.
pub fn signature(upstream: &Upstream, path: &str) -> Option<String> {
    (upstream.kind == Kind::Packages).then(|| apt::signature(path))?
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
        Kind::Pypi if pypi::is_page(document.path) => taught::lessons(document.upstream, content, |page| {
            pypi::lessons(document.url, page)
        }),
        Kind::Npm if npm::is_packument(document.path) => {
            taught::lessons(document.upstream, content, |read| {
                npm::lessons(document.url, read)
            })
        }
        // What a crate's file teaches depends on another document, too: see `archives`.
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

/// What the index file of a crate, whose bytes `content` are, teaches about archives at the addresses of `config`.
pub fn archives<'d>(
    document: &Document<'d>,
    content: Box<dyn Read + Send + 'd>,
    config: &'d cargo::Config,
) -> Lessons<'d> {
    taught::lessons(document.upstream, content, |file| cargo::lessons(config, file))
}

/// Where `part`, which was read out of `document` without being copied, stands in it.
fn span_of(document: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr().addr() - document.as_ptr().addr();
    start..start + part.get().len()
}

/// Whether `url` is at the origin and below the base path of one of the URLs of `upstream`.
pub fn is_own(upstream: &Upstream, url: &Url) -> bool {
    upstream
        .all_urls()
        .any(|base| base.origin() == url.origin() && url.path().starts_with(base.path()))
}
