//! What the policies `package`, `image` and `exec` name, and what must hold for it.
//!
//! Deliberately absent: version order of packages (dpkg's matter; a release names exactly one version of each) and tags as
//! a means to find an image (a digest is).

use std::{
    collections::BTreeSet,
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::document::{Install, Module};
use crate::Digest;

/// A Debian package in one version: `name=version`, as `apt-get install` has it; the name may have an architecture
/// (`name:arch=version`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Package {
    /// Its name (Debian Policy §5.6.7), perhaps with `:<architecture>`.
    pub name: String,
    /// Its version (Debian Policy §5.6.12).
    pub version: String,
}

/// Why a text is not a package in one version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not a package, expected `name=version`, e.g. `nginx=1.22.1-9`")]
pub struct ParsePackageError {
    given: String,
}

impl FromStr for Package {
    type Err = ParsePackageError;

    fn from_str(text: &str) -> Result<Self, ParsePackageError> {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_name = |name: &str| {
            let (name, arch) = name.split_once(':').unwrap_or((name, "all"));
            name.len() >= 2
                && name.starts_with(lower)
                && name.chars().all(|c| lower(c) || "+-.".contains(c))
                && !arch.is_empty()
                && arch.chars().all(|c| lower(c) || c == '-')
        };
        let is_version = |version: &str| {
            version.starts_with(|c: char| c.is_ascii_digit())
                && version
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".+-~:".contains(c))
        };
        match text.split_once('=') {
            Some((name, version)) if is_name(name) && is_version(version) => Ok(Self {
                name: name.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err(ParsePackageError {
                given: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Package {
    type Error = ParsePackageError;

    fn try_from(text: String) -> Result<Self, ParsePackageError> {
        text.parse()
    }
}

impl From<Package> for String {
    fn from(package: Package) -> Self {
        package.to_string()
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.version)
    }
}

impl Package {
    /// Whether `file` is named as `dpkg-deb --build` and apt name this package: `<name>_<version>_<architecture>.deb`, the
    /// version without its epoch or with the epoch's colon as `%3a`.
    pub fn is_file(&self, file: &Path) -> bool {
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(stem) = name.and_then(|name| name.strip_suffix(".deb")) else {
            return false;
        };
        let mut parts = stem.split('_');
        let (Some(name), Some(version), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let plain = self
            .version
            .split_once(':')
            .map_or(self.version.as_str(), |(_, rest)| rest);
        name == self.bare_name() && (version == plain || version.replace("%3a", ":") == self.version)
    }

    /// The name without an architecture.
    pub fn bare_name(&self) -> &str {
        self.name.split_once(':').map_or(&self.name, |(name, _)| name)
    }
}

/// A container image, found by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Registry and repository, e.g. `registry.example/team/app`.
    pub name: String,
    /// The digest of its manifest, or of the index over its platforms.
    pub digest: Digest,
    /// Bytes that it takes on a node, for the check of free space and for the plan.
    pub size: u64,
    /// The platform, e.g. `linux/amd64`; the node's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The tag that nodes give it; without one it gets a tag made of its digest, so that no clean-up takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Image {
    /// `<name>@<digest>`.
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }

    /// `<name>:<tag>`: what workloads on the node may call it.
    pub fn tagged(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.name),
            None => format!("{}:sha256-{}", self.name, &self.digest.hex()[..12]),
        }
    }

    /// The registry's host, and the port where it has one.
    pub fn registry(&self) -> &str {
        self.name
            .split_once('/')
            .map_or(self.name.as_str(), |(host, _)| host)
    }

    fn check(&self) -> Result<(), String> {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let (host, repository) = self.name.split_once('/').unwrap_or(("", &self.name));
        let is_host = (host.contains(['.', ':']) || host == "localhost")
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c))
            && host.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_part = |part: &str| {
            part.starts_with(lower)
                && part.ends_with(lower)
                && part.chars().all(|c| lower(c) || "._-".contains(c))
        };
        if !is_host || !repository.split('/').all(is_part) {
            return Err(format!(
                "the image `{}` is not named by registry and repository, e.g. `registry.example/team/app`",
                self.name
            ));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_tag = |tag: &String| tag.len() <= 128 && tag.chars().all(word) && !tag.starts_with(['.', '-']);
        if let Some(tag) = self.tag.as_ref().filter(|tag| tag.is_empty() || !is_tag(tag)) {
            return Err(format!(
                "the image `{}` has the tag `{tag}`, which is none",
                self.name
            ));
        }
        let is_platform = |platform: &String| {
            (2..=3).contains(&platform.split('/').count())
                && platform
                    .split('/')
                    .all(|part| !part.is_empty() && part.chars().all(word))
        };
        if let Some(platform) = self.platform.as_ref().filter(|platform| !is_platform(platform)) {
            return Err(format!(
                "the image `{}` is for the platform `{platform}`, expected one such as `linux/amd64`",
                self.name
            ));
        }
        Ok(())
    }
}

impl Install {
    /// The name of the policy, one of [`Install::POLICIES`].
    pub const fn policy(&self) -> &'static str {
        match self {
            Self::Versioned { .. } => "versioned",
            Self::Replace { .. } => "replace",
            Self::Overlay { .. } => "overlay",
            Self::Package { .. } => "package",
            Self::Image { .. } => "image",
            Self::Exec { .. } => "exec",
        }
    }

