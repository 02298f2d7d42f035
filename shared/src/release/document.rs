//! The shape of `release.json`, schema 1.
//!
//! Unknown keys are ignored, so that a newer publisher may add information. Unknown *policies* and *checks*
//! are refused by [`Release::from_json`]: ignoring one would install half a release.

use std::{collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{
    install::{Image, Package},
    patch::{Kind, Patch},
};
use crate::{Digest, settings::HumanDuration};

/// One published release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The schema version of this document; see [`super::SCHEMA`].
    pub schema: u32,
    /// Whether it is a release or a patch of one.
    #[serde(default, skip_serializing_if = "Kind::is_release")]
    pub kind: Kind,
    /// The product that is upgraded, e.g. `stackato`.
    pub product: String,
    /// The version that a node has after this release was installed.
    pub version: Version,
    /// The channel, e.g. `stable`; development releases are found only when asked for.
    #[serde(default = "stable")]
    pub channel: String,
    /// When it was published.
    pub published: Timestamp,
    /// Which installed versions may upgrade to it directly.
    #[serde(default)]
    pub from: Sources,
    /// Whether an upgrade from below must stop at this version on its way.
    #[serde(default)]
    pub floor: bool,
    /// The oldest upgrader that can install it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_upgrader: Option<Version>,
    /// Whether a failed upgrade to it can be rolled back.
    #[serde(default = "yes")]
    pub reversible: bool,
    /// Patches that must be installed before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_patches: Vec<String>,
    /// Patches that it contains: whoever has it needs them no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes_patches: Vec<String>,
    /// What makes it a patch; `None` for a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Patch>,
    /// The order in which the roles of a cluster are upgraded; see `cluster` in the upgrader for what is not listed.
    #[serde(default = "default_role_order")]
    pub role_order: Vec<String>,
    /// The role of the Core node.
    #[serde(default = "default_core_role")]
    pub core_role: String,
    /// The role that every node has and that therefore says nothing about it.
    #[serde(default = "default_implicit_role")]
    pub implicit_role: String,
    /// The upgrader's own program by target triple, e.g. `x86_64-unknown-linux-gnu`.
    #[serde(default)]
    pub upgrader: BTreeMap<String, Upgrader>,
    /// The files to download, by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, Artifact>,
    /// What is installed.
    pub modules: Vec<Module>,
    /// How a node shows that it runs the release.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Paths that are saved before anything is changed, beside those that modules replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup: Vec<PathBuf>,
    /// What is restarted when all modules are installed.
    #[serde(default)]
    pub restart: RestartScope,
    /// Glob patterns of paths that no module may touch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub safe_paths: Vec<String>,
    /// Texts for the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// Which installed versions may upgrade directly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The oldest one; every version from here to the release itself may upgrade, unless `edges` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Version>,
    /// When not empty: exactly these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Version>,
    /// Never these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
}

/// A version that may not upgrade directly, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The version.
    pub version: Version,
    /// The reason, for the operator.
    pub reason: String,
}

/// The upgrader's own program for one target triple.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrader {
    /// Its TUF target name.
    pub target: String,
    /// Its version.
    pub version: Version,
    /// The digest of the program file.
    pub sha256: Digest,
    /// The size of the program file in bytes.
    pub size: u64,
}

/// A file to download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its TUF target name.
    pub target: String,
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A unit of installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, unique in the release; also the name of its latch.
    pub name: String,
    /// Its own version, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The key of its archive in [`Release::artifacts`]. Where a policy needs no files the archive is an empty one.
    pub artifact: String,
    /// The roles whose nodes install it; `*` is every node.
    pub roles: Vec<String>,
    /// Modules that are installed before it when they are on the same node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// How it is installed.
    pub install: Install,
    /// The size of its unpacked content in bytes.
    #[serde(default)]
    pub unpacked_size: u64,
    /// Bytes that its installation writes beside its unpacked content: what packages and commands need.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Every file that it installs; the base of three-way decisions at the next upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Other rules than the overlay's own for some files: absolute glob pattern → what happens to a file that both sides
    /// changed. Of several patterns that match the longest counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conffiles: BTreeMap<String, OnConflict>,
    /// Services restarted after it, beside [`Release::restart`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// Whether it holds `kato` itself, which a node must never be without.
    #[serde(default)]
    pub recovery: bool,
    /// Whether its installation can be undone.
    #[serde(default = "yes")]
    pub reversible: bool,
    /// How long its installation may take.
    #[serde(default = "default_module_timeout")]
    pub timeout: HumanDuration,
}

impl Module {
    /// Whether a node with `roles` installs it.
    pub fn is_for(&self, roles: &[String]) -> bool {
        self.roles
            .iter()
            .any(|role| role == "*" || roles.iter().any(|own| own.eq_ignore_ascii_case(role)))
    }
}

