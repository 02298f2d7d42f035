//! `release.toml`: what a publisher writes. Unknown keys are errors with line and nearest key.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kato_shared::{
    release::{
        Check, Image, Install, Kind, Notice, OnConflict, Package, RestartScope, Severity, Sources, Version,
        document::Blocked,
    },
    settings::{ByteSize, HumanDuration},
};
use serde::Deserialize;

use super::PublishError;

/// The name of the file in a description folder.
pub(super) const FILE: &str = "release.toml";

/// The file. Keys that are missing take the defaults of the release document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    #[serde(default)]
    pub(super) kind: Kind,
    pub(super) patch: Option<PatchText>,
    pub(super) product: String,
    pub(super) version: Version,
    pub(super) channel: Option<String>,
    pub(super) from: Option<From>,
    #[serde(default)]
    pub(super) floor: bool,
    pub(super) min_upgrader: Option<Version>,
    #[serde(default = "yes")]
    pub(super) reversible: bool,
    #[serde(default)]
    pub(super) required_patches: Vec<String>,
    #[serde(default)]
    pub(super) supersedes_patches: Vec<String>,
    pub(super) role_order: Option<Vec<String>>,
    pub(super) core_role: Option<String>,
    pub(super) implicit_role: Option<String>,
    #[serde(default)]
    pub(super) backup: Vec<PathBuf>,
    #[serde(default)]
    pub(super) restart: RestartScope,
    #[serde(default)]
    pub(super) safe_paths: Vec<String>,
    #[serde(rename = "module")]
    pub(super) modules: Vec<ModuleText>,
    #[serde(default, rename = "check")]
    checks: Vec<CheckText>,
    #[serde(default, rename = "notice")]
    pub(super) notices: Vec<Notice>,
}

/// `[patch]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PatchText {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) summary: String,
    pub(super) severity: Severity,
    /// The roles of its modules when absent.
    pub(super) roles: Option<Vec<String>>,
    #[serde(default)]
    pub(super) requires: Vec<String>,
    #[serde(default)]
    pub(super) revert: Vec<ModuleText>,
}

/// `[from]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct From {
    min: Option<Version>,
    edges: Vec<Version>,
    blocked: Vec<BlockedText>,
}

/// `[[from.blocked]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockedText {
    version: Version,
    reason: String,
}

/// `[[module]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModuleText {
    pub(super) name: String,
    /// The version of the release when absent.
    pub(super) version: Option<String>,
    /// The folder of its content, beside `release.toml`; its name when absent.
    source: Option<PathBuf>,
    #[serde(default = "every_role")]
    pub(super) roles: Vec<String>,
    #[serde(default)]
    pub(super) after: Vec<String>,
    install: InstallText,
    #[serde(default)]
    pub(super) conffiles: BTreeMap<String, OnConflict>,
    #[serde(default)]
    pub(super) restart: Vec<String>,
    #[serde(default)]
    pub(super) recovery: bool,
    #[serde(default = "yes")]
    pub(super) reversible: bool,
    pub(super) timeout: Option<HumanDuration>,
    /// What it writes beside its own files.
    pub(super) bytes: Option<ByteSize>,
}

/// `[module.install]`: the keys of all policies; which of them fit is checked by [`InstallText::install`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallText {
    policy: Policy,
    dest: Option<PathBuf>,
    link: Option<PathBuf>,
    link_to: Option<PathBuf>,
    keep: Option<u32>,
    conflict: Option<OnConflict>,
    packages: Option<Vec<Package>>,
    images: Option<Vec<Image>>,
    cmd: Option<Vec<String>>,
    probe: Option<Vec<String>>,
    undo: Option<Vec<String>>,
}

/// The names of [`Install::POLICIES`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    Versioned,
    Replace,
    Overlay,
    Package,
    Image,
    Exec,
}

/// `[[check]]`: the keys of all checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckText {
    id: CheckId,
    url: Option<String>,
    status: Option<u16>,
    argv: Option<Vec<String>>,
    min_healthy: Option<HumanDuration>,
    deadline: Option<HumanDuration>,
}

