//! Nomad by its own program: the node is drained, and its allocations are counted independently, because a drain may say
//! that it is complete while they still run.
//!
//! | Verb | `nomad` |
//! |---|---|
//! | retire | `node drain -enable -deadline` |
//! | resident | `operator api /v1/node/ID/allocations`: what runs, is pending or unknown |
//! | force | `node drain -enable -force` |
//! | rejoin | `node drain -disable`, then `node eligibility -enable` |
//! | health | `node status`: the node is ready |
//! | capacity | `node status` and its allocations: memory that is allocated and that is left |

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    Platform, PlatformError, Resident, Verb, Words, process::Children, program::Program, stated, told,
};
use crate::{plan::survey::Capacity, settings::NomadSettings};

/// How long `nomad node drain` may take beyond the deadline that it was told.
const GRACE: Duration = Duration::from_secs(60);

/// A client of Nomad.
#[derive(Debug, Clone)]
pub struct Nomad {
    program: Program,
    settings: NomadSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Client {
    #[serde(rename = "ID")]
    id: String,
    status: String,
    scheduling_eligibility: String,
    #[serde(default)]
    node_resources: Option<Room>,
    #[serde(default)]
    reserved_resources: Option<Room>,
}

/// Memory, in the units of Nomad, which are MiB.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Room {
    memory: Memory,
}

#[derive(Debug, Deserialize)]
struct Memory {
    #[serde(rename = "MemoryMB")]
    mib: u64,
}

