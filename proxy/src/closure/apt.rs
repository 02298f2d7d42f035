//! Suites of apt: from `InRelease` to the `.deb` files of a list of packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, Cursor},
};

use kato_shared::Digest;

use super::Check;
use crate::ecosystem::unpack;

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
    let listed = Listed::read(&text);
    let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    for component in &suite.components {
        for architecture in &suite.architectures {
            let index = format!("{component}/binary-{architecture}/Packages");
            if let Some(bytes) = packages_index(check, (&dists, &index), &listed) {
                read(&bytes, &mut packages);
            }
        }
    }
    wanted(check, suite, &packages);
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

/// The index `index`, in whichever compression, by name or by digest; only as `Release` lists it.
fn packages_index(check: &mut Check<'_>, (dists, index): (&str, &str), listed: &Listed) -> Option<Vec<u8>> {
    check.report.checked += 1;
    let (folder, name) = index.rsplit_once('/')?;
    for kind in [".xz", ".gz", ".zst", ".bz2", ".lz4", ""] {
        let path = format!("{index}{kind}");
        let Some(digest) = listed.digests.get(&path) else {
            continue;
        };
        let by_name = format!("{dists}/{folder}/{name}{kind}");
        let by_hash = format!("{dists}/{folder}/by-hash/{}", listed.by_hash(&path, digest));
        let is_there = [by_name, by_hash]
            .iter()
            .any(|url| check.found(url).is_some_and(|entry| entry.digest == *digest));
        let Some(bytes) = is_there.then(|| (check.content)(digest)).flatten() else {
            continue;
        };
        let mut plain = Vec::new();
        let read = unpack(Cursor::new(bytes))
            .and_then(|mut plain_reader| std::io::Read::read_to_end(&mut plain_reader, &mut plain));
        if read.is_ok() {
            return Some(plain);
        }
    }
    check.gap(format!("{dists}/{index}, in any compression that Release lists"));
    None
}

/// What a `Release` or `InRelease` lists.
#[derive(Default)]
struct Listed {
    /// Digests by path: the section `SHA256`.
    digests: BTreeMap<String, Digest>,
    /// The same by the stronger function that some archives list as well, as text: the section `SHA512`.
    stronger: BTreeMap<String, String>,
}

impl Listed {
    fn read(release: &[u8]) -> Self {
        let mut listed = Self::default();
        let mut section = String::new();
        for line in release.lines().map_while(Result::ok) {
            if !line.starts_with(' ') {
                line.trim_end().clone_into(&mut section);
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let (Some(hex), Some(path)) = (words.next(), words.nth(1)) else {
                continue;
            };
            if section == "SHA512:" {
                listed.stronger.insert(path.to_owned(), hex.to_owned());
            } else if let ("SHA256:", Ok(digest)) = (section.as_str(), hex.parse()) {
                listed.digests.insert(path.to_owned(), digest);
            }
        }
        listed
    }

    /// The name by digest that apt asks for: by the strongest function that is listed, and by no other.
    fn by_hash(&self, path: &str, digest: &Digest) -> String {
        match self.stronger.get(path) {
            Some(hex) => format!("SHA512/{hex}"),
            None => format!("SHA256/{}", digest.hex()),
        }
    }
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
