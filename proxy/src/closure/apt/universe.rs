//! All packages of one architecture that the indexes of all declared suites list.

use std::{cmp::Ordering, collections::HashMap};

use kato_shared::Digest;

use crate::{
    ecosystem::apt::{
        paragraph::Paragraph,
        relation::{self, Bound},
        version,
    },
    key::normalise_escapes,
    snapshot::Snapshot,
};

/// The priority of a suite that says nothing of it, see `apt_preferences(5)`.
const USUAL: u16 = 500;
/// Of one that says `NotAutomatic: yes` and `ButAutomaticUpgrades: yes`; it is also that of what is installed.
pub(super) const INSTALLED: u16 = 100;
/// Of one that says `NotAutomatic: yes` alone.
const NOT_AUTOMATIC: u16 = 1;

/// A version of a package.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) multi_arch: String,
    /// Its source, and the version of that.
    pub(super) source: (String, String),
    pub(super) is_essential: bool,
    pub(super) is_important: bool,
    /// Its priority: apt takes the lowest of several providers.
    pub(super) rank: u8,
    /// The priority of its suite.
    pub(super) priority: u16,
    pub(super) pre_depends: String,
    pub(super) depends: String,
    pub(super) recommends: String,
    pub(super) breaks: String,
    pub(super) conflicts: String,
    pub(super) provides: String,
    /// Where it is; nowhere for what is installed.
    pub(super) files: Vec<File>,
    /// Whether the machine is told to keep it as it is (`apt-mark hold`).
    pub(super) is_on_hold: bool,
}

/// Where a package is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) url: String,
    pub(super) digest: Option<Digest>,
}

impl File {
    /// The file `name` of `archive`, under the URL by which apt asks for it.
    pub(super) fn new(archive: &str, name: &str, digest: Option<Digest>) -> Self {
        // A name is a path, whatever it looks like; and apt escapes the plus.
        let escaped = name
            .replace('%', "%25")
            .replace('?', "%3F")
            .replace('#', "%23")
            .replace('+', "%2B");
        Self {
            url: normalise_escapes(&format!("{archive}/{escaped}")).into_owned(),
            digest,
        }
    }
}

impl Package {
    /// The package of a paragraph; none where that names no package with a version.
    pub(super) fn of(read: &Paragraph<'_>) -> Option<Self> {
        let rank = match read.get("Priority") {
            Some("required") => 1,
            Some("important") => 2,
            Some("standard") => 3,
            Some("optional") => 4,
            Some(_) => 5,
            // Apt takes one that says nothing before all others.
            None => 0,
        };
        let (name, version) = (read.get("Package")?, read.get("Version")?);
        Some(Self {
            name: name.to_owned(),
            version: version.to_owned(),
            source: source(read.get("Source"), (name, version)),
            is_essential: read.says_yes("Essential"),
            is_important: read.says_yes("Important") || read.says_yes("Protected"),
            architecture: read.text("Architecture"),
            multi_arch: read.text("Multi-Arch"),
            rank,
            priority: INSTALLED,
            pre_depends: read.text("Pre-Depends"),
            depends: read.text("Depends"),
            recommends: read.text("Recommends"),
            breaks: read.text("Breaks"),
            conflicts: read.text("Conflicts"),
            provides: read.text("Provides"),
            files: Vec::new(),
            is_on_hold: read
                .get("Status")
                .is_some_and(|status| status.starts_with("hold ")),
        })
    }

    /// Whether one of its files is in `snapshot`, as apt asks for it.
    pub(super) fn is_held(&self, snapshot: &Snapshot) -> bool {
        self.files.iter().any(|file| {
            let mut entries = snapshot.variants(&format!("GET {}", file.url)).iter();
            entries
                .any(|entry| entry.status == 200 && file.digest.is_none_or(|digest| entry.digest == digest))
        })
    }

