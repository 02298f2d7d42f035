//! The sense of one module: what it names stays below the node's root, and below the module's own folder.

use std::path::{Component, Path};

use crate::release::document::{Install, Module};

pub(super) fn module_paths(install: &Install) -> Vec<&Path> {
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
pub(super) fn names_and_paths(module: &Module) -> Result<(), String> {
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

pub(super) fn is_plain_absolute(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn is_plain_relative(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}
