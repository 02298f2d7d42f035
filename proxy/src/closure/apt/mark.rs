//! `MarkInstall` of apt 2.6 (`apt-pkg/depcache.cc`), step by step: what is installed, upgraded and removed when one package is to be installed.
//!
//! The order of steps decides which of several ways is taken; names of apt's functions stand with each. What apt refuses for a package it takes
//! back, and goes on with the next alternative.
//!
//! Deliberately absent: siblings of other architectures, and whether something was installed automatically, which decides nothing here but that
//! what was asked for is not taken back.

mod modes;

use std::{collections::HashMap, mem, ptr};

use super::{
    state::{By, Dep, Kind, Mode, State, World, same},
    universe::Package,
};

/// How deep apt goes; it gives up then.
const DEEPEST: u32 = 3000;

/// A package that is to be installed.
#[derive(Clone, Copy)]
pub(super) struct Marking<'m> {
    pub(super) at: usize,
    /// With what it needs.
    pub(super) is_auto: bool,
    pub(super) is_asked: bool,
    pub(super) depth: u32,
    pub(super) by: By<'m>,
}

/// What the relations of a version ask for.
#[derive(Default)]
struct Tasks {
    /// Needs, by their place in the facts.
    install: Vec<usize>,
    /// What it is against, likewise.
    remove: Vec<usize>,
    upgrade: Vec<usize>,
    delayed: Vec<usize>,
}

/// The version that is being installed, and how.
#[derive(Clone, Copy)]
struct Owner<'m> {
    marking: Marking<'m>,
    package: &'m Package,
    /// Whether what follows from it is as settled as it is itself.
    is_settled: bool,
}

impl Owner<'_> {
    /// Whether one failure is enough.
    const fn ends_at_once(&self) -> bool {
        !self.is_settled && !self.marking.is_asked
    }
}

/// Something that comes for `owner`.
const fn next<'m>(owner: Owner<'m>, at: usize, by: By<'m>) -> Marking<'m> {
    Marking {
        at,
        is_auto: true,
        is_asked: false,
        depth: owner.marking.depth + 1,
        by,
    }
}

/// Relations of installed packages to a name: who says so, and where in its facts.
pub(super) type Dependants<'m> = HashMap<&'m str, Vec<(usize, usize)>>;

/// A machine on which packages are marked.
pub(super) struct Marker<'m> {
    pub(super) state: State<'m>,
    dependants: Dependants<'m>,
    /// What is installed and has another candidate, by the source of that.
    of_source: HashMap<&'m str, Vec<usize>>,
}

impl<'m> Marker<'m> {
    pub(super) fn new(state: State<'m>) -> Self {
        let mut dependants = Dependants::new();
        let mut of_source = HashMap::<&'m str, Vec<usize>>::new();
        for (at, spot) in state.spots.iter().enumerate() {
            let Some(current) = spot.current else { continue };
            for (place, dep) in state.facts(current).deps.iter().enumerate() {
                if dep.kind == Kind::Against || !state.counts(dep) {
                    continue;
                }
                for relation in dep
                    .group
                    .alternatives
                    .iter()
                    .filter(|one| one.qualifier.is_none())
                {
                    let of_name = dependants.entry(relation.name).or_default();
                    if of_name.last() != Some(&(at, place)) {
                        of_name.push((at, place));
                    }
                }
            }
            if let Some(candidate) = spot.candidate.filter(|_| !same(spot.candidate, spot.current)) {
                of_source.entry(candidate.source.0.as_str()).or_default().push(at);
            }
        }
        Self {
            state,
            dependants,
            of_source,
        }
    }

