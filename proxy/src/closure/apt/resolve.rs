//! What `apt-get install` would fetch on a machine: pure, over what indexes list and what is installed.
//!
//! As apt does it (`MarkInstall`): everything that is asked for is marked, then each need is looked at in order. One that is met by what is marked
//! or installed is met. Else an alternative is taken whose candidate fits and can be installed: one that upgrades what is installed before all that
//! are new, else the first; of packages that merely provide a name the one of the highest priority. Apt takes nothing but candidates, and does not look at what a mirror holds: an alternative that is held is of no use
//! while apt takes the one before it.
//!
//! What is installed and would break by an upgrade, or says that it breaks or conflicts with what comes, is upgraded as well.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    vec,
};

use super::{
    Round, Status,
    universe::{INSTALLED, Package, Universe},
};
use crate::ecosystem::apt::{
    relation::{Group, Relation, groups},
    version,
};

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
    /// What no candidate meets.
    pub(super) unmet: Vec<String>,
}

/// A machine on which packages are installed.
pub(super) struct Machine<'m> {
    universe: &'m Universe,
    architecture: &'m str,
    installed: HashMap<&'m str, &'m Package>,
    recommends: bool,
    is_held: &'m dyn Fn(&Package) -> bool,
    /// Candidates that were named by their version.
    named: HashMap<String, &'m Package>,
    chosen: HashMap<&'m str, &'m Package>,
    /// Who provides a name, of what is chosen and what is installed.
    provided: HashMap<&'m str, Vec<&'m Package>>,
    /// Packages whose needs cannot be met.
    dead: HashSet<&'m str>,
    plan: Plan<'m>,
}

/// A need of a package: the field, and its alternatives.
type Need<'m> = (&'static str, Group<'m>);

/// A field that is no need but a wish.
const WISH: &str = "Recommends";

impl<'m> Machine<'m> {
    /// A machine with what `status` says.
    pub(super) fn new(
        universe: &'m Universe,
        (architecture, status): (&'m str, Option<&'m Status>),
        recommends: bool,
        is_held: &'m dyn Fn(&Package) -> bool,
    ) -> Self {
        let installed = status
            .map(|status| status.for_architecture(architecture))
            .unwrap_or_default();
        let mut machine = Self {
            universe,
            architecture,
            installed,
            recommends,
            is_held,
            named: HashMap::new(),
            chosen: HashMap::new(),
            provided: HashMap::new(),
            dead: HashSet::new(),
            plan: Plan::default(),
        };
        let installed: Vec<&'m Package> = machine.installed.values().copied().collect();
        for package in installed {
            machine.note_provided(package);
        }
        machine
    }

