//! Containers with a label on this machine. Docker cannot move work elsewhere: it can only stop and start it.
//!
//! | Verb | `docker` |
//! |---|---|
//! | retire | the running containers are noted, then `stop` |
//! | resident | `ps`: labelled containers that run |
//! | force | `kill` |
//! | rejoin | `start` of the noted ones that still exist |
//! | restart | `restart` of what runs, `start` of what is noted |
//! | health | `inspect`: what should run does, and says no worse than healthy |
//!
//! What we stopped is written down before it is stopped: a container that somebody else has stopped stays stopped. A
//! container that was replaced meanwhile is started by whoever replaced it.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use async_trait::async_trait;
use kato_shared::durable;
use serde::{Deserialize, Serialize};

use super::{Platform, PlatformError, Resident, Verb, Words, process::Children, program::Program, told};
use crate::{document, paths::NodePaths, settings::DockerSettings};

/// Containers as work.
#[derive(Debug, Clone)]
pub struct Docker {
    program: Program,
    settings: DockerSettings,
    notes: PathBuf,
}

/// The containers that we stopped.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stopped {
    ids: BTreeSet<String>,
}

/// A line of `docker ps --format {{json .}}`.
#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Names")]
    names: String,
    #[serde(rename = "State", default)]
    state: String,
}

/// What `docker inspect` tells of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    name: String,
    state: State,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    restarting: bool,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: String,
}

impl Inspected {
    /// Why it is not well; `None` when it is.
    fn ailment(&self) -> Option<String> {
        let name = self.name.trim_start_matches('/');
        if self.state.restarting {
            return Some(format!("{name} is restarting"));
        }
        if !self.state.running {
            return Some(format!("{name} does not run"));
        }
        match &self.state.health {
            // Docker's words: none, starting, healthy, unhealthy.
            Some(health) if !matches!(health.status.as_str(), "healthy" | "none" | "") => {
                Some(format!("{name} is {}", health.status))
            }
            _ => None,
        }
    }
}

impl Docker {
    /// The containers of the node with `paths`.
    pub fn new(settings: &DockerSettings, paths: &NodePaths, children: &Children) -> Self {
        Self {
            program: Program::new("docker", &settings.program, children),
            settings: settings.clone(),
            notes: paths.platform_notes(),
        }
    }

    const fn limit(&self) -> Duration {
        self.settings.timeout.get()
    }

    /// The labelled containers that run.
    async fn running(&self, verb: Verb) -> Result<Vec<Listed>, PlatformError> {
        let label = format!("label={}", self.settings.label);
        let arguments = ["ps", "--no-trunc", "--filter", &label, "--format", "{{json .}}"];
        let text = self.program.text(verb, &arguments, self.limit()).await?;
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .map(|line| super::parse(verb, line, "containers, one JSON object a line"))
            .collect()
    }

    /// Those of `ids` that exist, as they are.
    async fn inspected(&self, verb: Verb, ids: &BTreeSet<String>) -> Result<Vec<Inspected>, PlatformError> {
        let existing = self.all(verb).await?;
        let mut arguments = vec!["inspect", "--type", "container", "--"];
        arguments.extend(ids.iter().filter(|id| existing.contains(*id)).map(String::as_str));
        if arguments.len() == 4 {
            return Ok(Vec::new());
        }
        self.program
            .json(verb, &arguments, self.limit(), "a list of containers")
            .await
    }