    /// `MarkInstall`: whether the package of `marking` can be installed; it is marked then, with what it needs.
    pub(super) fn install(&mut self, marking: Marking<'m>) -> bool {
        let (at, how) = (marking.at, (marking.depth, marking.is_asked));
        let spot = self.spot(at);
        let is_there = spot.candidate.is_some() && same(spot.candidate, spot.current);
        let only_settles = spot.is_protected && spot.mode == Mode::Keep && is_there;
        if !only_settles && !self.may_become(Mode::Install, at, how) {
            return false;
        }
        let spot = self.spot(at);
        let Some(package) = spot.candidate else {
            return false;
        };
        if !spot.is_protected && self.state.broken(at, World::ToBe, true).is_none() {
            if is_there && spot.to_be.is_none() {
                return self.keep(at, (marking.depth + 1, marking.is_asked));
            }
            if is_there || spot.mode == Mode::Install {
                return true;
            }
        }
        if !self.can_be_met(at, marking.is_auto) {
            return false;
        }
        if marking.is_asked {
            self.change(marking);
        }
        let owner = Owner {
            marking,
            package,
            is_settled: self.spot(at).is_protected,
        };
        self.install_whole(owner)
    }

    /// The second half of `MarkInstall`.
    fn install_whole(&mut self, owner: Owner<'m>) -> bool {
        let marking = owner.marking;
        let at = marking.at;
        let mut has_failed = false;
        let mut tasks = Tasks::default();
        if marking.is_auto {
            tasks = self.collect(owner);
            has_failed = !self.settle_conflicts(owner, &mut tasks);
            if has_failed && owner.ends_at_once() {
                return false;
            }
            self.collect_dependants(owner, &mut tasks);
        }
        if !marking.is_asked {
            self.change(marking);
        }
        if !marking.is_auto {
            return !has_failed;
        }
        // As long as it is looked at, nobody changes it.
        self.spot_mut(at).is_protected = true;
        let is_done = self.install_rest(owner, &tasks);
        self.spot_mut(at).is_protected = owner.is_settled;
        if !is_done && owner.ends_at_once() {
            self.discard(at);
        }
        is_done && !has_failed
    }

    /// What belongs to a package that is marked: what goes with it, what it needs, what has to go.
    fn install_rest(&mut self, owner: Owner<'m>, tasks: &Tasks) -> bool {
        self.upgrade_siblings(owner);
        let mut is_done = self.upgrade(owner, &tasks.upgrade);
        if !is_done && owner.ends_at_once() {
            return false;
        }
        is_done &= self.install_needs(owner, &tasks.install);
        if !is_done && owner.ends_at_once() {
            return false;
        }
        for gone in &tasks.delayed {
            let by = self.by_against(owner, *gone);
            if !self.delete(*gone, owner.marking.depth, by) {
                is_done = false;
                if owner.ends_at_once() {
                    return false;
                }
            }
        }
        is_done
    }

    /// `MarkInstall_CollectDependencies`.
    fn collect(&self, owner: Owner<'m>) -> Tasks {
        let mut tasks = Tasks::default();
        for (place, dep) in self.state.facts(owner.package).deps.iter().enumerate() {
            let is_fine = self.state.holds(owner.package, dep, World::ToBe);
            if (is_fine && !owner.is_settled) || !self.state.counts(dep) {
                continue;
            }
            match dep.kind {
                Kind::Against => tasks.remove.push(place),
                Kind::Need | Kind::Wish => tasks.install.push(place),
            }
        }
        tasks
    }

    /// `MarkInstall_RemoveConflictsIfNotUpgradeable`.
    fn settle_conflicts(&mut self, owner: Owner<'m>, tasks: &mut Tasks) -> bool {
        let facts = self.state.facts(owner.package);
        let mut bad = Vec::new();
        let mut is_done = true;
        for place in mem::take(&mut tasks.remove) {
            let dep = &facts.deps[place];
            for (at, version) in self.state.solutions(owner.package, dep, World::Candidates) {
                if !same(self.spot(at).candidate, Some(version)) {
                    continue;
                }
                let is_fine = if same(self.spot(at).current, Some(version)) {
                    self.go_or_wait(owner, at, &mut tasks.delayed)
                } else {
                    self.stay_away(owner, at, &mut bad)
                };
                is_done &= is_fine;
                if !is_fine && owner.ends_at_once() {
                    return false;
                }
            }
            for (at, version) in self.state.solutions(owner.package, dep, World::Now) {
                let spot = self.spot(at);
                if spot.candidate.is_some() && !same(spot.candidate, Some(version)) && !bad.contains(&at) {
                    tasks.upgrade.push(at);
                } else if !same(spot.candidate, spot.current)
                    && !self.go_or_wait(owner, at, &mut tasks.delayed)
                {
                    is_done = false;
                    if owner.ends_at_once() {
                        return false;
                    }
                }
            }
        }
        is_done
    }

