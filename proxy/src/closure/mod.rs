//! Is everything there that a site without a network will ask for? A pure function over a snapshot and a declaration of what is needed.
//!
//! ```text
//! image     tag or digest → index → manifests of the declared platforms → configuration, layers; referrers were asked for
//! apt       suite → InRelease → Packages of the declared components and architectures → .deb of the declared packages, and of what they need
//! release   version → its document → targets of all roles
//! lock      the documents of the index that clients read, each entry where these say it is
//! file      what is at a URL
//! ```
//! What is declared and not there is a [`Gap`], named so that somebody can ask for it. Content is read by digest through a function of the
//! caller; nothing is fetched, and nothing is believed that the content does not say itself. Files and documents of lock files are asked for as their
//! clients ask, with the decision of a mirror without a network: what it would not send them is missing.
//!
//! Deliberately absent: signatures (clients verify them, and the rehearsal lets them).

mod apt;
mod declaration;
mod image;
mod lock;
mod release;

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;
use kato_shared::Digest;
use serde::Serialize;

pub use apt::{DeclaredPackage, DeclaredSuite, Status, StatusError};
pub use declaration::{DeclarationError, Declared, DeclaredCommand};
pub use image::DeclaredImage;
pub use release::DeclaredRelease;

use crate::{
    key::normalise_escapes,
    policy::{Disconnected, Overrides, Request, Stored, disconnected},
    prefetch::{ANYTHING, Indexes, Lock, Platform},
    snapshot::{Entry, Snapshot},
};

/// What a site needs.
#[derive(Debug, Clone, Default)]
pub struct Declaration {
    /// Images.
    pub images: Vec<DeclaredImage>,
    /// Their platforms; all of them when there are none.
    pub platforms: Vec<Platform>,
    /// Suites of apt.
    pub suites: Vec<DeclaredSuite>,
    /// Releases.
    pub releases: Vec<DeclaredRelease>,
    /// Lock files.
    pub locks: Vec<Lock>,
    /// Files by their URLs, each with the digest of its content where that is known.
    pub files: Vec<(String, Option<Digest>)>,
}

/// Something that is needed and not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// What was declared: an image, a suite, a release, a lock file, a file.
    pub subject: String,
    /// What of it is missing: a URL where there is one.
    pub missing: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many things were looked for.
    pub checked: u64,
    /// What is missing, in order, each once.
    pub gaps: Vec<Gap>,
    /// What indexes list and what is held of it, for people: "index lists 63421, held 1204".
    pub notes: Vec<String>,
    /// What may be done about gaps, for people; each once.
    pub hints: Vec<String>,
}

impl Report {
    /// Whether nothing is missing.
    pub fn is_closed(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// Checks `snapshot` against `declared`. `content` gives the bytes of a document; what it does not give is a gap. `indexes` are those that clients ask
/// about what lock files name.
pub fn check(
    snapshot: &Snapshot,
    content: &dyn Fn(&Digest) -> Option<Bytes>,
    declared: &Declaration,
    indexes: &Indexes,
) -> Report {
    let mut check = Check {
        snapshot,
        content,
        held: snapshot.contents().into_iter().collect(),
        subject: String::new(),
        report: Report::default(),
    };
    for image in &declared.images {
        image::check(&mut check, image, &declared.platforms);
    }
    apt::check(&mut check, &declared.suites);
    for release in &declared.releases {
        release::check(&mut check, release);
    }
    for lock in &declared.locks {
        lock::check(&mut check, lock, indexes);
    }
    for (url, digest) in &declared.files {
        check.about(format!("file {url}"));
        check.needs_file(url, |entry| digest.is_none_or(|digest| entry.digest == digest));
    }
    check.report.gaps.sort();
    check.report.gaps.dedup();
    check.report
}

/// A check under way.
struct Check<'c> {
    snapshot: &'c Snapshot,
    content: &'c dyn Fn(&Digest) -> Option<Bytes>,
    held: HashMap<Digest, u64>,
    subject: String,
    report: Report,
}

impl Check<'_> {
    /// From here on it is about `subject`.
    fn about(&mut self, subject: String) {
        self.subject = subject;
    }

