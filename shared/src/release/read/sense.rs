//! The sense of a release document: everything that one part of it says about another.

use std::collections::BTreeSet;

use super::{
    ReadError,
    module::{is_file_name, is_plain_absolute, module_paths, names_and_paths},
};
use crate::release::{
    document::{Install, Module, Release},
    patch::Kind,
};

impl Release {
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
