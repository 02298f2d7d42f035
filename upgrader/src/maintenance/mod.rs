//! The platform's maintenance mode around an upgrade of the cluster: verified or turned on before the first node is changed, put
//! back as it was after the last one.
//!
//! ```text
//!             ┌ on already ────────────────────────────── nothing is ours, nothing is undone
//!  begin ─────┤
//!             └ off ─► record (durable) ─► `on` ─► read back ─► rollout ─┬ all well ─► `off` ─► read back ─► record away
//!                                                                        └ failed  ─► stays on, and is said
//! ```
//!
//! Only what the record says is ours is turned off: a mode that somebody else turned on stays on. `kato maintenance off` needs
//! neither the record, nor an inventory, nor a lock, so that nobody is locked out by an upgrade that went wrong.
//!
//! Deliberately absent: an opinion on what the mode is. The platform's commands turn it on and say whether it is.
//!
//! Invariants: the record is written before the mode is turned on and removed after it was seen off; a command's word is believed
//! only where there is no `get` to ask.

mod error;
mod record;

use std::time::Duration;

use anyhow::anyhow;
use kato_shared::{chain::Chain, clock::Clock};
use serde::Deserialize;
use tokio::time::sleep;

pub use self::{error::MaintenanceError, record::Record};
use crate::{
    audit::AuditLog,
    exit::{Exit, Failure},
    failpoint,
    fetch::probe,
    paths::NodePaths,
    platform::process::{self, Children},
    report::terminal,
    run::{context, orphans},
    settings::{MaintenanceAuto, MaintenanceSettings, PlatformCommand, Refused, Settings},
};

/// How often is asked whether a switch has taken effect, and how long in between.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The way back that is always open, as the operator types it.
pub const OFF: &str = "kato maintenance off";

#[derive(Deserialize)]
struct Answer {
    on: bool,
}

/// What the `on` command may say of itself, where the platform knows; without it the mode is taken to be off before.
#[derive(Deserialize)]
struct Switched {
    /// Whether the mode is on because of this call.
    changed: bool,
}

/// What is to be done before the first node is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is on, or nobody wants to know.
    Nothing,
    /// It is off, and is turned on.
    TurnOn,
    /// It is off, and a person decides.
    Ask,
}

/// Pure: what is needed with the mode as it `is` (`None` where the platform cannot say), and where we can turn it on.
pub const fn need(auto: MaintenanceAuto, is: Option<bool>, knows_on: bool) -> Need {
    match (auto, is) {
        (MaintenanceAuto::Off, _) | (_, Some(true)) | (MaintenanceAuto::Verify, None) => Need::Nothing,
        (MaintenanceAuto::On, None) if !knows_on => Need::Nothing,
        (MaintenanceAuto::On, _) => Need::TurnOn,
        (MaintenanceAuto::Verify, Some(false)) => Need::Ask,
    }
}

/// Who brought the mode to where it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turned {
    ByUs,
    /// It was so before the command, as the command says.
    WasSo,
}

/// The maintenance mode of the platform, switched from this node.
#[derive(Debug, Clone)]
pub struct Maintenance {
    settings: MaintenanceSettings,
    paths: NodePaths,
    clock: Clock,
    log: AuditLog,
    between_looks: Duration,
}

impl Maintenance {
    /// Of the platform of `settings`.
    pub fn of(settings: &Settings, clock: &Clock) -> Self {
        let paths = NodePaths::new(&settings.node.root, &settings.node.state_dir);
        Self {
            settings: settings.maintenance.clone(),
            log: AuditLog::in_folder(&paths.audit(), &context::id(settings), clock.clone()),
            paths,
            clock: clock.clone(),
            between_looks: BETWEEN_LOOKS,
        }
    }

    /// Whether it is on; `None` where the platform cannot say.
    ///
    /// # Errors
    /// [`MaintenanceError`].
    pub async fn is_on(&self) -> Result<Option<bool>, MaintenanceError> {
        let Some(get) = &self.settings.get else {
            return Ok(None);
        };
        // It only asks, also for somebody who changes nothing.
        let said = call(&Children::default(), "get", get).await?;
        match serde_json::from_str::<Answer>(&said) {
            Ok(answer) => Ok(Some(answer.on)),
            Err(source) => Err(MaintenanceError::Output {
                output: said.trim().chars().take(200).collect(),
                source,
            }),
        }
    }

