//! What `apt-get install` would fetch on a machine: pure, over what indexes list and what is installed.
//!
//! As apt 2.6 does it: everything that is asked for is marked, then each need in order (`mark`), then what is installed and was broken by that is
//! upgraded, as the first step of its problem resolver does. Apt does not look at what a mirror holds: an alternative that is held is of no use while apt takes
//! the one before it.
//!
//! Deliberately absent: the rest of the problem resolver, which takes back what was marked by scores. What is left to it is not shown, and is said so.

use std::{collections::HashSet, thread};

use super::{
    Round, Status,
    mark::{Marker, Marking},
    state::{By, Dep, Kind, Mode, Spot, State, World, candidate, same},
    universe::{Package, Universe},
};
use crate::ecosystem::apt::{relation::Relation, version};

/// The stack on which needs of needs are followed; apt ends at 3000 of them.
const STACK: usize = 128 << 20;

/// A package that would be installed.
pub(super) struct Needed<'m> {
    pub(super) package: &'m Package,
    /// Which package needs it, and how it says so; none for what was asked for.
    pub(super) by: Option<String>,
}

/// What an installation comes to.
#[derive(Default)]
pub(super) struct Plan<'m> {
    pub(super) needed: Vec<Needed<'m>>,
    /// What is installed and would be removed, with the reason.
    pub(super) removed: Vec<String>,
    /// What apt does not get done by itself.
    pub(super) unmet: Vec<String>,
}

/// A machine on which packages are installed.
pub(super) struct Machine<'m> {
    marker: Marker<'m>,
    plan: Plan<'m>,
}

/// What installing `round` at once comes to on a machine of `architecture` with what `status` says.
pub(super) fn install<'m>(
    universe: &'m Universe,
    (architecture, status): (&'m str, Option<&'m Status>),
    recommends: bool,
    round: &Round,
) -> Plan<'m> {
    let work = || {
        let state = State::new(universe, (architecture, status), recommends);
        let machine = Machine {
            marker: Marker::new(state),
            plan: Plan::default(),
        };
        machine.install(round)
    };
    let failed = |why: &str| Plan {
        unmet: vec![format!("what apt would install could not be found out: {why}")],
        ..Plan::default()
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        match worker.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(plan)) => plan,
            Ok(Err(_panicked)) => failed("this is a bug"),
            Err(error) => failed(&error.to_string()),
        }
    })
}

