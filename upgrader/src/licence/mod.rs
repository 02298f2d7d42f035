//! The platform's licence limits around an upgrade of the cluster: waived while nodes are upgraded, kept again however that ends (R23). Where
//! a run goes on by itself when the command ends, they stay waived for it, and that is said until somebody restores them.
//!
//! ```text
//!  begin ─► record (durable) ─► `waive` ─► rollout ─┬ all well ──┐
//!                                                   ├ failed ────┼─► `restore` ─► record away
//!                                                   └ killed, or a run is at work still ─► the next call, or an operator
//! ```
//!
//! Only what the record says is ours is restored. Both commands may be called twice, so that a call that was killed between the record
//! and the command is put right by the next one.
//!
//! Deliberately absent: what a licence is. The platform's commands waive and restore it.
//!
//! Invariant: the record is written before the limits are waived and removed after they were restored.

use anyhow::anyhow;
use jiff::Timestamp;
use kato_shared::{clock::Clock, durable};
use serde::{Deserialize, Serialize};

use crate::{
    audit::{AuditLog, Deed, Subject},
    cluster::AGAIN,
    document,
    exit::{Exit, Failure},
    paths::NodePaths,
    platform::process,
    run::orphans,
    settings::{LicenceSettings, PlatformCommand, Settings},
};

/// The version of the record's format.
const SCHEMA: u32 = 1;

/// What the record is, for people.
const RECORD: &str = "the record of who waived the licence limits";

/// The way back that is always open, as the operator types it.
pub const RESTORE: &str = "kato licence restore";

/// `state/licence.json` on Core: there while an upgrade has the limits waived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub schema: u32,
    /// The plan whose upgrade waived them.
    pub run: String,
    /// When.
    pub since: Timestamp,
}

/// The record of limits that are waived, on this Core. One that cannot be read is none here: the next call restores them all the same.
pub fn waived(settings: &Settings) -> Option<Record> {
    let path = NodePaths::new(&settings.node.root, &settings.node.state_dir).licence();
    document::read(&path, RECORD).unwrap_or_else(|damaged| {
        tracing::warn!(error = %damaged, "whether licence limits are waived cannot be told");
        None
    })
}

/// What is said for as long as they are; `None` when no upgrade has waived them.
pub fn left_waived(settings: &Settings) -> Option<String> {
    let path = NodePaths::new(&settings.node.root, &settings.node.state_dir).licence();
    let since = match document::read::<Record>(&path, RECORD) {
        Ok(None) => return None,
        Ok(Some(record)) => format!("since {:.0} because of the upgrade {}", record.since, record.run),
        Err(_damaged) => "by an upgrade".to_owned(),
    };
    Some(format!(
        "the platform's licence limits are waived {since}: the next `{AGAIN}` restores them when no node is at work any more, `{RESTORE}` at any time"
    ))
}

/// The licence limits of the platform of this Core.
#[derive(Debug)]
pub struct Licence<'a> {
    settings: &'a LicenceSettings,
    paths: NodePaths,
    clock: Clock,
    log: &'a AuditLog,
}

impl<'a> Licence<'a> {
    /// Of the platform of `settings`; what is done is on record in `log`.
    pub fn of(settings: &'a Settings, log: &'a AuditLog) -> Self {
        Self {
            settings: &settings.licence,
            paths: NodePaths::new(&settings.node.root, &settings.node.state_dir),
            clock: Clock::system(),
            log,
        }
    }

    /// What is wrong with the settings: limits that would be waived for good.
    pub fn check(settings: &Settings) -> Option<&'static str> {
        let LicenceSettings { waive, restore } = &settings.licence;
        (waive.is_some() && restore.is_none()).then_some(
            "`[licence].waive` is set and `[licence].restore` is not: the limits would be waived for good",
        )
    }

    /// Waives the limits for `run`, where the platform has any; whether it did.
    ///
    /// # Errors
    /// [`Failure`] with exit code 20: they hold, and nothing was changed.
    pub async fn waive(&self, run: &str, now: Timestamp) -> Result<bool, Failure> {
        let Some(command) = &self.settings.waive else {
            return Ok(false);
        };
        let record = Record {
            schema: SCHEMA,
            run: run.to_owned(),
            since: now,
        };
        let path = self.paths.licence();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder)?;
        }
        durable::write_json(&path, &record, 0o644)?;
        let waiving = self.call("waive", command, run);
        if let Err(failure) = self.log.around(deed("waived").run(run), waiving).await {
            // It may have done half of it.
            if let Err(also) = self.restore().await {
                tracing::warn!(error = %also, "the licence limits may be waived");
            }
            return Err(failure);
        }
        Ok(true)
    }

    /// Has them kept again, when an upgrade waived them; whether that was needed.
    ///
    /// # Errors
    /// [`Failure`] with exit code 75: they are waived still, and the next call tries again.
    pub async fn restore(&self) -> Result<bool, Failure> {
        let path = self.paths.licence();
        let record = document::read::<Record>(&path, RECORD);
        // What cannot be read was written before they were waived; to restore twice does no harm.
        let run = match record {
            Ok(None) => return Ok(false),
            Ok(Some(record)) => record.run,
            Err(_damaged) => "unknown".to_owned(),
        };
        let Some(command) = &self.settings.restore else {
            let what =
                anyhow!("an upgrade waived the licence limits, and `[licence].restore` is not set any more");
            return Err(Failure::new(Exit::TryAgain, what).hint(format!(
                "set it and run the same command, or restore them by hand and remove `{}`",
                path.display()
            )));
        };
        // Never behind a disk that takes no record.
        self.call("restore", command, &run).await?;
        durable::remove(&path)?;
        if let Err(unwritten) = self.log.around(deed("restored").run(run), async { Ok(()) }).await {
            tracing::warn!(error = %unwritten, "that the licence limits were restored is not on record");
        }
        Ok(true)
    }

    async fn call(&self, verb: &'static str, command: &PlatformCommand, run: &str) -> Result<(), Failure> {
        let children = orphans::of_core(&self.paths, &self.clock, self.log, run).await;
        let children = children.on(&format!("`[licence].{verb}`"));
        let outcome = process::run(&children, &command.argv, None, command.timeout.get()).await;
        outcome.map(drop).map_err(|error| {
            let exit = if verb == "waive" {
                Exit::Preflight
            } else {
                Exit::TryAgain
            };
            let what = anyhow::Error::new(error).context(format!("`[licence].{verb}` failed"));
            Failure::new(exit, what).hint("look at the platform; the same command tries it again")
        })
    }
}