    /// What installing `round` at once comes to.
    pub(super) fn install(mut self, round: &Round) -> Plan<'m> {
        let asked: Vec<&'m Package> = round
            .iter()
            .filter_map(|(name, version)| self.asked(name, version.as_deref()))
            .collect();
        self.dead = self.dead(&asked);
        for package in &asked {
            self.choose(package, None);
        }
        for package in asked {
            self.expand(package);
        }
        while let Some((package, by)) = self.broken() {
            self.choose(package, Some(by));
            self.expand(package);
        }
        self.plan
    }

    /// The package that is asked for as `name`, perhaps of a version; none where it is installed already, or cannot be had.
    fn asked(&mut self, name: &str, version: Option<&str>) -> Option<&'m Package> {
        let architecture = self.architecture;
        if let Some(wanted) = version {
            let found = self.universe.version(name, wanted);
            match found {
                Some(package) if !self.has(package) => {
                    self.named.insert(name.to_owned(), package);
                    return Some(package);
                }
                Some(_) => {}
                None => {
                    let offered = self.offered(name);
                    self.plan
                        .unmet
                        .push(format!("package {name}={wanted}: {offered}"));
                }
            }
            return None;
        }
        if let Some(package) = self.candidate(name) {
            return Some(package);
        }
        if self.installed.contains_key(name) {
            return None;
        }
        let providers = self.providers(name, |_version| true);
        match providers[..] {
            [one] => return Some(one),
            [] => self
                .plan
                .unmet
                .push(format!("package {name}: in no index of {architecture}")),
            _ => {
                let names: Vec<&str> = providers.iter().map(|package| package.name.as_str()).collect();
                self.plan.unmet.push(format!(
                    "package {name}: provided by {}, of which apt takes none by itself; declare one of them",
                    names.join(", ")
                ));
            }
        }
        None
    }

    /// Whether this very version is installed.
    fn has(&self, package: &Package) -> bool {
        self.installed
            .get(package.name.as_str())
            .is_some_and(|installed| version::compare(&installed.version, &package.version).is_eq())
    }

    /// The version of `name` that apt would install; none where there is none, or what is installed stays.
    fn candidate(&self, name: &str) -> Option<&'m Package> {
        if let Some(named) = self.named.get(name) {
            return Some(named);
        }
        let best = self.universe.best(name)?;
        let stays = self.installed.get(name).is_some_and(|installed| {
            installed.is_on_hold
                || best.priority < INSTALLED
                || version::compare(&best.version, &installed.version).is_le()
        });
        (!stays).then_some(best)
    }

    /// Candidates that provide `name` in a version that fits, in the order in which apt takes them. Where it has no reason to prefer one, what is
    /// held comes first.
    fn providers(&self, name: &str, fits: impl Fn(Option<&str>) -> bool) -> Vec<&'m Package> {
        let names = self.universe.providers(name).iter();
        let mut found: Vec<&'m Package> = names
            .filter_map(|provider| self.candidate(provider))
            .filter(|package| {
                let mut provided = package.provided(self.architecture).into_iter();
                provided.any(|(provided, version)| provided == name && fits(version))
            })
            .collect();
        found.sort_by_key(|package| (package.rank, !(self.is_held)(package), package.name.as_str()));
        found
    }

    /// Whether `package` is one that the qualifier of `relation` means.
    fn is_meant(&self, relation: &Relation<'_>, package: &Package) -> bool {
        match relation.qualifier {
            None | Some("native") => true,
            // "…:any … satisfied by any architecture, if the package is Multi-Arch: allowed".
            Some("any") => package.multi_arch == "allowed",
            Some(named) => named == self.architecture || named == package.architecture,
        }
    }

    /// What would meet `relation`, in the order in which apt takes it.
    fn targets(&self, relation: &Relation<'m>) -> Vec<&'m Package> {
        let real = self.candidate(relation.name);
        let real = real.filter(|package| relation.admits(Some(&package.version)));
        let providers = self.providers(relation.name, |version| relation.admits(version));
        let all = real.into_iter().chain(providers);
        all.filter(|package| self.is_meant(relation, package)).collect()
    }

    /// Whether what is chosen or installed meets `relation`.
    fn is_met(&self, relation: &Relation<'_>) -> bool {
        let name = relation.name;
        let real = self.chosen.get(name).or_else(|| self.installed.get(name));
        if real.is_some_and(|package| {
            relation.admits(Some(&package.version)) && self.is_meant(relation, package)
        }) {
            return true;
        }
        let providers = self.provided.get(name).into_iter().flatten();
        providers
            .filter(|package| self.is_there(package) && self.is_meant(relation, package))
            .any(|package| {
                let mut provided = package.provided(self.architecture).into_iter();
                provided.any(|(provided, version)| provided == name && relation.admits(version))
            })
    }

    /// Whether `package` is chosen, or installed and not replaced.
    fn is_there(&self, package: &Package) -> bool {
        self.chosen
            .get(package.name.as_str())
            .is_none_or(|chosen| chosen.version == package.version)
    }

    fn needs(&self, package: &'m Package) -> vec::IntoIter<Need<'m>> {
        let wishes = if self.recommends {
            package.recommends.as_str()
        } else {
            ""
        };
        let fields = [
            ("Pre-Depends", package.pre_depends.as_str()),
            ("Depends", package.depends.as_str()),
            (WISH, wishes),
        ];
        let needs: Vec<Need<'m>> = fields
            .into_iter()
            .flat_map(|(field, text)| {
                let groups = groups(text, self.architecture).into_iter();
                groups.map(move |group| (field, group))
            })
            .collect();
        needs.into_iter()
    }

    fn note_provided(&mut self, package: &'m Package) {
        for (name, _) in package.provided(self.architecture) {
            self.provided.entry(name).or_default().push(package);
        }
    }

    fn choose(&mut self, package: &'m Package, by: Option<String>) {
        if self.chosen.insert(&package.name, package).is_none() {
            self.note_provided(package);
            self.plan.needed.push(Needed { package, by });
        }
    }

    /// Chooses what `package` needs, and what that needs. Its own stack: chains of dependencies are as long as an archive makes them.
    fn expand(&mut self, package: &'m Package) {
        let mut stack = vec![(package, self.needs(package))];
        while let Some((owner, needs)) = stack.last_mut() {
            let owner = *owner;
            let Some((field, group)) = needs.next() else {
                stack.pop();
                continue;
            };
            if group.alternatives.iter().any(|relation| self.is_met(relation)) {
                continue;
            }
            let mut targets: Vec<&'m Package> = group
                .alternatives
                .iter()
                .flat_map(|relation| self.targets(relation))
                .filter(|target| !self.chosen.contains_key(target.name.as_str()))
                .collect();
            // Stable: upgrades first, each kind in the order of the field.
            targets.sort_by_key(|target| !self.installed.contains_key(target.name.as_str()));
            let is_alive = |target: &&&Package| !self.dead.contains(target.name.as_str());
            let first = targets.first().filter(|_| field != WISH);
            match targets.iter().find(is_alive).or(first) {
                Some(target) => {
                    self.choose(target, Some(said_by(owner, field, &group)));
                    stack.push((target, self.needs(target)));
                }
                None if field == WISH => {}
                None => self.unmet(owner, field, &group),
            }
        }
    }

    fn unmet(&mut self, owner: &Package, field: &str, group: &Group<'_>) {
        let names: Vec<&str> = group.alternatives.iter().map(|relation| relation.name).collect();
        let offered: Vec<String> = names.iter().map(|name| self.offered(name)).collect();
        self.plan.unmet.push(format!(
            "{}, needed by {}: {}",
            names.join(" or "),
            said_by(owner, field, group),
            offered.join("; ")
        ));
    }

    /// Which versions of `name` there are, in words.
    fn offered(&self, name: &str) -> String {
        let architecture = self.architecture;
        let installed = self.installed.get(name);
        let installed = installed.map_or_else(String::new, |package| {
            format!(", installed is {}", package.version)
        });
        let versions = self.universe.versions(name).iter();
        let versions: Vec<&str> = versions.map(|package| package.version.as_str()).collect();
        match self.candidate(name) {
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

    /// Of what can be reached from `asked`, what cannot be installed: one of its needs is met neither by what is installed nor by anything that can
    /// be. The largest set without such is what remains, so that packages that need each other are judged right.
    fn dead(&self, asked: &[&'m Package]) -> HashSet<&'m str> {
        let mut reached: BTreeMap<&'m str, Vec<Vec<&'m str>>> = BTreeMap::new();
        let mut queue: Vec<&'m Package> = asked.to_vec();
        while let Some(package) = queue.pop() {
            if reached.contains_key(package.name.as_str()) {
                continue;
            }
            let mut needs = Vec::new();
            for (field, group) in self.needs(package) {
                if group.alternatives.iter().any(|relation| self.is_met(relation)) {
                    continue;
                }
                let alternatives = group.alternatives.iter();
                let targets: Vec<&'m Package> =
                    alternatives.flat_map(|relation| self.targets(relation)).collect();
                if field != WISH {
                    needs.push(targets.iter().map(|target| target.name.as_str()).collect());
                }
                queue.extend(targets);
            }
            reached.insert(&package.name, needs);
        }
        let mut dead = HashSet::new();
        loop {
            let before = dead.len();
            for (name, needs) in &reached {
                let is_hopeless = |need: &Vec<&str>| need.iter().all(|target| dead.contains(target));
                if needs.iter().any(is_hopeless) {
                    dead.insert(*name);
                }
            }
            if dead.len() == before {
                return dead;
            }
        }
    }

    /// Something that is installed and would break by what is chosen, and has a newer version; with who says so.
    fn broken(&self) -> Option<(&'m Package, String)> {
        let replaced: HashSet<&str> = self.chosen.keys().copied().collect();
        let mut stays: Vec<&&'m Package> = self.installed.values().collect();
        stays.retain(|package| !replaced.contains(package.name.as_str()));
        stays.sort_by_key(|package| &package.name);
        let newer = |package: &Package, by: String| Some((self.candidate(&package.name)?, by));
        if stays.len() < self.installed.len() {
            for package in &stays {
                let needs = self.needs(package).filter(|(field, _)| *field != WISH);
                for (field, group) in needs {
                    let mut relations = group.alternatives.iter();
                    let was_met = group.alternatives.iter().any(|relation| self.was_met(relation));
                    if was_met && !relations.any(|relation| self.is_met(relation)) {
                        let by = format!("what is installed: {}", said_by(package, field, &group));
                        if let Some(found) = newer(package, by) {
                            return Some(found);
                        }
                    }
                }
            }
        }
        for package in &stays {
            if let Some(found) = self.in_the_way(package) {
                return Some(found);
            }
        }
        for chosen in self.plan.needed.iter().map(|needed| needed.package) {
            for (field, text) in [("Breaks", &chosen.breaks), ("Conflicts", &chosen.conflicts)] {
                for group in groups(text, self.architecture) {
                    let relation = &group.alternatives[0];
                    let met = self.installed.get(relation.name).filter(|package| {
                        package.name != chosen.name
                            && !replaced.contains(package.name.as_str())
                            && relation.admits(Some(&package.version))
                    });
                    let Some(package) = met else { continue };
                    if let Some(found) = newer(package, said_by(chosen, field, &group))
                        .filter(|(newer, _)| !relation.admits(Some(&newer.version)))
                    {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    /// The newer version of `package`, which is installed and says that it breaks or conflicts with something chosen; with who says so.
    fn in_the_way(&self, package: &'m Package) -> Option<(&'m Package, String)> {
        let newer = self.candidate(&package.name)?;
        for (field, text) in [("Breaks", &package.breaks), ("Conflicts", &package.conflicts)] {
            for group in groups(text, self.architecture) {
                let mut chosen = self.plan.needed.iter().map(|needed| needed.package);
                let met = chosen.find(|chosen| self.is_against(package, &group.alternatives[0], chosen));
                let Some(met) = met else { continue };
                let still = [&newer.breaks, &newer.conflicts].into_iter().any(|text| {
                    let groups = groups(text, self.architecture);
                    groups
                        .iter()
                        .any(|group| self.is_against(newer, &group.alternatives[0], met))
                });
                if !still {
                    return Some((
                        newer,
                        format!("what is installed: {}", said_by(package, field, &group)),
                    ));
                }
            }
        }
        None
    }

    /// Whether `relation`, which `owner` breaks or conflicts with, means `other`; nothing is against itself, by whatever name.
    fn is_against(&self, owner: &Package, relation: &Relation<'_>, other: &Package) -> bool {
        let named = other.name == relation.name && relation.admits(Some(&other.version));
        let mut provided = other.provided(self.architecture).into_iter();
        let is_provided = provided.any(|(name, version)| name == relation.name && relation.admits(version));
        owner.name != other.name && (named || is_provided)
    }

    /// Whether what was installed met `relation` before anything was chosen.
    fn was_met(&self, relation: &Relation<'_>) -> bool {
        let real = self.installed.get(relation.name);
        let is_real = real.is_some_and(|package| relation.admits(Some(&package.version)));
        let mut installed = self.provided.get(relation.name).into_iter().flatten();
        is_real
            || installed.any(|package| {
                package.files.is_empty()
                    && package
                        .provided(self.architecture)
                        .into_iter()
                        .any(|(name, version)| name == relation.name && relation.admits(version))
            })
    }
}

/// `lab-tool (Depends: libfoo (>= 2))`.
fn said_by(owner: &Package, field: &str, group: &Group<'_>) -> String {
    format!("{} ({field}: {})", owner.name, group.text)
}
