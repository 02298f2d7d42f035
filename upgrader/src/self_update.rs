//! `kato` updates itself before it upgrades anything: into the slot that is not in use, tested, then one rename of the link.
//!
//! There are two slots, `bin/a/kato` and `bin/b/kato`; the program that runs is never written to, and the one before stays.
//! Everything that the upgrade downloads is on the node by then, so that whoever is cut off here goes on without the network.
//! `fix-kato.sh` is written first. After the link was moved the new program is executed once, in the place of this one; a
//! guard that it carries keeps it from doing so again.

use std::{
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use kato_shared::{
    Digest,
    durable::{self, DurableError},
    release::{Release, Upgrader, Version},
    settings::SettingsError,
};

use crate::{
    attempt::Attempt,
    cli::DEFAULT_CONFIG,
    document,
    exit::{Exit, Failure},
    failpoint,
    installed::Installed,
    journal,
    module::tree,
    paths::{self, NodePaths},
    platform::{Children, ProcessError, process},
    recover,
    report::terminal,
    settings::Settings,
};

/// The variable that tells the new program which digest it was started as.
pub const GUARD: &str = "KATO_SELF_UPDATED";
/// The variable that carries the run's id into the new program.
pub const RUN: &str = "KATO_RUN";

/// How the self-test of a program ends that does not take the settings.
const REFUSES_SETTINGS: Exit = Exit::Preflight;
/// What helps then.
pub const MEND: &str = "mend that line of the settings first, then run the same command again; kato is the one before, and nothing was changed";

/// How long a new program may take to show that it works.
const SELF_TEST_LIMIT: Duration = Duration::from_secs(60);

/// A self-update that failed. The old program is in place and goes on, unless the release needs a newer one.
#[derive(Debug, thiserror::Error)]
pub enum SelfUpdateError {
    /// This program is too old for the release, and the release has no newer one for this machine.
    #[error(
        "release {} needs kato {} or newer, this is {} and the release has none for {triple}",
        versions[0], versions[1], versions[2]
    )]
    TooOld {
        /// The release, the version that it needs, and the version of this program.
        versions: Box<[Version; 3]>,
        /// The target triple of this program.
        triple: String,
    },
    /// The program that runs cannot be read.
    #[error("{action} `{path}` failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A durable operation failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The new program does not work here.
    #[error("the new kato does not work on this node")]
    SelfTest {
        /// How it failed.
        #[source]
        source: ProcessError,
    },
    /// The new program does not take the settings of this node.
    #[error("the new kato does not take the settings of this node: {said}")]
    Settings {
        /// What it said, with file and line.
        said: String,
    },
    /// The new program ran, and did not say what a `kato` says.
    #[error("the new kato does not work on this node: `{asked}` printed {found:?}, expected {expected:?}")]
    Answer {
        /// What it was asked.
        asked: &'static str,
        /// What it printed, its first line.
        found: String,
        /// What the release and the journal say.
        expected: String,
    },
    /// The file in the slot is not the one that was staged.
    #[error("`{path}` has {found}, expected {expected}")]
    Altered {
        /// The file.
        path: PathBuf,
        /// The signed digest.
        expected: Digest,
        /// The digest of the file.
        found: Digest,
    },
    /// The new program was started and still is not the release's.
    #[error("kato was updated to {expected} and started again as {running}")]
    Loop {
        /// The digest that was installed.
        expected: Digest,
        /// The digest of the program that runs.
        running: Digest,
    },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SelfUpdateError + 'a {
    move |source| SelfUpdateError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The version of this program.
pub fn own_version() -> Version {
    // Cargo refuses a package version that is none.
    Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(Version::new(0, 0, 0))
}

/// The digest of the program that runs.
///
/// # Errors
/// [`SelfUpdateError::Io`].
pub fn running_digest() -> Result<Digest, SelfUpdateError> {
    // What runs stays the same for as long as it runs.
    static RUNNING: OnceLock<Digest> = OnceLock::new();
    if let Some(known) = RUNNING.get() {
        return Ok(*known);
    }
    // Not the path of the program: that file may have been replaced since.
    let path = Path::new("/proc/self/exe");
    let found = tree::digest(path).map_err(failed("reading", path))?;
    Ok(*RUNNING.get_or_init(|| found))
}

/// The program of `release` to update to; `None` when this one is right.
///
/// # Errors
/// [`SelfUpdateError::TooOld`].
pub fn decide<'a>(
    release: &'a Release,
    triple: &str,
    own: &Version,
    running: &Digest,
) -> Result<Option<&'a Upgrader>, SelfUpdateError> {
    let offered = release
        .upgrader
        .get(triple)
        .filter(|offered| offered.version >= *own && offered.sha256 != *running);
    let version_then = offered.map_or(own, |offered| &offered.version);
    match &release.min_upgrader {
        Some(needed) if version_then < needed => Err(SelfUpdateError::TooOld {
            versions: Box::new([release.version.clone(), needed.clone(), own.clone()]),
            triple: triple.to_owned(),
        }),
        _ => Ok(offered),
    }
}