    /// The record of a mode that an upgrade turned on.
    ///
    /// # Errors
    /// [`MaintenanceError::Document`].
    pub fn ours(&self) -> Result<Option<Record>, MaintenanceError> {
        Ok(Record::load(&self.paths)?)
    }

    /// What is needed before an upgrade changes the first node.
    ///
    /// # Errors
    /// [`MaintenanceError`].
    pub async fn look(&self) -> Result<Need, MaintenanceError> {
        if self.settings.auto == MaintenanceAuto::Off {
            return Ok(Need::Nothing);
        }
        Ok(need(
            self.settings.auto,
            self.is_on().await?,
            self.settings.on.is_some(),
        ))
    }

    /// Refuses an upgrade that would have to ask where there is nobody, before anything else is done (R3).
    ///
    /// # Errors
    /// [`Failure`] with exit code 20.
    pub async fn check(&self, somebody_is_here: bool) -> Result<(), Failure> {
        match self.look().await? {
            Need::Ask if !somebody_is_here => Err(Failure::new(
                Exit::Preflight,
                anyhow!("maintenance mode is off, and has to be on while the cluster is upgraded"),
            )
            .hint("`kato maintenance on` turns it on; with `[maintenance] auto = \"on\"` an upgrade does it by itself")),
            Need::Nothing | Need::TurnOn | Need::Ask => Ok(()),
        }
    }

