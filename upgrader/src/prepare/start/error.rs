//! Why there is no cache on Core, and what to do next.

use std::{io, path::PathBuf};

use kato_shared::durable;

use crate::{
    exit::Exit,
    fetch::probe::ProbeError,
    prepare::{holder::PortTaken, systemd::SystemdError},
};

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program is not installed.
    #[error(
        "the program of the cache `{program}` was not found; looked in {}",
        list(looked_in)
    )]
    NoProgram {
        /// The program of the settings.
        program: PathBuf,
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// Somebody else has its port.
    #[error(transparent)]
    PortTaken(#[from] PortTaken),
    /// A folder or file of it cannot be written.
    #[error("the cache's files cannot be written")]
    Files(#[from] durable::DurableError),
    /// Its settings cannot be written as TOML.
    #[error("the settings of the cache cannot be written")]
    Settings(#[from] toml::ser::Error),
    /// The service manager refuses.
    #[error("the cache cannot be started as a systemd unit")]
    Systemd(#[from] SystemdError),
    /// A process of it cannot be started, seen or stopped.
    #[error("{what} failed")]
    Process {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("the cache ended at once; the end of {log}:\n{tail}", log = log.display())]
    Ended {
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// It does not become healthy.
    #[error("the cache is not healthy after {} s; see {log}", super::HEALTHY_WITHIN.as_secs(), log = log.display())]
    Unhealthy {
        /// Its log.
        log: PathBuf,
        /// The last answer.
        #[source]
        source: Box<ProbeError>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let texts: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    texts.join(", ")
}

impl StartError {
    /// The exit code: nothing on any node was changed.
    pub const fn exit(&self) -> Exit {
        Exit::Preflight
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::NoProgram { .. } => {
                "install `kato-proxy` beside `kato`, or name it in kato.toml: [cache] program = \"/path/to/kato-proxy\"".into()
            }
            Self::PortTaken(_) => {
                "stop that process, or choose other ports in kato.toml ([cache] port, admin_port); when it is a cache for this cluster, name it with [cache] url".into()
            }
            Self::Files(error) if error.is_disk_full() => "free disk space, or choose another folder in kato.toml: [cache] dir".into(),
            Self::Files(_) => {
                "run as the user that may write there (root on a real node), or choose another folder in kato.toml: [cache] dir".into()
            }
            Self::Settings(_) => "choose paths in kato.toml that are valid UTF-8".into(),
            Self::Systemd(_) => format!("`systemctl status {}` says more", crate::prepare::systemd::UNIT),
            Self::Process { .. } => "run `kato cache stop` as the user that started the cache, then try again".into(),
            Self::Ended { .. } | Self::Unhealthy { .. } => "mend what the log complains about, then run the same command again".into(),
        }
    }

    /// [`StartError::Process`] as a `map_err` argument.
    pub(super) fn process(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Process { what, source }
    }
}
