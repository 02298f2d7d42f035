//! `kato-proxy request`: the notes of an offline mirror as a file that crosses the gap.

use std::path::PathBuf;

use clap::Args;
use kato_shared::{clock::Clock, durable};

use super::{SettingsArgs, explain, fail, print, tell};
use crate::{
    exit,
    offline::{MISSES_FILE, read_misses},
    snapshot::{Library, Parameters, Wanted, WantedUrl, judge},
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
    let misses = match read_misses(folder) {
        Ok(misses) => misses,
        Err(error) => {
            let file = folder.join(MISSES_FILE);
            let said = format!(
                "{} cannot be read: {error}\nhint: run it as the user of the proxy",
                file.display()
            );
            return fail(exit::REFUSED, &said);
        }
    };
    let mut wanted = Wanted::new(Clock::system().now());
    match Library::new(folder).active() {
        Ok(active) => wanted.have = active,
        Err(error) => tell(&format!("the active snapshot is not named: {}", explain(&error))),
    }
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
    match serde_json::to_string_pretty(&wanted) {
        Ok(text) => write(
            args,
            &settings.cache.dir.join(MISSES_FILE),
            (wanted.urls.len(), text + "\n"),
        ),
        Err(error) => fail(
            exit::BUG,
            &format!("the request cannot be written as JSON: {error}"),
        ),
    }
}

fn write(args: &RequestArgs, notes: &std::path::Path, (count, text): (usize, String)) -> u8 {
    let Some(output) = &args.output else {
        print(&text);
        return exit::DONE;
    };
    if let Err(error) = durable::write(output, text.as_bytes(), 0o644) {
        return fail(exit::REFUSED, &explain(&error));
    }
    if args.clear
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
