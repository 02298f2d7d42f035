//! Packages on a machine, and what is to become of them: what apt has in its `pkgDepCache`, for one architecture.
//!
//! A relation is looked at in one of three worlds: what is installed now, what will be, and the candidates.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{HashMap, HashSet},
    fmt, ptr,
    rc::Rc,
};

use super::{
    Status,
    universe::{INSTALLED, Package, Universe},
};
use crate::ecosystem::apt::{
    relation::{Group, Relation, groups},
    version,
};

/// What is to become of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Keep,
    Install,
    Delete,
}

/// A world in which relations are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum World {
    Now,
    ToBe,
    Candidates,
}

/// How much a relation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Pre-Depends`, `Depends`.
    Need,
    /// `Conflicts`, `Breaks`.
    Against,
    /// `Recommends`, where they are installed.
    Wish,
}

/// What a package says of others in one group of alternatives.
#[derive(Debug)]
pub(super) struct Dep<'m> {
    pub(super) kind: Kind,
    pub(super) field: &'static str,
    pub(super) group: Group<'m>,
}

/// What a version of a package says of others.
#[derive(Debug)]
pub(super) struct Facts<'m> {
    /// In the order in which apt looks at them.
    pub(super) deps: Vec<Dep<'m>>,
    provides: Vec<(&'m str, Option<&'m str>)>,
}

/// Why something is installed or removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'m> {
    /// It was asked for.
    Asked,
    /// A relation of what comes.
    Said(&'m Package, &'static str, &'m str),
    /// A relation of what is installed.
    SaidInstalled(&'m Package, &'static str, &'m str),
    /// What comes is of the same source.
    Source(&'m Package),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => write!(to, "the declaration"),
            Self::Said(owner, field, text) => write!(to, "{} ({field}: {text})", owner.name),
            Self::SaidInstalled(owner, field, text) => {
                write!(to, "what is installed: {} ({field}: {text})", owner.name)
            }
            Self::Source(owner) => write!(to, "{} (Source: {})", owner.name, owner.source.0),
        }
    }
}

/// A package.
#[derive(Debug)]
pub(super) struct Spot<'m> {
    pub(super) name: &'m str,
    /// When apt came to know it: of what is equal else it takes what it knows last.
    known: u32,
    pub(super) current: Option<&'m Package>,
    pub(super) candidate: Option<&'m Package>,
    pub(super) to_be: Option<&'m Package>,
    pub(super) mode: Mode,
    pub(super) is_protected: bool,
    pub(super) is_auto: bool,
    /// Whether it is essential, and whether it is protected.
    vital: (bool, bool),
    pub(super) by: By<'m>,
}

impl<'m> Spot<'m> {
    /// Its version in `world`.
    const fn version(&self, world: World) -> Option<&'m Package> {
        match world {
            World::Now => self.current,
            World::ToBe => self.to_be,
            World::Candidates => self.candidate,
        }
    }

    pub(super) fn is_on_hold(&self) -> bool {
        self.current.is_some_and(|package| package.is_on_hold)
    }

    /// Whether it must not be removed unless somebody asks for that.
    pub(super) const fn is_vital(&self) -> bool {
        self.vital.0 || self.vital.1
    }
}

/// Whether both are the same version of the same package, or none.
pub(super) fn same(one: Option<&Package>, other: Option<&Package>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => ptr::eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The packages of a machine.
pub(super) struct State<'m> {
    pub(super) universe: &'m Universe,
    pub(super) architecture: &'m str,
    pub(super) spots: Vec<Spot<'m>>,
    pub(super) recommends: bool,
    by_name: HashMap<&'m str, usize>,
    /// Who of what is installed provides a name.
    provided: HashMap<&'m str, Vec<usize>>,
    /// Names of which a version for any architecture is installed.
    anywhere: HashSet<&'m str>,
    facts: RefCell<HashMap<*const Package, Rc<Facts<'m>>>>,
}

impl<'m> State<'m> {
    /// A machine with what `status` says.
    pub(super) fn new(
        universe: &'m Universe,
        (architecture, status): (&'m str, Option<&'m Status>),
        recommends: bool,
    ) -> Self {
        let installed = status
            .map(|status| status.for_architecture(architecture))
            .unwrap_or_default();
        let mut state = Self {
            universe,
            architecture,
            spots: Vec::new(),
            recommends,
            by_name: HashMap::new(),
            provided: HashMap::new(),
            anywhere: status.map(Status::names).unwrap_or_default(),
            facts: RefCell::new(HashMap::new()),
        };
        let mut names: Vec<&'m str> = universe.names().collect();
        names.extend(
            installed
                .keys()
                .copied()
                .filter(|name| universe.versions(name).is_empty()),
        );
        names.sort_unstable_by_key(|name| (universe.known(name), *name));
        for name in names {
            state.add(name, installed.get(name).copied());
        }
        state
    }

