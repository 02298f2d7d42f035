//! Kubernetes by `kubectl`: the node is cordoned and drained, and what is still on it is counted independently.
//!
//! | Verb | `kubectl` |
//! |---|---|
//! | retire | `cordon`, then `drain --timeout` |
//! | resident | `get pods` of the node that are not a daemon set's, static or finished; `get node` |
//! | force | `drain --disable-eviction --force --grace-period=0` |
//! | rejoin | `uncordon` |
//! | health | `get node`: its condition `Ready` is true |
//! | capacity | `get pods` and `get node`: memory that is requested and that is left (`platform::quantity`) |
//!
//! Blockers are the pods that are left, each with the disruption budget that forbids its eviction at the moment.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    Platform, PlatformError, Resident, Verb, Words,
    process::Children,
    program::Program,
    quantity::{Memory, Spec},
    stated, told,
};
use crate::{plan::survey::Capacity, settings::KubernetesSettings};

/// How long `kubectl` may take beyond the time that it was told itself.
const GRACE: Duration = Duration::from_secs(15);

/// The unit of what a node has and could take.
const MIB: u128 = 1024 * 1024;

fn in_mib(mib: u128) -> u64 {
    u64::try_from(mib).unwrap_or(u64::MAX)
}

/// A node of Kubernetes.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    program: Program,
    settings: KubernetesSettings,
    node: String,
}

#[derive(Debug, Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<Owner>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

#[derive(Debug, Deserialize)]
struct Machine {
    spec: MachineSpec,
    status: MachineStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MachineSpec {
    unschedulable: bool,
}

#[derive(Debug, Deserialize)]
struct MachineStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    allocatable: Memory,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
struct Budget {
    metadata: Metadata,
    spec: BudgetSpec,
    #[serde(default)]
    status: BudgetStatus,
}

#[derive(Debug, Deserialize)]
struct BudgetSpec {
    #[serde(default)]
    selector: Option<Selector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disruptions_allowed: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Pod {
    /// Whether it is work that a drained node has no more.
    fn is_resident(&self) -> bool {
        let of_daemon_set = self
            .metadata
            .owner_references
            .iter()
            .any(|owner| owner.controller && owner.kind == "DaemonSet");
        // The kubelet's own pods, which the API only mirrors.
        let is_static = self
            .metadata
            .annotations
            .contains_key("kubernetes.io/config.mirror");
        !of_daemon_set && !is_static && !self.is_finished()
    }

    /// Whether its containers run no more: what it requested is free.
    fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    fn described(&self, budgets: &[Budget]) -> String {
        let Metadata { name, namespace, .. } = &self.metadata;
        let holds = budgets.iter().find(|budget| budget.holds(self));
        let why = match holds {
            Some(budget) => format!(
                " (the disruption budget {} allows {} more)",
                budget.metadata.name, budget.status.disruptions_allowed
            ),
            None if self.metadata.owner_references.is_empty() => " (nothing would start it elsewhere)".into(),
            None => String::new(),
        };
        format!("{namespace}/{name}{why}")
    }
}

impl Budget {
    /// Whether it forbids to evict `pod` now.
    fn holds(&self, pod: &Pod) -> bool {
        self.metadata.namespace == pod.metadata.namespace
            && self.status.disruptions_allowed <= 0
            && self
                .spec
                .selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&pod.metadata.labels))
    }
}

impl Selector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|one| one.matches(labels))
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            // Unknown to us: rather one budget too many is named than one too few.
            _ => true,
        }
    }
}

impl Kubernetes {
    /// The node that the settings name, else `id`.
    pub fn new(settings: &KubernetesSettings, id: &str, children: &Children) -> Self {
        let mut program = Program::new("kubernetes", &settings.program, children);
        if let Some(file) = &settings.kubeconfig {
            program = program.with(format!("--kubeconfig={}", file.display()));
        }
        let named = Some(&settings.node).filter(|node| !node.is_empty());
        Self {
            program,
            settings: settings.clone(),
            node: named.map_or_else(|| id.to_owned(), Clone::clone),
        }
    }

