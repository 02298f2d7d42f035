//! `kato release …`: the arguments of everything that concerns publishing.

mod steps;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kato_shared::{release::Version, settings::HumanDuration};
use url::Url;

pub use steps::run;

/// Arguments of `kato release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ReleaseCommand,
}

/// The steps of publishing.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make a repository: keys for the four roles and the root that nodes are given.
    Init(InitArgs),
    /// Turn a folder with release.toml into archives and a release document; needs no key.
    Build(BuildArgs),
    /// Add a build to the signed list of targets; needs the targets key.
    Sign(StepArgs),
    /// Put a signed build into the repository; needs the snapshot and timestamp keys.
    Publish(StepArgs),
    /// Sign snapshot and timestamp anew before they expire; needs their keys.
    Refresh(RefreshArgs),
    /// Load a repository as a node would and check every byte in it.
    Verify(VerifyArgs),
}

/// Arguments of `kato release init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder of the repository.
    #[arg(long, value_name = "REPO")]
    pub dir: PathBuf,
    /// The folder for the keys; never below REPO. Development keys: plain files, mode 0600.
    #[arg(long, value_name = "FOLDER")]
    pub keys: PathBuf,
    /// How many root keys are made; 3 for a real site.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub root_keys: u8,
    /// How many of them must sign a root; 2 for a real site.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub root_threshold: u8,
    /// How long the root is valid.
    #[arg(long, value_name = "DURATION", default_value = "3650d")]
    pub root_expires: HumanDuration,
}

/// Arguments of `kato release build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The folder with release.toml and the modules' folders.
    pub description: PathBuf,
    /// The folder to build into; created when absent.
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// The program of the upgrader to ship; this program when absent.
    #[arg(long, value_name = "FILE")]
    pub upgrader: Vec<PathBuf>,
    /// The target triples of the programs, in the same order.
    #[arg(long, value_name = "TRIPLE", requires = "upgrader")]
    pub triple: Vec<String>,
    /// The version of the programs; this program's own when absent.
    #[arg(long, value_name = "VERSION")]
    pub upgrader_version: Option<Version>,
    /// Ship no upgrader.
    #[arg(long, conflicts_with = "upgrader")]
    pub no_upgrader: bool,
    /// The zstd level of the archives.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// The time of publication, for a reproducible build; now when absent.
    #[arg(long, value_name = "TIME")]
    pub published: Option<jiff::Timestamp>,
}

/// Arguments of `kato release sign` and `kato release publish`.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// The build folder.
    pub build: PathBuf,
    /// The folder of the repository.
    #[arg(long, value_name = "REPO")]
    pub dir: PathBuf,
    /// The folder of the keys.
    #[arg(long, value_name = "FOLDER")]
    pub keys: PathBuf,
    /// How long the metadata are valid.
    #[command(flatten)]
    pub expires: ExpiresArgs,
}

/// Arguments of `kato release refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// The folder of the repository.
    #[arg(long, value_name = "REPO")]
    pub dir: PathBuf,
    /// The folder of the keys.
    #[arg(long, value_name = "FOLDER")]
    pub keys: PathBuf,
    /// How long the metadata are valid.
    #[command(flatten)]
    pub expires: ExpiresArgs,
}

/// How long metadata are valid.
#[derive(Debug, Args)]
pub struct ExpiresArgs {
    /// How long the list of targets is valid.
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    pub targets_expires: HumanDuration,
    /// How long the snapshot is valid.
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    pub snapshot_expires: HumanDuration,
    /// How long the timestamp is valid; `kato release refresh` must run more often.
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub timestamp_expires: HumanDuration,
}

/// Arguments of `kato release verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The root that a node is given, e.g. REPO/metadata/1.root.json.
    #[arg(long, value_name = "FILE")]
    pub root: PathBuf,
    /// The repository on a web server.
    #[arg(long, value_name = "URL", required_unless_present = "dir")]
    pub url: Option<Url>,
    /// The repository in a folder.
    #[arg(long, value_name = "REPO", conflicts_with = "url")]
    pub dir: Option<PathBuf>,
    /// Look through this cache.
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    pub cache_url: Option<Url>,
    /// The folder that remembers the versions seen, so that a later call refuses older ones; forgotten when absent.
    #[arg(long, value_name = "FOLDER")]
    pub datastore: Option<PathBuf>,
}