    /// The folder that is changed; `None` for policies that change no folder of their own.
    pub fn dest(&self) -> Option<&Path> {
        match self {
            Self::Versioned { dest, .. } | Self::Replace { dest } | Self::Overlay { dest, .. } => Some(dest),
            Self::Package { .. } | Self::Image { .. } | Self::Exec { .. } => None,
        }
    }

    /// The symbolic link to the current version; `None` for policies without one.
    pub fn link(&self) -> Option<PathBuf> {
        if let Self::Versioned { dest, link, .. } = self {
            Some(link.clone().unwrap_or_else(|| dest.join("current")))
        } else {
            None
        }
    }

    /// What [`Self::link`] points to below the version's folder; `None` for the folder itself.
    pub fn link_to(&self) -> Option<&Path> {
        if let Self::Versioned { link_to, .. } = self {
            link_to.as_deref()
        } else {
            None
        }
    }

    /// What is installed instead of a folder, one line each, as an operator reads it in a plan.
    pub fn contents(&self) -> Vec<String> {
        match self {
            Self::Versioned { .. } | Self::Replace { .. } | Self::Overlay { .. } => Vec::new(),
            Self::Package { packages } => packages.iter().map(ToString::to_string).collect(),
            Self::Image { images } => images.iter().map(Image::by_digest).collect(),
            Self::Exec { cmd, .. } => vec![cmd.join(" ")],
        }
    }

    /// That what the policy names can be what it should be.
    ///
    /// # Errors
    /// The first problem, to be read after "the module `x`: ".
    pub(super) fn check_contents(&self) -> Result<(), String> {
        match self {
            Self::Versioned { .. } | Self::Replace { .. } | Self::Overlay { .. } => Ok(()),
            Self::Package { packages } => {
                let names: BTreeSet<_> = packages.iter().map(|package| &package.name).collect();
                if packages.is_empty() {
                    return Err("it names no packages".into());
                }
                if names.len() < packages.len() {
                    return Err("it names a package twice".into());
                }
                Ok(())
            }
            Self::Image { images } if images.is_empty() => Err("it names no images".into()),
            Self::Image { images } => images.iter().try_for_each(Image::check),
            Self::Exec { cmd, probe, undo } => {
                if probe.is_empty() {
                    return Err("it has no `probe`, which tells whether its command was run".into());
                }
                program("cmd", cmd)?;
                program("probe", probe)?;
                if undo.is_empty() {
                    Ok(())
                } else {
                    program("undo", undo)
                }
            }
        }
    }

    /// The programs that an `exec` module takes from its own archive, by their paths in it.
    pub fn own_programs(&self) -> Vec<&Path> {
        match self {
            Self::Exec { cmd, probe, undo } => [cmd, probe, undo]
                .into_iter()
                .filter_map(|argv| argv.first()?.strip_prefix("./").map(Path::new))
                .collect(),
            Self::Versioned { .. }
            | Self::Replace { .. }
            | Self::Overlay { .. }
            | Self::Package { .. }
            | Self::Image { .. } => Vec::new(),
        }
    }
}

/// That the first word of `argv` names a program: one of the node, or with `./` one of the module's archive.
fn program(key: &str, argv: &[String]) -> Result<(), String> {
    let Some(program) = argv.first() else {
        return Err(format!(
            "its `{key}` is empty, expected a program and its arguments"
        ));
    };
    let parts = |path: &str| {
        let path = Path::new(path);
        path.components().next().is_some()
            && path
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
    };
    let is_program = match program.strip_prefix("./") {
        Some(below) => parts(below) && !below.starts_with('/'),
        None if program.starts_with('/') => parts(program),
        None => !program.contains('/') && parts(program),
    };
    if is_program && !program.contains('=') {
        return Ok(());
    }
    Err(format!(
        "its `{key}` begins with `{program}`, expected a program of the node or `./` and a path in the module's archive"
    ))
}