    /// A candidate that is not installed is not to come.
    fn stay_away(&mut self, owner: Owner<'m>, at: usize, bad: &mut Vec<usize>) -> bool {
        if self.spot(at).mode == Mode::Install && !self.keep(at, (owner.marking.depth, false)) {
            return false;
        }
        if owner.is_settled {
            self.discard_candidate(at);
            let spot = self.spot_mut(at);
            spot.is_protected |= spot.current.is_none();
        } else {
            bad.push(at);
        }
        true
    }

    /// `MarkInstall_MarkDeleteForNotUpgradeable`.
    fn go_or_wait(&mut self, owner: Owner<'m>, at: usize, delayed: &mut Vec<usize>) -> bool {
        let depth = owner.marking.depth;
        let is_gone = self.spot(at).mode == Mode::Delete;
        if !owner.is_settled {
            if is_gone {
                return true;
            }
            if !self.may_become(Mode::Delete, at, (depth, false)) || !self.may_go(at) {
                return false;
            }
            delayed.push(at);
            return true;
        }
        let by = self.by_against(owner, at);
        if !is_gone && !self.delete(at, depth + 1, by) {
            return false;
        }
        self.discard_candidate(at);
        self.spot_mut(at).is_protected = true;
        true
    }

    /// Which relation of `owner` is against what is installed at `at`.
    fn by_against(&self, owner: Owner<'m>, at: usize) -> By<'m> {
        let facts = self.state.facts(owner.package);
        let current = self.spot(at).current;
        let is_it = |dep: &&Dep<'m>| {
            dep.kind == Kind::Against
                && current.is_some_and(|current| {
                    let mut relations = dep.group.alternatives.iter();
                    relations.any(|relation| self.state.fits(relation, current))
                })
        };
        let found = facts.deps.iter().find(is_it);
        found.map_or(owner.marking.by, |dep| {
            By::Said(owner.package, dep.field, dep.group.text)
        })
    }

    /// `MarkInstall_CollectReverseDepends`: what is installed and needs the version that goes.
    fn collect_dependants(&self, owner: Owner<'m>, tasks: &mut Tasks) {
        let Some(current) = self.spot(owner.marking.at).current else {
            return;
        };
        let dependants = self.dependants.get(current.name.as_str());
        for (at, _) in dependants.into_iter().flatten() {
            let is_coming = self.spot(*at).mode == Mode::Install;
            if !is_coming && !tasks.upgrade.contains(at) && self.by_dependant(owner, *at).is_some() {
                tasks.upgrade.push(*at);
            }
        }
    }