impl<'m> Machine<'m> {
    fn install(mut self, round: &Round) -> Plan<'m> {
        let mut asked = Vec::new();
        for (name, version) in round {
            let Some(at) = self.asked(name, version.as_deref()) else {
                continue;
            };
            self.marker.state.spots[at].is_protected = true;
            self.mark(at, By::Asked, (false, true));
            asked.push(at);
        }
        for at in &asked {
            self.mark(*at, By::Asked, (true, true));
        }
        self.upgrade_broken();
        self.judge_before();
        self.judge();
        self.collect(&asked);
        self.plan
    }

    fn state(&self) -> &State<'m> {
        &self.marker.state
    }

    /// Marks the package at `at`; whether that was done is seen by what is broken in the end.
    fn mark(&mut self, at: usize, by: By<'m>, (is_auto, is_asked): (bool, bool)) {
        let _is_done = self.marker.install(Marking {
            at,
            is_auto,
            is_asked,
            depth: 0,
            by,
        });
    }

    /// The package that is asked for as `name`, perhaps of a version; none where it cannot be had, or is installed in that version.
    fn asked(&mut self, name: &str, version: Option<&str>) -> Option<usize> {
        let universe = self.state().universe;
        let found = self.state().find(name);
        if let Some(wanted) = version {
            let is_there = |at: &usize| {
                let current = self.state().spots[*at].current;
                current.is_some_and(|current| version::compare(&current.version, wanted).is_eq())
            };
            if let Some(at) = found.filter(is_there) {
                let spot = &mut self.marker.state.spots[at];
                spot.candidate = spot.current;
                return Some(at);
            }
            let Some((at, package)) = found.zip(universe.version(name, wanted)) else {
                let offered = self.offered(name);
                self.plan
                    .unmet
                    .push(format!("package {name}={wanted}: {offered}"));
                return None;
            };
            self.marker.state.spots[at].candidate = Some(package);
            return Some(at);
        }
        if let Some(at) = found.filter(|at| self.state().spots[*at].candidate.is_some()) {
            return Some(at);
        }
        self.provider(name)
    }

    /// The one package that provides `name`, which has no candidate.
    fn provider(&mut self, name: &str) -> Option<usize> {
        let state = self.state();
        let names = state.universe.providers(name).iter();
        let is_provider = |at: &usize| {
            state.spots[*at].candidate.is_some_and(|package| {
                let mut provided = package.provided(state.architecture).into_iter();
                provided.any(|(provided, _)| provided == name)
            })
        };
        let installed = (0..state.spots.len()).filter(|at| state.spots[*at].current.is_some());
        let listed = names.filter_map(|name| state.find(name));
        let mut found: Vec<usize> = listed.chain(installed).filter(is_provider).collect();
        found.sort_by_key(|at| state.spots[*at].name);
        found.dedup();
        let names: Vec<&str> = found.iter().map(|at| state.spots[*at].name).collect();
        let said = match found[..] {
            [one] => return Some(one),
            [] => format!("package {name}: in no index of {}", state.architecture),
            _ => format!(
                "package {name}: provided by {}, of which apt takes none by itself; declare one of them",
                names.join(", ")
            ),
        };
        self.plan.unmet.push(said);
        None
    }

    /// What is installed and would be broken comes in its new version, without what that needs (`ResolveInternal`, its first loop).
    fn upgrade_broken(&mut self) {
        loop {
            let mut has_changed = false;
            for at in 0..self.state().spots.len() {
                if self.state().spots[at].mode == Mode::Install {
                    continue;
                }
                let Some((package, place)) = self.state().broken(at, World::ToBe, false) else {
                    continue;
                };
                let facts = self.state().facts(package);
                let dep = &facts.deps[place];
                let by = By::SaidInstalled(package, dep.field, dep.group.text);
                self.mark(at, by, (false, false));
                has_changed |= self.state().spots[at].mode == Mode::Install;
            }
            if !has_changed {
                return;
            }
        }
    }

    /// What is broken on the machine as it is. apt works out nothing by itself then: what is asked for may mend it, or apt may refuse to do
    /// anything at all, so that nothing is shown about such a machine.
    fn judge_before(&mut self) {
        for at in 0..self.state().spots.len() {
            let Some(package) = self.state().spots[at].current else {
                continue;
            };
            let facts = self.state().facts(package);
            for dep in facts.deps.iter().filter(|dep| dep.kind != Kind::Wish) {
                if !self.state().holds(package, dep, World::Now) && !self.state().is_met_elsewhere(dep) {
                    self.plan.unmet.push(format!(
                        "{} is not met on the machine as it is: mend that first (`apt-get --fix-broken install`), apt-get may refuse everything else there",
                        said_by(package, dep)
                    ));
                }
            }
        }
    }

    /// What is broken in the end, and was not before.
    fn judge(&mut self) {
        let mut seen = HashSet::new();
        for at in 0..self.state().spots.len() {
            let spot = &self.state().spots[at];
            let (Some(package), is_old) = (spot.to_be, same(spot.to_be, spot.current)) else {
                continue;
            };
            let facts = self.state().facts(package);
            for dep in facts.deps.iter().filter(|dep| dep.kind != Kind::Wish) {
                if self.state().holds(package, dep, World::ToBe) {
                    continue;
                }
                if !is_old || self.state().holds(package, dep, World::Now) {
                    self.explain(package, dep, &mut seen);
                }
            }
        }
    }

    /// What of the packages that are there in the end was not, and what is not any more.
    fn collect(&mut self, asked: &[usize]) {
        let is_asked = |at: usize| asked.contains(&at);
        let coming = |spot: &Spot<'m>| spot.to_be.filter(|_| !same(spot.to_be, spot.current));
        for (at, spot) in self.marker.state.spots.iter().enumerate() {
            if let Some(package) = coming(spot) {
                let is_own = is_asked(at) || matches!(spot.by, By::Asked);
                let by = (!is_own).then(|| spot.by.to_string());
                self.plan.needed.push(Needed { package, by });
            } else if spot.to_be.is_none() && spot.current.is_some() {
                self.plan
                    .removed
                    .push(format!("{}, because of {}", spot.name, spot.by));
            }
        }
        // What was asked for although nothing may be done about it.
        for at in asked {
            let spot = &self.marker.state.spots[*at];
            if spot.to_be.is_none() {
                self.plan
                    .unmet
                    .push(format!("package {}: apt finds no way to install it", spot.name));
            }
        }
    }

    /// Says why `dep` of `owner` does not hold in the end.
    fn explain(&mut self, owner: &'m Package, dep: &Dep<'m>, seen: &mut HashSet<&'m str>) {
        if dep.kind == Kind::Against {
            for relation in &dep.group.alternatives {
                for at in self.state().fitting(owner, (dep.kind, relation), World::ToBe) {
                    self.apart(owner, dep, at);
                }
            }
            return;
        }
        let found = self.takeable(owner, dep);
        let Some((_, package)) = found.first().copied() else {
            self.unmet(owner, dep);
            return;
        };
        if !seen.insert(&package.name) {
            return;
        }
        let before = self.plan.unmet.len();
        let facts = self.state().facts(package);
        for inner in &facts.deps {
            if inner.kind == Kind::Need && !self.state().holds(package, inner, World::ToBe) {
                self.explain(package, inner, seen);
            }
        }
        for (_, package) in &found {
            self.explain_conflicts(package);
        }
        if self.plan.unmet.len() == before {
            let names: Vec<&str> = found.iter().map(|(_, package)| package.name.as_str()).collect();
            self.plan.unmet.push(format!(
                "{}, needed by {}: apt takes none of it by itself, and what its problem resolver makes of that is not shown",
                names.join(" or "),
                said_by(owner, dep)
            ));
        }
    }

    /// With what `package`, which was not taken, does not go together.
    fn explain_conflicts(&mut self, package: &'m Package) {
        let facts = self.state().facts(package);
        for dep in facts.deps.iter().filter(|dep| dep.kind == Kind::Against) {
            for relation in &dep.group.alternatives {
                for at in self.state().fitting(package, (dep.kind, relation), World::ToBe) {
                    self.apart(package, dep, at);
                }
            }
        }
        let others: Vec<&'m Package> = self.state().spots.iter().filter_map(|spot| spot.to_be).collect();
        for other in others.into_iter().filter(|other| other.name != package.name) {
            let facts = self.state().facts(other);
            for dep in facts.deps.iter().filter(|dep| dep.kind == Kind::Against) {
                let mut relations = dep.group.alternatives.iter();
                if relations.any(|relation| self.state().fits(relation, package)) {
                    self.not_together((&package.name, &other.name), (other, dep));
                }
            }
        }
    }

    fn apart(&mut self, owner: &Package, dep: &Dep<'_>, at: usize) {
        let name = self.state().spots[at].name;
        self.not_together((&owner.name, name), (owner, dep));
    }

    fn not_together(&mut self, (one, other): (&str, &str), (owner, dep): (&Package, &Dep<'_>)) {
        let said = format!(
            "{one} and {other} cannot be installed together: {}",
            said_by(owner, dep)
        );
        if !self.plan.unmet.contains(&said) {
            self.plan.unmet.push(said);
        }
    }

    /// Which candidates, as they were before anything was marked, meet `dep` of `owner`.
    fn takeable(&self, owner: &'m Package, dep: &Dep<'m>) -> Vec<(usize, &'m Package)> {
        let state = self.state();
        let of = |relation: &Relation<'m>| -> Vec<(usize, &'m Package)> {
            let real = state.find(relation.name);
            let providers = state.universe.providers(relation.name).iter();
            let providers = providers.filter_map(|name| state.find(name));
            let spots = real.into_iter().chain(providers);
            spots
                .filter_map(|at| Some((at, self.offer(at)?)))
                .filter(|(_, package)| package.name != owner.name && state.fits(relation, package))
                .collect()
        };
        dep.group.alternatives.iter().flat_map(of).collect()
    }

    /// The version that would come by itself; none for what stays as it is.
    fn offer(&self, at: usize) -> Option<&'m Package> {
        let spot = &self.state().spots[at];
        let found = candidate(self.state().universe, spot.name, spot.current)?;
        (!same(Some(found), spot.current) && !spot.is_on_hold()).then_some(found)
    }

    fn unmet(&mut self, owner: &Package, dep: &Dep<'_>) {
        let names: Vec<&str> = dep
            .group
            .alternatives
            .iter()
            .map(|relation| relation.name)
            .collect();
        let offered: Vec<String> = names.iter().map(|name| self.offered(name)).collect();
        let said = format!(
            "{}, needed by {}: {}",
            names.join(" or "),
            said_by(owner, dep),
            offered.join("; ")
        );
        if !self.plan.unmet.contains(&said) {
            self.plan.unmet.push(said);
        }
    }

    /// Which versions of `name` there are, in words.
    fn offered(&self, name: &str) -> String {
        let state = self.state();
        let architecture = state.architecture;
        let found = state.find(name);
        let installed = found.and_then(|at| state.spots[at].current);
        let installed = installed.map_or_else(String::new, |package| {
            format!(", installed is {}", package.version)
        });
        let versions = state.universe.versions(name).iter();
        let versions: Vec<&str> = versions.map(|package| package.version.as_str()).collect();
        match found.and_then(|at| self.offer(at)) {
            Some(candidate) if versions.len() > 1 => format!(
                "the indexes of {architecture} list {name} {}, of which apt takes {}{installed}",
                versions.join(", "),
                candidate.version
            ),
            Some(_) | None if !versions.is_empty() => {
                format!(
                    "the indexes of {architecture} list {name} {}{installed}",
                    versions.join(", ")
                )
            }
            Some(_) | None => format!("{name} is in no index of {architecture}{installed}"),
        }
    }
}

/// `lab-tool (Depends: libfoo (>= 2))`.
fn said_by(owner: &Package, dep: &Dep<'_>) -> String {
    By::Said(owner, dep.field, dep.group.text).to_string()
}
