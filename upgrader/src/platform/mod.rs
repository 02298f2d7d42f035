//! The platform that is upgraded, seen through a handful of verbs. An adapter may lie: the engine never takes a verb's word
//! for something that another verb can confirm.

pub mod exec;
pub mod process;

use async_trait::async_trait;
use serde::Deserialize;

pub use exec::ExecPlatform;
pub use process::ProcessError;

/// What a platform can be asked to do on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Take the node out of service.
    Retire,
    /// Say how much work is on the node.
    Resident,
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
}

impl Verb {
    /// The verb's key in `[platform]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Resident => "resident",
            Self::Rejoin => "rejoin",
            Self::Restart => "restart",
            Self::Reboot => "reboot",
            Self::Health => "health",
            Self::Version => "version",
            Self::Backup => "backup",
        }
    }
}

/// What a verb's command may need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// The version that is installed or being installed.
    pub version: String,
    /// The folder to write to.
    pub dir: String,
    /// The services to restart, comma separated; empty for all of the node's roles.
    pub services: String,
}

/// A verb that failed.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The command could not be run, or says that it failed.
    #[error("the platform's `{verb}` failed")]
    Command {
        /// The verb's key.
        verb: &'static str,
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
}

/// A platform.
#[async_trait]
pub trait Platform: Send + Sync {
    /// Whether the platform knows the verb; one that it does not know is not needed there.
    fn knows(&self, verb: Verb) -> bool;

    /// Does the verb and gives what it printed; `None` when the platform does not know it.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError>;
}

/// How much work is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    parse(Verb::Resident, &output, r#"`{"count": 3, "blockers": ["…"]}`"#).map(Some)
}

/// The version that the node runs; `None` when the platform cannot say.
///
/// # Errors
/// [`PlatformError`].
pub async fn version(platform: &dyn Platform, words: &Words) -> Result<Option<String>, PlatformError> {
    let Some(output) = platform.call(Verb::Version, words).await? else {
        return Ok(None);
    };
    parse::<Running>(Verb::Version, &output, r#"`{"version": "3.2.1"}`"#).map(|running| Some(running.version))
}

fn parse<T: serde::de::DeserializeOwned>(
    verb: Verb,
    output: &str,
    expected: &'static str,
) -> Result<T, PlatformError> {
    serde_json::from_str(output.trim()).map_err(|source| PlatformError::Output {
        verb: verb.key(),
        output: output.trim().chars().take(200).collect(),
        expected,
        source,
    })
}