/// What an allocation has, task by task.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allocated {
    #[serde(default)]
    tasks: BTreeMap<String, Room>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Allocation {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    client_status: String,
    #[serde(default)]
    job: Option<Job>,
    #[serde(default)]
    allocated_resources: Option<Allocated>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Job {
    #[serde(rename = "Type")]
    kind: String,
}

impl Allocation {
    /// Whether it is there. A state that we do not know counts as work.
    fn is_at_work(&self) -> bool {
        !matches!(self.client_status.as_str(), "complete" | "failed" | "lost")
    }

    fn is_of_system_job(&self) -> bool {
        self.job
            .as_ref()
            .is_some_and(|job| matches!(job.kind.as_str(), "system" | "sysbatch"))
    }
}

impl Nomad {
    /// The client that the settings name, else the agent's own.
    pub fn new(settings: &NomadSettings, children: &Children) -> Self {
        Self {
            program: Program::new("nomad", &settings.program, children),
            settings: settings.clone(),
        }
    }

    /// A command about the node: `words`, where the agent is, the flags, and which node.
    fn about<'a>(&'a self, words: &[&'a str], flags: &[&'a str], address: &'a str) -> Vec<&'a str> {
        let mut arguments = words.to_vec();
        arguments.extend(Some(address).filter(|address| !address.is_empty()));
        arguments.extend(flags);
        arguments.push(if self.settings.node.is_empty() {
            "-self"
        } else {
            &self.settings.node
        });
        arguments
    }

    fn address(&self) -> String {
        match self.settings.address.as_str() {
            "" => String::new(),
            address => format!("-address={address}"),
        }
    }

    async fn drain(&self, verb: Verb, flags: &[&str], limit: Duration) -> Result<(), PlatformError> {
        let address = self.address();
        let mut with = flags.to_vec();
        with.push("-yes");
        if self.settings.ignore_system && flags.contains(&"-enable") {
            with.push("-ignore-system");
        }
        let arguments = self.about(&["node", "drain"], &with, &address);
        self.program.act(verb, &arguments, limit).await
    }

    async fn client(&self, verb: Verb) -> Result<Client, PlatformError> {
        let address = self.address();
        let arguments = self.about(&["node", "status"], &["-json"], &address);
        let limit = self.settings.timeout.get();
        self.program.json(verb, &arguments, limit, "a node").await
    }

    async fn allocations(&self, verb: Verb, client: &Client) -> Result<Vec<Allocation>, PlatformError> {
        let path = format!("/v1/node/{}/allocations", client.id);
        let address = self.address();
        let mut arguments = vec!["operator", "api"];
        arguments.extend(Some(address.as_str()).filter(|address| !address.is_empty()));
        arguments.push(&path);
        let limit = self.settings.timeout.get();
        self.program
            .json(verb, &arguments, limit, "a list of allocations")
            .await
    }

    /// Whether a drain moves the allocation.
    fn leaves(&self, allocation: &Allocation) -> bool {
        allocation.is_at_work() && !(self.settings.ignore_system && allocation.is_of_system_job())
    }

    /// Memory in MiB: what the allocations have that a drain moves, and what no allocation has. `MemoryMax` does not count: the
    /// scheduler gives more than there is of it.
    async fn capacity(&self) -> Result<Capacity, PlatformError> {
        let verb = Verb::Capacity;
        let client = self.client(verb).await?;
        let unknown = |what: &str| PlatformError::Refused {
            verb: verb.key(),
            reason: format!(
                "{what} of the node {} does not say how much memory it has",
                client.id
            ),
        };
        let Some(all) = &client.node_resources else {
            return Err(unknown("`NodeResources`"));
        };
        let reserved = client
            .reserved_resources
            .as_ref()
            .map_or(0, |room| room.memory.mib);
        let (mut used, mut allocated) = (0_u64, 0_u64);
        for one in self.allocations(verb, &client).await? {
            if !one.is_at_work() {
                continue;
            }
            let Some(tasks) = one.allocated_resources.as_ref().map(|given| &given.tasks) else {
                return Err(unknown(&format!("the allocation {}", one.id)));
            };
            let mib: u64 = tasks.values().map(|task| task.memory.mib).sum();
            allocated = allocated.saturating_add(mib);
            used = used.saturating_add(if self.leaves(&one) { mib } else { 0 });
        }
        Ok(Capacity {
            used,
            free: if client.scheduling_eligibility == "eligible" {
                all.memory.mib.saturating_sub(reserved).saturating_sub(allocated)
            } else {
                0
            },
        })
    }

    async fn resident(&self) -> Result<Resident, PlatformError> {
        let verb = Verb::Resident;
        let client = self.client(verb).await?;
        let all = self.allocations(verb, &client).await?;
        let left: Vec<_> = all.iter().filter(|one| self.leaves(one)).collect();
        Ok(Resident {
            count: u64::try_from(left.len()).unwrap_or(u64::MAX),
            blockers: left
                .iter()
                .map(|one| format!("{} ({}) is {}", one.name, one.id, one.client_status))
                .collect(),
            retired: Some(client.scheduling_eligibility != "eligible"),
        })
    }

    async fn health(&self) -> Result<(), PlatformError> {
        let client = self.client(Verb::Health).await?;
        if client.status == "ready" {
            return Ok(());
        }
        Err(PlatformError::Refused {
            verb: Verb::Health.key(),
            reason: format!("the node {} is {}, expected ready", client.id, client.status),
        })
    }
}

#[async_trait]
impl Platform for Nomad {
    fn knows(&self, verb: Verb) -> bool {
        match verb {
            Verb::Retire | Verb::Resident | Verb::Force | Verb::Rejoin | Verb::Health | Verb::Capacity => {
                true
            }
            Verb::Restart | Verb::Reboot | Verb::Version | Verb::Backup | Verb::Restore => false,
        }
    }

    async fn call(&self, verb: Verb, _words: &Words) -> Result<Option<String>, PlatformError> {
        let limit = self.settings.timeout.get();
        match verb {
            Verb::Retire => {
                let deadline = self.settings.drain_deadline.get();
                let flag = format!("{}s", deadline.as_secs());
                self.drain(verb, &["-enable", "-deadline", &flag], deadline + GRACE)
                    .await?;
            }
            Verb::Resident => return told(&self.resident().await?),
            Verb::Force => self.drain(verb, &["-enable", "-force"], limit + GRACE).await?,
            Verb::Rejoin => {
                self.drain(verb, &["-disable"], limit).await?;
                let address = self.address();
                let arguments = self.about(&["node", "eligibility"], &["-enable"], &address);
                self.program.act(verb, &arguments, limit).await?;
            }
            Verb::Health => self.health().await?,
            Verb::Capacity => return stated(self.capacity().await?),
            Verb::Restart | Verb::Reboot | Verb::Version | Verb::Backup | Verb::Restore => return Ok(None),
        }
        Ok(Some(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::platform::parse;

    fn allocation(more: serde_json::Value) -> Result<Allocation, PlatformError> {
        let mut document = json!({"ID": "a1", "Name": "web", "ClientStatus": "running"});
        if let (Some(document), serde_json::Value::Object(more)) = (document.as_object_mut(), more) {
            document.extend(more);
        }
        parse(Verb::Resident, document.to_string().as_bytes(), "an allocation")
    }

    /// The tasks' memory in MiB; `None` where the allocation does not say.
    fn memory(allocation: &Allocation) -> Option<u64> {
        let tasks = &allocation.allocated_resources.as_ref()?.tasks;
        Some(tasks.values().map(|task| task.memory.mib).sum())
    }

    #[test]
    fn r38_what_go_writes_for_an_empty_map_or_list_is_as_absent() {
        let web = json!({"Memory": {"MemoryMB": 300}, "Networks": null, "Devices": null});
        for (more, expected) in [
            (json!({}), None),
            (
                json!({"AllocatedResources": null, "Job": null, "TaskResources": null}),
                None,
            ),
            (json!({"AllocatedResources": {}}), Some(0)),
            (
                json!({"AllocatedResources": {"Tasks": null, "TaskLifecycles": null}}),
                Some(0),
            ),
            (
                json!({"AllocatedResources": {"Tasks": {"web": web, "gone": null}}}),
                Some(300),
            ),
            (
                json!({"Name": null, "AllocatedResources": {"Tasks": {"web": web}}}),
                Some(300),
            ),
        ] {
            let read = allocation(more.clone());
            let read = read.unwrap_or_else(|error| panic!("{more}: {error}"));
            assert!(read.is_at_work());
            assert_eq!(memory(&read), expected, "{more}");
        }
        let client = json!({
            "ID": "n", "Status": "ready", "SchedulingEligibility": "eligible",
            "NodeResources": {"Memory": {"MemoryMB": 1000}, "Devices": null}, "ReservedResources": null, "Drivers": null,
        });
        let client: Client = parse(Verb::Capacity, client.to_string().as_bytes(), "a node").unwrap();
        assert_eq!(client.node_resources.map(|room| room.memory.mib), Some(1000));
        assert!(client.reserved_resources.is_none());
    }

    #[test]
    fn r38_what_must_be_said_is_not_read_out_of_a_null() {
        for more in [
            json!({"ID": null}),
            json!({"ClientStatus": null}),
            json!({"AllocatedResources": {"Tasks": {"web": {"Memory": null}}}}),
            json!({"AllocatedResources": {"Tasks": []}}),
        ] {
            let refused = allocation(more.clone()).map(|_| ()).unwrap_err();
            assert!(matches!(refused, PlatformError::Output { .. }), "{more}");
        }
        for output in ["null", "[null]", "{}", "", "[{\"ID\": \"a\"}"] {
            let list = parse::<Vec<Allocation>>(Verb::Resident, output.as_bytes(), "a list");
            assert!(list.is_err(), "{output}");
        }
    }
}
