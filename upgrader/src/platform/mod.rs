//! The platform that is upgraded, seen through a handful of verbs.
//!
//! Flow: [`of`] makes the node's platform out of `[platform]`: an adapter ([`systemd`], [`docker`], [`kubernetes`],
//! [`nomad`]) below the commands of that table ([`exec`]), which win verb by verb. [`evacuate`] takes a node out of service
//! with them and believes nothing but an independent count.
//!
//! Deliberately absent: clients of the platforms' APIs. Every adapter runs the platform's own program, with arguments and a
//! deadline, and reads its JSON; credentials, proxies and versions of the API stay that program's business.
//!
//! Invariants: an adapter may lie, so the engine never takes a verb's word for something that another verb can confirm; every
//! verb may be called twice; output that is not understood is an error, never "nothing".

mod commands;
pub mod docker;
pub mod evacuate;
pub mod exec;
pub mod kubernetes;
pub mod nomad;
pub mod process;
pub mod program;
mod quantity;
pub mod systemd;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{
    commands::Overridden, docker::Docker, exec::ExecPlatform, kubernetes::Kubernetes, nomad::Nomad,
    systemd::Systemd,
};
pub use process::{Children, ProcessError, Services};

use crate::{
    paths::NodePaths,
    plan::survey::Capacity,
    settings::{Adapter, Settings},
};

/// What a platform can be asked to do on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Take the node out of service.
    Retire,
    /// Say how much work is on the node.
    Resident,
    /// End the work that is left on the node.
    Force,
    /// Put the node back into service.
    Rejoin,
    /// Restart the node's services.
    Restart,
    /// Restart the machine.
    Reboot,
    /// Say whether the node is healthy.
    Health,
    /// Say which version the node runs.
    Version,
    /// Save the platform's own state.
    Backup,
    /// Bring the platform's own state back.
    Restore,
    /// Say how much work the node has and could take.
    Capacity,
}

impl Verb {
    /// What a command of the verb is for, as people read it.
    pub(crate) fn purpose(self) -> String {
        format!("the platform's `{}`", self.key())
    }

    /// Which processes of a command of the verb may be services that go on without it.
    pub(crate) const fn services(self) -> Services {
        match self {
            Self::Rejoin | Self::Restart | Self::Reboot | Self::Restore => Services::Any,
            Self::Retire
            | Self::Resident
            | Self::Force
            | Self::Health
            | Self::Version
            | Self::Backup
            | Self::Capacity => Services::None,
        }
    }

    /// The verb's key in `[platform]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Resident => "resident",
            Self::Force => "force",
            Self::Rejoin => "rejoin",
            Self::Restart => "restart",
            Self::Reboot => "reboot",
            Self::Health => "health",
            Self::Version => "version",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Capacity => "capacity",
        }
    }
}

/// What a verb's command may need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// The version that is installed or being installed.
    pub version: String,
    /// The folder to write to, or to read from.
    pub dir: String,
    /// The services to restart, comma separated; empty for all of `roles`.
    pub services: String,
    /// The roles whose services are restarted, comma separated; empty for all of the node. A role's name is never a service's.
    pub roles: String,
}

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The command could not be run, or says that it failed.
    #[error("the platform's `{verb}` failed")]
    Command {
        /// The verb's key.
        verb: &'static str,
        /// The setting that the command comes from.
        setting: String,
        /// How.
        #[source]
        source: ProcessError,
    },
    /// The command's output is not what the verb must print.
    #[error("the platform's `{verb}` printed `{output}`, expected {expected}")]
    Output {
        /// The verb's key.
        verb: &'static str,
        /// The start of the output.
        output: String,
        /// What belongs there.
        expected: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The platform answered, and the answer is no.
    #[error("the platform's `{verb}` says no: {reason}")]
    Refused {
        /// The verb's key.
        verb: &'static str,
        /// Why, with what was looked at.
        reason: String,
    },
    /// What the adapter has to remember cannot be written or read.
    #[error("the platform's `{verb}` cannot keep its notes")]
    Notes {
        /// The verb's key.
        verb: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A platform.
#[async_trait]
pub trait Platform: Send + Sync {
    /// Whether the platform knows the verb; one that it does not know is not needed there.
    fn knows(&self, verb: Verb) -> bool;

    /// Does the verb and gives what it printed; `None` when the platform does not know it.
    ///
    /// # Errors
    /// [`PlatformError`].
    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError>;

    /// Starts again what `retire` has stopped on this machine, for it to show that it is well; no work is asked for. Where `retire` stops
    /// nothing, nothing is done.
    ///
    /// # Errors
    /// [`PlatformError`].
    async fn start(&self) -> Result<(), PlatformError> {
        Ok(())
    }

    /// The setting that should name what `role` does on this node, and does not: without it the adapter cannot retire the role.
    fn lacks(&self, _role: &str) -> Option<&'static str> {
        None
    }
}

/// The platform of the node `node`, as its settings say; its programs run as some of `children`.
pub fn of(settings: &Settings, node: &str, paths: &NodePaths, children: &Children) -> Box<dyn Platform> {
    let platform = &settings.platform;
    let commands = ExecPlatform::new(platform.clone(), node, paths, children);
    let adapter: Box<dyn Platform> = match platform.adapter {
        Adapter::Exec => return Box::new(commands),
        Adapter::None => return Box::new(Nobody),
        Adapter::Systemd => Box::new(Systemd::new(&platform.systemd, &settings.node.roles, children)),
        Adapter::Docker => Box::new(Docker::new(&platform.docker, paths, children)),
        Adapter::Kubernetes => Box::new(Kubernetes::new(&platform.kubernetes, node, children)),
        Adapter::Nomad => Box::new(Nomad::new(&platform.nomad, children)),
    };
    Box::new(Overridden { commands, adapter })
}

/// The platform of a node that has none.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Platform for Nobody {
    fn knows(&self, _verb: Verb) -> bool {
        false
    }

    async fn call(&self, _verb: Verb, _words: &Words) -> Result<Option<String>, PlatformError> {
        Ok(None)
    }
}

