//! Reads `release.json`: the shape first, then everything that one key says about another.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

use semver::Version;
use serde::Deserialize;

use super::{
    SCHEMA,
    document::{Check, Install, Module, Release},
    patch::Kind,
};

/// A release document that cannot be used. Signatures were checked before; this is about sense.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON, or not of the right shape.
    #[error("{subject} is not a release document")]
    Shape {
        /// The target name.
        subject: String,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a newer schema.
    #[error("{subject} has schema {schema}, this upgrader reads up to {SCHEMA}{}", needs(min_upgrader.as_ref()))]
    Schema {
        /// The target name.
        subject: String,
        /// Its schema.
        schema: u32,
        /// The upgrader that it asks for.
        min_upgrader: Option<Version>,
    },
    /// A module's install policy or a check is not known here.
    #[error(transparent)]
    Unknown(Box<UnknownName>),
    /// Two parts of it contradict each other.
    #[error("{subject}: {problem}")]
    Contradiction {
        /// The target name.
        subject: String,
        /// What does not fit together.
        problem: String,
    },
}

/// Something that the release asks for and this build does not know.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {owner} asks for {kind} `{name}`, this upgrader knows {}{}", known.join(", "), needs(min_upgrader.as_ref()))]
pub struct UnknownName {
    /// The target name of the document.
    pub subject: String,
    /// The module, or the release itself.
    pub owner: String,
    /// `policy` or `check`.
    pub kind: &'static str,
    /// What is asked for.
    pub name: String,
    /// What is known.
    pub known: &'static [&'static str],
    /// The upgrader that the release asks for.
    pub min_upgrader: Option<Version>,
}

fn needs(version: Option<&Version>) -> String {
    version
        .map(|version| format!("; it needs upgrader {version} or newer"))
        .unwrap_or_default()
}

/// The part of the document that every schema has, and the names that may be unknown.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    min_upgrader: Option<Version>,
    kind: Option<String>,
    #[serde(default)]
    modules: Vec<ModuleHead>,
    #[serde(default)]
    checks: Vec<CheckHead>,
}

#[derive(Deserialize)]
struct ModuleHead {
    name: String,
    install: InstallHead,
}

#[derive(Deserialize)]
struct InstallHead {
    policy: String,
}

#[derive(Deserialize)]
struct CheckHead {
    id: String,
}

impl Release {
    /// Reads and checks a release document; `subject` names it in errors.
    ///
    /// # Errors
    /// [`ReadError`] when it is not one, is too new, asks for a policy or check that this build does not know (by name),
    /// or contradicts itself.
    pub fn from_json(subject: &str, bytes: &[u8]) -> Result<Self, ReadError> {
        let shape = |source| ReadError::Shape {
            subject: subject.to_owned(),
            source,
        };
        let head: Head = serde_json::from_slice(bytes).map_err(shape)?;
        if head.schema > SCHEMA || head.schema == 0 {
            return Err(ReadError::Schema {
                subject: subject.to_owned(),
                schema: head.schema,
                min_upgrader: head.min_upgrader,
            });
        }
        known_names(subject, &head)?;
        let release: Self = serde_json::from_slice(bytes).map_err(shape)?;
        release.check(subject)?;
        Ok(release)
    }

    /// Checks everything that one part says about another.
    ///
    /// # Errors
    /// [`ReadError::Contradiction`] naming the first problem.
    pub fn check(&self, subject: &str) -> Result<(), ReadError> {
        let problem = |problem: String| {
            Err(ReadError::Contradiction {
                subject: subject.to_owned(),
                problem,
            })
        };
        let mut names = BTreeSet::new();
        for module in &self.modules {
            let name = &module.name;
            if !is_file_name(name) {
                return problem(format!(
                    "the module name `{name}` cannot be a file name, and its latch needs one"
                ));
            }
            if !names.insert(name.as_str()) {
                return problem(format!("two modules are named `{name}`"));
            }
            if !self.artifacts.contains_key(&module.artifact) {
                return problem(format!(
                    "the module `{name}` names the artifact `{}`, which is not listed",
                    module.artifact
                ));
            }
            if module.roles.is_empty() {
                return problem(format!("the module `{name}` is for no role"));
            }
            names_and_paths(module).or_else(problem)?;
        }
        for module in &self.modules {
            if let Some(missing) = module.after.iter().find(|after| !names.contains(after.as_str())) {
                return problem(format!(
                    "the module `{}` comes after `{missing}`, which is not a module",
                    module.name
                ));
            }
        }
        self.kind_and_patch().or_else(problem)?;
        if let Some(taken_back) = self.taken_back() {
            taken_back.check(subject)?;
        }
        self.apart().or_else(problem)?;
        self.paths_beside_modules().or_else(problem)?;
        self.install_order().map(|_order| ()).or_else(problem)
    }

