//! A new repository: keys for the four roles and the root metadata that lists them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::durable;
use serde::Serialize;
use tough::schema::{RoleKeys, RoleType, Root};

use super::{Lifetimes, PublishError, keys, metadata};

/// How a repository is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// How many root keys are made, at least 1.
    pub root_keys: u8,
    /// How many of them must sign a root, at least 1.
    pub root_threshold: u8,
    /// How long the root is valid.
    pub lifetimes: Lifetimes,
}

impl Default for InitOptions {
    /// One root key, which is enough to try; a real repository has three and a threshold of two.
    fn default() -> Self {
        Self {
            root_keys: 1,
            root_threshold: 1,
            lifetimes: Lifetimes::default(),
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Initialized {
    /// The root metadata; a copy of it is what nodes are given as their pinned root.
    pub root: PathBuf,
    /// The folder of the keys.
    pub keys: PathBuf,
    /// How many root keys there are.
    pub root_keys: u8,
    /// How many of them must sign.
    pub root_threshold: u8,
}

/// Makes keys in `keys` and `metadata/1.root.json` in `repository`.
///
/// # Errors
/// [`PublishError::Exists`] when there is a root or a key already, [`PublishError::Threshold`], or a failed write.
pub async fn init(
    repository: &Path,
    keys: &Path,
    options: InitOptions,
    now: Timestamp,
) -> Result<Initialized, PublishError> {
    if options.root_threshold == 0 || options.root_threshold > options.root_keys {
        return Err(PublishError::Threshold {
            threshold: options.root_threshold,
            keys: options.root_keys,
        });
    }
    let path = repository.join("metadata/1.root.json");
    if path.exists() {
        return Err(PublishError::Exists { path });
    }
    durable::create_folder(&repository.join("metadata"))?;
    durable::create_folder(keys)?;
    if resolved(keys)?.starts_with(resolved(repository)?) {
        return Err(PublishError::KeysServed {
            keys: keys.to_owned(),
        });
    }
    durable::create_folder(&repository.join("targets"))?;
    let mut root = Root {
        spec_version: metadata::SPEC_VERSION.into(),
        consistent_snapshot: true,
        version: metadata::number(1),
        expires: metadata::expiry(now, options.lifetimes.root),
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    add_role(
        &mut root,
        keys,
        RoleType::Root,
        (options.root_keys, options.root_threshold),
    )?;
    for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
        add_role(&mut root, keys, role, (1, 1))?;
    }
    let signers = keys::sources(keys, name(RoleType::Root))?;
    let bytes = metadata::sign(root.clone(), name(RoleType::Root), &root, &signers).await?;
    durable::write(&path, &bytes, 0o644)?;
    Ok(Initialized {
        root: path,
        keys: keys.to_owned(),
        root_keys: options.root_keys,
        root_threshold: options.root_threshold,
    })
}

fn resolved(folder: &Path) -> Result<PathBuf, PublishError> {
    folder
        .canonicalize()
        .map_err(PublishError::io("opening the folder", folder))
}

/// Makes `count` keys for `role`, of which `threshold` must sign.
fn add_role(
    root: &mut Root,
    folder: &Path,
    role: RoleType,
    (count, threshold): (u8, u8),
) -> Result<(), PublishError> {
    let mut ids = Vec::new();
    for number in 1..=count {
        let key = keys::create(folder, name(role), number)?;
        let id = key.key_id().map_err(|source| PublishError::Signing {
            role: name(role),
            source: source.into(),
        })?;
        ids.push(id.clone());
        root.keys.insert(id, key);
    }
    let listed = RoleKeys {
        keyids: ids,
        threshold: metadata::number(threshold.into()),
        _extra: HashMap::new(),
    };
    root.roles.insert(role, listed);
    Ok(())
}

/// The name of a role, as in the names of key files.
pub(super) const fn name(role: RoleType) -> &'static str {
    match role {
        RoleType::Root => "root",
        RoleType::Snapshot => "snapshot",
        RoleType::Targets => "targets",
        RoleType::Timestamp => "timestamp",
        RoleType::DelegatedTargets => "delegated-targets",
    }
}