/// Whether this program can install `release`.
pub fn suffices(release: &Release) -> bool {
    let needed = release.min_upgrader.as_ref();
    needed.is_none_or(|needed| own_version() >= *needed)
}

/// Installs the staged program `copy`, which is `offered`, and points `link` to it; gives the program's path. From then on it works with
/// the settings file `config`.
///
/// # Errors
/// [`SelfUpdateError`]; the link then still points to the old program.
pub async fn install(
    paths: &NodePaths,
    children: &Children,
    copy: &Path,
    offered: &Upgrader,
    link: &Path,
    config: &Path,
) -> Result<PathBuf, SelfUpdateError> {
    let program = free_slot(paths, link);
    let link_folder = link.parent().unwrap_or(Path::new("/"));
    let slot = program.parent().unwrap_or(Path::new("/"));
    durable::create_folder(slot)?;
    durable::create_folder(link_folder)?;
    // What a run left that was killed while it wrote the program or its link.
    durable::remove_temporary_files(slot)?;
    durable::remove_temporary_files(link_folder)?;
    recover::write(paths, copy, &program, &offered.sha256, link)?;
    durable::copy(copy, &program, 0o755, None)?;
    failpoint::hit("self_update.slot");
    let found = tree::digest(&program).map_err(failed("reading", &program))?;
    if found != offered.sha256 {
        return Err(SelfUpdateError::Altered {
            path: program,
            expected: offered.sha256,
            found,
        });
    }
    if let Err(error) = test(paths, children, &program, &offered.version, config).await {
        // A program that does not work here must not be what the script brings back.
        recover::clear(paths)?;
        durable::remove(&program)?;
        return Err(error);
    }
    let target = paths::relative(link, &program).map_err(failed("following", &program))?;
    durable::symlink(&target, link)?;
    failpoint::hit("self_update.linked");
    Ok(program)
}

/// What a new program is asked before it is trusted with this node: whether it takes the settings, and understands the journal, and the
/// upgrade and the installed release that lie beside it. It says the number of the journal's last record, which no other program knows.
///
/// # Errors
/// [`Failure`] with what it does not understand; [`Exit::Preflight`] is about the settings.
pub fn self_test(journal: &Path, config: &Path) -> Result<Exit, Failure> {
    let config = config_of_who_asks(config);
    match Settings::load(&config) {
        Ok(_) => {}
        // The default of a node whose own is elsewhere: which one, nobody has said.
        Err(SettingsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::new(REFUSES_SETTINGS, error).hint(MEND)),
    }
    let last = journal::check(journal)?;
    document::read::<Attempt>(&journal.with_file_name("upgrade.json"), "the upgrade in progress")?;
    document::read::<Installed>(&journal.with_file_name("installed.json"), "the installed release")?;
    terminal::data(&tested(&own_version(), last));
    Ok(Exit::Done)
}

/// The settings that the new program will be started with. Earlier programs do not hand them on when they ask: they are those of
/// their own command line.
fn config_of_who_asks(given: &Path) -> PathBuf {
    let is_default = given == Path::new(DEFAULT_CONFIG) && std::env::var_os("KATO_CONFIG").is_none();
    let named = rustix::process::getppid().filter(|_| is_default).and_then(|pid| {
        let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let line = std::fs::read(folder.join("cmdline")).ok()?;
        Some(folder.join("cwd").join(config_among(&line)?))
    });
    named.unwrap_or_else(|| given.to_owned())
}

/// What `--config` says in a command line of `/proc`.
fn config_among(line: &[u8]) -> Option<PathBuf> {
    let mut words = line.split(|byte| *byte == 0);
    while let Some(word) = words.next() {
        let value = match word.strip_prefix(b"--config") {
            Some(b"") => words.next(),
            Some(rest) => rest.strip_prefix(b"="),
            None => None,
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return Some(PathBuf::from(OsStr::from_bytes(value)));
        }
    }
    None
}

/// What a program of `version` says that has read the journal up to the record `last`.
fn tested(version: &Version, last: u64) -> String {
    format!("kato {version}: the journal ends with record {last}")
}