    /// That a patch says what makes it one, and a release does not.
    fn kind_and_patch(&self) -> Result<(), String> {
        match (self.kind, &self.patch) {
            (Kind::Release, None) => Ok(()),
            (Kind::Patch, Some(patch)) if self.modules.is_empty() => {
                Err(format!("the patch `{}` has no module", patch.name))
            }
            (Kind::Patch, Some(patch)) => patch.check(),
            (Kind::Patch, None) => Err("it is of the kind patch and says nothing about a patch".into()),
            (Kind::Release, Some(_)) => Err("it describes a patch and is of the kind release".into()),
        }
    }

    /// The document with the modules that take a patch back in the place of its own; `None` when it has none.
    #[must_use]
    pub fn taken_back(&self) -> Option<Self> {
        let patch = self.patch.as_ref().filter(|patch| !patch.revert.is_empty())?;
        let mut taken_back = self.clone();
        taken_back.modules.clone_from(&patch.revert);
        if let Some(patch) = &mut taken_back.patch {
            patch.revert.clear();
        }
        Some(taken_back)
    }

    /// What is saved, and what is left alone: a pattern that matches nothing by mistake would protect nothing.
    fn paths_beside_modules(&self) -> Result<(), String> {
        if let Some(path) = self.backup.iter().find(|path| !is_plain_absolute(path)) {
            return Err(format!(
                "the backup path `{}` is not absolute without `..`",
                path.display()
            ));
        }
        for pattern in &self.safe_paths {
            glob::Pattern::new(pattern).map_err(|error| {
                format!(
                    "the safe path `{pattern}` is not a pattern: {} at {}",
                    error.msg, error.pos
                )
            })?;
            if !pattern.starts_with('/') {
                return Err(format!("the safe path `{pattern}` is not absolute"));
            }
        }
        Ok(())
    }

