//! Suites of apt: from `InRelease` to the `.deb` files of a list of packages and of all that they depend on.
//!
//! ```text
//! suite → InRelease → Packages            of each declared component and architecture              (index)
//! all suites → candidates, providers      of one architecture: apt resolves over all its sources   (universe)
//! machine → what is installed             by the status file of its dpkg; nothing without one      (status)
//! packages of the list → what apt would install on that machine → each has to be held              (resolve, by mark over state)
//! ```
//! Nothing does but what a client gets who asks as apt does: the candidate, of the architecture, under its URL, with its digest.
//!
//! Deliberately absent: what apt's problem resolver makes of conflicts, which is a gap, and the order of an installation. `apt-get` finds those, and the
//! rehearsal lets it.

mod index;
mod mark;
mod resolve;
mod state;
mod status;
mod universe;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::{
    resolve::{Needed, install},
    universe::{Package, Universe},
};
use super::Check;

pub use status::{Status, StatusError};

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
    /// Packages. An empty list declares the indexes alone.
    pub packages: Vec<DeclaredPackage>,
    /// What the machine has on which they are installed.
    pub status: Option<Arc<Status>>,
    /// Whether what they recommend is installed as well.
    pub recommends: bool,
}

/// A package as `apt-get install` takes it: `name`, `name:architecture`, `name=version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeclaredPackage {
    /// Its name.
    pub name: String,
    /// For this architecture alone.
    pub architecture: Option<String>,
    /// This version in the place of the candidate.
    pub version: Option<String>,
}

impl std::str::FromStr for DeclaredPackage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, version) = match text.split_once('=') {
            Some((rest, version)) => (rest, Some(version)),
            None => (text, None),
        };
        let (name, architecture) = match rest.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (rest, None),
        };
        let is_word = |word: &str, others: &[u8]| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
        };
        let is_fine = is_word(name, b"+-.")
            && architecture.is_none_or(|word| is_word(word, b"-"))
            && version.is_none_or(|word| is_word(word, b".+-:~"));
        if !is_fine {
            return Err(format!("expected NAME[:ARCHITECTURE][=VERSION], got `{text}`"));
        }
        Ok(Self {
            name: name.to_owned(),
            architecture: architecture.map(str::to_owned),
            version: version.map(str::to_owned),
        })
    }
}

/// Which packages are asked for on one machine: names, perhaps with a version, in the order in which apt looks at them.
type Round = Vec<(String, Option<String>)>;

pub(super) fn check(check: &mut Check<'_>, suites: &[DeclaredSuite]) {
    let mut universes: BTreeMap<&str, Universe> = BTreeMap::new();
    for suite in suites {
        index::read(check, suite, &mut universes);
    }
    let mut statuses: Vec<Option<&Arc<Status>>> = Vec::new();
    for suite in suites.iter().filter(|suite| suite.status.is_some()) {
        if !statuses.contains(&suite.status.as_ref()) {
            statuses.push(suite.status.as_ref());
        }
    }
    if statuses.is_empty() {
        statuses.push(None);
    }
    for status in statuses {
        for (architecture, universe) in &universes {
            // What says of no machine is for all of them.
            let of_machine = suites.iter().filter(|suite| {
                let is_its = suite.status.is_none() || suite.status.as_ref() == status;
                is_its && suite.architectures.iter().any(|one| one == architecture)
            });
            let of_machine: Vec<&DeclaredSuite> = of_machine.collect();
            let place = Place {
                architecture,
                universe,
                status: status.map(AsRef::as_ref),
                recommends: of_machine.iter().any(|suite| suite.recommends),
            };
            place.check(check, &of_machine);
        }
    }
    foreign(check, suites);
}

/// Packages that are declared for an architecture of which nothing is.
fn foreign(check: &mut Check<'_>, suites: &[DeclaredSuite]) {
    for suite in suites {
        check.about(format!("apt {} {}", suite.archive, suite.suite));
        for package in &suite.packages {
            let Some(architecture) = &package.architecture else {
                continue;
            };
            if !suite.architectures.contains(architecture) {
                check.gap(format!(
                    "package {}:{architecture}: {architecture} is not in its `architectures`",
                    package.name
                ));
            }
        }
    }
}

/// A machine of one architecture.
struct Place<'p> {
    architecture: &'p str,
    universe: &'p Universe,
    status: Option<&'p Status>,
    recommends: bool,
}

impl Place<'_> {
    fn check(&self, check: &mut Check<'_>, suites: &[&DeclaredSuite]) {
        let on = self.status.map_or_else(String::new, |status| {
            format!(", installed is what {} says", status.path)
        });
        check.about(format!("apt for {}{on}", self.architecture));
        for round in self.rounds(suites) {
            self.round(check, &round);
        }
    }

    /// What is asked for: all of it at once, as by one `apt-get install`. A further version of the same package is asked for in a round of its own.
    fn rounds(&self, suites: &[&DeclaredSuite]) -> Vec<Round> {
        let mut first = Round::new();
        let mut others = BTreeSet::new();
        let packages = suites.iter().flat_map(|suite| &suite.packages);
        let is_meant = |package: &&DeclaredPackage| {
            let architecture = package.architecture.as_deref();
            architecture.is_none_or(|architecture| architecture == self.architecture)
        };
        for package in packages.filter(is_meant) {
            let known = first.iter_mut().find(|(name, _)| *name == package.name);
            match (known, &package.version) {
                (None, version) => first.push((package.name.clone(), version.clone())),
                (Some((_, known @ None)), version) => known.clone_from(version),
                (Some((_, Some(known))), Some(version)) if known != version => {
                    others.insert((package.name.clone(), version.clone()));
                }
                (Some(_), _) => {}
            }
        }
        let others = others.into_iter().map(|(name, version)| {
            let mut round = first.clone();
            for one in round.iter_mut().filter(|(known, _)| *known == name) {
                one.1 = Some(version.clone());
            }
            round
        });
        let others: Vec<Round> = others.collect();
        let first = (!first.is_empty()).then_some(first);
        first.into_iter().chain(others).collect()
    }

    fn round(&self, check: &mut Check<'_>, round: &Round) {
        let snapshot = check.snapshot;
        let is_held = |package: &Package| package.is_held(snapshot);
        let plan = install(
            self.universe,
            (self.architecture, self.status),
            self.recommends,
            round,
        );
        for removed in &plan.removed {
            check.note(&format!("apt would remove {removed}"));
        }
        let mut is_bare = false;
        for Needed { package, by } in &plan.needed {
            check.report.checked += 1;
            if is_held(package) {
                continue;
            }
            let url = package.files.first().map_or("", |file| file.url.as_str());
            match by {
                Some(by) => {
                    is_bare = true;
                    check.gap(format!("{url}, needed by {by}"));
                }
                None => check.gap(url),
            }
        }
        check.report.checked += plan.unmet.len() as u64;
        for unmet in plan.unmet {
            check.gap(unmet);
        }
        if is_bare && self.status.is_none() {
            check.hint(
                "nothing counts as installed: give `status` in [[apt]] a copy of /var/lib/dpkg/status of the machine, and only what it lacks is needed",
            );
        }
    }
}

#[cfg(test)]
mod tests;