    const fn limit(&self) -> Duration {
        self.settings.timeout.get()
    }

    async fn cordon(&self, verb: Verb, act: &str) -> Result<(), PlatformError> {
        self.program.act(verb, &[act, &self.node], self.limit()).await
    }

    async fn drain(&self, verb: Verb, more: &[&str]) -> Result<(), PlatformError> {
        let limit = self.settings.drain_timeout.get();
        let timeout = format!("--timeout={}s", limit.as_secs());
        let mut arguments = vec!["drain", &self.node, &timeout];
        arguments.extend(self.settings.drain.iter().map(String::as_str));
        arguments.extend(more);
        self.program.act(verb, &arguments, limit + GRACE).await
    }

    async fn machine(&self, verb: Verb) -> Result<Machine, PlatformError> {
        let arguments = ["get", "node", &self.node, "--output=json"];
        self.program.json(verb, &arguments, self.limit(), "a node").await
    }

    async fn pods(&self, verb: Verb) -> Result<List<Pod>, PlatformError> {
        let of_node = format!("--field-selector=spec.nodeName={}", self.node);
        let arguments = ["get", "pods", "--all-namespaces", &of_node, "--output=json"];
        self.program
            .json(verb, &arguments, self.limit(), "a list of pods")
            .await
    }

    /// Memory in MiB: what the pods that a drain moves request, and what no pod of the node has requested. A pod that requests none
    /// counts as none, as it does for the scheduler.
    async fn capacity(&self) -> Result<Capacity, PlatformError> {
        let verb = Verb::Capacity;
        let machine = self.machine(verb).await?;
        let (mut leaves, mut requested) = (0_u128, 0_u128);
        for pod in self
            .pods(verb)
            .await?
            .items
            .iter()
            .filter(|pod| !pod.is_finished())
        {
            let bytes = pod.spec.requested();
            requested += bytes;
            leaves += if pod.is_resident() { bytes } else { 0 };
        }
        let Some(all) = machine.status.allocatable.bytes() else {
            return Err(PlatformError::Refused {
                verb: verb.key(),
                reason: format!("{} does not say how much memory it can allocate", self.node),
            });
        };
        Ok(Capacity {
            used: in_mib(leaves.div_ceil(MIB)),
            free: if machine.spec.unschedulable {
                0
            } else {
                in_mib(all.saturating_sub(requested) / MIB)
            },
        })
    }

    async fn resident(&self) -> Result<Resident, PlatformError> {
        let verb = Verb::Resident;
        let pods = self.pods(verb).await?;
        let left: Vec<_> = pods.items.into_iter().filter(Pod::is_resident).collect();
        let budgets = if left.is_empty() {
            Vec::new()
        } else {
            self.budgets().await
        };
        Ok(Resident {
            count: u64::try_from(left.len()).unwrap_or(u64::MAX),
            blockers: left.iter().map(|pod| pod.described(&budgets)).collect(),
            retired: Some(self.machine(verb).await?.spec.unschedulable),
        })
    }

    /// The disruption budgets. They only explain: without the right to list them the count is as good.
    async fn budgets(&self) -> Vec<Budget> {
        let arguments = ["get", "poddisruptionbudgets", "--all-namespaces", "--output=json"];
        let found = self
            .program
            .json::<List<Budget>>(Verb::Resident, &arguments, self.limit(), "a list of budgets")
            .await;
        match found {
            Ok(list) => list.items,
            Err(error) => {
                tracing::warn!(
                    error = %kato_shared::chain::Chain(&error),
                    "what the disruption budgets allow is not known"
                );
                Vec::new()
            }
        }
    }