    /// That no module installs into what another one exchanges as a whole: it would be lost with the next exchange.
    fn apart(&self) -> Result<(), String> {
        for owner in &self.modules {
            let owned = match owner.install {
                Install::Versioned { .. } | Install::Replace { .. } => module_paths(&owner.install),
                Install::Overlay { .. }
                | Install::Package { .. }
                | Install::Image { .. }
                | Install::Exec { .. } => Vec::new(),
            };
            for guest in self.modules.iter().filter(|guest| guest.name != owner.name) {
                for path in module_paths(&guest.install) {
                    if let Some(whole) = owned.iter().find(|whole| path.starts_with(whole)) {
                        return Err(format!(
                            "the module `{}` installs to `{}`, and `{}` of the module `{}` is exchanged as a whole",
                            guest.name,
                            path.display(),
                            whole.display(),
                            owner.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// The modules in an order that respects `after`; among equals the order of the document.
    ///
    /// # Errors
    /// A text naming the modules that wait for each other.
    pub fn install_order(&self) -> Result<Vec<&Module>, String> {
        let mut waiting: Vec<_> = self.modules.iter().collect();
        let mut done: Vec<&Module> = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let ready = waiting.iter().position(|module| {
                module
                    .after
                    .iter()
                    .all(|after| done.iter().any(|d| d.name == *after))
            });
            let Some(ready) = ready else {
                let names: Vec<_> = waiting.iter().map(|module| module.name.as_str()).collect();
                return Err(format!("the modules {} wait for each other", names.join(", ")));
            };
            done.push(waiting.remove(ready));
        }
        Ok(done)
    }
}

fn known_names(subject: &str, head: &Head) -> Result<(), ReadError> {
    let unknown = |owner: String, kind, name: &str, known| {
        ReadError::Unknown(Box::new(UnknownName {
            subject: subject.to_owned(),
            owner,
            kind,
            name: name.to_owned(),
            known,
            min_upgrader: head.min_upgrader.clone(),
        }))
    };
    if let Some(kind) = head
        .kind
        .as_ref()
        .filter(|kind| !Kind::NAMES.contains(&kind.as_str()))
    {
        return Err(unknown("the document".into(), "kind", kind, &Kind::NAMES));
    }
    for module in &head.modules {
        if !Install::POLICIES.contains(&module.install.policy.as_str()) {
            let owner = format!("the module `{}`", module.name);
            return Err(unknown(
                owner,
                "policy",
                &module.install.policy,
                &Install::POLICIES,
            ));
        }
    }
    match head
        .checks
        .iter()
        .find(|check| !Check::IDS.contains(&check.id.as_str()))
    {
        Some(check) => Err(unknown("the release".into(), "check", &check.id, &Check::IDS)),
        None => Ok(()),
    }
}

fn module_paths(install: &Install) -> Vec<&Path> {
    let link = match install {
        Install::Versioned { link, .. } => link.as_deref(),
        Install::Replace { .. }
        | Install::Overlay { .. }
        | Install::Package { .. }
        | Install::Image { .. }
        | Install::Exec { .. } => None,
    };
    install.dest().into_iter().chain(link).collect()
}

/// That what a module names stays where it belongs: below the node's root, and below the module's own folder.
fn names_and_paths(module: &Module) -> Result<(), String> {
    let name = &module.name;
    let contents = module.install.check_contents();
    contents.map_err(|problem| format!("the module `{name}`: {problem}"))?;
    for path in module_paths(&module.install) {
        if !is_plain_absolute(path) {
            return Err(format!(
                "the module `{name}` installs to `{}`, expected an absolute path without `..`",
                path.display()
            ));
        }
    }
    if let Some(version) = module.version.as_deref().filter(|version| !is_file_name(version)) {
        return Err(format!(
            "the version `{version}` of the module `{name}` cannot be a file name, and its folder needs one"
        ));
    }
    if let Some(below) = link_to(&module.install).filter(|below| !is_plain_relative(below)) {
        return Err(format!(
            "the module `{name}` links to `{}`, expected a relative path without `..`",
            below.display()
        ));
    }
    conffiles(module)?;
    if let Install::Package { packages } = &module.install {
        let is_deb = |path: &Path| path.extension().is_some_and(|end| end == "deb");
        let is_listed = |path: &Path| packages.iter().any(|package| package.is_file(path));
        if let Some(file) = module
            .files
            .iter()
            .find(|file| is_deb(&file.path) && !is_listed(&file.path))
        {
            return Err(format!(
                "the module `{name}` has the file `{}`, which is of none of its packages in their versions",
                file.path.display()
            ));
        }
    }
    if let Some(file) = module.files.iter().find(|file| !is_plain_relative(&file.path)) {
        return Err(format!(
            "the module `{name}` lists the file `{}`, expected a relative path without `..`",
            file.path.display()
        ));
    }
    Ok(())
}

/// That the patterns of an overlay's own rules can match something.
fn conffiles(module: &Module) -> Result<(), String> {
    let name = &module.name;
    if !module.conffiles.is_empty() && !matches!(module.install, Install::Overlay { .. }) {
        return Err(format!(
            "the module `{name}` has rules for files that both sides change, which only the policy overlay knows"
        ));
    }
    for pattern in module.conffiles.keys() {
        glob::Pattern::new(pattern).map_err(|error| {
            format!(
                "the module `{name}` has a rule for `{pattern}`, which is not a pattern: {} at {}",
                error.msg, error.pos
            )
        })?;
        if !pattern.starts_with('/') {
            return Err(format!(
                "the module `{name}` has a rule for `{pattern}`, which is not absolute"
            ));
        }
    }
    Ok(())
}

fn link_to(install: &Install) -> Option<&Path> {
    match install {
        Install::Versioned { link_to, .. } => link_to.as_deref(),
        Install::Replace { .. }
        | Install::Overlay { .. }
        | Install::Package { .. }
        | Install::Image { .. }
        | Install::Exec { .. } => None,
    }
}

fn is_plain_absolute(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn is_plain_relative(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

#[cfg(test)]
mod tests;
