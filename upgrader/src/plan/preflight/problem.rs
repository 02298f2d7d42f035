//! What can be in the way of a node's upgrade, in words, and what the operator does about each.

use std::time::Duration;

use kato_shared::{
    release::{HopError, Version},
    settings::{HumanDuration, byte_size::human},
};

use super::STATUS_SCHEMA;
use crate::{
    cluster::inventory::{InventoryNode, SshSettings, Transport},
    space::Shortfall,
    ssh::Ended,
};

/// A problem of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProblem {
    /// The node's id.
    pub node: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a node before its upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It cannot be reached, or the connection broke.
    #[error("{detail}")]
    Unreachable {
        /// The words of the transport.
        detail: String,
    },
    /// It can be reached, and what was asked of its `kato` brought no answer in time.
    #[error("the node is reached, and `{command}` there gave no answer within {}", humantime::format_duration(*deadline))]
    Hangs {
        /// What was run.
        command: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// There is no `kato`.
    #[error("`{program}` is not there")]
    NoKato {
        /// Where it was looked for.
        program: String,
    },
    /// `kato`, or what stands before it, gave no status.
    #[error("asking `{program}` for its status ended with {ended}{}", behind(error))]
    NoStatus {
        /// What was run.
        program: String,
        /// How it ended.
        ended: Ended,
        /// What it complains of; empty when it says nothing.
        error: String,
        /// What it says is to be done.
        hint: Option<String>,
    },
    /// It ended well, and what came back is no answer.
    #[error("what `{program}` answered was not understood{}", began(said))]
    NotUnderstood {
        /// What was run.
        program: String,
        /// The first line of the answer.
        said: String,
    },
    /// Another orchestrator has taken over since.
    #[error("another orchestrator has taken over")]
    Superseded,
    /// Its `kato` does not know orchestrators' tokens: it could not refuse one that wakes up too late.
    #[error(
        "its kato {kato} is older than Core's and does not know the token of an orchestrator (`--fence`)"
    )]
    NoFences {
        /// The version of its `kato`.
        kato: String,
    },
    /// Something holds its lock that is no upgrade.
    #[error("its lock is held by `{holder}`")]
    Locked {
        /// What holds it.
        holder: String,
    },
    /// It cannot reach the machine from which it would download.
    #[error("the cache at {cache} cannot be reached from it: {detail}")]
    CutOff {
        /// The machine and port of the cache.
        cache: String,
        /// Why.
        detail: String,
    },
    /// A release on its way demands patches that it does not have.
    #[error("release {release} needs patches that it does not have: {}", missing.join(", "))]
    Patches {
        /// The first release that demands one.
        release: Version,
        /// The patches.
        missing: Vec<String>,
        /// Whether all of them can be installed on it as it is.
        can_be_installed: bool,
    },
    /// Something that says its own remedy.
    #[error("{what}")]
    Said {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The status is of a schema that this build does not know.
    #[error("its kato {kato} speaks status schema {schema}, this one up to {STATUS_SCHEMA}")]
    Schema {
        /// The schema.
        schema: u32,
        /// The version of its `kato`.
        kato: String,
    },
    /// Another node answers at the address.
    #[error("at its address answers the node `{answered}`")]
    OtherNode {
        /// Who answers.
        answered: String,
    },
    /// Its settings and the inventory name different roles.
    #[error("its settings say roles [{}], the inventory says [{}]", node.join(", "), inventory.join(", "))]
    RolesDiffer {
        /// By its settings.
        node: Vec<String>,
        /// By the inventory.
        inventory: Vec<String>,
    },
    /// A run that leads further than wanted is at work or was begun.
    #[error("a run to {to} is {}", if *running { "at work" } else { "not finished" })]
    Busy {
        /// Where that run leads.
        to: Version,
        /// Whether it is at work now.
        running: bool,
    },
    /// Its clock is far from Core's: metadata would be refused, and whose event came first could not be told.
    #[error("its clock is {seconds} s {} Core's, at most {limit} is allowed", if *is_ahead { "ahead of" } else { "behind" })]
    ClockSkew {
        /// How far.
        seconds: i64,
        /// In which direction.
        is_ahead: bool,
        /// How far it may be.
        limit: HumanDuration,
    },
    /// Too little memory.
    #[error("{} of memory are available, {} are needed", human(*have), human(*need))]
    Memory {
        /// What is available, in bytes.
        have: u64,
        /// What is needed, in bytes.
        need: u64,
    },
    /// Too little space.
    #[error("{0}")]
    Space(Shortfall),
    /// What leaves the batch has no room elsewhere.
    #[error("what leaves {} is {leaves}, and the others have room for {room}: {} short", batch.join(", "), leaves.saturating_sub(*room))]
    Capacity {
        /// The nodes that are emptied together.
        batch: Vec<String>,
        /// What is on them, in the platform's unit.
        leaves: u64,
        /// What the others could take.
        room: u64,
    },
    /// There is no way from its version to the wanted one.
    #[error("{0}")]
    NoWay(HopError),
}

fn behind(error: &str) -> String {
    if error.is_empty() {
        return String::new();
    }
    format!(": {error}")
}

