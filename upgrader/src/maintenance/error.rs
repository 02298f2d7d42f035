//! What goes wrong with a switch, and what to do about it.

use super::OFF;
use crate::{
    exit::{Exit, Failure},
    fetch::probe,
    platform::process::ProcessError,
    run::remedy,
    settings::Refused,
};

/// A switch that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// There is no such command.
    #[error("`[maintenance].{0}` is not set")]
    NoCommand(&'static str),
    /// The command failed.
    #[error("`[maintenance].{verb}` failed")]
    Command {
        /// The key of the command.
        verb: &'static str,
        /// How.
        #[source]
        source: ProcessError,
    },
    /// What `get` printed is not an answer.
    #[error("`[maintenance].get` printed `{output}`, expected `{{\"on\": true}}`")]
    Output {
        /// The start of the output.
        output: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The command said that it did it, and `get` says otherwise.
    #[error("maintenance mode is still {} after `[maintenance].{}` ended well", on(!*wanted), on(*wanted))]
    NotSwitched {
        /// What it should be.
        wanted: bool,
    },
    /// What must go on being served is not.
    #[error("with maintenance mode on, the platform does not serve any more")]
    NotServing(#[source] probe::ProbeError),
    /// What must be refused is not: maintenance mode is on by name only.
    #[error(
        "with maintenance mode on, {} {} is answered {status}, expected a refusal ({})",
        asked.method, asked.url, list(&asked.status)
    )]
    NotRefusing {
        /// The request.
        asked: Box<Refused>,
        /// The status of the answer.
        status: u16,
    },
    /// Whether it is refused cannot be found out.
    #[error("with maintenance mode on, whether the platform refuses changes cannot be asked")]
    NotAsked(#[source] probe::ProbeError),
    /// The record cannot be read.
    #[error(transparent)]
    Document(#[from] crate::document::DocumentError),
    /// The record cannot be written.
    #[error(transparent)]
    Durable(#[from] kato_shared::durable::DurableError),
}

const fn on(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

fn list(status: &[u16]) -> String {
    let words: Vec<String> = status.iter().map(ToString::to_string).collect();
    words.join(", ")
}

impl From<MaintenanceError> for Failure {
    fn from(error: MaintenanceError) -> Self {
        if let MaintenanceError::Document(document) = &error {
            let (exit, hint) = remedy::of_document(document);
            return Self::new(exit, error).hint(hint);
        }
        let hint = match &error {
            MaintenanceError::NoCommand(_) => {
                "set the commands of `[maintenance]` in the settings of Core".to_owned()
            }
            MaintenanceError::NotServing(_) => {
                "look at the platform; correct `[maintenance] serving` if the address is wrong".to_owned()
            }
            MaintenanceError::NotRefusing { .. } | MaintenanceError::NotAsked(_) => {
                "nothing was changed on any node; look at what the platform's maintenance mode closes; correct `[maintenance] refusing` if the request is wrong".to_owned()
            }
            MaintenanceError::Command { .. }
            | MaintenanceError::Output { .. }
            | MaintenanceError::NotSwitched { .. }
            | MaintenanceError::Document(_)
            | MaintenanceError::Durable(_) => {
                format!("`kato maintenance show` says how it is; `{OFF}` turns it off whatever happened")
            }
        };
        Self::new(Exit::Preflight, error).hint(hint)
    }
}