/// The names of [`Check::IDS`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CheckId {
    VersionReadback,
    Http,
    Command,
}

impl Description {
    /// Reads `release.toml` in `folder`.
    pub(super) fn load(folder: &Path) -> Result<Self, PublishError> {
        Ok(kato_shared::settings::load(&folder.join(FILE))?)
    }

    /// The versions that may upgrade directly.
    pub(super) fn sources(&self) -> Sources {
        let blocked = |text: &BlockedText| Blocked {
            version: text.version.clone(),
            reason: text.reason.clone(),
        };
        match (&self.from, self.kind) {
            (Some(from), _) => Sources {
                min: from.min.clone(),
                edges: from.edges.clone(),
                blocked: from.blocked.iter().map(blocked).collect(),
            },
            (None, Kind::Release) => Sources::default(),
            // A patch that names no other release is for its own one.
            (None, Kind::Patch) => Sources {
                edges: vec![self.version.clone()],
                ..Sources::default()
            },
        }
    }

    /// The roles that a patch affects: those that it names, else those of its modules.
    pub(super) fn affected(&self, patch: &PatchText) -> Vec<String> {
        patch.roles.clone().unwrap_or_else(|| {
            let mut roles: Vec<_> = self
                .modules
                .iter()
                .flat_map(|module| module.roles.clone())
                .collect();
            roles.sort_unstable();
            roles.dedup();
            roles
        })
    }

    /// Every module with files to pack: its own, and those that take a patch back.
    pub(super) fn all_modules(&self) -> impl Iterator<Item = &ModuleText> {
        let revert = self.patch.iter().flat_map(|patch| &patch.revert);
        self.modules.iter().chain(revert)
    }

    /// The checks; without any, the version is read back.
    pub(super) fn checks(&self) -> Result<Vec<Check>, String> {
        if self.checks.is_empty() {
            return Ok(vec![Check::VersionReadback]);
        }
        self.checks.iter().map(CheckText::check).collect()
    }
}

impl ModuleText {
    /// The folder of its content; `None` when it has none and its policy needs none.
    pub(super) fn source(&self, description: &Path) -> Option<PathBuf> {
        let folder = description.join(self.source.as_deref().unwrap_or(Path::new(&self.name)));
        let may_miss = self.source.is_none() && self.install.dest.is_none();
        (!may_miss || folder.is_dir()).then_some(folder)
    }

    /// How it is installed.
    pub(super) fn install(&self) -> Result<Install, String> {
        self.install
            .install()
            .map_err(|problem| format!("the module `{}` {problem}", self.name))
    }
}

impl InstallText {
    /// # Errors
    /// A key that does not belong to the policy, or one that it lacks; to be read after the module's name.
    fn install(&self) -> Result<Install, String> {
        self.only_its_keys()?;
        let lacks = |key: &str| format!("has no `{key}`, which its policy needs");
        let dest = || self.dest.clone().ok_or_else(|| lacks("dest"));
        Ok(match self.policy {
            Policy::Versioned => Install::Versioned {
                dest: dest()?,
                link: self.link.clone(),
                link_to: self.link_to.clone(),
                keep: self.keep.unwrap_or(2).max(2),
            },
            Policy::Replace => Install::Replace { dest: dest()? },
            Policy::Overlay => Install::Overlay {
                dest: dest()?,
                conflict: self.conflict.unwrap_or_default(),
            },
            Policy::Package => Install::Package {
                packages: self.packages.clone().ok_or_else(|| lacks("packages"))?,
            },
            Policy::Image => Install::Image {
                images: self.images.clone().ok_or_else(|| lacks("images"))?,
            },
            Policy::Exec => Install::Exec {
                cmd: self.cmd.clone().ok_or_else(|| lacks("cmd"))?,
                probe: self.probe.clone().ok_or_else(|| lacks("probe"))?,
                undo: self.undo.clone().unwrap_or_default(),
            },
        })
    }

