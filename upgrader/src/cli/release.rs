//! `kato release …`: the arguments of everything that concerns publishing.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kato_shared::{
    clock::Clock,
    release::{Version, layout},
    settings::HumanDuration,
    trust::{RepositorySource, TrustedRepository},
};
use serde::Serialize;
use tough::FilesystemTransport;
use url::Url;

use super::Context;
use crate::{
    exit::{Exit, Failure},
    fetch::{Fetcher, Route, trust_failure},
    publish::{self, BuildOptions, InitOptions, Lifetimes, UpgraderFile},
    report::terminal,
};

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

impl ExpiresArgs {
    fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            targets: self.targets_expires.get(),
            snapshot: self.snapshot_expires.get(),
            timestamp: self.timestamp_expires.get(),
            ..Lifetimes::default()
        }
    }
}

/// A result on stdout: one document, or lines for people.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    result: &'a T,
}

/// Runs `kato release`.
///
/// # Errors
/// [`Failure`] with the exit code of the registry and the next action.
pub async fn run(args: ReleaseArgs, context: &Context) -> Result<Exit, Failure> {
    let now = Clock::system().now();
    match args.command {
        ReleaseCommand::Init(args) => init(&args, context, now).await?,
        ReleaseCommand::Build(args) => build(&args, context, now)?,
        ReleaseCommand::Sign(args) => {
            let lifetimes = args.expires.lifetimes();
            let signed = publish::sign(&args.build, &args.dir, &args.keys, lifetimes, now).await?;
            let lines = [format!(
                "signed release {} as version {} of the targets, {} new",
                signed.version,
                signed.targets_version,
                signed.added.len()
            )];
            tell(context, &signed, &lines);
        }
        ReleaseCommand::Publish(args) => {
            let lifetimes = args.expires.lifetimes();
            let published = publish::publish(&args.build, &args.dir, &args.keys, lifetimes, now).await?;
            tell(context, &published, &published_lines(&published));
        }
        ReleaseCommand::Refresh(args) => {
            let lifetimes = args.expires.lifetimes();
            let published = publish::refresh(&args.dir, &args.keys, lifetimes, now).await?;
            tell(context, &published, &published_lines(&published));
        }
        ReleaseCommand::Verify(args) => verify(&args, context).await?,
    }
    Ok(Exit::Done)
}

async fn init(args: &InitArgs, context: &Context, now: jiff::Timestamp) -> Result<(), Failure> {
    let options = InitOptions {
        root_keys: args.root_keys,
        root_threshold: args.root_threshold,
        lifetimes: Lifetimes {
            root: args.root_expires.get(),
            ..Lifetimes::default()
        },
    };
    let made = publish::init(&args.dir, &args.keys, options, now).await?;
    let lines = [
        format!("repository   {}", args.dir.display()),
        format!("root         {} (give a copy to every node)", made.root.display()),
        format!(
            "keys         {} ({} of {} root keys must sign; move them to separate media, no later step needs them)",
            made.keys.display(),
            made.root_threshold,
            made.root_keys
        ),
    ];
    tell(context, &made, &lines);
    Ok(())
}

fn build(args: &BuildArgs, context: &Context, now: jiff::Timestamp) -> Result<(), Failure> {
    let options = BuildOptions {
        upgraders: upgraders(args)?,
        level: args.level,
    };
    let published = args.published.unwrap_or(now);
    let built = publish::build(&args.description, &args.out, &options, published)?;
    let mut lines = vec![format!(
        "built {} {} in {}",
        built.product,
        built.version,
        built.folder.display()
    )];
    let sizes = built
        .artifacts
        .iter()
        .map(|(name, artifact)| (name, artifact.size, artifact.sha256));
    let programs = built
        .upgrader
        .values()
        .map(|upgrader| (&upgrader.target, upgrader.size, upgrader.sha256));
    lines.extend(
        sizes
            .chain(programs)
            .map(|(name, size, digest)| format!("{size:>12}  {digest}  {name}")),
    );
    tell(context, &built, &lines);
    Ok(())
}