    /// The ids of all containers, running or not.
    async fn all(&self, verb: Verb) -> Result<BTreeSet<String>, PlatformError> {
        let arguments = ["ps", "--all", "--no-trunc", "--quiet"];
        let text = self.program.text(verb, &arguments, self.limit()).await?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.split_whitespace().map(ToOwned::to_owned).collect())
    }

    fn stopped(&self, verb: Verb) -> Result<Stopped, PlatformError> {
        document::read::<Stopped>(&self.notes, "the containers that were stopped")
            .map(Option::unwrap_or_default)
            .map_err(|error| PlatformError::Notes {
                verb: verb.key(),
                source: error.into(),
            })
    }

    async fn retire(&self) -> Result<(), PlatformError> {
        let verb = Verb::Retire;
        let ids: Vec<_> = self.running(verb).await?.into_iter().map(|one| one.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut noted = self.stopped(verb)?;
        noted.ids.extend(ids.iter().cloned());
        let failed = |source: durable::DurableError| PlatformError::Notes {
            verb: verb.key(),
            source: source.into(),
        };
        if let Some(folder) = self.notes.parent() {
            durable::create_folder(folder).map_err(failed)?;
        }
        durable::write_json(&self.notes, &noted, 0o644).map_err(failed)?;
        let seconds = self.settings.stop_timeout.get().as_secs().to_string();
        let mut arguments = vec!["stop".to_owned(), "-t".to_owned(), seconds, "--".to_owned()];
        arguments.extend(ids);
        let limit = self.limit() + self.settings.stop_timeout.get();
        self.program.act(verb, &arguments, limit).await
    }

    async fn force(&self) -> Result<(), PlatformError> {
        let ids = self.running(Verb::Force).await?.into_iter().map(|one| one.id);
        self.on("kill", Verb::Force, ids.collect()).await
    }

    /// Starts the containers that we stopped and that still exist.
    async fn start_noted(&self, verb: Verb) -> Result<(), PlatformError> {
        let existing = self.all(verb).await?;
        let noted = self.stopped(verb)?.ids;
        self.on("start", verb, noted.intersection(&existing).cloned().collect())
            .await
    }

    async fn rejoin(&self) -> Result<(), PlatformError> {
        self.start_noted(Verb::Rejoin).await?;
        durable::remove(&self.notes).map_err(|error| PlatformError::Notes {
            verb: Verb::Rejoin.key(),
            source: error.into(),
        })
    }

    async fn restart(&self, services: &str) -> Result<(), PlatformError> {
        let named: Vec<_> = services
            .split(',')
            .filter(|name| !name.is_empty())
            .map(ToOwned::to_owned)
            .collect();
        if !named.is_empty() {
            return self.on("restart", Verb::Restart, named).await;
        }
        // Nothing says which containers are which role's, so those of roles are all of them.
        let running = self.running(Verb::Restart).await?.into_iter().map(|one| one.id);
        self.on("restart", Verb::Restart, running.collect()).await?;
        self.start_noted(Verb::Restart).await
    }

    async fn on(&self, act: &str, verb: Verb, containers: Vec<String>) -> Result<(), PlatformError> {
        if containers.is_empty() {
            return Ok(());
        }
        let mut arguments = vec![act.to_owned(), "--".to_owned()];
        arguments.extend(containers);
        self.program.act(verb, &arguments, self.limit()).await
    }

    async fn resident(&self) -> Result<Resident, PlatformError> {
        let running = self.running(Verb::Resident).await?;
        Ok(Resident {
            count: u64::try_from(running.len()).unwrap_or(u64::MAX),
            blockers: running
                .iter()
                .map(|one| format!("{} is {}", one.names, one.state))
                .collect(),
            retired: None,
        })
    }

    async fn health(&self) -> Result<(), PlatformError> {
        let verb = Verb::Health;
        let running = self.running(verb).await?.into_iter().map(|one| one.id);
        let expected: BTreeSet<_> = running.chain(self.stopped(verb)?.ids).collect();
        let ailing: Vec<_> = self
            .inspected(verb, &expected)
            .await?
            .iter()
            .filter_map(Inspected::ailment)
            .collect();
        if ailing.is_empty() {
            return Ok(());
        }
        Err(PlatformError::Refused {
            verb: verb.key(),
            reason: ailing.join(", "),
        })
    }
}

#[async_trait]
impl Platform for Docker {
    fn knows(&self, verb: Verb) -> bool {
        match verb {
            Verb::Retire | Verb::Resident | Verb::Force | Verb::Rejoin | Verb::Restart | Verb::Health => true,
            Verb::Reboot | Verb::Version | Verb::Backup | Verb::Restore | Verb::Capacity => false,
        }
    }

    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError> {
        match verb {
            Verb::Retire => self.retire().await?,
            Verb::Resident => return told(&self.resident().await?),
            Verb::Force => self.force().await?,
            Verb::Rejoin => self.rejoin().await?,
            Verb::Restart => self.restart(&words.services).await?,
            Verb::Health => self.health().await?,
            Verb::Reboot | Verb::Version | Verb::Backup | Verb::Restore | Verb::Capacity => return Ok(None),
        }
        Ok(Some(String::new()))
    }

    async fn start(&self) -> Result<(), PlatformError> {
        self.start_noted(Verb::Rejoin).await
    }
}