    /// Makes sure that it is on before the first node is changed by `run`; `agreed` is the answer of a person who was asked.
    ///
    /// # Errors
    /// [`Failure`] with exit code 20: it is off, and nothing was changed.
    pub async fn begin(&self, run: &str, agreed: impl FnOnce() -> bool) -> Result<(), Failure> {
        match self.look().await? {
            Need::Nothing => return Ok(self.found_on().await?),
            Need::TurnOn => {}
            Need::Ask if agreed() => {}
            Need::Ask => {
                return Err(Failure::new(
                    Exit::Declined,
                    anyhow!("maintenance mode stays off; nothing was changed on any node"),
                ));
            }
        }
        // Who was asked may have taken an hour, and somebody else has turned it on meanwhile.
        let is_ours = self.ours()?.is_some();
        if !is_ours && self.is_on().await? == Some(true) {
            return Ok(self.found_on().await?);
        }
        Record::new(run, self.clock.now())
            .save(&self.paths)
            .map_err(MaintenanceError::from)?;
        failpoint::hit("maintenance.owned");
        let turned = match self.switch(true).await {
            Ok(Turned::WasSo) if !is_ours => {
                // Between our look and our command: it stays with whoever turned it on.
                Record::remove(&self.paths).map_err(MaintenanceError::from)?;
                return Ok(self.found_on().await?);
            }
            // With a record from before, what a killed call left may have turned it on in this moment.
            Ok(Turned::ByUs | Turned::WasSo) => self.probe().await,
            Err(error) => Err(error),
        };
        failpoint::hit("maintenance.on");
        if let Err(error) = turned {
            // Nothing was changed yet, so nothing needs it.
            if let Err(also) = self.end().await {
                tracing::warn!(error = %Chain(&also), "maintenance mode may be on");
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Puts it back as it was before the upgrade; gives what an operator should know about it.
    ///
    /// # Errors
    /// [`MaintenanceError`]: it is still on.
    pub async fn end(&self) -> Result<Option<String>, MaintenanceError> {
        if self.ours()?.is_some() {
            self.switch(false).await?;
            failpoint::hit("maintenance.off");
            Record::remove(&self.paths)?;
            return Ok(Some("maintenance mode is off again".into()));
        }
        let stays = self.settings.auto != MaintenanceAuto::Off && self.is_on().await? == Some(true);
        // Who turned it on by hand is who forgets it (R6).
        Ok(stays.then(|| format!("maintenance mode is on, as it was before: `{OFF}` turns it off")))
    }

    /// What is said when an upgrade ends before it is complete: that the mode is on because of it. `None` when it is not.
    pub fn left_on(&self) -> Option<String> {
        let record = self.ours().ok().flatten()?;
        Some(format!(
            "maintenance mode is on since {} because of this upgrade; its end turns it off, or `{OFF}` at any time",
            record.since
        ))
    }

    /// Turns it on or off by hand. From then on it is the operator's, and no upgrade turns it off.
    ///
    /// # Errors
    /// [`MaintenanceError`].
    pub async fn by_hand(&self, is_on: bool) -> Result<(), MaintenanceError> {
        self.switch(is_on).await?;
        Ok(Record::remove(&self.paths)?)
    }

    /// Calls the command and waits until the platform says so, too.
    async fn switch(&self, wanted: bool) -> Result<Turned, MaintenanceError> {
        let (verb, command) = if wanted {
            ("on", &self.settings.on)
        } else {
            ("off", &self.settings.off)
        };
        let command = command.as_ref().ok_or(MaintenanceError::NoCommand(verb))?;
        let children = orphans::of_core(&self.paths, &self.clock, &self.log, "of the maintenance mode").await;
        let said = call(&children.on(&format!("`[maintenance].{verb}`")), verb, command).await?;
        let turned = match serde_json::from_str::<Switched>(&said) {
            Ok(Switched { changed: false }) => Turned::WasSo,
            Ok(Switched { changed: true }) | Err(_) => Turned::ByUs,
        };
        for _look in 0..LOOKS {
            match self.is_on().await {
                Ok(Some(is)) if is != wanted => sleep(self.between_looks).await,
                Ok(_as_wanted) => return Ok(turned),
                // The way off is never locked: what cannot be asked any more was turned off by a command that ended well.
                Err(error) if !wanted => {
                    tracing::warn!(error = %Chain(&error), "whether maintenance mode is off cannot be asked");
                    return Ok(turned);
                }
                Err(error) => return Err(error),
            }
        }
        Err(MaintenanceError::NotSwitched { wanted })
    }

    /// What the platform serves goes on being served, and changes are refused (R4).
    async fn probe(&self) -> Result<(), MaintenanceError> {
        for url in &self.settings.serving {
            probe::answers(url).await.map_err(MaintenanceError::NotServing)?;
        }
        for asked in &self.settings.refusing {
            refuses(asked).await?;
        }
        Ok(())
    }

    /// A mode that somebody else turned on is not ours to turn off; one that lets changes through all the same is no maintenance mode.
    /// What gives no answer may be a node in the middle of its upgrade, and an upgrade that goes on is not asked twice.
    async fn found_on(&self) -> Result<(), MaintenanceError> {
        if self.settings.auto == MaintenanceAuto::Off || self.ours()?.is_some() {
            return Ok(());
        }
        for asked in &self.settings.refusing {
            match refuses(asked).await {
                Err(
                    let_through @ MaintenanceError::NotRefusing {
                        status: 200..=299, ..
                    },
                ) => {
                    return Err(let_through);
                }
                Err(unsure) => {
                    terminal::say(&format!("warning: {}", Chain(&unsure)));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// That the platform refuses `asked`, seen and not believed.
async fn refuses(asked: &Refused) -> Result<(), MaintenanceError> {
    let answered = probe::status(&asked.method, &asked.url).await;
    let status = answered.map_err(MaintenanceError::NotAsked)?;
    if asked.status.contains(&status) {
        return Ok(());
    }
    Err(MaintenanceError::NotRefusing {
        asked: Box::new(asked.clone()),
        status,
    })
}

async fn call(
    children: &Children,
    verb: &'static str,
    command: &PlatformCommand,
) -> Result<String, MaintenanceError> {
    process::run(children, &command.argv, None, command.timeout.get())
        .await
        .map_err(|source| MaintenanceError::Command { verb, source })
}

#[cfg(test)]
mod tests;
