//! `[platform]`: which adapter speaks to the platform that is upgraded, and the commands that replace single verbs of it.

use std::{collections::BTreeMap, path::PathBuf};

use kato_shared::settings::{HumanDuration, range, text};
use serde::{Deserialize, Serialize};

/// `[platform]`: the platform that is upgraded. A verb that neither the adapter nor a command knows is not needed there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformSettings {
    /// Who is asked.
    pub adapter: Adapter,
    /// The units of a node, for the adapter `systemd`.
    pub systemd: SystemdSettings,
    /// The containers of a node, for the adapter `docker`.
    pub docker: DockerSettings,
    /// For the adapter `kubernetes`.
    pub kubernetes: KubernetesSettings,
    /// For the adapter `nomad`.
    pub nomad: NomadSettings,
    /// Takes the node out of service: new work goes elsewhere.
    pub retire: Option<PlatformCommand>,
    /// Prints how many units of work are on the node: `{"count": 3, "blockers": ["…"]}`.
    pub resident: Option<PlatformCommand>,
    /// Ends the work that is left on a node that was retired.
    pub force: Option<PlatformCommand>,
    /// Puts the node back into service.
    pub rejoin: Option<PlatformCommand>,
    /// Restarts the services of the node.
    pub restart: Option<PlatformCommand>,
    /// Restarts the machine.
    pub reboot: Option<PlatformCommand>,
    /// Ends with status 0 when the node is healthy.
    pub health: Option<PlatformCommand>,
    /// Prints the version that the node runs: `{"version": "3.2.1"}`.
    pub version: Option<PlatformCommand>,
    /// Saves the platform's own state into the folder `{dir}`.
    pub backup: Option<PlatformCommand>,
    /// Brings the platform's own state back from the folder `{dir}`; may be called twice.
    pub restore: Option<PlatformCommand>,
    /// Prints how much work the node has and could take, in a unit of your own: `{"used": 300, "free": 100}`; the adapters
    /// `kubernetes` and `nomad` count memory in MiB.
    pub capacity: Option<PlatformCommand>,
}

/// Who speaks to the platform.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adapter {
    /// Only the commands of this table.
    #[default]
    Exec,
    /// The service manager of the machine: units for each role.
    Systemd,
    /// Containers with a label on this machine.
    Docker,
    /// `kubectl`: cordon, drain, uncordon.
    Kubernetes,
    /// `nomad node drain`, and its allocations.
    Nomad,
    /// Nobody, not even the commands of this table.
    None,
}

/// How the adapter `systemd` works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemdSettings {
    /// The program.
    #[serde(deserialize_with = "text::filled")]
    pub program: PathBuf,
    /// The units of each role, e.g. `{ dea = ["dea.service"] }`; those of `"*"` are on every node.
    #[serde(deserialize_with = "text::units")]
    pub units: BTreeMap<String, Vec<String>>,
    /// How long a unit must run without being restarted to count as healthy.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 0, 86_400>")]
    pub settle: HumanDuration,
    /// How long one call may take; stopping a unit waits for its processes.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>")]
    pub timeout: HumanDuration,
}

impl Default for SystemdSettings {
    fn default() -> Self {
        Self {
            program: "systemctl".into(),
            units: BTreeMap::new(),
            settle: HumanDuration::from_secs(5),
            timeout: default_command_timeout(),
        }
    }
}

/// How the adapter `docker` works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSettings {
    /// The program; `podman` understands the same arguments.
    #[serde(deserialize_with = "text::filled")]
    pub program: PathBuf,
    /// The label of the containers that belong to the platform, e.g. `kato.service` or `tier=web`.
    #[serde(deserialize_with = "text::filled")]
    pub label: String,
    /// How long a container may take to end before it is killed.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 0, 86_400>")]
    pub stop_timeout: HumanDuration,
    /// How long one call may take.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>")]
    pub timeout: HumanDuration,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            program: "docker".into(),
            label: "kato.service".into(),
            stop_timeout: HumanDuration::from_secs(30),
            timeout: default_command_timeout(),
        }
    }
}

/// How the adapter `kubernetes` works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// The program.
    #[serde(deserialize_with = "text::filled")]
    pub program: PathBuf,
    /// The node's name in Kubernetes; its id when empty.
    pub node: String,
    /// The file with the cluster's address and credentials; the program's own choice when absent.
    #[serde(deserialize_with = "text::filled_if_any")]
    pub kubeconfig: Option<PathBuf>,
    /// More arguments of `kubectl drain`.
    #[serde(deserialize_with = "text::all_filled")]
    pub drain: Vec<String>,
    /// How long draining may take; see also `[upgrade].retire_timeout`.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 604_800>")]
    pub drain_timeout: HumanDuration,
    /// How long any other call may take.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>")]
    pub timeout: HumanDuration,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            program: "kubectl".into(),
            node: String::new(),
            kubeconfig: None,
            drain: ["--ignore-daemonsets", "--delete-emptydir-data"]
                .map(Into::into)
                .into(),
            drain_timeout: HumanDuration::from_secs(600),
            timeout: HumanDuration::from_secs(60),
        }
    }
}

/// How the adapter `nomad` works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NomadSettings {
    /// The program.
    #[serde(deserialize_with = "text::filled")]
    pub program: PathBuf,
    /// The node's id in Nomad; the agent's own node when empty.
    pub node: String,
    /// The agent's address, e.g. `https://127.0.0.1:4646`; the program's own choice when empty.
    pub address: String,
    /// Whether allocations of system jobs stay.
    pub ignore_system: bool,
    /// After how long Nomad itself ends what is left.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 604_800>")]
    pub drain_deadline: HumanDuration,
    /// How long any other call may take.
    #[serde(deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>")]
    pub timeout: HumanDuration,
}

impl Default for NomadSettings {
    fn default() -> Self {
        Self {
            program: "nomad".into(),
            node: String::new(),
            address: String::new(),
            ignore_system: false,
            drain_deadline: HumanDuration::from_secs(600),
            timeout: HumanDuration::from_secs(60),
        }
    }
}

/// A command of the platform. `{node}`, `{root}`, `{version}`, `{dir}`, `{services}` and `{roles}` in an argument are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformCommand {
    /// Program and arguments; never a shell line.
    #[serde(deserialize_with = "text::argv")]
    pub argv: Vec<String>,
    /// How long it may take.
    #[serde(
        default = "default_command_timeout",
        deserialize_with = "range::duration_near::<_, _, 0, 1, 86_400>"
    )]
    pub timeout: HumanDuration,
}

const fn default_command_timeout() -> HumanDuration {
    HumanDuration::from_secs(300)
}