/// How much work is on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Units of work.
    pub count: u64,
    /// What keeps it from becoming empty.
    #[serde(default)]
    pub blockers: Vec<String>,
    /// Whether the node is out of service already, where the platform can say so.
    #[serde(default)]
    pub retired: Option<bool>,
}

impl Resident {
    /// How much work it is, for people: `1 unit`.
    pub fn units(&self) -> String {
        kato_shared::counted(self.count, "unit", "units")
    }
}

#[derive(Deserialize)]
struct Running {
    version: String,
}

/// How much work is on the node; `None` when the platform cannot say.
///
/// # Errors
/// [`PlatformError`].
pub async fn resident(platform: &dyn Platform, words: &Words) -> Result<Option<Resident>, PlatformError> {
    let Some(output) = platform.call(Verb::Resident, words).await? else {
        return Ok(None);
    };
    parse(
        Verb::Resident,
        output.as_bytes(),
        r#"`{"count": 3, "blockers": ["…"]}`"#,
    )
    .map(Some)
}

/// How much work the node has and could take; `None` when the platform cannot say.
///
/// # Errors
/// [`PlatformError`].
pub async fn capacity(platform: &dyn Platform, words: &Words) -> Result<Option<Capacity>, PlatformError> {
    let Some(output) = platform.call(Verb::Capacity, words).await? else {
        return Ok(None);
    };
    parse(
        Verb::Capacity,
        output.as_bytes(),
        r#"`{"used": 300, "free": 100}`"#,
    )
    .map(Some)
}

/// The version that the node runs; `None` when the platform cannot say.
///
/// # Errors
/// [`PlatformError`].
pub async fn version(platform: &dyn Platform, words: &Words) -> Result<Option<String>, PlatformError> {
    let Some(output) = platform.call(Verb::Version, words).await? else {
        return Ok(None);
    };
    parse::<Running>(Verb::Version, output.as_bytes(), r#"`{"version": "3.2.1"}`"#)
        .map(|running| Some(running.version))
}

/// Reads the JSON that the verb's command printed. A member that is `null` is as good as absent: programs in Go, which most platforms are
/// made of, print it for a map or a list that has nothing in it.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    verb: Verb,
    output: &[u8],
    expected: &'static str,
) -> Result<T, PlatformError> {
    let read: Result<T, _> = serde_json::from_slice(output);
    read.or_else(|error| match serde_json::from_slice(output) {
        Ok(mut document) => {
            without_nulls(&mut document);
            serde_json::from_value(document).map_err(|_without_a_place| error)
        }
        Err(_same) => Err(error),
    })
    .map_err(|source| PlatformError::Output {
        verb: verb.key(),
        output: String::from_utf8_lossy(output).trim().chars().take(200).collect(),
        expected,
        source,
    })
}

/// Removes the members of objects that are `null`, at every depth. An element of a list has no other way to be absent and stays.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What an adapter answers to [`Verb::Capacity`], in the form that commands print.
fn stated(capacity: Capacity) -> Result<Option<String>, PlatformError> {
    serde_json::to_string(&capacity)
        .map(Some)
        .map_err(|source| PlatformError::Output {
            verb: Verb::Capacity.key(),
            output: String::new(),
            expected: "a capacity that is JSON",
            source,
        })
}

/// What an adapter answers to [`Verb::Resident`], in the form that commands print.
fn told(resident: &Resident) -> Result<Option<String>, PlatformError> {
    serde_json::to_string(resident)
        .map(Some)
        .map_err(|source| PlatformError::Output {
            verb: Verb::Resident.key(),
            output: String::new(),
            expected: "a count that is JSON",
            source,
        })
}
