//! Reads `release.json`: the shape first, then everything that one key says about another.

mod module;
mod sense;

use semver::Version;
use serde::Deserialize;

use super::{
    SCHEMA,
    document::{Check, Install, Release},
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

#[cfg(test)]
mod tests;
