//! The service manager of the machine: a node's work is the units of its roles.
//!
//! | Verb | `systemctl` |
//! |---|---|
//! | retire | `stop` |
//! | resident | `show`: units that are not inactive or failed |
//! | force | `kill --signal=KILL` |
//! | rejoin | `start` |
//! | restart | `daemon-reload`, then `restart` of what is named, of the roles' units, or of all |
//! | reboot | `reboot` |
//! | health | `show` twice: every unit is active, and none was restarted in between |
//!
//! systemd knows no "out of service". A unit that an operator has masked is left alone by every verb; a node all of whose
//! units are masked counts as taken out of service by somebody else.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::time::sleep;

use super::{Platform, PlatformError, Resident, Verb, Words, process::Children, program::Program, told};
use crate::settings::SystemdSettings;

/// What is asked about a unit.
const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts";

/// Units as work.
#[derive(Debug, Clone)]
pub struct Systemd {
    program: Program,
    settings: SystemdSettings,
    /// The units of this node, in the order of the settings.
    units: Vec<String>,
}

/// A unit, as `systemctl show` tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub id: String,
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`, …
    pub active: String,
    /// The finer state, e.g. `running` or `auto-restart`.
    pub sub: String,
    /// How its last process ended, e.g. `success` or `exit-code`.
    pub result: String,
    /// How often systemd has restarted it by itself.
    pub restarts: u64,
}

impl Unit {
    fn is_masked(&self) -> bool {
        self.load == "masked"
    }

    /// Whether processes of it may be there. An unknown state counts as work.
    fn is_at_work(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed")
    }

    fn described(&self) -> String {
        format!("{} is {} ({}, {})", self.id, self.active, self.sub, self.result)
    }
}

impl Systemd {
    /// The units of a node with `roles`.
    pub fn new(settings: &SystemdSettings, roles: &[String], children: &Children) -> Self {
        let is_ours =
            |role: &&String| role.as_str() == "*" || roles.iter().any(|r| r.eq_ignore_ascii_case(role));
        let mut units: Vec<String> = Vec::new();
        for role in settings.units.keys().filter(is_ours) {
            for unit in &settings.units[role] {
                if !units.contains(unit) {
                    units.push(unit.clone());
                }
            }
        }
        Self {
            program: Program::new("systemd", &settings.program, children),
            settings: settings.clone(),
            units,
        }
    }

    async fn show(&self, verb: Verb) -> Result<Vec<Unit>, PlatformError> {
        let mut arguments = vec!["show".to_owned(), PROPERTIES.to_owned(), "--".to_owned()];
        arguments.extend(self.units.iter().cloned());
        let text = self
            .program
            .text(verb, &arguments, self.settings.timeout.get())
            .await?;
        let text = String::from_utf8_lossy(&text);
        let units = units(&text);
        // systemd answers in the order of the question, under a unit's real name where ours is an alias.
        if units.len() != self.units.len() {
            return Err(PlatformError::Refused {
                verb: verb.key(),
                reason: format!(
                    "systemctl told of {}, expected {}: {}",
                    kato_shared::counted(units.len(), "unit", "units"),
                    self.units.len(),
                    text.chars().take(200).collect::<String>()
                ),
            });
        }
        Ok(units)
    }

    /// The units of this node that belong to one of `roles`, comma separated. Roles without a unit of their own are in those of the
    /// whole node, and so are all of them when none is named: these are none then.
    fn of_roles(&self, roles: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for role in roles.split(',').filter(|role| !role.is_empty()) {
            let own = self
                .settings
                .units
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(role));
            let before = found.len();
            found.extend(own.flat_map(|(_, units)| units).map(String::as_str));
            if found.len() == before {
                return Vec::new();
            }
        }
        found.retain(|unit| self.units.iter().any(|own| own == unit));
        found
    }

    /// Does `act` to the units that are not masked, to `named` alone when it names some.
    async fn act(&self, verb: Verb, act: &[&str], named: &[&str]) -> Result<(), PlatformError> {
        let mut arguments: Vec<String> = act.iter().map(ToString::to_string).collect();
        arguments.push("--".into());
        let given = arguments.len();
        if named.is_empty() {
            // What is not there cannot be stopped; that it cannot be started is an error.
            let stops = matches!(verb, Verb::Retire | Verb::Force);
            let is_meant = |unit: &Unit| !(unit.is_masked() || stops && unit.load == "not-found");
            let known = self.units.iter().zip(self.show(verb).await?);
            arguments.extend(
                known
                    .filter(|(_, unit)| is_meant(unit))
                    .map(|(name, _)| name.clone()),
            );
        } else {
            arguments.extend(named.iter().map(ToString::to_string));
        }
        if arguments.len() == given {
            return Ok(());
        }
        self.program
            .act(verb, &arguments, self.settings.timeout.get())
            .await
    }

    /// Restarts the services of `words`, else the units of its roles, else all.
    async fn restart(&self, words: &Words) -> Result<(), PlatformError> {
        let named: Vec<&str> = words
            .services
            .split(',')
            .filter(|name| !name.is_empty())
            .collect();
        if !named.is_empty() {
            return self.act(Verb::Restart, &["restart"], &named).await;
        }
        let of_roles = self.of_roles(&words.roles);
        if of_roles.is_empty() {
            return self.act(Verb::Restart, &["restart"], &[]).await;
        }
        let shown = self.units.iter().zip(self.show(Verb::Restart).await?);
        let meant: Vec<&str> = shown
            .filter(|(name, unit)| !unit.is_masked() && of_roles.contains(&name.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        if meant.is_empty() {
            return Ok(());
        }
        self.act(Verb::Restart, &["restart"], &meant).await
    }

    async fn resident(&self) -> Result<Resident, PlatformError> {
        let units = self.show(Verb::Resident).await?;
        let at_work: Vec<_> = units.iter().filter(|unit| unit.is_at_work()).collect();
        Ok(Resident {
            count: u64::try_from(at_work.len()).unwrap_or(u64::MAX),
            blockers: at_work.iter().map(|unit| unit.described()).collect(),
            retired: units.iter().all(Unit::is_masked).then_some(true),
        })
    }

    async fn health(&self) -> Result<(), PlatformError> {
        let refused = |reason: String| PlatformError::Refused {
            verb: Verb::Health.key(),
            reason,
        };
        let before: BTreeMap<_, _> = self
            .show(Verb::Health)
            .await?
            .into_iter()
            .map(|unit| (unit.id.clone(), unit))
            .collect();
        if before.values().all(Unit::is_masked) {
            return Ok(());
        }
        sleep(self.settings.settle.get()).await;
        for unit in self.show(Verb::Health).await? {
            if unit.is_masked() {
                continue;
            }
            if unit.active != "active" {
                return Err(refused(unit.described()));
            }
            let earlier = before.get(&unit.id).map_or(0, |unit| unit.restarts);
            if unit.restarts > earlier {
                return Err(refused(format!(
                    "{} was restarted {} within {}",
                    unit.id,
                    kato_shared::counted(unit.restarts - earlier, "time", "times"),
                    self.settings.settle
                )));
            }
        }
        Ok(())
    }
}

/// Reads the answer of `systemctl show`: `Key=value` lines, a blank line between units.
pub fn units(text: &str) -> Vec<Unit> {
    let mut units = Vec::new();
    for block in text.split("\n\n") {
        let mut unit = Unit::default();
        for (key, value) in block.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim().to_owned();
            match key.trim() {
                "Id" => unit.id = value,
                "LoadState" => unit.load = value,
                "ActiveState" => unit.active = value,
                "SubState" => unit.sub = value,
                "Result" => unit.result = value,
                "NRestarts" => unit.restarts = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        if !unit.id.is_empty() {
            units.push(unit);
        }
    }
    units
}

#[async_trait]
impl Platform for Systemd {
    fn knows(&self, verb: Verb) -> bool {
        match verb {
            Verb::Reboot => true,
            Verb::Retire | Verb::Resident | Verb::Force | Verb::Rejoin | Verb::Restart | Verb::Health => {
                !self.units.is_empty()
            }
            Verb::Version | Verb::Backup | Verb::Restore | Verb::Capacity => false,
        }
    }

    async fn call(&self, verb: Verb, words: &Words) -> Result<Option<String>, PlatformError> {
        if !self.knows(verb) {
            return Ok(None);
        }
        match verb {
            Verb::Resident => return told(&self.resident().await?),
            Verb::Retire => self.act(verb, &["stop"], &[]).await?,
            Verb::Force => self.act(verb, &["kill", "--signal=KILL"], &[]).await?,
            Verb::Rejoin => self.act(verb, &["start"], &[]).await?,
            Verb::Restart => {
                let limit = self.settings.timeout.get();
                self.program.act(verb, &["daemon-reload"], limit).await?;
                self.restart(words).await?;
            }
            Verb::Reboot => {
                let limit = self.settings.timeout.get();
                self.program.act(verb, &["reboot"], limit).await?;
            }
            Verb::Health => self.health().await?,
            Verb::Version | Verb::Backup | Verb::Restore | Verb::Capacity => return Ok(None),
        }
        Ok(Some(String::new()))
    }

    async fn start(&self) -> Result<(), PlatformError> {
        if self.units.is_empty() {
            return Ok(());
        }
        self.act(Verb::Rejoin, &["start"], &[]).await
    }

    fn lacks(&self, role: &str) -> Option<&'static str> {
        let names_one = |(name, units): (&String, &Vec<String>)| {
            (name == "*" || name.eq_ignore_ascii_case(role)) && !units.is_empty()
        };
        let is_known = self.settings.units.iter().any(names_one);
        (!is_known).then_some("[platform.systemd].units")
    }
}