fn deed(what: &str) -> Deed {
    Deed::new(Subject::Config, format!("licence limits {what}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kato_shared::settings::HumanDuration;

    use super::*;

    fn settings(folder: &Path, waive: &str, restore: &str) -> Settings {
        let shell = |script: &str| {
            let script = script.replace("LIMITS", &folder.join("waived").display().to_string());
            Some(PlatformCommand {
                argv: vec!["/bin/sh".into(), "-c".into(), script],
                timeout: HumanDuration::from_secs(30),
            })
        };
        let mut settings = Settings::default();
        settings.node.root = folder.to_owned();
        settings.licence = LicenceSettings {
            waive: shell(waive),
            restore: shell(restore),
        };
        settings
    }

    fn log(folder: &Path) -> AuditLog {
        AuditLog::in_folder(
            &folder.join("audit"),
            "core",
            Clock::held_at(Timestamp::UNIX_EPOCH),
        )
    }

    #[tokio::test]
    async fn r23_limits_are_waived_on_record_and_restored_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (settings, log) = (settings(folder, "touch LIMITS", "rm LIMITS"), log(folder));
        let licence = Licence::of(&settings, &log);
        assert!(!licence.restore().await.unwrap(), "nothing is ours");
        assert!(licence.waive("p1", Timestamp::UNIX_EPOCH).await.unwrap());
        assert!(folder.join("waived").exists());
        // Another call, behind one that was killed.
        let next = Licence::of(&settings, &log);
        assert!(next.restore().await.unwrap());
        assert!(!folder.join("waived").exists());
        assert!(!next.restore().await.unwrap());
    }

    #[tokio::test]
    async fn r23_what_is_waived_is_said_until_it_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (settings, log) = (settings(folder, "touch LIMITS", "rm -f LIMITS"), log(folder));
        assert_eq!((waived(&settings), left_waived(&settings)), (None, None));
        let licence = Licence::of(&settings, &log);
        licence.waive("p1", Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(waived(&settings).unwrap().run, "p1");
        let said = left_waived(&settings).unwrap();
        assert!(
            said.contains("1970-01-01T00:00:00Z because of the upgrade p1") && said.contains(RESTORE),
            "{said}"
        );
        // A record that is damaged hides nothing.
        durable::write(&licence.paths.licence(), b"{", 0o644).unwrap();
        assert!(left_waived(&settings).unwrap().contains(RESTORE));
        assert!(licence.restore().await.unwrap());
        assert_eq!(left_waived(&settings), None);
    }

    #[tokio::test]
    async fn r23_a_platform_that_cannot_waive_them_has_them_restored_and_one_that_cannot_restore_them_is_asked_again()
     {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let log = log(folder);
        let broken = settings(folder, "touch LIMITS; exit 1", "rm LIMITS");
        let failure = Licence::of(&broken, &log)
            .waive("p1", Timestamp::UNIX_EPOCH)
            .await
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Preflight);
        assert!(!folder.join("waived").exists());

        let stuck = settings(folder, "touch LIMITS", "exit 1");
        assert!(
            Licence::of(&stuck, &log)
                .waive("p1", Timestamp::UNIX_EPOCH)
                .await
                .unwrap()
        );
        assert_eq!(
            Licence::of(&stuck, &log).restore().await.unwrap_err().exit,
            Exit::TryAgain
        );
        let mended = settings(folder, "touch LIMITS", "rm LIMITS");
        assert!(
            Licence::of(&mended, &log).restore().await.unwrap(),
            "the record is still there"
        );

        let mut alone = stuck;
        assert_eq!(Licence::check(&alone), None);
        alone.licence.restore = None;
        assert!(Licence::check(&alone).is_some());
    }
}