    /// Which relation of what is installed at `at` holds for the installed version of `owner` and not for the one that comes.
    fn by_dependant(&self, owner: Owner<'m>, at: usize) -> Option<By<'m>> {
        let old = self.spot(owner.marking.at).current?;
        let package = self.spot(at).current?;
        let facts = self.state.facts(package);
        let dependants = self.dependants.get(old.name.as_str())?;
        let mut places = dependants.iter().filter(|(dependant, _)| *dependant == at);
        places.find_map(|(_, place)| {
            let dep = facts.deps.get(*place)?;
            let mut relations = dep.group.alternatives.iter().filter(|one| one.name == old.name);
            relations
                .any(|one| one.admits(Some(&old.version)) && !one.admits(Some(&owner.package.version)))
                .then_some(By::SaidInstalled(package, dep.field, dep.group.text))
        })
    }

    /// `MarkInstall_UpgradeOrRemoveConflicts`.
    fn upgrade(&mut self, owner: Owner<'m>, upgrades: &[usize]) -> bool {
        let mut is_done = true;
        for at in upgrades {
            if self.spot(*at).mode == Mode::Install {
                continue;
            }
            let by = self
                .by_dependant(owner, *at)
                .unwrap_or_else(|| self.by_against(owner, *at));
            if self.install(next(owner, *at, by)) {
                continue;
            }
            if !self.delete(*at, owner.marking.depth + 1, by) {
                is_done = false;
                if owner.ends_at_once() {
                    return false;
                }
            } else if owner.is_settled {
                self.spot_mut(*at).is_protected = true;
            }
        }
        is_done
    }

    /// `MarkInstall_UpgradeOtherBinaries`: what is installed of the same source comes in the same version.
    fn upgrade_siblings(&mut self, owner: Owner<'m>) {
        let source = &owner.package.source;
        let of_source = self.of_source.get(source.0.as_str()).into_iter().flatten();
        let is_meant = |at: &usize| {
            let spot = self.spot(*at);
            let is_of_it = spot.candidate.is_some_and(|one| one.source == *source);
            let is_coming = spot.mode == Mode::Install && same(spot.to_be, spot.candidate);
            *at != owner.marking.at && is_of_it && !same(spot.candidate, spot.current) && !is_coming
        };
        let siblings: Vec<usize> = of_source.copied().filter(is_meant).collect();
        for is_auto in [false, true] {
            for at in &siblings {
                let marking = next(owner, *at, By::Source(owner.package));
                // Without it the package comes all the same.
                let _is_done = self.install(Marking { is_auto, ..marking });
            }
        }
    }

    /// `MarkInstall_InstallDependencies`.
    fn install_needs(&mut self, owner: Owner<'m>, needs: &[usize]) -> bool {
        let facts = self.state.facts(owner.package);
        let mut is_done = true;
        for place in needs {
            let dep = &facts.deps[*place];
            let is_met = self.state.holds(owner.package, dep, World::ToBe);
            let is_fine = if is_met {
                !owner.is_settled || dep.kind == Kind::Wish || self.settle(owner, dep)
            } else {
                self.is_old_wish(owner, dep) || self.meet(owner, dep) || dep.kind == Kind::Wish
            };
            if !is_fine {
                is_done = false;
                if owner.ends_at_once() {
                    return false;
                }
            }
        }
        is_done
    }

    /// What meets `dep`, if nothing else could, is as settled as its owner.
    fn settle(&mut self, owner: Owner<'m>, dep: &Dep<'m>) -> bool {
        let mut found = self.state.solutions(owner.package, dep, World::Candidates);
        for (at, version) in self.state.solutions(owner.package, dep, World::Now) {
            if !found.iter().any(|(_, known)| ptr::eq(*known, version)) {
                found.push((at, version));
            }
        }
        let [(at, _)] = found[..] else { return true };
        if self.spot(at).is_protected {
            return true;
        }
        self.spot_mut(at).is_protected = true;
        let by = By::Said(owner.package, dep.field, dep.group.text);
        self.install(next(owner, at, by))
    }

    /// Whether `dep` is a wish of the installed version, too, that was not met then: nobody misses it.
    fn is_old_wish(&self, owner: Owner<'m>, dep: &Dep<'m>) -> bool {
        let (Kind::Wish, Some(current)) = (dep.kind, self.spot(owner.marking.at).current) else {
            return false;
        };
        let wished = |one: &&Dep<'m>| {
            let first = &dep.group.alternatives[0];
            let mut relations = one.group.alternatives.iter();
            one.kind == Kind::Wish
                && relations.any(|one| one.name == first.name && one.qualifier == first.qualifier)
        };
        let facts = self.state.facts(current);
        let mut known = facts.deps.iter().filter(wished).peekable();
        known.peek().is_some() && !known.any(|one| self.state.holds(current, one, World::Now))
    }

    /// Installs the first that can be, of what would meet `dep`.
    fn meet(&mut self, owner: Owner<'m>, dep: &Dep<'m>) -> bool {
        let by = By::Said(owner.package, dep.field, dep.group.text);
        let found = self.state.solutions(owner.package, dep, World::Candidates);
        for (at, version) in &found {
            if !same(self.spot(*at).candidate, Some(version)) {
                continue;
            }
            let marking = next(owner, *at, by);
            if owner.is_settled && dep.kind == Kind::Need && found.len() == 1 {
                let alone = Marking {
                    is_auto: false,
                    ..marking
                };
                if !self.install(alone) {
                    continue;
                }
                self.spot_mut(*at).is_protected = true;
            }
            if self.install(marking) {
                return true;
            }
        }
        false
    }
}