/// How a module is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "lowercase")]
pub enum Install {
    /// Unpacked to `<dest>/<version>-<short digest>`; then the symbolic link is moved. Undone by moving it back.
    Versioned {
        /// The folder of all versions.
        dest: PathBuf,
        /// The symbolic link to the current one; a link `current` in `dest` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<PathBuf>,
        /// What the link points to below the version's folder; the folder itself when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link_to: Option<PathBuf>,
        /// How many versions are kept, the current one included; at least 2.
        #[serde(default = "two")]
        keep: u32,
    },
    /// The whole folder is exchanged for a new one; what was there is kept until the node is verified.
    Replace {
        /// The folder.
        dest: PathBuf,
    },
    /// File by file into an existing folder; local changes are recognised and kept aside.
    Overlay {
        /// The folder.
        dest: PathBuf,
        /// What happens to a file that both sides changed.
        #[serde(default)]
        conflict: OnConflict,
    },
    /// Debian packages, from `.deb` files in the module's archive and, those that have none there, by name with apt.
    Package {
        /// Every package in the version that the node has afterwards.
        packages: Vec<Package>,
    },
    /// Container images, pulled by digest into the node's container runtime.
    Image {
        /// The images.
        images: Vec<Image>,
    },
    /// A command that changes the node by itself, such as a migration. `./…` is a program of the module's archive.
    Exec {
        /// Program and arguments.
        cmd: Vec<String>,
        /// Ends with status 0 when the command is not needed, or was successful; with another one when it is needed.
        probe: Vec<String>,
        /// Takes the command back; without it the module cannot be undone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        undo: Vec<String>,
    },
}

impl Install {
    /// The names of the policies that this build can install.
    pub const POLICIES: [&'static str; 6] = ["versioned", "replace", "overlay", "package", "image", "exec"];
}

/// What an overlay does with a file that was changed here and in the new release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnConflict {
    /// The release's file is installed and the local one saved beside the backup.
    #[default]
    #[serde(rename = "vendor+save")]
    VendorSave,
    /// The local file stays and the release's one is put beside it as `<file>.new`.
    #[serde(rename = "keep")]
    Keep,
    /// Both changes are made, line by line. Where they contradict each other, or the file is not text, it is as with
    /// [`Self::VendorSave`].
    #[serde(rename = "merge")]
    Merge,
    /// The module fails before it changes anything.
    #[serde(rename = "fail")]
    Fail,
}

/// A file that a module installs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the module's folder.
    pub path: PathBuf,
    /// The digest of its content.
    pub sha256: Digest,
    /// Its permission bits.
    pub mode: u32,
}

/// What is restarted when all modules of a node are installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartScope {
    /// The services of the node's roles, through the platform adapter.
    #[default]
    Services,
    /// The machine.
    Reboot,
    /// Nothing.
    None,
}

/// How a node shows that it runs the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "id", rename_all = "kebab-case")]
pub enum Check {
    /// The platform adapter reads the release's version back.
    VersionReadback,
    /// An HTTP request on the node answers with a status.
    Http {
        /// What is asked for.
        url: String,
        /// The status that is expected.
        #[serde(default = "ok_status")]
        status: u16,
        /// How long it must stay good.
        #[serde(default = "no_time")]
        min_healthy: HumanDuration,
        /// When it must be good at the latest, from the restart on.
        #[serde(default = "default_check_deadline")]
        deadline: HumanDuration,
    },
    /// A command on the node ends with status 0.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
        /// How long it must stay good.
        #[serde(default = "no_time")]
        min_healthy: HumanDuration,
        /// When it must be good at the latest, from the restart on.
        #[serde(default = "default_check_deadline")]
        deadline: HumanDuration,
    },
}

impl Check {
    /// The names of the checks that this build can make.
    pub const IDS: [&'static str; 3] = ["version-readback", "http", "command"];
}

/// A text for the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it is shown.
    pub when: NoticeWhen,
    /// The text.
    pub text: String,
}

/// When a notice is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeWhen {
    /// With the plan.
    Plan,
    /// When the node or the cluster was upgraded.
    Success,
}

fn stable() -> String {
    "stable".into()
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

const fn two() -> u32 {
    2
}

fn default_role_order() -> Vec<String> {
    ["dea", "controller", "router", "base", "primary"]
        .map(Into::into)
        .into()
}

fn default_core_role() -> String {
    "primary".into()
}

fn default_implicit_role() -> String {
    "base".into()
}

const fn ok_status() -> u16 {
    200
}

const fn no_time() -> HumanDuration {
    HumanDuration::from_secs(0)
}

const fn default_check_deadline() -> HumanDuration {
    HumanDuration::from_secs(600)
}

const fn default_module_timeout() -> HumanDuration {
    HumanDuration::from_secs(1800)
}