fn began(said: &str) -> String {
    if said.is_empty() {
        return ": it was empty".into();
    }
    let start: String = said.chars().take(80).collect();
    format!(": it began with `{start}`")
}

impl Problem {
    /// What the operator does about it.
    pub fn remedy(&self, node: &InventoryNode, ssh: &SshSettings) -> String {
        match self {
            Self::Unreachable { .. } if node.transport == Transport::Local => {
                "look at `kato` and `config` of the node in the inventory".into()
            }
            Self::Unreachable { detail } if detail.contains(HOST_KEY) => format!(
                "its host key is not the one that Core knows. Was the machine built anew? Compare the key at its console \
                 (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then take the old one out with `ssh-keygen -R {}` and let `{}` ask for the new one",
                node.address,
                try_ssh(node, ssh)
            ),
            Self::Unreachable { .. } => format!("make `{}` work without a question", try_ssh(node, ssh)),
            Self::Hangs { command, .. } => hanging(command, node, ssh),
            Self::NoKato { .. } => {
                "install kato there, or correct `kato` of the node in the inventory".into()
            }
            Self::NotUnderstood { .. } | Self::NoStatus { .. } => self.of_no_answer(node, ssh),
            Self::Superseded => {
                "`kato lock show` says who has the lock of the cluster; if it is this run, correct Core's clock".into()
            }
            Self::NoFences { .. } => {
                "run `kato node upgrade --update-kato` on the node itself, or install Core's kato there".into()
            }
            Self::Locked { .. } => "wait until it ends; `kato lock show` on the node says what it is".into(),
            Self::CutOff { .. } => {
                "see why with `ping` and the firewalls between them; `--cache-ip` names another address of Core".into()
            }
            Self::Patches {
                missing,
                can_be_installed: true,
                ..
            } => format!(
                "run `kato patch install {}`, or add `--apply-patches` to the command",
                missing.join(" ")
            ),
            Self::Patches { .. } => {
                "upgrade to a release in between with `--version` and install them there, or ask the publisher".into()
            }
            Self::Said { remedy, .. } => remedy.clone(),
            Self::Schema { .. } => "bring Core's kato up to date: `kato node upgrade --update-kato`".into(),
            Self::OtherNode { .. } => "correct `address` or `id` of the node in the inventory".into(),
            Self::RolesDiffer { .. } => {
                "make `roles` of the inventory and `[node] roles` of the node's settings agree".into()
            }
            Self::Busy { to, running: true } => {
                format!("wait for it, or follow it with `kato node upgrade --cluster --version {to}`")
            }
            Self::Busy { to, running: false } => {
                format!("finish it first: `kato node upgrade --cluster --version {to}`")
            }
            Self::ClockSkew { .. } => "set its clock, and see why it is not kept (chrony, ntpd)".into(),
            Self::Memory { .. } => {
                "stop what is not needed there, or lower `[preflight] memory` in cluster.toml".into()
            }
            Self::Space(_) => "free space there; `du -x` shows who takes it".into(),
            Self::Capacity { .. } => {
                "add a node with this role, stop work on it, or upgrade fewer of them together (`max_in_flight`)".into()
            }
            Self::NoWay(_) => "choose a release that leads on from there with `--version`".into(),
        }
    }
}

impl Problem {
    /// Whether there was no answer at all, which may be otherwise in a moment.
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Hangs { .. })
    }

    /// What the operator does where something came back that is no status.
    fn of_no_answer(&self, node: &InventoryNode, ssh: &SshSettings) -> String {
        match (self, node.transport) {
            (Self::NotUnderstood { .. }, Transport::Ssh) => format!(
                "`{} true` must print nothing: make the start files of the account's shell silent for commands",
                try_ssh(node, ssh)
            ),
            (Self::NoStatus { hint: Some(hint), .. }, _) => format!("it says: {hint}"),
            (Self::NoStatus { .. }, Transport::Ssh) if ssh.sudo => format!(
                "see why with `{} sudo -n -l`, which lists what may be run; kato is run by `sudo -n`, which needs a NOPASSWD rule: `kato print-sudoers` prints it",
                try_ssh(node, ssh)
            ),
            (_, Transport::Ssh | Transport::Local) => {
                "run `kato node upgrade --status --json` on the node".into()
            }
        }
    }
}

/// What OpenSSH says of a machine that shows an unknown key or another one than before.
const HOST_KEY: &str = "Host key verification failed";

fn hanging(command: &str, node: &InventoryNode, ssh: &SshSettings) -> String {
    let way = match node.transport {
        Transport::Ssh => format!("{} ", try_ssh(node, ssh)),
        Transport::Local => String::new(),
    };
    format!(
        "run `{way}{command}` and look what it waits for there, such as a disk that does not answer; the connection is fine"
    )
}

fn try_ssh(node: &InventoryNode, ssh: &SshSettings) -> String {
    let config = ssh
        .config
        .as_ref()
        .map(|path| format!("-F {} ", path.display()))
        .unwrap_or_default();
    let user = if ssh.user.is_empty() {
        String::new()
    } else {
        format!("{}@", ssh.user)
    };
    format!("ssh {config}{user}{}", node.address)
}
