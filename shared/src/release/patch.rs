//! Patches: small changes of an installed release, published as documents of the same schema.
//!
//! A patch document is a signed target of its own (`patches/<id>.json`): a [`Release`] of the kind [`Kind::Patch`] whose
//! `version` is the newest release that it is for and whose `from` names the others. [`PatchList`] (`patches.json`, signed as
//! well) says what there is, so that a node can choose without reading every document.
//!
//! Deliberately absent: what a node has installed; that is the node's own record.

use semver::Version;
use serde::{Deserialize, Serialize};

use super::document::{Module, Release, Sources};
use crate::Digest;

/// What a document describes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole release.
    #[default]
    Release,
    /// A change of an installed release.
    Patch,
}

impl Kind {
    /// The names of the kinds that this build can install.
    pub const NAMES: [&'static str; 2] = ["release", "patch"];

    /// Whether it is a release, which documents need not say.
    pub const fn is_release(&self) -> bool {
        matches!(self, Self::Release)
    }
}

/// How much a patch matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It should be installed on every node that it is for.
    Required,
    /// It should be installed unless there is a reason not to.
    Recommended,
    /// It is for those who need it.
    Optional,
}

impl Severity {
    /// Its name, as documents and people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Recommended => "recommended",
            Self::Optional => "optional",
        }
    }
}

/// What a document of the kind [`Kind::Patch`] says beside what a release says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Its number, from 1 on: patches are published and installed in ascending order.
    pub id: u32,
    /// Its name, unique in the repository: letters, digits and `-`.
    pub name: String,
    /// What it is about, in a line.
    pub summary: String,
    /// How much it matters.
    pub severity: Severity,
    /// The roles that it affects: their nodes install it and restart them; `*` is every node.
    #[serde(default = "every_role")]
    pub roles: Vec<String>,
    /// Patches that must be installed before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The modules that take it back, where putting the originals back is not enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revert: Vec<Module>,
}

fn every_role() -> Vec<String> {
    vec!["*".into()]
}

/// Whether one of `affected` is a role in `own`; `*` is.
fn affects(affected: &[String], own: &[String]) -> bool {
    affected
        .iter()
        .any(|role| role == "*" || own.iter().any(|own| own.eq_ignore_ascii_case(role)))
}

impl Patch {
    /// Whether a node with `roles` installs it.
    pub fn affects(&self, roles: &[String]) -> bool {
        affects(&self.roles, roles)
    }

    /// What contradicts itself in it.
    ///
    /// # Errors
    /// A text naming the first problem.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { id, name, .. } = self;
        if *id == 0 {
            return Err(format!("the patch `{name}` has the number 0, the first is 1"));
        }
        if !is_name(name) {
            return Err(format!(
                "the patch name `{name}` is not one: expected letters, digits and `-`, at most 100"
            ));
        }
        if self.roles.is_empty() {
            return Err(format!("the patch `{name}` affects no role"));
        }
        if self.requires.contains(name) {
            return Err(format!("the patch `{name}` requires itself"));
        }
        Ok(())
    }
}

/// Whether a name can stand in a file name, in a URL and behind the `+` of a version.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.len() <= 100 && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// All patches of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchList {
    /// The schema version of this document; see [`super::SCHEMA`].
    pub schema: u32,
    /// The product.
    pub product: String,
    /// The patches, by number.
    pub patches: Vec<PatchEntry>,
}

impl PatchList {
    /// The patch `name`.
    pub fn named(&self, name: &str) -> Option<&PatchEntry> {
        self.patches.iter().find(|entry| entry.name == name)
    }
}

/// What the list knows of one patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchEntry {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub summary: String,
    /// How much it matters.
    pub severity: Severity,
    /// The roles that it affects.
    pub roles: Vec<String>,
    /// Patches that must be installed before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The newest release that it is for.
    pub version: Version,
    /// Which older releases it is for.
    #[serde(default)]
    pub from: Sources,
    /// The digest of its document.
    pub sha256: Digest,
}

impl PatchEntry {
    /// What the list says of a patch document with the digest `sha256`; `None` for a release.
    pub fn of(document: &Release, sha256: Digest) -> Option<Self> {
        let patch = document.patch.as_ref()?;
        Some(Self {
            id: patch.id,
            name: patch.name.clone(),
            summary: patch.summary.clone(),
            severity: patch.severity,
            roles: patch.roles.clone(),
            requires: patch.requires.clone(),
            version: document.version.clone(),
            from: document.from.clone(),
            sha256,
        })
    }

    /// Whether it is for a node that has the release `installed`.
    pub fn is_for(&self, installed: &Version) -> bool {
        *installed <= self.version && self.from.admit(installed).is_ok()
    }

    /// Whether a node with `roles` installs it.
    pub fn affects(&self, roles: &[String]) -> bool {
        affects(&self.roles, roles)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        let module = |name: &str| {
            json!({"name": name, "artifact": "a.tar.zst", "roles": ["*"],
                   "install": {"policy": "overlay", "dest": "/s/etc"}})
        };
        json!({
            "schema": 1, "kind": "patch", "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
            "from": {"edges": ["1.9.0", "2.0.0"]},
            "artifacts": {"a.tar.zst": {"target": "artifacts/x.a", "sha256": "00".repeat(32), "size": 3}},
            "modules": [module("fix")],
            "patch": {"id": 7, "name": "dea-memory", "summary": "counts memory right", "severity": "required",
                      "roles": ["dea"], "revert": [module("unfix")]},
        })
    }

    fn read(document: &Value) -> Result<Release, String> {
        Release::from_json("patches/7.json", document.to_string().as_bytes())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn r70_a_patch_is_for_the_releases_that_it_names_and_for_the_roles_that_it_affects() {
        let release = read(&document()).unwrap();
        assert_eq!(
            Release::from_json("again", &serde_json::to_vec(&release).unwrap()).unwrap(),
            release
        );
        let entry = PatchEntry::of(&release, Digest::of(b"")).unwrap();
        let is_for = |version: &str| entry.is_for(&version.parse().unwrap());
        assert!(is_for("2.0.0") && is_for("1.9.0"));
        assert!(!is_for("1.9.1") && !is_for("2.1.0"));
        assert!(entry.affects(&["DEA".into()]) && !entry.affects(&["router".into()]));
    }

    #[test]
    fn r70_a_patch_document_that_contradicts_itself_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 9] = [
            (|d| d["patch"]["id"] = json!(0), "the number 0"),
            (|d| d["patch"]["name"] = json!("../x"), "the patch name `../x`"),
            (|d| d["patch"]["roles"] = json!([]), "affects no role"),
            (
                |d| d["patch"]["requires"] = json!(["dea-memory"]),
                "requires itself",
            ),
            (
                |d| d["patch"]["revert"][0]["artifact"] = json!("b"),
                "names the artifact `b`",
            ),
            (|d| d["patch"] = Value::Null, "says nothing about a patch"),
            (
                |d| d["kind"] = json!("release"),
                "describes a patch and is of the kind release",
            ),
            (|d| d["modules"] = json!([]), "has no module"),
            (
                |d| d["kind"] = json!("poem"),
                "asks for kind `poem`, this upgrader knows release, patch",
            ),
        ];
        for (change, expected) in cases {
            let mut changed = document();
            change(&mut changed);
            let error = read(&changed).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