    fn add(&mut self, name: &'m str, current: Option<&'m Package>) {
        let at = self.spots.len();
        let versions = || self.universe.versions(name).iter().chain(current);
        // Apt is its own essential package.
        let is_apt = name == "apt";
        let spot = Spot {
            name,
            known: self.universe.known(name),
            current,
            candidate: candidate(self.universe, name, current),
            to_be: current,
            mode: Mode::Keep,
            is_protected: false,
            is_auto: false,
            vital: (
                is_apt || versions().any(|package| package.is_essential),
                is_apt || versions().any(|package| package.is_important),
            ),
            by: By::Asked,
        };
        self.spots.push(spot);
        self.by_name.insert(name, at);
        for (name, _) in current
            .into_iter()
            .flat_map(|package| package.provided(self.architecture))
        {
            self.provided.entry(name).or_default().push(at);
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// What `package` says of others.
    pub(super) fn facts(&self, package: &'m Package) -> Rc<Facts<'m>> {
        let known = self.facts.borrow().get(&ptr::from_ref(package)).map(Rc::clone);
        known.unwrap_or_else(|| {
            let facts = Rc::new(Facts {
                deps: deps(package, self.architecture),
                provides: package.provided(self.architecture),
            });
            self.facts
                .borrow_mut()
                .insert(ptr::from_ref(package), Rc::clone(&facts));
            facts
        })
    }

    /// Whether `dep` counts here.
    pub(super) const fn counts(&self, dep: &Dep<'_>) -> bool {
        match dep.kind {
            Kind::Need | Kind::Against => true,
            Kind::Wish => self.recommends,
        }
    }

    /// Whether `package` is one that the qualifier of `relation` means.
    pub(super) fn is_meant(&self, relation: &Relation<'_>, package: &Package) -> bool {
        match relation.qualifier {
            None | Some("native") => true,
            // "…:any … satisfied by any architecture, if the package is Multi-Arch: allowed".
            Some("any") => package.multi_arch == "allowed",
            Some(named) => named == self.architecture || named == package.architecture,
        }
    }

    /// Whether `package` is what `relation` names, by its own name or one that it provides.
    pub(super) fn fits(&self, relation: &Relation<'_>, package: &'m Package) -> bool {
        let is_real = package.name == relation.name && relation.admits(Some(&package.version));
        let is_it = is_real || {
            let facts = self.facts(package);
            let mut provided = facts.provides.iter();
            provided.any(|(name, version)| *name == relation.name && relation.admits(*version))
        };
        is_it && self.is_meant(relation, package)
    }

    /// Who fits `relation` in `world`, each once: first who has the name, then who provides it. Nothing is against itself, by whatever name.
    pub(super) fn fitting(
        &self,
        owner: &'m Package,
        (kind, relation): (Kind, &Relation<'_>),
        world: World,
    ) -> Vec<usize> {
        let real = self.find(relation.name);
        let providers = self.universe.providers(relation.name).iter();
        let providers = providers.filter_map(|name| self.find(name));
        let installed = self.provided.get(relation.name).into_iter().flatten().copied();
        let mut found = Vec::new();
        for at in real.into_iter().chain(providers).chain(installed) {
            let spot = &self.spots[at];
            let is_itself = kind == Kind::Against && spot.name == owner.name;
            let version = spot.version(world);
            if !is_itself
                && !found.contains(&at)
                && version.is_some_and(|version| self.fits(relation, version))
            {
                found.push(at);
            }
        }
        found
    }

    /// Whether `dep` of `owner` is as it should be in `world`.
    pub(super) fn holds(&self, owner: &'m Package, dep: &Dep<'m>, world: World) -> bool {
        let mut relations = dep.group.alternatives.iter();
        match dep.kind {
            Kind::Need | Kind::Wish => {
                relations.any(|relation| !self.fitting(owner, (dep.kind, relation), world).is_empty())
            }
            Kind::Against => {
                relations.all(|relation| self.fitting(owner, (dep.kind, relation), world).is_empty())
            }
        }
    }

    /// Whether what is installed for another architecture may be what `dep` needs.
    pub(super) fn is_met_elsewhere(&self, dep: &Dep<'_>) -> bool {
        let is_elsewhere = |name: &str| {
            let here = self.find(name).and_then(|at| self.spots[at].current);
            here.is_none() && self.anywhere.contains(name)
        };
        let mut relations = dep.group.alternatives.iter();
        dep.kind != Kind::Against && relations.any(|relation| is_elsewhere(relation.name))
    }

    /// What of the package at `at` does not hold in `world`, by its place in [`Facts::deps`]; with `wishes` also what is merely wished for.
    pub(super) fn broken(&self, at: usize, world: World, wishes: bool) -> Option<(&'m Package, usize)> {
        let package = self.spots[at].version(world)?;
        let facts = self.facts(package);
        let is_looked_at = |dep: &Dep<'m>| self.counts(dep) && (wishes || dep.kind != Kind::Wish);
        let found = facts
            .deps
            .iter()
            .position(|dep| is_looked_at(dep) && !self.holds(package, dep, world))?;
        Some((package, found))
    }

    /// What would meet `dep` of `owner` in `world`, in the order in which apt takes it: what upgrades something before what is new.
    pub(super) fn solutions(
        &self,
        owner: &'m Package,
        dep: &Dep<'m>,
        world: World,
    ) -> Vec<(usize, &'m Package)> {
        let (mut upgrades, mut new) = (Vec::new(), Vec::new());
        for relation in &dep.group.alternatives {
            let mut fitting = self.fitting(owner, (dep.kind, relation), world);
            fitting.sort_by(|one, other| self.before(relation, (*one, *other), world));
            for at in fitting {
                let spot = &self.spots[at];
                let Some(version) = spot.version(world) else {
                    continue;
                };
                let of_kind = if spot.current.is_some() {
                    &mut upgrades
                } else {
                    &mut new
                };
                of_kind.push((at, version));
            }
        }
        upgrades.append(&mut new);
        upgrades.dedup_by_key(|(at, _)| *at);
        if dep.kind != Kind::Against {
            upgrades.retain(|(at, _)| !self.is_ruled_out(*at));
        }
        upgrades
    }

    /// Whether it was decided that this is not to be there.
    fn is_ruled_out(&self, at: usize) -> bool {
        let spot = &self.spots[at];
        let is_away = spot.mode == Mode::Delete || (spot.mode == Mode::Keep && spot.current.is_none());
        spot.is_protected && is_away
    }

    /// Which of two apt takes first for `relation` (`CompareProviders`).
    fn before(&self, relation: &Relation<'_>, (one, other): (usize, usize), world: World) -> Ordering {
        // What is `true` comes first.
        let first = |is: &dyn Fn(&Spot<'m>) -> bool| is(&self.spots[other]).cmp(&is(&self.spots[one]));
        let is_shared = |spot: &Spot<'m>| {
            let version = spot.version(world);
            version.is_some_and(|version| version.multi_arch == "same") && self.anywhere.contains(spot.name)
        };
        // A qualified name is one of its own for apt.
        let is_named = |spot: &Spot<'m>| relation.qualifier.is_none() && spot.name == relation.name;
        let priority = |at: usize| self.spots[at].version(world).map(|version| version.rank);
        first(&|spot| spot.is_protected)
            .then_with(|| first(&is_shared))
            .then_with(|| first(&|spot| spot.current.is_some()))
            .then_with(|| first(&is_named))
            .then_with(|| first(&|spot| spot.vital.0))
            .then_with(|| first(&|spot| spot.vital.1))
            .then_with(|| priority(one).cmp(&priority(other)))
            .then_with(|| self.spots[other].known.cmp(&self.spots[one].known))
    }
}

/// The version of `name` that apt would take by itself where `current` is installed.
pub(super) fn candidate<'m>(
    universe: &'m Universe,
    name: &str,
    current: Option<&'m Package>,
) -> Option<&'m Package> {
    let best = universe.best(name);
    let is_newer = |best: &&Package| {
        current.is_none_or(|current| {
            best.priority >= INSTALLED && version::compare(&best.version, &current.version).is_gt()
        })
    };
    best.filter(is_newer).or(current)
}

fn deps<'m>(package: &'m Package, architecture: &str) -> Vec<Dep<'m>> {
    let fields = [
        (Kind::Need, "Pre-Depends", &package.pre_depends),
        (Kind::Need, "Depends", &package.depends),
        (Kind::Against, "Conflicts", &package.conflicts),
        (Kind::Against, "Breaks", &package.breaks),
        (Kind::Wish, "Recommends", &package.recommends),
    ];
    let deps = fields.into_iter().flat_map(|(kind, field, text)| {
        let groups = groups(text, architecture).into_iter();
        groups.map(move |group| Dep { kind, field, group })
    });
    deps.collect()
}
