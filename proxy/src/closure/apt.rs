//! Suites of apt: from `InRelease` to the `.deb` files of a list of packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, Cursor},
};

use kato_shared::Digest;

use super::Check;
use crate::ecosystem::{apt, unpack};

/// A suite and what of it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSuite {
    /// The URL of the archive, without a slash at the end.
    pub archive: String,
    /// The suite.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// Architectures.
    pub architectures: Vec<String>,
    /// Names of packages, perhaps `name=version`. An empty list declares the indexes alone.
    pub packages: Vec<String>,
}

/// One package of an index.
struct Package {
    version: String,
    filename: String,
    digest: Option<Digest>,
}

pub(super) fn check(check: &mut Check<'_>, suite: &DeclaredSuite) {
    check.about(format!("apt {} {}", suite.archive, suite.suite));
    let dists = format!("{}/dists/{}", suite.archive, suite.suite);
    let signed = format!("{dists}/InRelease");
    let release = if check.found(&signed).is_some() {
        signed
    } else {
        let detached = format!("{dists}/Release");
        if check.found(&detached).is_none() {
            return check.gap(signed);
        }
        check.needs(&format!("{dists}/Release.gpg"), None);
        detached
    };
    let Some((_, text)) = check.document(&release) else {
        return;
    };
    let suite_of = Release {
        dists: &dists,
        text: &text,
    };
    let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    for component in &suite.components {
        for architecture in &suite.architectures {
            let folder = format!("{component}/binary-{architecture}");
            if let Some(bytes) = packages_index(check, &suite_of, &folder) {
                read(&bytes, &mut packages);
            }
        }
    }
    wanted(check, suite, &packages);
}

/// The document of a suite that is held.
struct Release<'r> {
    /// The URL of its folder.
    dists: &'r str,
    text: &'r [u8],
}

impl Release<'_> {
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

fn wanted(check: &mut Check<'_>, suite: &DeclaredSuite, packages: &BTreeMap<String, Vec<Package>>) {
    let held = |check: &Check<'_>, package: &Package| {
        let url = format!("{}/{}", suite.archive, package.filename);
        check
            .found(&url)
            .is_some_and(|entry| package.digest.is_none_or(|digest| entry.digest == digest))
    };
    let all: Vec<&Package> = packages.values().flatten().collect();
    let count = all.iter().filter(|package| held(check, package)).count();
    check.note(&format!("the indexes list {}, held are {count}", all.len()));
    for name in suite.packages.iter().collect::<BTreeSet<_>>() {
        check.report.checked += 1;
        let (name, version) = name
            .split_once('=')
            .map_or((name.as_str(), None), |(name, version)| (name, Some(version)));
        let candidates: Vec<&Package> = packages
            .get(name)
            .into_iter()
            .flatten()
            .filter(|package| version.is_none_or(|version| package.version == version))
            .collect();
        // One architecture's file does for a name that the declaration gives without one; each version that is named must be there.
        match candidates.as_slice() {
            [] => check.gap(format!("package {name}: in no index")),
            some if some.iter().any(|package| held(check, package)) => {}
            [first, ..] => check.gap(format!("{}/{}", suite.archive, first.filename)),
        }
    }
}

/// The index of packages in `folder`, in whichever compression: by the names by which clients ask, the strongest digest first.
fn packages_index(check: &mut Check<'_>, release: &Release<'_>, folder: &str) -> Option<Vec<u8>> {
    check.report.checked += 1;
    let mut is_listed = false;
    for kind in [".xz", ".gz", ".zst", ".bz2", ".lz4", ""] {
        for name in apt::names(release.text, &format!("{folder}/Packages{kind}")) {
            is_listed = true;
            let content = release
                .answered(check, &name)
                .and_then(|digest| (check.content)(&digest));
            let Some(bytes) = content else { continue };
            let mut plain = Vec::new();
            let read = unpack(Cursor::new(bytes))
                .and_then(|mut plain_reader| std::io::Read::read_to_end(&mut plain_reader, &mut plain));
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

/// Adds the packages of an index.
fn read(index: &[u8], packages: &mut BTreeMap<String, Vec<Package>>) {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let lines = index.lines().map_while(Result::ok).chain([String::new()]);
    for line in lines {
        if let Some((name, value)) = line.split_once(": ") {
            if !line.starts_with(' ') {
                fields.insert(name.to_owned(), value.trim().to_owned());
            }
        } else if line.is_empty() {
            let mut done = std::mem::take(&mut fields);
            if let (Some(name), Some(filename)) = (done.remove("Package"), done.remove("Filename")) {
                packages.entry(name).or_default().push(Package {
                    version: done.remove("Version").unwrap_or_default(),
                    filename,
                    digest: done.remove("SHA256").and_then(|digest| digest.parse().ok()),
                });
            }
        }
    }
}