    fn only_its_keys(&self) -> Result<(), String> {
        let set = [
            ("dest", self.dest.is_some()),
            ("link", self.link.is_some()),
            ("link_to", self.link_to.is_some()),
            ("keep", self.keep.is_some()),
            ("conflict", self.conflict.is_some()),
            ("packages", self.packages.is_some()),
            ("images", self.images.is_some()),
            ("cmd", self.cmd.is_some()),
            ("probe", self.probe.is_some()),
            ("undo", self.undo.is_some()),
        ];
        let valid: &[&str] = match self.policy {
            Policy::Versioned => &["dest", "link", "link_to", "keep"],
            Policy::Replace => &["dest"],
            Policy::Overlay => &["dest", "conflict"],
            Policy::Package => &["packages"],
            Policy::Image => &["images"],
            Policy::Exec => &["cmd", "probe", "undo"],
        };
        match set
            .into_iter()
            .find(|(key, is_set)| *is_set && !valid.contains(key))
        {
            Some((key, _)) => Err(format!("sets `{key}`, which is not a key of its policy")),
            None => Ok(()),
        }
    }
}

impl CheckText {
    fn check(&self) -> Result<Check, String> {
        let min_healthy = self.min_healthy.unwrap_or(HumanDuration::from_secs(0));
        let deadline = self.deadline.unwrap_or(HumanDuration::from_secs(600));
        match (self.id, &self.url, &self.argv) {
            (CheckId::VersionReadback, None, None) => Ok(Check::VersionReadback),
            (CheckId::Http, Some(url), None) => Ok(Check::Http {
                url: url.clone(),
                status: self.status.unwrap_or(200),
                min_healthy,
                deadline,
            }),
            (CheckId::Command, None, Some(argv)) if !argv.is_empty() => Ok(Check::Command {
                argv: argv.clone(),
                min_healthy,
                deadline,
            }),
            (CheckId::VersionReadback, ..) => {
                Err("the check `version-readback` takes no `url` and no `argv`".into())
            }
            (CheckId::Http, ..) => Err("the check `http` needs `url` and takes no `argv`".into()),
            (CheckId::Command, ..) => Err("the check `command` needs `argv` and takes no `url`".into()),
        }
    }
}

const fn yes() -> bool {
    true
}

fn every_role() -> Vec<String> {
    vec!["*".into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the documentation.
    fn documented() -> Description {
        let page = include_str!("../../../docs/releases.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (example, _) = rest.split_once("```").unwrap();
        kato_shared::settings::parse(Path::new(FILE), example).unwrap()
    }

    #[test]
    fn the_documented_example_is_read_with_all_its_policies_and_checks() {
        let text = documented();
        let policies: Vec<_> = text
            .modules
            .iter()
            .map(|module| module.install().unwrap())
            .collect();
        assert!(matches!(
            policies.as_slice(),
            [
                Install::Replace { .. },
                Install::Versioned { keep: 2, .. },
                Install::Overlay { .. },
                Install::Package { .. },
                Install::Image { .. },
                Install::Exec { .. }
            ]
        ));
        assert!(matches!(
            text.checks().unwrap().as_slice(),
            [Check::Http { status: 200, .. }]
        ));
        assert_eq!(text.sources().blocked.len(), 1);
    }

    #[test]
    fn a_key_of_another_policy_is_refused_by_name() {
        let mut text = documented();
        text.modules[0].install.keep = Some(3);
        assert_eq!(
            text.modules[0].install().unwrap_err(),
            "the module `console` sets `keep`, which is not a key of its policy"
        );
    }

    #[test]
    fn a_key_that_a_policy_lacks_is_named() {
        let mut text = documented();
        text.modules[0].install.dest = None;
        assert_eq!(
            text.modules[0].install().unwrap_err(),
            "the module `console` has no `dest`, which its policy needs"
        );
    }

    #[test]
    fn the_names_of_policies_and_checks_are_those_that_nodes_know() {
        for policy in Install::POLICIES {
            let toml = format!("policy = \"{policy}\"\ndest = \"/x\"\n");
            kato_shared::settings::parse::<InstallText>(Path::new(FILE), &toml).unwrap();
        }
        for id in Check::IDS {
            kato_shared::settings::parse::<CheckText>(Path::new(FILE), &format!("id = \"{id}\"\n")).unwrap();
        }
    }
}