    fn gap(&mut self, missing: impl Into<String>) {
        self.report.gaps.push(Gap {
            subject: self.subject.clone(),
            missing: missing.into(),
        });
    }

    fn note(&mut self, note: &str) {
        self.report.notes.push(format!("{}: {note}", self.subject));
    }

    fn hint(&mut self, hint: &str) {
        if !self.report.hints.iter().any(|known| known == hint) {
            self.report.hints.push(hint.to_owned());
        }
    }

    /// What a client gets from `url` without a network that asks with the fields `asked`, if that is a 200.
    fn sent(&self, url: &str, asked: &HeaderMap) -> Option<&Entry> {
        let request = Request {
            method: &Method::GET,
            headers: asked,
        };
        let entries = self.variants(url);
        let responses: Vec<Stored> = entries.iter().map(|entry| entry.response().head).collect();
        let decided = disconnected(
            &request,
            &responses,
            (&Overrides::default(), Timestamp::UNIX_EPOCH),
        );
        match decided {
            Disconnected::Send { index, .. } => entries.get(index).filter(|entry| entry.status == 200),
            Disconnected::Absent(_) => None,
        }
    }

    /// The same for a client that takes any form, as those do that fetch files.
    fn sent_file(&self, url: &str) -> Option<&Entry> {
        let asked = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ANYTHING))]);
        self.sent(url, &asked)
    }

    /// The 200 at `url`, whatever its variant.
    fn found(&self, url: &str) -> Option<&Entry> {
        let mut variants = self.variants(url).iter();
        variants.find(|entry| entry.status == 200)
    }

    /// What is held under `url`, however it is spelled.
    fn variants(&self, url: &str) -> &[Entry] {
        self.snapshot.variants(&format!("GET {}", normalise_escapes(url)))
    }

    /// Whether anything was ever answered at `url`, "there is nothing" included.
    fn was_asked(&self, url: &str) -> bool {
        !self.variants(url).is_empty()
    }

    /// Looks for the file at `url` as clients ask for files. A gap where they would not get it, or something that is not `right`.
    fn needs_file(&mut self, url: &str, right: impl Fn(&Entry) -> bool) {
        self.report.checked += 1;
        if self.sent_file(url).is_some_and(right) {
            return;
        }
        let is_of_another_form = self.found(url).is_some() && self.sent_file(url).is_none();
        self.gap(if is_of_another_form {
            format!("{url}: what is held was chosen by other fields of a request (Vary)")
        } else {
            url.to_owned()
        });
    }

    /// Looks for content at `url`, of `digest` where that is known. True where it is there.
    fn needs(&mut self, url: &str, digest: Option<Digest>) -> bool {
        self.report.checked += 1;
        let is_there = self
            .found(url)
            .is_some_and(|entry| digest.is_none_or(|digest| entry.digest == digest));
        if !is_there {
            self.gap(url);
        }
        is_there
    }

    /// Looks for content by its digest alone; `name` says what it is.
    fn needs_content(&mut self, digest: &Digest, name: &str) {
        self.report.checked += 1;
        if !self.held.contains_key(digest) {
            self.gap(format!("{name} ({digest})"));
        }
    }

    /// The document at `url`, a gap where it is not there.
    fn document(&mut self, url: &str) -> Option<(Digest, Bytes)> {
        if !self.needs(url, None) {
            return None;
        }
        let digest = self.found(url)?.digest;
        let bytes = (self.content)(&digest);
        if bytes.is_none() {
            self.gap(format!("{url}: content {digest}"));
        }
        Some((digest, bytes?))
    }
}

#[cfg(test)]
mod tests;
