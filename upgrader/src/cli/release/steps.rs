//! The steps of publishing, from arguments to the library and back to lines or one JSON document.

use std::path::Path;

use kato_shared::{
    clock::Clock,
    release::{Version, layout},
    trust::{RepositorySource, TrustedRepository},
};
use serde::Serialize;
use tough::FilesystemTransport;
use url::Url;

use super::{BuildArgs, ExpiresArgs, InitArgs, ReleaseArgs, ReleaseCommand, VerifyArgs};
use crate::{
    cli::Context,
    exit::{Exit, Failure},
    fetch::{Fetcher, Route, trust_failure},
    publish::{self, BuildOptions, InitOptions, Lifetimes, UpgraderFile},
    report::terminal,
};

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
                "signed {} as version {} of the targets, {} new",
                what(signed.patch.as_deref(), &signed.version),
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
        match &built.patch {
            Some(patch) => format!("{} patch {patch}", built.version),
            None => built.version.to_string(),
        },
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

fn what(patch: Option<&str>, version: &Version) -> String {
    match patch {
        Some(patch) => format!("patch {patch} of {version}"),
        None => format!("release {version}"),
    }
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
        "verified {}: releases {}; {}; {}, {} bytes",
        verified.product,
        versions.join(", "),
        kato_shared::counted(verified.patches.len(), "patch", "patches"),
        kato_shared::counted(verified.targets, "target", "targets"),
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
