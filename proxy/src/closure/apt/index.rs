//! From the signed document of a suite to the packages that its indexes list.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use kato_shared::Digest;

use super::{
    DeclaredSuite,
    universe::{File, Package, Universe, priority},
};
use crate::{
    closure::Check,
    ecosystem::{
        apt::{
            self,
            paragraph::{Paragraph, paragraphs},
        },
        unpack,
    },
};

/// Adds what the indexes of `suite` list to the packages of each of its architectures.
pub(super) fn read<'s>(
    check: &mut Check<'_>,
    suite: &'s DeclaredSuite,
    universes: &mut BTreeMap<&'s str, Universe>,
) {
    check.about(format!("apt {} {}", suite.archive, suite.suite));
    let dists = format!("{}/dists/{}", suite.archive, suite.suite);
    let document = document(check, &dists);
    let text = document
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    // `InRelease` begins with a paragraph of its signature.
    let head = paragraphs(&text)
        .find(|read| read.get("Hash").is_none() && read.get("Suite").or(read.get("Date")).is_some());
    let head = head.unwrap_or_default();
    if let Some(text) = &document {
        let release = Release { dists: &dists, text };
        for component in &suite.components {
            descriptions(check, &release, component);
        }
    }
    let (mut listed, mut there) = (0_u64, 0_u64);
    for architecture in &suite.architectures {
        let universe = universes.entry(architecture).or_default();
        let Some(text) = &document else { continue };
        let release = Release { dists: &dists, text };
        for component in &suite.components {
            for folder in release.folders(&head, component, architecture) {
                let Some(bytes) = packages_index(check, &release, &folder) else {
                    continue;
                };
                for read in paragraphs(&String::from_utf8_lossy(&bytes)) {
                    let Some(package) = package(&read, suite, architecture) else {
                        continue;
                    };
                    listed += 1;
                    there += u64::from(package.is_held(check.snapshot));
                    let priority = priority(&head);
                    let others =
                        ["Suggests", "Replaces", "Enhances"].map(|name| read.get(name).unwrap_or_default());
                    universe.add(Package { priority, ..package }, others, architecture);
                }
            }
        }
    }
    check.note(&format!("the indexes list {listed}, held are {there}"));
}

/// The package of a paragraph, if it is for `architecture`.
fn package(read: &Paragraph<'_>, suite: &DeclaredSuite, architecture: &str) -> Option<Package> {
    let package = Package::of(read)?;
    let is_meant = ["", "all", architecture].contains(&package.architecture.as_str());
    let digest = read.get("SHA256").and_then(|digest| digest.parse().ok());
    let file = File::new(&suite.archive, read.get("Filename")?, digest);
    is_meant.then(|| Package {
        files: vec![file],
        ..package
    })
}

/// `InRelease`, or `Release` with its signature.
fn document(check: &mut Check<'_>, dists: &str) -> Option<bytes::Bytes> {
    let signed = format!("{dists}/InRelease");
    let release = if check.found(&signed).is_some() {
        signed
    } else {
        let detached = format!("{dists}/Release");
        if check.found(&detached).is_none() {
            check.gap(signed);
            return None;
        }
        check.needs(&format!("{dists}/Release.gpg"), None);
        detached
    };
    Some(check.document(&release)?.1)
}

/// The document of a suite that is held.
struct Release<'r> {
    /// The URL of its folder.
    dists: &'r str,
    text: &'r [u8],
}

impl Release<'_> {
    /// Where packages for `architecture` are listed: with those for all, unless the suite has these apart.
    fn folders(&self, head: &Paragraph<'_>, component: &str, architecture: &str) -> Vec<String> {
        let mut folders = vec![format!("{component}/binary-{architecture}")];
        let apart = format!("{component}/binary-all");
        let mut named = head
            .get("Architectures")
            .unwrap_or_default()
            .split_ascii_whitespace();
        let is_named = named.any(|name| name == "all");
        let is_within = head
            .get("No-Support-for-Architecture-all")
            .is_some_and(|value| value == "Packages");
        if is_named && !is_within && apt::offered(self.text).contains(&apart) {
            folders.push(apart);
        }
        folders
    }

    /// Whether the document lists `name` as a file without content: apt asks for none of its forms.
    fn is_empty(&self, name: &str) -> bool {
        apt::listed(self.text, name) == Some(Digest::of(b""))
    }

    /// The content that a client gets who asks for `name`, as `serve --offline` answers: by what the document lists, under whatever name that
    /// is held; else what is held under this name, where the document has no digest that says otherwise.
    fn answered(&self, check: &Check<'_>, name: &str) -> Option<Digest> {
        let below = format!("GET {}/", self.dists);
        match apt::listed(self.text, name) {
            Some(digest) => {
                let mut entries = check.snapshot.under(&below).iter();
                entries
                    .any(|entry| entry.status == 200 && entry.digest == digest)
                    .then_some(digest)
            }
            None => Some(check.found(&format!("{}/{name}", self.dists))?.digest),
        }
    }
}

/// The ways in which indexes are compressed.
const COMPRESSIONS: [&str; 6] = [".xz", ".gz", ".zst", ".bz2", ".lz4", ""];

/// The descriptions of packages that a client reads which sets no language: where the suite lists them, `apt-get update` fails without.
fn descriptions(check: &mut Check<'_>, release: &Release<'_>, component: &str) {
    let folder = format!("{component}/i18n/Translation-en");
    let names: Vec<String> = COMPRESSIONS
        .iter()
        .flat_map(|kind| apt::names(release.text, &format!("{folder}{kind}")))
        .collect();
    if names.is_empty() || release.is_empty(&folder) {
        return;
    }
    check.report.checked += 1;
    if !names.iter().any(|name| release.answered(check, name).is_some()) {
        let dists = release.dists;
        check.gap(format!("{dists}/{folder}, in any compression that Release lists"));
    }
}

/// The index of packages in `folder`, in whichever compression: by the names by which clients ask, the strongest digest first.
fn packages_index(check: &mut Check<'_>, release: &Release<'_>, folder: &str) -> Option<Vec<u8>> {
    check.report.checked += 1;
    if release.is_empty(&format!("{folder}/Packages")) {
        return Some(Vec::new());
    }
    let mut is_listed = false;
    for kind in COMPRESSIONS {
        for name in apt::names(release.text, &format!("{folder}/Packages{kind}")) {
            is_listed = true;
            let content = release
                .answered(check, &name)
                .and_then(|digest| (check.content)(&digest));
            let Some(bytes) = content else { continue };
            let mut plain = Vec::new();
            let read = unpack(Cursor::new(bytes)).and_then(|mut unpacked| unpacked.read_to_end(&mut plain));
            if read.is_ok() {
                return Some(plain);
            }
        }
    }
    let dists = release.dists;
    check.gap(if is_listed {
        format!("{dists}/{folder}/Packages, in any compression that Release lists")
    } else {
        let offered = apt::offered(release.text).join(", ");
        format!("{folder}: the suite has no such index, but {offered}")
    });
    None
}