/// The programs to ship: those named, or this one.
fn upgraders(args: &BuildArgs) -> Result<Vec<UpgraderFile>, Failure> {
    if args.no_upgrader {
        return Ok(Vec::new());
    }
    let version = match &args.upgrader_version {
        Some(version) => version.clone(),
        None => own_version()?,
    };
    if args.upgrader.is_empty() {
        let file = std::env::current_exe().map_err(|error| Failure::new(Exit::Bug, error))?;
        return Ok(vec![UpgraderFile {
            file,
            triple: layout::HOST_TRIPLE.into(),
            version,
        }]);
    }
    if !args.triple.is_empty() && args.triple.len() != args.upgrader.len() {
        let counts = anyhow::anyhow!(
            "{} programs and {} triples are given",
            args.upgrader.len(),
            args.triple.len()
        );
        return Err(Failure::new(Exit::Usage, counts).hint("give one --triple for each --upgrader"));
    }
    let triples = args
        .triple
        .iter()
        .map(String::as_str)
        .chain(std::iter::repeat(layout::HOST_TRIPLE));
    let programs = args
        .upgrader
        .iter()
        .zip(triples)
        .map(|(file, triple)| UpgraderFile {
            file: file.clone(),
            triple: triple.to_owned(),
            version: version.clone(),
        });
    Ok(programs.collect())
}

fn own_version() -> Result<Version, Failure> {
    Version::parse(env!("CARGO_PKG_VERSION")).map_err(|error| Failure::new(Exit::Bug, error))
}

fn published_lines(published: &publish::Published) -> Vec<String> {
    let mut lines = vec![format!(
        "published: targets {}, snapshot {}, timestamp {} (expires {})",
        published.targets, published.snapshot, published.timestamp, published.expires
    )];
    lines.extend(published.added.iter().map(|name| format!("  {name}")));
    lines
}

async fn verify(args: &VerifyArgs, context: &Context) -> Result<(), Failure> {
    let trusted_root = read_root(&args.root)?;
    let forgotten = tempfile::tempdir().map_err(|error| Failure::new(Exit::Preflight, error))?;
    let datastore = args.datastore.as_deref().unwrap_or(forgotten.path());
    let loaded = match (&args.url, &args.dir) {
        (Some(url), _) => {
            let route = args.cache_url.clone().map_or(Route::Direct, Route::Cache);
            Fetcher::new(route)?
                .repository(&trusted_root, url, datastore)
                .await
        }
        (None, dir) => {
            let base = folder_url(dir.as_deref().unwrap_or(Path::new(".")))?;
            let source = RepositorySource {
                trusted_root: &trusted_root,
                base: &base,
                datastore,
            };
            TrustedRepository::load(source, FilesystemTransport).await
        }
    };
    let repository = loaded.map_err(trust_failure)?;
    let progress = |name: &str| {
        if terminal::draws() {
            terminal::say(&format!("checking {name}"));
        }
    };
    let verified = publish::verify(&repository, &progress)
        .await
        .map_err(trust_failure)?;
    let versions: Vec<_> = verified.versions.iter().map(Version::to_string).collect();
    let line = format!(
        "verified {}: releases {}; {} targets, {} bytes",
        verified.product,
        versions.join(", "),
        verified.targets,
        verified.bytes
    );
    tell(context, &verified, &[line]);
    Ok(())
}

fn read_root(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let read = anyhow::Error::new(error)
            .context(format!("reading the trusted root `{}` failed", path.display()));
        Failure::new(Exit::Usage, read)
            .hint("give the root that `kato release init` made, e.g. REPO/metadata/1.root.json")
    })
}

fn folder_url(folder: &Path) -> Result<Url, Failure> {
    let absolute = folder.canonicalize().map_err(|error| {
        let opened = anyhow::Error::new(error)
            .context(format!("opening the repository `{}` failed", folder.display()));
        Failure::new(Exit::Usage, opened)
    })?;
    Url::from_directory_path(&absolute)
        .map_err(|()| Failure::new(Exit::Usage, anyhow::anyhow!("`{}` is no URL", absolute.display())))
}

fn tell<T: Serialize>(context: &Context, result: &T, lines: &[String]) {
    if context.json {
        terminal::json(&Document { schema: 1, result });
    } else {
        for line in lines {
            terminal::data(line);
        }
    }
}