    /// The names that it provides beside its own, with their versions.
    pub(super) fn provided<'p>(&'p self, architecture: &str) -> Vec<(&'p str, Option<&'p str>)> {
        let groups = relation::groups(&self.provides, architecture).into_iter();
        let relations = groups.flat_map(|group| group.alternatives);
        relations
            .map(|relation| (relation.name, relation.bound.map(Bound::version)))
            .collect()
    }
}

/// The source of a package, and the version of that: `Source: name (version)`, each of which is its own where nothing is said.
fn source(said: Option<&str>, (name, version): (&str, &str)) -> (String, String) {
    let said = said.unwrap_or(name);
    let (of, rest) = said.split_once(' ').unwrap_or((said, ""));
    let within = rest.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    (
        of.to_owned(),
        within.map_or(version, |(version, _)| version).to_owned(),
    )
}

/// The priority of a suite by the first paragraph of its document.
pub(super) fn priority(release: &Paragraph<'_>) -> u16 {
    match (
        release.says_yes("NotAutomatic"),
        release.says_yes("ButAutomaticUpgrades"),
    ) {
        (false, _) => USUAL,
        (true, true) => INSTALLED,
        (true, false) => NOT_AUTOMATIC,
    }
}

/// Packages by name and by what they provide.
#[derive(Debug, Default)]
pub(super) struct Universe {
    by_name: HashMap<String, Vec<Package>>,
    /// Names of packages some version of which provides the name.
    providers: HashMap<String, Vec<String>>,
    /// The order in which apt comes to know names: as a package, or because a package says something of it.
    known: HashMap<String, u32>,
}

impl Universe {
    /// Adds a package, in the order in which apt reads indexes. One that is in several suites is one, with several files. `others` are fields that count for
    /// nothing but the order in which names come to be known.
    pub(super) fn add(&mut self, package: Package, others: [&str; 3], architecture: &str) {
        self.note(&package.name);
        if self.version(&package.name, &package.version).is_none() {
            let [suggests, replaces, enhances] = others;
            for text in [
                &package.pre_depends,
                &package.depends,
                &package.conflicts,
                &package.breaks,
                &package.recommends,
                suggests,
                replaces,
                enhances,
                &package.provides,
            ] {
                for relation in relation::groups(text, architecture)
                    .into_iter()
                    .flat_map(|group| group.alternatives)
                    // A qualified name is one of its own.
                    .filter(|relation| relation.qualifier.is_none())
                {
                    self.note(relation.name);
                }
            }
        }
        for (name, _) in package.provided(architecture) {
            let providers = self.providers.entry(name.to_owned()).or_default();
            if !providers.contains(&package.name) {
                providers.push(package.name.clone());
            }
        }
        let known = self.by_name.entry(package.name.clone()).or_default();
        match known.iter_mut().find(|one| one.version == package.version) {
            Some(same) => {
                same.priority = same.priority.max(package.priority);
                same.files.extend(package.files);
            }
            None => known.push(package),
        }
    }

    fn note(&mut self, name: &str) {
        if !self.known.contains_key(name) {
            let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
            self.known.insert(name.to_owned(), next);
        }
    }

    /// When apt comes to know `name`; after all others where no index names it.
    pub(super) fn known(&self, name: &str) -> u32 {
        self.known.get(name).copied().unwrap_or(u32::MAX)
    }

    /// The names of all packages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// All versions of `name`.
    pub(super) fn versions(&self, name: &str) -> &[Package] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The version that apt takes where nothing is installed and none is named: that of the highest priority, then the highest.
    pub(super) fn best(&self, name: &str) -> Option<&Package> {
        self.versions(name).iter().max_by(|one, other| {
            let by_priority = one.priority.cmp(&other.priority);
            by_priority.then_with(|| version::compare(&one.version, &other.version))
        })
    }

    /// The version `wanted` of `name`.
    pub(super) fn version(&self, name: &str, wanted: &str) -> Option<&Package> {
        let mut versions = self.versions(name).iter();
        versions.find(|package| version::compare(&package.version, wanted) == Ordering::Equal)
    }

    /// Names of packages that may provide `name`.
    pub(super) fn providers(&self, name: &str) -> &[String] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }
}
