//! The arguments of the verbs of `bundle`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::bundle::pack::Limit;

/// `bundle …`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BundleArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a pair of keys: the secret one signs bundles, the public one is told to sites
    Keygen(KeygenArgs),
    /// What an export would carry, and how much that is
    Plan(PlanArgs),
    /// Write a signed bundle of what the store holds
    Export(ExportArgs),
    /// The part of an export that runs in a namespace of its own
    #[command(hide = true)]
    Rehearse(RehearseArgs),
    /// Judge a bundle without taking it in
    Verify(VerifyArgs),
    /// Take a bundle into the store
    Import(ImportArgs),
    /// Show what a bundle says about itself
    Info(InfoArgs),
}

/// Where the store is.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// The settings file [default: /etc/kato/proxy.toml if it exists]
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The store's folder
    #[arg(long, value_name = "DIR", env = "KATO_PROXY_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct KeygenArgs {
    /// Where the secret key is written
    #[arg(long, value_name = "FILE", default_value = "bundle.key")]
    pub(super) secret: PathBuf,
    /// Where the public key is written
    #[arg(long, value_name = "FILE", default_value = "bundle.pub")]
    pub(super) public: PathBuf,
    #[command(flatten)]
    pub(super) password: PasswordArgs,
}

#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// A file with the password of the secret key in its first line; without it the key has none
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("extent").args(["since", "full"]))]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The name of the series of bundles, e.g. prod
    #[arg(long, value_name = "NAME")]
    pub(super) series: String,
    /// Leave out what the site has: the number of a bundle, a receipt, a request file, or an old BUNDLE.json
    #[arg(long, value_name = "WHAT")]
    pub(super) since: Option<String>,
    /// Everything, whatever the site has; so it is without --since
    #[arg(long)]
    pub(super) full: bool,
    /// With --since NUMBER: take the site to have only what was this many bundles before
    #[arg(long, value_name = "K", default_value_t = 0, requires = "since")]
    pub(super) overlap: u64,
    /// Only what this request file of the site asks for
    #[arg(long, value_name = "FILE")]
    pub(super) satisfy: Option<PathBuf>,
    /// Only URLs that begin so; may be repeated
    #[arg(long, value_name = "URL")]
    pub(super) prefix: Vec<String>,
    /// With --since RECEIPT: a public key of the site, by which the receipt must be signed: a file, or the key itself; may be repeated
    #[arg(long, value_name = "KEY", requires = "since")]
    pub(super) receipt_trust: Vec<String>,
    /// A keyring of archives, whose keys' expiry is shown [default: those that prefetch was given, and those of this machine]; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) apt_key: Vec<PathBuf>,
    /// Tars of at most this size in the place of a folder: fat32, dvd5, dvd9, bd25, bd50 or a size as in 4GiB
    #[arg(long, value_name = "SIZE")]
    pub(super) volume: Option<Limit>,
    /// Where the folder of the bundle is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(super) out: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) plan: PlanArgs,
    /// The secret key
    #[arg(long, value_name = "FILE", env = "KATO_PROXY_BUNDLE_KEY")]
    pub(super) key: PathBuf,
    #[command(flatten)]
    pub(super) password: PasswordArgs,
    /// What the site needs and which commands have to work there, see docs/bundles.md; checked and rehearsed before anything is written
    #[arg(long, value_name = "FILE")]
    pub(super) declare: Option<PathBuf>,
    /// Why it need not be shown that the bundle is complete; the bundle records it
    #[arg(long, value_name = "REASON")]
    pub(super) waive: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RehearseArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The file with the commands
    #[arg(long, value_name = "FILE")]
    pub(super) declare: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct MediumArgs {
    /// The folder of the bundle
    pub(super) bundle: PathBuf,
    /// A public key that is trusted: a file, or the key itself; may be repeated
    #[arg(long, value_name = "KEY", env = "KATO_PROXY_BUNDLE_TRUST")]
    pub(super) trust: Vec<String>,
    /// A further folder with volumes of the bundle; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(super) from: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) medium: MediumArgs,
    /// Only the signature, the tables and the sizes of files
    #[arg(long)]
    pub(super) quick: bool,
    /// Write the verdict into this file, too
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    #[command(flatten)]
    pub(super) medium: MediumArgs,
    /// How many snapshots of the series are kept
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub(super) keep: usize,
    /// Take an older bundle, or one of another series of that name, all the same
    #[arg(long)]
    pub(super) allow_rollback: bool,
    /// Take a bundle of another series than the one that is served, which then is served no more
    #[arg(long)]
    pub(super) replace_series: bool,
    /// Where a request file is written when something is missing [default: request.json in the store's folder]
    #[arg(long, value_name = "FILE")]
    pub(super) request: Option<PathBuf>,
    /// Write a receipt for the exporter into this file
    #[arg(long, value_name = "FILE")]
    pub(super) receipt: Option<PathBuf>,
    /// Sign the receipt with this secret key, see `keygen`
    #[arg(long, value_name = "FILE", requires = "receipt")]
    pub(super) receipt_key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) password: PasswordArgs,
    /// The name of this site in the receipt
    #[arg(long, value_name = "NAME", default_value = "site")]
    pub(super) site: String,
}

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    pub(super) medium: MediumArgs,
}