    async fn health(&self) -> Result<(), PlatformError> {
        let conditions = self.machine(Verb::Health).await?.status.conditions;
        let refused = |reason| PlatformError::Refused {
            verb: Verb::Health.key(),
            reason,
        };
        match conditions.iter().find(|condition| condition.kind == "Ready") {
            Some(ready) if ready.status == "True" => Ok(()),
            Some(ready) => Err(refused(format!(
                "the condition Ready of {} is {}: {}",
                self.node, ready.status, ready.message
            ))),
            None => Err(refused(format!("{} has no condition Ready", self.node))),
        }
    }
}

#[async_trait]
impl Platform for Kubernetes {
    fn knows(&self, verb: Verb) -> bool {
        match verb {
            Verb::Retire | Verb::Resident | Verb::Force | Verb::Rejoin | Verb::Health | Verb::Capacity => {
                true
            }
            Verb::Restart | Verb::Reboot | Verb::Version | Verb::Backup | Verb::Restore => false,
        }
    }

    async fn call(&self, verb: Verb, _words: &Words) -> Result<Option<String>, PlatformError> {
        match verb {
            Verb::Retire => {
                // By itself first: a drain that fails must not leave a node that takes new work.
                self.cordon(verb, "cordon").await?;
                self.drain(verb, &[]).await?;
            }
            Verb::Resident => return told(&self.resident().await?),
            Verb::Force => {
                self.drain(verb, &["--disable-eviction", "--force", "--grace-period=0"])
                    .await?;
            }
            Verb::Rejoin => self.cordon(verb, "uncordon").await?,
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

    fn read<T: serde::de::DeserializeOwned>(document: &serde_json::Value) -> Result<T, PlatformError> {
        parse(Verb::Resident, document.to_string().as_bytes(), "a document")
    }

    #[test]
    fn r38_what_go_writes_for_an_empty_map_or_list_is_as_absent() {
        let named = json!({"name": "p", "namespace": "d", "labels": null, "annotations": null, "ownerReferences": null});
        for (pod, requested) in [
            (json!({"metadata": named, "spec": null, "status": {}}), 0),
            (
                json!({"metadata": named, "spec": {"containers": null, "initContainers": null, "overhead": null}, "status": {"phase": null}}),
                0,
            ),
            (
                json!({"metadata": named, "spec": {"containers": [{"resources": null}, {"resources": {"requests": {"memory": "7"}}}]},
                       "status": {"phase": "Running"}}),
                7,
            ),
            (
                json!({"metadata": named, "spec": {"containers": [{"resources": {"requests": {"memory": null}}, "restartPolicy": null}]},
                       "status": {}}),
                0,
            ),
        ] {
            let read: Pod = read(&pod).unwrap_or_else(|error| panic!("{pod}: {error}"));
            assert!(read.is_resident(), "{pod}");
            assert_eq!(read.spec.requested(), requested, "{pod}");
        }
        let machine = json!({"spec": {"unschedulable": null, "taints": null}, "status": {"conditions": null, "allocatable": null}});
        let machine: Machine = read(&machine).unwrap();
        assert!(!machine.spec.unschedulable && machine.status.conditions.is_empty());
        assert_eq!(machine.status.allocatable.bytes(), None);
        let budget = json!({
            "metadata": named, "status": null,
            "spec": {"selector": {"matchLabels": null, "matchExpressions": [{"key": "a", "operator": "Exists", "values": null}]}},
        });
        let budget: Budget = read(&budget).unwrap();
        let selector = budget.spec.selector.unwrap();
        assert!(!selector.matches(&BTreeMap::new()));
        assert!(selector.matches(&BTreeMap::from([("a".into(), String::new())])));
    }

    #[test]
    fn r38_what_must_be_said_is_not_read_out_of_a_null() {
        // A list that says nothing about its items is no empty node.
        for list in [
            json!({"items": null}),
            json!({}),
            json!(null),
            json!({"items": [null]}),
        ] {
            assert!(read::<List<Pod>>(&list).is_err(), "{list}");
        }
        assert!(read::<Pod>(&json!({"metadata": null, "status": {}})).is_err());
        assert!(read::<Machine>(&json!({"spec": null, "status": {}})).is_err());
    }
}