/// The new program must start, must be the version that was signed, and must understand what is on this node. That it ends well
/// proves nothing: so does an empty script.
async fn test(
    paths: &NodePaths,
    children: &Children,
    program: &Path,
    version: &Version,
    config: &Path,
) -> Result<(), SelfUpdateError> {
    let children = children.on("the test of the new kato");
    let program = program.display().to_string();
    let ask = async |words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned());
        let argv: Vec<String> = std::iter::once(program.clone()).chain(words).collect();
        let output = process::run(&children, &argv, None, SELF_TEST_LIMIT).await;
        output.map_err(|source| failed_test(source, config))
    };
    let said = ask(&["--version"]).await?;
    answered("kato --version", &said, format!("kato {version}"))?;
    let journal = paths.journal();
    let (file, asked_for) = (config.display().to_string(), journal.display().to_string());
    let said = ask(&["--config", &file, "node", "self-test", "--journal", &asked_for]).await?;
    let last =
        journal::check(&journal).map_err(|error| failed("reading", &journal)(io::Error::other(error)))?;
    answered("kato node self-test", &said, tested(version, last))
}

/// Why the test failed; that it refuses the settings `config` it says by its exit and by their name.
fn failed_test(source: ProcessError, config: &Path) -> SelfUpdateError {
    let ProcessError::Status { status, output, .. } = &source else {
        return SelfUpdateError::SelfTest { source };
    };
    let is_refusal = status.code() == Some(i32::from(REFUSES_SETTINGS.code()));
    if !is_refusal || !output.contains(&config.display().to_string()) {
        return SelfUpdateError::SelfTest { source };
    }
    let lines = output.lines().map(str::trim);
    let said: Vec<&str> = lines
        .skip_while(|line| !line.starts_with("error: "))
        .take_while(|line| !line.starts_with("hint: "))
        .collect();
    let said = said.join(" ");
    SelfUpdateError::Settings {
        said: said.strip_prefix("error: ").unwrap_or(output).to_owned(),
    }
}

/// The first line of what a program `said` must be what was expected.
fn answered(asked: &'static str, said: &str, expected: String) -> Result<(), SelfUpdateError> {
    let found = said.lines().next().unwrap_or_default().trim();
    if found == expected {
        return Ok(());
    }
    Err(SelfUpdateError::Answer {
        asked,
        found: found.chars().take(200).collect(),
        expected,
    })
}

/// The slot that neither the link nor this process uses.
fn free_slot(paths: &NodePaths, link: &Path) -> PathBuf {
    let slot = |name: &str| paths.slots().join(name).join("kato");
    let (a, b) = (slot("a"), slot("b"));
    let in_use = |program: &Path| {
        let Ok(program) = program.canonicalize() else {
            return false;
        };
        let running = std::env::current_exe().ok();
        link.canonicalize().ok().as_ref() == Some(&program) || running.as_ref() == Some(&program)
    };
    if in_use(&a) { b } else { a }
}

/// Executes `program` in the place of this process, with the same arguments. Returns only when that fails.
pub fn restart_as(program: &Path, digest: &Digest, run: &str) -> io::Error {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the program replaces itself; no child is left to wait for"
    )]
    std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(GUARD, digest.to_string())
        .env(RUN, run)
        .exec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(offered: &str, min: Option<&str>) -> Release {
        let document = json!({
            "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
            "min_upgrader": min, "modules": [],
            "upgrader": {"t": {"target": "self/x", "version": offered, "sha256": Digest::of(b"new"), "size": 3}},
        });
        Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap()
    }

    fn updates(offered: &str, min: Option<&str>, running: &[u8]) -> Result<bool, String> {
        decide(
            &release(offered, min),
            "t",
            &Version::new(1, 2, 0),
            &Digest::of(running),
        )
        .map(|offered| offered.is_some())
        .map_err(|error| error.to_string())
    }

    #[test]
    fn r34_another_program_of_the_same_or_a_newer_version_is_taken_and_never_an_older_one() {
        assert_eq!(updates("1.2.0", None, b"old"), Ok(true));
        assert_eq!(updates("1.3.0", None, b"old"), Ok(true));
        assert_eq!(updates("1.1.9", None, b"old"), Ok(false));
        assert_eq!(updates("1.3.0", None, b"new"), Ok(false));
    }

    #[test]
    fn r34_the_settings_are_those_of_the_command_that_asks() {
        for (line, expected) in [
            (&b"kato\0node\0upgrade\0"[..], None),
            (b"", None),
            (
                b"kato\0--config\0/etc/other.toml\0node\0",
                Some("/etc/other.toml"),
            ),
            (b"kato\0node\0upgrade\0--config=near.toml\0", Some("near.toml")),
            (b"kato\0--configure\0x\0--config\0", None),
            (b"kato\0--config=\0", None),
        ] {
            assert_eq!(config_among(line), expected.map(PathBuf::from), "{line:?}");
        }
    }

    #[test]
    fn r34_a_release_that_needs_a_newer_program_than_there_is_is_refused() {
        assert_eq!(updates("1.3.0", Some("1.3.0"), b"old"), Ok(true));
        let error = updates("1.1.0", Some("1.3.0"), b"old").unwrap_err();
        assert_eq!(
            error,
            "release 2.0.0 needs kato 1.3.0 or newer, this is 1.2.0 and the release has none for t"
        );
    }
}
