//! `kato-proxy request`: the notes of an offline mirror as a file that crosses the gap.

use std::path::{Path, PathBuf};

use clap::Args;
use kato_shared::{clock::Clock, durable};
use url::Url;

use super::{SettingsArgs, explain, fail, print, tell};
use crate::{
    exit,
    offline::{MISSES_FILE, Miss, read_misses},
    snapshot::{Library, LibraryError, Parameters, Record, Wanted, WantedUrl, judge},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    /// The file to write [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Forget the notes after they are written; a running mirror then notes them again after its next start
    #[arg(long, requires = "output")]
    clear: bool,
    /// A URL that nobody has asked for yet: indexes that are filtered do not show clients what is not held; may be repeated
    #[arg(long, value_name = "URL")]
    add: Vec<Url>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Writes the request file; returns the exit code.
pub(super) fn request(args: &RequestArgs) -> u8 {
    let settings = match args.settings.settle_without_authority() {
        Ok(settings) => settings,
        Err(message) => return fail(exit::USAGE, &message),
    };
    let folder = &settings.cache.dir;
    if !Store::is_in(folder) {
        let said = format!(
            "`{}` holds no store\nhint: name the mirror's folder with --cache-dir",
            folder.display()
        );
        return fail(exit::REFUSED, &said);
    }
    let misses = match noted(folder) {
        Ok(misses) => misses,
        Err(code) => return code,
    };
    let mut wanted = Wanted::new(Clock::system().now());
    let have = have(folder);
    let is_known = have.is_ok();
    wanted.have = have.ok().flatten();
    let parameters = Parameters::of(&settings.upstreams);
    let (open, closed): (Vec<_>, Vec<_>) = misses
        .into_iter()
        .partition(|miss| judge(&miss.url, parameters.by_name(&miss.upstream)).is_ok());
    if !closed.is_empty() {
        tell(&format!(
            "{} URLs stay here: their queries may hold secrets; see carried_parameters in the settings",
            closed.len()
        ));
    }
    wanted.urls.extend(open.into_iter().map(|miss| WantedUrl {
        url: miss.url,
        accept: miss.accept,
        digest: None,
        count: 1,
    }));
    match added(args) {
        Ok(added) => wanted.urls.extend(added),
        Err(code) => return code,
    }
    let notes = folder.join(MISSES_FILE);
    let code = match serde_json::to_string_pretty(&wanted) {
        Ok(text) => write(args, (&notes, is_known), (wanted.urls.len(), text + "\n")),
        Err(error) => fail(
            exit::BUG,
            &format!("the request cannot be written as JSON: {error}"),
        ),
    };
    if code != exit::DONE || is_known {
        return code;
    }
    fail(
        exit::VERIFICATION_FAILED,
        "the request does not say what is here, so that the answer to it will carry everything; no notes were forgotten",
    )
}

/// The snapshot that is active, if there is one; where that cannot be told, it is said.
fn have(folder: &Path) -> Result<Option<Record>, LibraryError> {
    let active = Library::new(folder).active();
    active.inspect_err(|error| tell(&format!("the active snapshot is not named: {}", explain(error))))
}

/// What clients have missed.
fn noted(folder: &Path) -> Result<Vec<Miss>, u8> {
    read_misses(folder).map_err(|error| {
        let file = folder.join(MISSES_FILE);
        let said = format!(
            "{} cannot be read: {error}\nhint: run it as the user of the proxy",
            file.display()
        );
        fail(exit::REFUSED, &said)
    })
}

/// What the operator asks for beside that.
fn added(args: &RequestArgs) -> Result<Vec<WantedUrl>, u8> {
    let one = |url: &Url| {
        if judge(url.as_str(), &[]).is_err() {
            let said = format!("{url} does not cross: its query may hold a secret");
            return Err(fail(exit::USAGE, &said));
        }
        Ok(WantedUrl {
            url: url.to_string(),
            accept: None,
            digest: None,
            count: 0,
        })
    };
    args.add.iter().map(one).collect()
}

/// Writes the request; what is noted is forgotten where that was asked for and `may_forget`.
fn write(args: &RequestArgs, (notes, may_forget): (&Path, bool), (count, text): (usize, String)) -> u8 {
    let Some(output) = &args.output else {
        print(&text);
        return exit::DONE;
    };
    if let Err(error) = durable::hand_out(output, text.as_bytes(), 0o644) {
        return fail(exit::REFUSED, &explain(&error));
    }
    if args.clear
        && may_forget
        && notes.exists()
        && let Err(error) = durable::remove(notes)
    {
        return fail(exit::REFUSED, &explain(&error));
    }
    let output = output.display();
    tell(&format!(
        "{count} URLs written to {output}\nhint: where there is a network: kato-proxy prefetch --request {output}"
    ));
    exit::DONE
}