impl Module {
    /// Why its installation cannot be undone, when the release says so; the node may know more reasons.
    pub fn irreversible(&self) -> Option<String> {
        match &self.install {
            _ if !self.reversible => Some(format!("the module {} cannot be undone", self.name)),
            Install::Exec { undo, .. } if undo.is_empty() => {
                Some(format!("the command of the module {} has no undo", self.name))
            }
            Install::Versioned { .. }
            | Install::Replace { .. }
            | Install::Overlay { .. }
            | Install::Package { .. }
            | Install::Image { .. }
            | Install::Exec { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(install: serde_json::Value) -> String {
        let install: Install = serde_json::from_value(install).unwrap();
        install.check_contents().unwrap_err()
    }

    #[test]
    fn packages_are_one_name_and_one_version() {
        let package: Package = "lib-c++1.0:amd64=2:1.0~rc1-1+deb12u1".parse().unwrap();
        assert_eq!(package.bare_name(), "lib-c++1.0");
        assert_eq!(package.version, "2:1.0~rc1-1+deb12u1");
        assert_eq!(package.to_string(), "lib-c++1.0:amd64=2:1.0~rc1-1+deb12u1");
        for wrong in [
            "nginx",
            "nginx=",
            "=1.0",
            "-y=1",
            "Nginx=1.0",
            "a b=1",
            "nginx=1 2",
            "nginx=v1",
            "ng;x=1",
            "nginx:=1",
            "../x=1",
            "--purge=1.0",
        ] {
            assert!(wrong.parse::<Package>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_packages_file_has_its_name_and_its_version_without_the_epoch() {
        let package: Package = "tool=2:1.0-1".parse().unwrap();
        for name in [
            "tool_1.0-1_amd64.deb",
            "sub/tool_1.0-1_all.deb",
            "tool_2%3a1.0-1_amd64.deb",
        ] {
            assert!(package.is_file(Path::new(name)), "{name}");
        }
        for name in [
            "tool_1.0-2_amd64.deb",
            "tools_1.0-1_amd64.deb",
            "tool_1.0-1.deb",
            "tool_1.0-1_amd64.udeb",
        ] {
            assert!(!package.is_file(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn an_image_is_named_by_its_registry_and_found_by_its_digest() {
        let digest = Digest::of(b"m");
        let image = |name: &str, tag: &str, platform: &str| json!({"policy": "image", "images": [{"name": name, "digest": digest, "size": 1, "tag": tag, "platform": platform}]});
        let good: Install =
            serde_json::from_value(image("hub.example:5000/lab/app", "v1", "linux/arm64/v8")).unwrap();
        good.check_contents().unwrap();
        assert_eq!(good.contents(), [format!("hub.example:5000/lab/app@{digest}")]);
        for (name, tag, platform) in [
            ("app", "v1", "linux/amd64"),
            ("lab/app", "v1", "linux/amd64"),
            ("--flag.x/app", "v1", "linux/amd64"),
            ("hub.example/", "v1", "linux/amd64"),
            ("hub.example/App", "v1", "linux/amd64"),
            ("hub.example/a/../b", "v1", "linux/amd64"),
            ("hub.example/app@sha256", "v1", "linux/amd64"),
            ("hub.example/app", "-v", "linux/amd64"),
            ("hub.example/app", "v 1", "linux/amd64"),
            ("hub.example/app", "v1", "linux"),
        ] {
            let said = problem(image(name, tag, platform));
            assert!(said.contains("the image"), "{said}");
        }
        assert_eq!(
            problem(json!({"policy": "image", "images": []})),
            "it names no images"
        );
    }

    #[test]
    fn a_command_is_one_of_the_node_or_of_the_archive_and_has_a_probe() {
        let exec = |cmd: &[&str], probe: &[&str]| json!({"policy": "exec", "cmd": cmd, "probe": probe});
        for cmd in ["./bin/migrate", "/usr/bin/true", "true"] {
            let install: Install = serde_json::from_value(exec(&[cmd, "../any"], &["true"])).unwrap();
            install.check_contents().unwrap();
        }
        for cmd in ["./../x", "../x", "bin/x", "/usr/../x", ".//x", "A=b", "./", ""] {
            assert!(
                problem(exec(&[cmd], &["true"])).contains("`cmd` begins with"),
                "{cmd}"
            );
        }
        assert!(problem(exec(&["true"], &[])).contains("no `probe`"));
        assert!(problem(exec(&[], &["true"])).contains("`cmd` is empty"));
    }
}
